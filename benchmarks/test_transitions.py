"""Disturbance and reclamation beside xarray as a user writes it and loops over layers in numpy."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import dask
import numpy as np
import pytest
import xarray as xr
from turns import PEAK, seconds

from minetrace.change import transitions
from minetrace.kernels.runs import Runs
from minetrace.kernels.transitions import change_years, zone_composition, zone_transitions
from minetrace.schema import Kind, load_legend

LEGEND = load_legend("glc_fcs30d")
LUT = np.where(LEGEND.lut <= Kind.OTHER, LEGEND.lut, 0).astype(np.uint8)
YEARS = np.arange(1985, 2023, dtype=np.int16)
CLASSES = np.array([71, 130, 201, 210, 187, 10, 120, 150, 51, 61], np.uint8)
COVERS = range(Kind.CROPLAND, Kind.SPARSE + 1)
PAIR = np.arange(64)
LOST = np.isin(PAIR // 8, COVERS) & (PAIR % 8 == Kind.MINE)
GAINED = (PAIR // 8 == Kind.MINE) & np.isin(PAIR % 8, COVERS)


def land(share, patch=1, side=1024):
    """Patches of classes; every year a share of the pixels, or of squares, draws a new one."""
    rng = np.random.default_rng(0)
    out = np.empty((YEARS.size, side, side), np.uint8)
    out[0] = rng.choice(CLASSES, (side // 16, side // 16)).repeat(16, 0).repeat(16, 1)
    for before, now in pairwise(out):
        small = side // patch
        moves = rng.random((small, small), np.float32) < share
        drawn = rng.choice(CLASSES, (small, small))
        moves, drawn = (a.repeat(patch, 0).repeat(patch, 1) for a in (moves, drawn))
        now[:] = np.where(moves, drawn, before)
    return out


def by_xarray(codes):
    """Years, counts, areas by cover type and bare share, as one writes them in a notebook."""
    kind = xr.zeros_like(codes)
    for number in range(1, 8):
        kind = xr.where(codes.isin(np.flatnonzero(number == LUT)), number, kind)
    before = kind.shift(time=1, fill_value=0)
    green, was_green = (kind >= 1) & (kind <= 5), (before >= 1) & (before <= 5)
    years, counts, flows = [], [], []
    for event, cover in (
        (was_green & (kind == 6), before),
        ((before == 6) & green, kind),
    ):
        first = xr.where(event, codes.time, 9999).min("time")
        years += [first.where(first < 9999, 0), xr.where(event, codes.time, 0).max("time")]
        counts.append(event.sum("time"))
        flows.append([(event & (cover == c)).sum(("y", "x")) for c in COVERS])
    bare = (kind == 6).sum(("y", "x")) / (kind > 0).sum(("y", "x"))
    return years, counts, flows, bare


def enter(when, count, way, at, year):
    fresh = at[count[way, at] == 0]
    when[2 * way, fresh] = year
    when[2 * way + 1, at] = year
    count[way, at] += 1


def by_layers(codes):
    """Tuned numpy: one look-up, one bincount of all pairs and two events a layer."""
    flat = codes.reshape(len(codes), -1)
    when, count = np.zeros((4, flat.shape[1]), np.int16), np.zeros((2, flat.shape[1]), np.uint8)
    pairs = np.zeros((len(codes), 64), np.int64)
    event = (LOST + 2 * GAINED).astype(np.uint8)
    before = np.take(LUT, flat[0])
    for t in range(1, len(codes)):
        kind = np.take(LUT, flat[t])
        pair = before * np.uint8(8)
        pair += kind
        pairs[t] = np.bincount(pair, minlength=64)
        found = np.take(event, pair)
        for way in (0, 1):
            enter(when, count, way, np.flatnonzero(found == way + 1), YEARS[t])
        before = kind
    return when, count, pairs.reshape(-1, 8, 8)


def by_changed_pixels(codes):
    """The same, looking only at pixels whose code changed."""
    flat = codes.reshape(len(codes), -1)
    when, count = np.zeros((4, flat.shape[1]), np.int16), np.zeros((2, flat.shape[1]), np.uint8)
    pairs = np.zeros((len(codes), 64), np.int64)
    for t in range(1, len(codes)):
        at = np.flatnonzero(flat[t] != flat[t - 1])
        pair = LUT[flat[t - 1, at]] * np.uint8(8) + LUT[flat[t, at]]
        pairs[t] = np.bincount(pair, minlength=64)
        for way, event in enumerate((LOST, GAINED)):
            enter(when, count, way, at[event[pair]], YEARS[t])
    return when, count, pairs.reshape(-1, 8, 8)


def check(codes, account):
    """All peers give what the kernel gives."""
    years, counts, flows, bare = by_xarray(codes)
    for peer in (by_layers(codes.values), by_changed_pixels(codes.values)):
        np.testing.assert_array_equal(account.years, peer[0])
        np.testing.assert_array_equal(account.counts, peer[1])
        moved = ~np.eye(8, dtype=bool)
        np.testing.assert_array_equal(
            account.pairs[:, moved], peer[2][:, moved] * (YEARS > 1985)[:, None]
        )
    np.testing.assert_array_equal(account.years, [y.values.ravel() for y in years])
    np.testing.assert_array_equal(account.counts, [c.values.ravel() for c in counts])
    np.testing.assert_array_equal(account.events[..., :2].transpose(2, 1, 0), flows)
    kinds = account.pairs.sum(axis=1)
    np.testing.assert_allclose(kinds[:, Kind.MINE] / kinds[:, 1:].sum(axis=1), bare)


@pytest.mark.parametrize(
    ("share", "patch"),
    [(0.005, 1), (0.01, 1), (0.1, 1), (0.35, 1), (0.01, 8)],
    ids=["0.5%", "1%", "10%", "35%", "1%_in_squares"],
)
def test_change_years(benchmark, share, patch):
    stack = land(share, patch)
    codes = xr.DataArray(stack, {"time": YEARS}, ("time", "y", "x"))
    flat = stack.reshape(YEARS.size, -1)
    halves = [np.ascontiguousarray(half) for half in np.array_split(flat, 2, axis=1)]
    lazy = codes.chunk(y=512, x=512)

    def account(part):
        return change_years(part, LUT, YEARS, 1)

    check(codes, account(flat))
    with ThreadPoolExecutor(2) as pool, dask.config.set(scheduler="threads", num_workers=2):
        times = seconds(
            7,
            one_thread=lambda: account(flat),
            two_threads=lambda: list(pool.map(account, halves)),
            dask=lambda: transitions(lazy).compute(),
            tuned_numpy=lambda: by_layers(stack),
            numpy_of_changed_pixels=lambda: by_changed_pixels(stack),
        )
    times |= seconds(2, xarray=lambda: by_xarray(codes))
    benchmark.pedantic(account, (flat,), rounds=3)
    for mine in ("one_thread", "two_threads", "dask"):
        benchmark.extra_info[f"gigabytes_a_second_in_{mine}"] = stack.nbytes / times[mine] / 1e9
        for peer in ("xarray", "tuned_numpy", "numpy_of_changed_pixels"):
            faster = times[peer] / times[mine]
            benchmark.extra_info[f"times_faster_than_{peer}_in_{mine}"] = faster


def strips(side, n):
    """Zones that are strips of columns of a square."""
    edges = np.linspace(0, side, n + 1).astype(np.int32)
    start, stop = (e.repeat(side) for e in (edges[:-1], edges[1:]))
    cell = np.cumsum(stop - start, dtype=np.int64) - (stop - start)
    row = np.tile(np.arange(side, dtype=np.int32), n)
    return Runs(np.arange(n + 1) * side, row, start, stop, cell), edges


def test_zones(benchmark):
    stack = land(0.01, side=512)
    stack.flags.writeable = False
    runs, edges = strips(512, 20)
    area = np.full(512**2, 9e-4)
    zone = (np.searchsorted(edges, np.arange(512), side="right") - 1)[None].repeat(512, 0).ravel()

    def account():
        return (
            zone_transitions(stack, LUT, 1, runs, area),
            zone_composition(stack, LUT, 8, runs, area, area),
        )

    def by_bincount():
        flows, parts = [], []
        kinds = [np.take(LUT, layer.ravel()) for layer in stack]
        for before, kind in zip([kinds[0], *kinds], kinds, strict=False):
            lost = np.flatnonzero(LOST[before * np.uint8(8) + kind])
            gained = np.flatnonzero(GAINED[before * np.uint8(8) + kind])
            flows.append([
                np.bincount(zone[at] * 8 + cover[at], area[at], 160).reshape(20, 8)[:, 1:6]
                for at, cover in ((lost, before), (gained, kind))
            ])  # fmt: skip
            parts.append(np.bincount(zone * 8 + kind, area, 160).reshape(20, 8))
        return np.array(flows).transpose(2, 0, 3, 1), np.array(parts).transpose(1, 0, 2)

    (flows, parts), (their_flows, their_parts) = account(), by_bincount()
    np.testing.assert_allclose(flows[..., :2], their_flows, rtol=1e-9)
    np.testing.assert_allclose(parts[..., 0], their_parts, rtol=1e-9)
    times = seconds(5, one_thread=account, numpy=by_bincount)
    benchmark.pedantic(account, rounds=3)
    # the peer leaves out pixel shares and unique areas
    benchmark.extra_info["times_faster_than_numpy"] = times["numpy"] / times["one_thread"]


MEMORY = (
    PEAK
    + """
import sys
import geopandas as gpd, numpy as np
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr
from minetrace.change import transition_areas, transitions

def land(side, dtype):
    codes = np.full((38, side, side), 71, dtype)
    for t in range(1, 38):
        codes[t:, t :: 50, ::3] = 201 if t % 2 else 130
    grid = GeoBox.from_bbox((500000, 0, 500000 + 30 * side, 30 * side), "EPSG:32631",
                            shape=(side, side))
    return wrap_xr(codes, grid, time=[f"{y}" for y in range(1985, 2023)])

def sites(codes):
    box = codes.odc.geobox
    return gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[box.extent.geom], crs=box.crs)

face = transitions if sys.argv[1] == "transitions" else lambda c: transition_areas(c, sites(c))
face(land(64, sys.argv[2]))
codes = land(2048, sys.argv[2])
before = peak()
face(codes)
print((peak() - before) / codes.nbytes)
"""
)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
@pytest.mark.parametrize("face", ["transitions", "transition_areas"])
def test_extra_memory(benchmark, face, dtype):
    def run():
        command = [sys.executable, "-c", MEMORY, face, dtype]
        return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    share = benchmark.pedantic(run, rounds=1)
    benchmark.extra_info["peak_extra_memory_over_input"] = share
    assert share < 0.5

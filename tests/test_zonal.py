"""Statistics of layers over zones: every statistic, type, tiling and unusable outline."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections import defaultdict

import dask.array
import exactextract
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr
from shapely.geometry import MultiPolygon, Polygon, box

import oracles
from minetrace.errors import InputError
from minetrace.grid import area_spline, crop_native, pixel_areas
from minetrace.kernels import coverage, strips, zonal
from minetrace.kernels.runs import Runs
from minetrace.zones import (
    cell_km2,
    cell_shares,
    cover,
    mean_in_zones,
    zonal_shares,
    zonal_statistics,
)
from minetrace.zones.sums import ZoneSums, finish, merge
from strategies import star_polygons

UTM = "EPSG:32622"
GRID = GeoBox.from_bbox((500000, 0, 500020, 20), UTM, shape=(20, 20))
SUMS = ("sum", "mean", "count", "min", "max")
EVERY = (*SUMS, "median", "q10", "q97.5")


def on(*geometries, grid=GRID):
    corner = np.array(grid.boundingbox[:2])
    moved = [
        None if g is None else shapely.transform(g, lambda xy: xy + corner) for g in geometries
    ]
    ids = [f"s{i}" for i in range(len(moved))]
    return gpd.GeoDataFrame({"site_id": ids}, geometry=moved, crs=grid.crs)


def stack(values, grid=GRID, **attrs):
    times = [f"{2000 + i}" for i in range(len(values))]
    return wrap_xr(np.ascontiguousarray(values), grid, time=times).assign_attrs(attrs)


def noise(n_time, dtype="f8", grid=GRID, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_time, *grid.shape))
    values[rng.random(values.shape) < 0.2] = np.nan
    values[:, 3, 4], values[:, 12, 9] = np.inf, -np.inf
    return values.astype(dtype)


# ---- values ---------------------------------------------------------------------------------


@given(star_polygons(), st.sampled_from(["f4", "f8"]), st.integers(0, 99))
def test_sums_equal_plain_python_over_independent_shares(polygon, dtype, seed):
    values = noise(2, dtype, seed=seed)
    share = oracles.shapely_coverage(on(polygon).geometry[0], GRID)
    share[share < 1e-10] = 0.0
    table = zonal_statistics(stack(values), on(polygon), statistics=SUMS)
    for layer, row in enumerate(table.itertuples()):
        expected = oracles.zonal_by_hand(values[layer], share, share * pixel_areas(GRID))
        for name in SUMS:
            assert getattr(row, name) == pytest.approx(expected[name], 1e-8, 1e-8, nan_ok=True)
        assert row.n_pixels == row.count


@pytest.mark.parametrize("dtype", ["u1", "i8", ">i2"])
def test_integers_count_as_floats_and_their_nodata_as_gaps(dtype):
    values = np.random.default_rng(1).integers(0, 100, (2, *GRID.shape)).astype(dtype)
    sites = on(box(0.5, 0.25, 13.2, 17.7))
    floats = np.where(values == 7, np.nan, values.astype("f8"))
    found = zonal_statistics(stack(values, nodata=7), sites, statistics=EVERY)
    pd.testing.assert_frame_equal(
        found, zonal_statistics(stack(floats), sites, statistics=EVERY), rtol=0, atol=0
    )
    assert found.n_pixels[0] < zonal_statistics(stack(values), sites).n_pixels[0]


def test_a_fill_value_of_floats_is_a_gap_and_byte_order_is_none_of_its_business():
    values = noise(1, "f4")
    filled = np.where(np.isnan(values), np.float32(-3.4e38), values)
    sites = on(box(0.5, 0.25, 13.2, 17.7))
    expected = zonal_statistics(stack(values), sites, statistics=EVERY)
    for data in (stack(filled, _FillValue=-3.4e38), stack(values.astype(">f4"))):
        pd.testing.assert_frame_equal(zonal_statistics(data, sites, statistics=EVERY), expected)


def test_every_pixel_of_a_large_site_counts_once():
    """Sites beyond one strip of cells, with runs that a strip cuts."""
    for shape in ((1, 9000), (150, 130)):
        grid = GeoBox.from_bbox((500000, 0, 500000 + shape[1], shape[0]), UTM, shape=shape)
        values = noise(2, "f4", grid) if shape[0] > 1 else np.arange(9000.0).reshape(1, 1, -1)
        shapes = box(0.5, 0.25, shape[1] - 0.25, shape[0]), box(0, 0, shape[1], shape[0])
        sites = on(*shapes, grid=grid)
        rows = zonal_statistics(stack(values, grid), sites, statistics=SUMS).itertuples()
        for outline in sites.geometry:
            share = oracles.shapely_coverage(outline, grid)
            for layer in values:
                row = next(rows)
                expected = oracles.zonal_by_hand(layer, share, share * pixel_areas(grid))
                for name in SUMS:
                    assert getattr(row, name) == pytest.approx(expected[name], 1e-10)


def exact(values, sites, names):
    source = exactextract.raster.NumPyRasterSource(
        values, *GRID.boundingbox.bbox, srs_wkt=sites.crs.to_wkt()
    )
    return exactextract.exact_extract(source, sites, list(names), output="pandas")


@given(st.lists(st.integers(0, 80), min_size=4, max_size=4, unique=True), st.integers(0, 99))
def test_quarters_of_pixels_equal_exactextract_to_the_last_digits(corners, seed):
    """Its shares are float32: exact for quarters."""
    (a, b), (c, d) = sorted(corners[:2]), sorted(corners[2:])
    values = np.random.default_rng(seed).normal(size=GRID.shape)
    sites = on(box(a / 4, c / 4, b / 4, d / 4), box(0, 0, 20, 20), box(1, 1, 9, 9))
    names = ("sum", "count", "min", "max")
    found = zonal_statistics(stack(values[None]), sites, statistics=names)[list(names)]
    np.testing.assert_allclose(found, exact(values, sites, names)[list(names)], 1e-9, 1e-12)


@given(star_polygons(max_radius=8.0))
def test_other_shapes_equal_exactextract_to_its_float32(polygon):
    values = np.random.default_rng(2).random(GRID.shape) + 1
    sites = on(polygon, box(2.3, 2.4, 9.1, 9.9))
    found = zonal_statistics(stack(values[None]), sites, statistics=("sum", "count"))
    peer = exact(values, sites, ("sum", "count")).fillna(0.0)
    np.testing.assert_allclose(found["sum"].fillna(0.0), peer["sum"], 1e-6, 1e-5)
    np.testing.assert_allclose(found["count"], peer["count"], 1e-6, 1e-5)


# ---- quantiles ------------------------------------------------------------------------------


def one_row(areas):
    """A zone of a single row of cells with these areas."""
    n = len(areas)
    ends = (np.array([k], np.int32) for k in (0, 0, n))
    runs = Runs(np.array([0, 1]), *ends, np.zeros(1, np.int64))
    columns = np.pad(np.asarray(areas, float)[None], ((0, 3), (0, 0)))
    factor = np.array([[1.0, 0.0, 0.0, 0.0]])
    none = np.array([-1]), np.empty(0)
    return strips.Cells(runs, *none, columns, np.zeros(1, np.int64), factor)


def quantiles(values, areas, wanted):
    values = np.asarray(values, np.float32)
    window = 0, 0, 1, values.size
    return zonal.zone_quantiles(values[None], window, np.nan, one_row(areas), np.array(wanted))[
        0, 0
    ]


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40), st.integers(1, 64))
def test_quantiles_of_equal_areas_are_those_of_numpy(values, steps):
    wanted = np.arange(steps + 1) / 64
    expected = np.quantile(np.float32(values), wanted, method="inverted_cdf")
    np.testing.assert_array_equal(quantiles(values, np.ones(len(values)), wanted), expected)


@given(st.integers(1, 60), st.integers(0, 999))
def test_quantiles_of_unequal_areas_are_those_of_numpy(n, seed):
    rng = np.random.default_rng(seed)
    values, areas = rng.integers(-9, 9, n).astype("f4"), rng.uniform(0.01, 1, n)
    wanted = rng.random(5)
    expected = np.quantile(values, wanted, weights=areas, method="inverted_cdf")
    np.testing.assert_array_equal(quantiles(values, areas, wanted), expected)


@pytest.mark.parametrize("n", [10, 23, 49])
def test_rounding_of_a_sum_of_areas_moves_no_quantile(n):
    """Sums of 0.1 stray from whole tenths; value k of n is the quantile k / n all the same."""
    wanted = np.arange(1, n + 1) / n
    found = quantiles(np.arange(1, n + 1), np.full(n, 0.1), wanted)
    np.testing.assert_array_equal(found, np.arange(1, n + 1))


def test_the_ends_of_the_range_are_quantiles_too():
    values = noise(1, "f4")
    table = zonal_statistics(
        stack(values),
        on(box(0.5, 0.5, 9, 9)),
        statistics=("q0", "min", "q100", "max", "q50", "median"),
    )
    row = table.iloc[0]
    assert (row.q0, row.q100, row.q50) == (row["min"], row["max"], row["median"])
    assert table.columns.tolist() == [
        "site_id", "time", "q0", "min", "q100", "max", "q50", "median", "n_pixels"
    ]  # fmt: skip


# ---- rows for all ---------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_unusable_outlines_have_rows_without_numbers():
    nan = Polygon([(0, 0), (np.nan, 4), (4, 0)])
    shapes = (None, Polygon(), nan, box(100, 100, 104, 104), MultiPolygon(), box(1, 1, 3, 3))
    table = zonal_statistics(stack(np.ones((2, 20, 20))), on(*shapes), statistics=EVERY)
    assert table.site_id.tolist() == [f"s{i}" for i in range(6) for _ in range(2)]
    assert table.n_pixels.tolist() == [0.0] * 10 + [4.0] * 2
    assert table["count"].tolist() == table.n_pixels.tolist()
    others = table[[name for name in EVERY if name != "count"]]
    assert others[:10].isna().all().all()
    assert others[10:].notna().all().all()


def test_a_site_within_one_pixel_has_its_value():
    values = np.arange(400.0).reshape(1, 20, 20)
    row = zonal_statistics(stack(values), on(box(4.3, 15.2, 4.4, 15.4)), statistics=EVERY).iloc[0]
    assert [row[k] for k in ("mean", "min", "max", "median", "q10")] == [84.0] * 5
    assert row["sum"] == pytest.approx(0.02 * 84, rel=1e-9)
    assert row["count"] == pytest.approx(0.02, rel=1e-9)


def test_a_layer_without_observations_and_tables_without_rows():
    sites = on(box(1, 1, 3, 3))
    blank = zonal_statistics(stack(np.full((1, 20, 20), np.nan)), sites, statistics=EVERY)
    assert blank.n_pixels.tolist() == [0.0]
    assert blank[[name for name in EVERY if name != "count"]].isna().all().all()
    for data, some in ((stack(noise(2)), sites.iloc[:0]), (stack(noise(2))[:0], sites)):
        table = zonal_statistics(data, some, statistics=EVERY)
        assert table.shape == (0, 3 + len(EVERY))
        assert zonal_shares(stack(np.zeros(data.shape, "u1")), some).empty


def test_overlapping_sites_each_have_all_of_their_pixels():
    sites = on(box(0, 0, 5, 5), box(0, 0, 5, 5), box(2, 2, 7, 7))
    table = zonal_statistics(stack(noise(1)), sites, statistics=EVERY).drop(columns="site_id")
    pd.testing.assert_series_equal(table.loc[0], table.loc[1], check_names=False)
    alone = zonal_statistics(stack(noise(1)), sites.iloc[[2]], statistics=EVERY)
    np.testing.assert_array_equal(table.loc[[2], list(EVERY)], alone[list(EVERY)])


# ---- tiles ----------------------------------------------------------------------------------

SITES = on(box(0.5, 0.5, 9.2, 17.7), box(3.1, 3.2, 19.9, 8), None, box(18.5, 0.1, 30, 4))


@settings(max_examples=20)
@given(*[st.integers(1, n) for n in (3, 20, 20)])
def test_any_tiling_gives_the_same_sums(n_time, height, width):
    values = noise(3)
    whole = zonal_statistics(stack(values), SITES, statistics=SUMS)
    lazy = stack(values).chunk({"time": n_time, "y": height, "x": width})
    tiled = zonal_statistics(lazy, SITES, statistics=SUMS)
    exact = ["site_id", "time", "min", "max"]
    pd.testing.assert_frame_equal(tiled[exact], whole[exact])
    size = zonal_statistics(abs(stack(values)), SITES, statistics=("sum", "mean"))
    for name in ("sum", "mean"):
        assert ((tiled[name] - whole[name]).abs() / size[name]).max() < 1e-12
    np.testing.assert_allclose(tiled["count"], whole["count"], 1e-12)


@given(st.permutations(range(6)))
def test_partial_sums_merge_in_any_order(order):
    rng = np.random.default_rng(0)
    parts = [
        ZoneSums(
            np.array([0, 2])[: 1 + i % 2], i // 3, rng.integers(-9, 9, (1 + i % 2, 1, 6)) * 0.5
        )
        for i in range(6)
    ]
    expected = merge(parts, 3, 2).table
    assert expected[2, 0, zonal.LEAST] == parts[1].table[1, 0, zonal.LEAST]
    np.testing.assert_array_equal(merge([parts[i] for i in order], 3, 2).table, expected)
    again = merge([merge(parts[:2], 3, 2), merge(parts[2:], 3, 2)], 3, 2)
    np.testing.assert_array_equal(again.table, expected)
    assert np.isnan(finish(again, "min")[1]).all()


@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 2}])
def test_blocks_of_whole_layers_give_the_same_quantiles(chunks):
    data = stack(noise(3, "f4"))
    pd.testing.assert_frame_equal(
        zonal_statistics(data.chunk(chunks), SITES, statistics=EVERY),
        zonal_statistics(data, SITES, statistics=EVERY),
    )


def test_lazy_layers_are_read_once_and_let_go():
    """A cube larger than memory goes through: few blocks are alive at any time."""
    lock, alive, most, reads = threading.Lock(), set(), [], defaultdict(int)

    class Block(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    def read(block_info=None):
        layer = block_info[None]["chunk-location"][0]
        with lock:
            reads[layer] += 1
            values = np.full((1, 20, 20), float(layer)).view(Block)
            alive.add(id(values))
            most.append(len(alive))
        return values

    blocks = dask.array.map_blocks(read, chunks=((1,) * 40, 20, 20), dtype="f8", meta=np.empty(0))
    times = pd.date_range("1985", periods=40, freq="YS")
    data = stack(np.zeros((40, 20, 20))).copy(data=blocks).assign_coords(time=times)
    with dask.config.set(scheduler="threads", num_workers=2):
        table = zonal_statistics(data, SITES.iloc[:1], statistics=EVERY)
    assert table["median"].tolist() == [float(k) for k in range(40)]
    assert set(reads.values()) == {1}
    assert max(most) <= 6


# ---- classes --------------------------------------------------------------------------------


@given(star_polygons(), st.sampled_from(["u1", "i2"]), st.integers(0, 99))
def test_shares_equal_one_sum_a_class(polygon, dtype, seed):
    codes = np.random.default_rng(seed).choice([0, 3, 7, 100, 101], (2, *GRID.shape)).astype(dtype)
    sites = on(polygon, box(0.5, 0.5, 9.2, 17.7))
    zones = cover(sites, GRID)
    table = zonal_shares(stack(codes, nodata=0), zones)
    km2 = pixel_areas(GRID)[zones.rows, zones.cols] * zones.weight / 1e6
    cells = zones.offsets
    rows = iter(table.itertuples())
    for site in range(2):
        mine = slice(cells[site], cells[site + 1])
        for layer in range(2):
            here = codes[layer, zones.rows[mine], zones.cols[mine]].astype(int)
            observed = km2[mine][here != 0].sum()
            for code in sorted(set(here.tolist()) - {0}) or [None]:
                row = next(rows)
                assert (row.site_id, row.time.year) == (f"s{site}", 2000 + layer)
                if code is None:
                    assert (row.value is pd.NA, np.isnan(row.share), row.n_pixels) == (1, 1, 0)
                    continue
                assert row.value == code
                expected = km2[mine][here == code].sum() / observed
                assert row.share == pytest.approx(expected, rel=1e-12)
                expected = zones.weight[mine][here == code].sum()
                assert row.n_pixels == pytest.approx(expected, rel=1e-12)
    assert next(rows, None) is None


def test_negative_codes_keep_their_sign_and_large_sites_have_one_row_a_class():
    grid = GeoBox.from_bbox((500000, 0, 500100, 100), UTM, shape=(100, 100))
    codes = np.tile(np.int16([-300, -1, 32767, -32768]), (1, 100, 25))
    table = zonal_shares(stack(codes, grid), on(box(0, 0, 100, 100), grid=grid))
    assert table.value.tolist() == [-32768, -300, -1, 32767]
    np.testing.assert_allclose(table.share, 0.25, rtol=1e-6)
    assert table.n_pixels.tolist() == [2500.0] * 4


@settings(max_examples=20)
@given(*[st.integers(1, n) for n in (3, 20, 20)])
def test_any_tiling_gives_the_same_shares(n_time, height, width):
    codes = stack(np.random.default_rng(0).integers(0, 6, (3, 20, 20), dtype="u1"), nodata=0)
    tiled = codes.chunk({"time": n_time, "y": height, "x": width})
    pd.testing.assert_frame_equal(
        zonal_shares(tiled, SITES), zonal_shares(codes, SITES), rtol=1e-12, atol=0
    )


# ---- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mode", "q", "q101", "q-1", "q1e1", "Mean", ""])
def test_unknown_statistics_are_refused(name):
    with pytest.raises(InputError, match=r"no statistic; use sum, mean.*'q10'"):
        zonal_statistics(stack(noise(1)), SITES, statistics=["mean", name])


def test_what_has_no_statistics_is_refused():
    data = stack(noise(1)).rename("ndvi")
    with pytest.raises(InputError, match=r"give a list: \['mean'\]"):
        zonal_statistics(data, SITES, statistics="mean")
    for dtype in ("bool", "f2", "c8"):
        with pytest.raises(InputError, match=r"use \.astype"):
            zonal_statistics(data.fillna(0).astype(dtype, copy=False), SITES)
    for dtype in ("f4", "i4"):
        with pytest.raises(InputError, match="8 or 16 bits"):
            zonal_shares(stack(np.zeros((1, 20, 20), dtype)), SITES)
    with pytest.raises(InputError, match=r"'ndvi'.*median need whole layers.*'y': -1"):
        zonal_statistics(data.chunk({"y": 5}), SITES, statistics=["mean", "median"])
    zones = cover(SITES, GRID[:5])
    for face in (zonal_statistics, mean_in_zones):
        with pytest.raises(InputError, match=r"\(5, 20\)"):
            face(data, zones)


# ---- zones ----------------------------------------------------------------------------------


@given(star_polygons(), star_polygons(max_radius=3.0), st.sampled_from(["fraction", "centre"]))
def test_cells_written_out_are_those_of_the_runs(first, second, mode):
    zones = cover(on(first, None, second), GRID, coverage=mode)
    runs, cells = zones.runs, []
    for site in range(3):
        assert zones.offsets[site] == len(cells)
        for k in range(runs.offsets[site], runs.offsets[site + 1]):
            assert runs.cell[k] == len(cells)
            for i in range(runs.stop[k] - runs.start[k]):
                share = 1.0 if zones.edge[k] < 0 else zones.partial[zones.edge[k] + i]
                cells.append((runs.row[k], runs.start[k] + i, share))
    assert zones.n_cells == zones.offsets[3] == len(cells)
    assert list(zip(zones.rows, zones.cols, zones.weight, strict=True)) == cells
    assert ((zones.partial > 0) & (zones.partial < 1)).all()
    assert (zones.rows.dtype, zones.cols.dtype) == (np.int32, np.int32)
    exact = pixel_areas(GRID)[zones.rows, zones.cols] * zones.weight / 1e6
    # pixels of 1e-6 km², which lies between 2⁻²⁰ and 2⁻¹⁹
    np.testing.assert_array_equal(cell_km2(zones, GRID), np.rint(exact * 2.0**50) / 2.0**50)
    np.testing.assert_array_equal(cell_shares(zones), np.rint(zones.weight * 2.0**30) / 2.0**30)


@given(star_polygons(), st.randoms(use_true_random=False))
def test_areas_add_up_to_the_same_number_in_any_order(polygon, random):
    zones = cover(on(polygon), GRID)
    for values in (cell_km2(zones, GRID), cell_shares(zones)):
        mixed = values.tolist()
        random.shuffle(mixed)
        half = len(mixed) // 2
        total = math.fsum(mixed)
        assert sum(mixed) == sum(mixed[:half]) + sum(mixed[half:]) == total


LATTICES = {
    "degrees": GeoBox.from_bbox((-52, 1, -51, 3), "EPSG:4326", resolution=0.00026949458523585647),
    "utm": GeoBox.from_bbox((2e5, 2e5, 3e5, 4e5), "EPSG:32622", resolution=30),
    "far": GeoBox.from_bbox((-8e6, 6e6, -7.9e6, 6.1e6), "EPSG:6933", resolution=100),
}


@pytest.mark.parametrize("name", LATTICES)
@given(star_polygons(), st.integers(30, 900), st.integers(30, 900), st.integers(0, 3))
def test_a_site_has_the_same_cells_in_every_window(name, polygon, row, col, margin):
    whole = LATTICES[name]
    place = whole[row : row + 40, col : col + 40]
    t = place.affine
    shape = shapely.transform(polygon, lambda xy: xy * (t.a, t.e) + (t.c, t.f))
    site = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[shape], crs=whole.crs).to_crs(4326)
    alone = crop_native(whole, site.geometry.iloc[0], buffer_m=margin * 100)
    wide, close = cover(site, whole), cover(site, alone)
    down, right = (round(v) for v in reversed(whole.wld2pix(alone.affine.c, alone.affine.f)))
    np.testing.assert_array_equal(wide.rows, close.rows + down)
    np.testing.assert_array_equal(wide.cols, close.cols + right)
    np.testing.assert_array_equal(wide.weight, close.weight)
    np.testing.assert_array_equal(cell_km2(wide, whole), cell_km2(close, alone))


def test_what_rounding_leaves_of_a_pixel_is_whole_or_none():
    near = on(box(1 - 1e-11, 1 + 1e-11, 3 + 1e-11, 3 - 1e-11))
    zones = cover(near, GRID)
    assert zones.weight.tolist() == [1.0] * 4
    assert zones.partial.size == 0
    assert cover(on(box(1 - 1e-9, 1, 3, 3)), GRID).partial.size == 2


def test_whole_cells_store_no_weight():
    grid = GeoBox.from_bbox((500000, 0, 500100, 100), UTM, shape=(100, 100))
    zones = cover(on(box(0.5, 0.5, 99.5, 99.5), grid=grid), grid)
    assert (zones.n_cells, zones.partial.size) == (10_000, 396)
    assert zones.runs.row.size == 2 + 3 * 98


# ---- without the compiler -------------------------------------------------------------------


def every_kernel():
    """Results of all zonal kernels on small inputs."""
    rng = np.random.default_rng(5)
    ring = np.array([[0.5, -0.5], [6.7, 1.2], [3.1, 3.9], [-1.0, 2.0], [0.5, -0.5]])
    square = np.array([[1.0, 1.0], [5.0, 1.0], [5.0, 3.0], [1.0, 3.0], [1.0, 1.0]])
    xy, rings = np.vstack([ring, square, [[np.nan, 0.0]] * 4]), np.array([0, 5, 10, 14])
    grid = GeoBox.from_bbox((500000, 0, 500006, 4), UTM, shape=(4, 6))
    out = []
    for centres in (False, True):
        covered = coverage.cover_runs(xy, rings, np.array([0, 1, 2, 3]), 4, 6, centres, 7)
        offsets, table, partial = covered
        row, start, stop = np.ascontiguousarray(table[:, :3].T, np.int32)
        cell = np.cumsum(stop - start, dtype=np.int64) - (stop - start)
        edge = np.ascontiguousarray(table[:, 3])
        runs = Runs(offsets, row, start, stop, cell)
        cells = strips.Cells(runs, edge, partial.copy(), *area_spline(grid))
        values = rng.normal(size=(2, 24)).astype(np.float32)
        values[:, ::5] = np.nan
        codes = rng.integers(0, 4, (2, 24), dtype=np.uint8)
        window, part, zones = (0, 0, 4, 6), (1, 2, 2, 3), np.arange(3)
        corner = np.ascontiguousarray(values[:, :6])
        out += [
            *covered,
            strips.cell_areas(cells),
            strips.zones_within(runs, part),
            zonal.zone_sums(values, window, np.nan, cells, zones, True),
            zonal.zone_sums(corner, part, np.nan, cells, zones, False),
            zonal.zone_quantiles(values, window, np.nan, cells, np.array([0.1, 0.5])),
            *zonal.zone_classes(codes, window, 0.0, cells, zones, 0, 256),
        ]
    return out


_WITHOUT_COMPILER = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from test_zonal import every_kernel
np.savez(sys.argv[2], *every_kernel())
"""


def test_kernels_are_plain_python_too(tmp_path):
    out = tmp_path / "plain.npz"
    folder = os.path.dirname(__file__)
    # affine 3 announces the end of an operator that odc-geo uses
    warnings = ("-W", "error", "-W", "ignore::PendingDeprecationWarning")
    subprocess.run(
        [sys.executable, *warnings, "-c", _WITHOUT_COMPILER, folder, out],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        check=True,
    )
    with np.load(out) as plain:
        for compiled, key in zip(every_kernel(), plain.files, strict=True):
            np.testing.assert_allclose(compiled, plain[key], rtol=1e-14)

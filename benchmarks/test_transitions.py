"""Disturbance and reclamation beside comparisons of whole layers in numpy."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import pytest

from minetrace.kernels.transitions import change_years, zone_transitions
from minetrace.schema import Kind, load_legend

LUT = load_legend("glc_fcs30d").lut
YEARS = np.array([1985, 1990, 1995, *range(2000, 2023)], np.int16)


def codes(side, share):
    """Mostly forest; a share of the pixels flips among forest, grass, bare ground and water."""
    rng = np.random.default_rng(0)
    out = np.full((YEARS.size, side, side), 71, np.uint8)
    busy = rng.random((side, side)) < share
    out[:, busy] = rng.choice(
        np.array([71, 130, 201, 210, 187], np.uint8), (YEARS.size, busy.sum())
    )
    return out


def by_layers(stack):
    """First and last years and counts by layer comparisons; no gaps, no persistence."""
    kinds = LUT[stack]
    when = np.zeros((4, *stack.shape[1:]), np.int16)
    count = np.zeros((2, *stack.shape[1:]), np.uint8)
    green, mine = (kinds >= 1) & (kinds <= Kind.SPARSE), kinds == Kind.MINE
    for i in range(1, len(kinds)):
        for way, event in enumerate((green[i - 1] & mine[i], mine[i - 1] & green[i])):
            when[2 * way][event & (count[way] == 0)] = YEARS[i]
            when[2 * way + 1][event] = YEARS[i]
            count[way] += event
    return when, count


@pytest.mark.parametrize("share", [0.05, 1.0], ids=["quiet_tile", "busy_tile"])
def test_change_years(benchmark, share):
    stack = codes(600, share)
    flat = stack.reshape(YEARS.size, -1)
    found = benchmark(change_years, flat, LUT, YEARS, 1)
    start = perf_counter()
    expected = by_layers(stack)
    peer = perf_counter() - start
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.reshape(b.shape), b)
    benchmark.extra_info["times_faster_than_numpy_layers"] = peer / benchmark.stats["median"]


def test_zone_transitions(benchmark):
    stack = codes(600, 0.3)
    rows, cols = (a.ravel().astype(np.int32) for a in np.indices(stack.shape[1:]))
    area = np.full(rows.size, 9e-4)
    offsets = np.linspace(0, rows.size, 301).astype(np.int64)
    table = benchmark(zone_transitions, stack, LUT, 1, offsets, rows, cols, area)
    start = perf_counter()
    when, count = by_layers(stack)
    lost = [np.bincount(np.arange(rows.size) * 300 // rows.size, (when[0] == y).ravel() * area)
            for y in YEARS]  # fmt: skip
    peer = perf_counter() - start
    np.testing.assert_allclose(table[..., 2].sum(axis=2), np.transpose(lost), rtol=1e-9)
    assert table[..., 0].sum() == pytest.approx(count[0].sum() * 9e-4)
    # the peer leaves out the cover types and the reclaimed area
    benchmark.extra_info["times_faster_than_numpy_layers"] = peer / benchmark.stats["median"]

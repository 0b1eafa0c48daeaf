"""The rule of disturbance and reclamation, pixel by pixel and zone by zone."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

import oracles
from minetrace.kernels import follow
from minetrace.kernels import transitions as kernels
from minetrace.kernels.runs import Runs
from minetrace.schema import Kind, load_legend
from plain import without_compiler
from strategies import kind_series, kind_stacks

KINDS = np.arange(256, dtype=np.uint8)
PERSISTENCE = st.integers(1, 4)
LETTERS = {"-": 0, "c": 1, "f": 2, "s": 3, "g": 4, "p": 5, "M": 6, "o": 7}


def account(kinds, min_persistence=1):
    years = np.arange(1, len(kinds) + 1, dtype=np.int16)
    return kernels.change_years(kinds, KINDS % 8, years, min_persistence)


def found_years(kinds, min_persistence=1):
    """First and last development, first and last reclamation, and the counts, of one pixel."""
    found = account(kinds[:, None], min_persistence)
    return (*found.years[:, 0].tolist(), *found.counts[:, 0].tolist())


def runs_of(*zones):
    """Runs of zones that are lists of (row, col), in order."""
    table = []
    for zone in zones:
        found = []
        for row, cells in groupby(zone, key=lambda cell: cell[0]):
            for _, part in groupby(enumerate(cells), key=lambda item: item[1][1] - item[0]):
                cols = [col for _, (_, col) in part]
                found.append((row, cols[0], cols[-1] + 1))
        table.append(found)
    every = np.array([run for zone in table for run in zone], np.int32).reshape(-1, 3)
    length = (every[:, 2] - every[:, 1]).astype(np.int64)
    row, start, stop = (np.ascontiguousarray(every[:, i]) for i in range(3))
    return Runs(np.cumsum([0, *map(len, table)]), row, start, stop, np.cumsum(length) - length)


def fixed(codes):
    """As the package hands codes over; otherwise the kernels are compiled twice."""
    codes = codes.view()
    codes.flags.writeable = False
    return codes


def expected_years(kinds, min_persistence=1):
    events = oracles.events_by_runs(kinds, min_persistence)
    lost = [layer + 1 for layer, what, _ in events if what == "development"]
    back = [layer + 1 for layer, what, _ in events if what == "reclamation"]
    ends = [e for years in (lost, back) for e in (years[:1] or [0]) + (years[-1:] or [0])]
    return (*ends, len(lost), len(back))


def covers(text, min_persistence=1):
    """Events of a series written in letters: {layer: +cover lost or -cover gained}."""
    kinds = np.array([LETTERS[c] for c in text], np.uint8)
    table = kernels.zone_transitions(
        fixed(kinds[:, None, None]), KINDS, min_persistence, runs_of([(0, 0)]), np.ones(1)
    )[0]
    names = "cfsgp"
    lost = {int(t): "-" + names[c] for t, c in zip(*np.nonzero(table[..., 0]), strict=True)}
    back = {int(t): "+" + names[c] for t, c in zip(*np.nonzero(table[..., 1]), strict=True)}
    return lost | back


def test_the_kernel_and_the_schema_name_the_same_kinds():
    assert (follow.NODATA, follow.VEGETATED, follow.MINE) == (Kind.NODATA, Kind.SPARSE, Kind.MINE)
    assert len(Kind) == follow.KINDS
    assert Kind.OTHER > Kind.MINE > Kind.SPARSE > Kind.CROPLAND > Kind.NODATA


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("fM", {1: "-f"}),
        ("Mf", {1: "+f"}),
        ("fsMgf", {2: "-s", 3: "+g"}),  # lost: the class before; gained: the class after
        ("f--M", {3: "-f"}),  # gaps are skipped
        ("foM", {}),  # another class breaks the link
        ("Mof", {}),
        ("MMM", {}),
        ("-M", {}),
        ("fMfM", {1: "-f", 2: "+f", 3: "-f"}),
    ],
)
def test_changes_between_neighbouring_layers(text, events):
    assert covers(text) == events


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("ffMM", {2: "-f"}),  # dated at the first layer of the run
        ("ffM", {}),  # the end is not confirmed
        ("ffMff", {}),  # flicker
        ("ffMfMM", {4: "-f"}),
        ("ffoMM", {3: "-f"}),  # a short run of another class is flicker too
        ("ffooMM", {}),
        ("fMM", {}),  # the start is not confirmed
        ("fsM-M", {2: "-s"}),  # gaps do not interrupt a run
        ("ffMgMM", {4: "-f"}),  # the flicker's class is not the cover lost
        ("ffMggMM", {5: "-g"}),
        ("MMgsff", {2: "+g"}),
    ],
)
def test_a_state_must_last(text, events):
    assert covers(text, 2) == events


@given(kind_series(), PERSISTENCE)
def test_pixels_equal_the_definition_by_runs(kinds, k):
    assert found_years(kinds, k) == expected_years(kinds, k)


@st.composite
def scattered(draw):
    """Kinds ``(time, pixel)`` of any number of pixels, most of them still, and a persistence."""
    n_time, n_pixel = draw(st.integers(1, 9)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = np.repeat(rng.choice([0, 2, 3, 6, 7], n_pixel).astype(np.uint8)[None], n_time, axis=0)
    moves = rng.random(kinds.shape) < draw(st.sampled_from([0.0, 0.02, 0.2, 0.9]))
    kinds[moves] = rng.choice([0, 1, 4, 6, 6, 7], moves.sum())
    return kinds, draw(PERSISTENCE)


@given(scattered())
def test_every_pixel_and_every_count_of_a_row(case):
    kinds, k = case
    found = account(kinds, k)
    expected = np.array([expected_years(series, k) for series in kinds.T])
    np.testing.assert_array_equal(np.vstack([found.years, found.counts]).T, expected)
    np.testing.assert_array_equal(found.pairs, oracles.pairs_by_counting(kinds))
    cells = [(0, i, 1) for i in range(kinds.shape[1])]
    np.testing.assert_array_equal(
        found.events, oracles.zone_table_by_runs(kinds[:, None], cells, k)
    )
    codes = np.unique(kinds)
    np.testing.assert_array_equal(np.flatnonzero(found.present), codes[codes > 0])
    np.testing.assert_array_equal(np.flatnonzero(kernels.codes_present(fixed(kinds))), codes)


@pytest.mark.parametrize("n_pixel", [4095, 4096, 4097, 12295])
def test_blocks_and_their_rests_add_up(n_pixel):
    rng = np.random.default_rng(n_pixel)
    kinds = rng.choice([0, 1, 2, 6, 6, 7], (7, n_pixel)).astype(np.uint8)
    kinds[:, 100:3000] = kinds[0, 100:3000]
    found = account(kinds, 2)
    pieces = [account(kinds[:, i : i + 1000].copy(), 2) for i in range(0, n_pixel, 1000)]
    for name in ("years", "counts"):
        joined = np.concatenate([getattr(p, name) for p in pieces], axis=1)
        np.testing.assert_array_equal(getattr(found, name), joined)
    for name in ("pairs", "events"):
        total = np.sum([getattr(p, name) for p in pieces], axis=0)
        np.testing.assert_array_equal(getattr(found, name), total)
    for pixel in (0, 99, 3000, 4094, n_pixel - 1):
        series = (*found.years[:, pixel], *found.counts[:, pixel])
        assert series == expected_years(kinds[:, pixel], 2)


@pytest.mark.parametrize("k", [1, 254, 255, 256, 1000])
def test_the_longest_series(k):
    kinds = np.full(follow.MAX_LAYERS, 6, np.uint8)
    kinds[0] = 2
    assert found_years(kinds, k) == expected_years(kinds, k)
    assert found_years(np.full(255, 6, np.uint8), k) == (0, 0, 0, 0, 0, 0)
    flips = np.resize(np.array([2, 6], np.uint8), 255)
    assert found_years(flips, k) == expected_years(flips, k)


def test_no_layer_and_no_pixel():
    for shape in ((0, 3), (4, 0)):
        found = account(np.zeros(shape, np.uint8))
        assert found.years.shape == (4, shape[1])
        assert not any(part.any() for part in found)


def some_answers():
    """What all kernels give for one seeded stack."""
    rng = np.random.default_rng(3)
    return answers(rng.choice([0, 2, 4, 6, 6, 7], (6, 3, 7)).astype(np.uint8))


def test_kernels_are_plain_python_too(tmp_path):
    for compiled, plain in zip(
        some_answers(), without_compiler(some_answers, tmp_path), strict=True
    ):
        np.testing.assert_array_equal(compiled, plain)


def answers(kinds):
    """What all kernels give for one small stack."""
    runs = runs_of([(0, 1), (0, 2), (2, 5), (2, 6)], [], [(1, c) for c in range(7)])
    area = np.arange(1.0, 12.0)
    return (
        *account(kinds.reshape(len(kinds), -1), 2),
        kernels.zone_transitions(fixed(kinds), KINDS, 2, runs, area),
        kernels.zone_composition(fixed(kinds), KINDS, 8, runs, area, area / 2),
    )


@st.composite
def zoned(draw):
    """A small stack, and zones of any cells of it, overlapping, empty or whole."""
    stack = draw(kind_stacks(max_side=11))
    _, n_y, n_x = stack.shape
    cells = [(r, c) for r in range(n_y) for c in range(n_x)]
    some = [cell for cell in cells if draw(st.booleans())]
    return stack, [cells, [], some]


@given(zoned(), PERSISTENCE, st.randoms(use_true_random=False))
def test_zones_equal_the_definition_by_runs(case, k, random):
    stack, zones = case
    area = [[random.choice([0.25, 1.0, 0.5]) for _ in zone] for zone in zones]
    found = kernels.zone_transitions(
        fixed(stack), KINDS, k, runs_of(*zones), np.array([a for zone in area for a in zone])
    )
    for zone, km2, table in zip(zones, area, found, strict=True):
        cells = [(*cell, a) for cell, a in zip(zone, km2, strict=True)]
        np.testing.assert_array_equal(table, oracles.zone_table_by_runs(stack, cells, k))


def test_a_zone_of_several_blocks():
    rng = np.random.default_rng(8)
    stack = rng.choice([0, 2, 5, 6, 6, 7], (5, 70, 91)).astype(np.uint8)
    zone = [(r, c) for r in range(70) for c in range(91) if (r + c) % 13]
    (table,) = kernels.zone_transitions(fixed(stack), KINDS, 1, runs_of(zone), np.ones(len(zone)))
    np.testing.assert_array_equal(
        table, oracles.zone_table_by_runs(stack, [(*cell, 1.0) for cell in zone])
    )


@given(zoned(), PERSISTENCE, st.integers(0, 2**32 - 1))
def test_a_zone_depends_on_its_own_cells_only(case, k, seed):
    stack, (_, _, some) = case
    rng = np.random.default_rng(seed)
    inside = np.zeros(stack.shape[1:], bool)
    for cell in some:
        inside[cell] = True
    other = np.where(inside, stack, rng.integers(0, 8, stack.shape)).astype(np.uint8)
    weight = rng.random(len(some))
    everywhere = [(r, c) for r in range(stack.shape[1]) for c in range(stack.shape[2])]
    together = np.concatenate([rng.random(len(everywhere)), weight])
    alone, among = runs_of(some), runs_of(everywhere, some)
    for kernel, options, areas in (
        (kernels.zone_transitions, (KINDS, k), 1),
        (kernels.zone_composition, (KINDS, 8), 2),
    ):
        a = kernel(fixed(stack), *options, alone, *[weight] * areas)
        b = kernel(fixed(other), *options, among, *[together] * areas)
        np.testing.assert_array_equal(a[0], b[1])


@given(kind_series(), PERSISTENCE, st.data())
def test_a_layer_without_data_changes_nothing(kinds, k, data):
    at = data.draw(st.integers(0, kinds.size))
    years = np.arange(1, kinds.size + 1, dtype=np.int16)
    gap = kernels.change_years(
        np.insert(kinds, at, 0)[:, None], KINDS % 8, np.insert(years, at, 99).astype(np.int16), k
    )
    plain = account(kinds[:, None], k)
    np.testing.assert_array_equal(gap.years, plain.years)
    np.testing.assert_array_equal(gap.counts, plain.counts)
    np.testing.assert_array_equal(np.delete(gap.events, at, axis=0), plain.events)


@given(kind_series(), PERSISTENCE)
def test_time_reversal_swaps_the_two_flows(kinds, k):
    forwards, backwards = found_years(kinds, k), found_years(kinds[::-1].copy(), k)
    assert backwards[4:] == forwards[:3:-1]


@given(kind_series(), PERSISTENCE)
def test_the_two_flows_alternate_or_are_broken_by_another_class(kinds, k):
    *_, lost, back = found_years(kinds[kinds != Kind.OTHER], k) if (kinds != 7).any() else (0, 0)
    assert abs(lost - back) <= 1


@given(kind_stacks())
def test_a_pixel_is_unique_once(stack):
    _, n_y, n_x = stack.shape
    zones = [[(r, c)] for r in range(n_y) for c in range(n_x)]
    table = kernels.zone_transitions(fixed(stack), KINDS, 1, runs_of(*zones), np.ones(len(zones)))
    events, unique = table[..., :2].sum((1, 2)), table[..., 2:].sum((1, 2))
    np.testing.assert_array_equal(unique, np.minimum(events, 1))


@given(zoned(), st.integers(0, 2**32 - 1))
def test_composition_adds_up_to_the_zone(case, seed):
    stack, zones = case
    rng = np.random.default_rng(seed)
    weights = [rng.random((2, len(zone))) for zone in zones]
    area, share = np.concatenate(weights, axis=1)
    table = kernels.zone_composition(fixed(stack), KINDS, 8, runs_of(*zones), area, share)
    for zone, weight, found in zip(zones, weights, table, strict=True):
        for layer, sums in zip(stack, found, strict=True):
            for w in (0, 1):
                expected = [
                    sum(x for cell, x in zip(zone, weight[w], strict=True) if layer[cell] == k)
                    for k in range(8)
                ]
                # bit by bit: in the order of the cells
                assert sums[:, w].tolist() == expected


@given(kind_stacks(max_side=11), st.integers(0, 2**32 - 1))
def test_layers_of_one_composition_have_one_sum(stack, seed):
    stack = np.concatenate([stack, stack[:1]])
    cells = [(r, c) for r in range(stack.shape[1]) for c in range(stack.shape[2])]
    area = np.random.default_rng(seed).random(len(cells))
    (table,) = kernels.zone_composition(fixed(stack), KINDS, 8, runs_of(cells), area, area)
    np.testing.assert_array_equal(table[0], table[-1])


@pytest.mark.real
def test_a_gold_district_equals_the_definition_by_runs(real_data):
    path = real_data("raster/mapbiomas_amapa_mines/lorenco_85a22.tif")
    with rasterio.open(path) as source:
        codes = source.read().reshape(38, -1)
    lut = load_legend("mapbiomas_c8").lut
    years = np.arange(1985, 2023, dtype=np.int16)
    when, count, *_ = kernels.change_years(codes, lut, years, 1)
    mined = np.flatnonzero((lut[codes] == Kind.MINE).any(axis=0))
    kinds = lut[codes[:, mined]]
    assert mined.size > 20235
    for pixel, series in zip(mined, kinds.T, strict=True):
        expected = expected_years(series)
        shifted = [year and year + 1984 for year in expected[:4]]
        assert [*when[:, pixel], *count[:, pixel]] == [*shifted, *expected[4:]]
    assert not count[:, np.setdiff1d(np.arange(codes.shape[1]), mined)].any()

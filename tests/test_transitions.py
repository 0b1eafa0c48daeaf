"""The rule of disturbance and reclamation, pixel by pixel and zone by zone."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

import oracles
from minetrace.kernels import transitions as kernels
from minetrace.schema import Kind, load_legend
from strategies import kind_series, kind_stacks

KINDS = np.arange(256, dtype=np.uint8)
PERSISTENCE = st.integers(1, 4)
LETTERS = {"-": 0, "c": 1, "f": 2, "s": 3, "g": 4, "p": 5, "M": 6, "o": 7}


def found_years(kinds, min_persistence=1):
    """First and last development, first and last reclamation, and the counts, of one pixel."""
    years = np.arange(1, kinds.size + 1, dtype=np.int16)
    when, count = kernels.change_years(kinds[:, None], KINDS, years, min_persistence)
    return (*when[:, 0].tolist(), *count[:, 0].tolist())


def expected_years(kinds, min_persistence=1):
    events = oracles.events_by_runs(kinds, min_persistence)
    lost = [layer + 1 for layer, what, _ in events if what == "development"]
    back = [layer + 1 for layer, what, _ in events if what == "reclamation"]
    ends = [e for years in (lost, back) for e in (years[:1] or [0]) + (years[-1:] or [0])]
    return (*ends, len(lost), len(back))


def covers(text, min_persistence=1):
    """Events of a series written in letters: {layer: +cover lost or -cover gained}."""
    kinds = np.array([LETTERS[c] for c in text], np.uint8)
    one = np.zeros(1, np.int32)
    table = kernels.zone_transitions(
        kinds[:, None, None], KINDS, min_persistence, np.array([0, 1]), one, one, np.ones(1)
    )[0]
    names = "cfsgp"
    lost = {int(t): "-" + names[c] for t, c in zip(*np.nonzero(table[..., 0]), strict=True)}
    back = {int(t): "+" + names[c] for t, c in zip(*np.nonzero(table[..., 1]), strict=True)}
    return lost | back


def test_the_kernel_and_the_schema_name_the_same_kinds():
    assert (kernels.NODATA, kernels.VEGETATED, kernels.MINE) == (
        Kind.NODATA, Kind.SPARSE, Kind.MINE,
    )  # fmt: skip
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


@given(kind_stacks(), PERSISTENCE, st.randoms(use_true_random=False))
def test_zones_equal_the_definition_by_runs(stack, k, random):
    _, n_y, n_x = stack.shape
    cells = [(r, c, random.choice([0.25, 1.0, 0.5])) for r in range(n_y) for c in range(n_x)]
    zones = [cells, [], random.sample(cells, random.randint(0, len(cells)))]
    rows, cols, area = (
        np.array([cell[i] for zone in zones for cell in zone], dtype)
        for i, dtype in enumerate((np.int32, np.int32, float))
    )
    offsets = np.cumsum([0, *map(len, zones)])
    found = kernels.zone_transitions(stack, KINDS, k, offsets, rows, cols, area)
    for zone, table in zip(zones, found, strict=True):
        np.testing.assert_array_equal(table, oracles.zone_table_by_runs(stack, zone, k))


@given(kind_series(), PERSISTENCE, st.data())
def test_a_layer_without_data_changes_nothing(kinds, k, data):
    at = data.draw(st.integers(0, kinds.size))
    years = np.arange(1, kinds.size + 1, dtype=np.int16)
    gap = kernels.change_years(
        np.insert(kinds, at, 0)[:, None], KINDS, np.insert(years, at, 99).astype(np.int16), k
    )
    for a, b in zip(gap, kernels.change_years(kinds[:, None], KINDS, years, k), strict=True):
        np.testing.assert_array_equal(a, b)


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
    rows, cols = (a.ravel().astype(np.int32) for a in np.indices((n_y, n_x)))
    offsets = np.arange(rows.size + 1)
    table = kernels.zone_transitions(stack, KINDS, 1, offsets, rows, cols, np.ones(rows.size))
    events, unique = table[..., :2].sum((1, 2)), table[..., 2:].sum((1, 2))
    np.testing.assert_array_equal(unique, np.minimum(events, 1))


@given(kind_stacks(), st.randoms(use_true_random=False))
def test_composition_adds_up_to_the_zone(stack, random):
    _, n_y, n_x = stack.shape
    rows, cols = (a.ravel().astype(np.int32) for a in np.indices((n_y, n_x)))
    weights = np.array([[random.random() for _ in rows], [1.0] * rows.size])
    split = random.randint(0, rows.size)
    offsets = np.array([0, split, rows.size])
    table = kernels.zone_composition(stack, KINDS, 8, offsets, rows, cols, weights)
    for zone, cells in enumerate((slice(0, split), slice(split, None))):
        for layer in range(stack.shape[0]):
            flat = stack[layer].ravel()[cells]
            for w in (0, 1):
                expected = np.bincount(flat, weights[w, cells], minlength=8)
                np.testing.assert_allclose(table[zone, layer, :, w], expected, rtol=1e-12)


@given(kind_stacks())
def test_codes_present(stack):
    np.testing.assert_array_equal(np.flatnonzero(kernels.codes_present(stack)), np.unique(stack))


@pytest.mark.real
def test_a_gold_district_equals_the_definition_by_runs(real_data):
    path = real_data("raster/mapbiomas_amapa_mines/lorenco_85a22.tif")
    with rasterio.open(path) as source:
        codes = source.read().reshape(38, -1)
    lut = load_legend("mapbiomas_c8").lut
    years = np.arange(1985, 2023, dtype=np.int16)
    when, count = kernels.change_years(codes, lut, years, 1)
    mined = np.flatnonzero((lut[codes] == Kind.MINE).any(axis=0))
    kinds = lut[codes[:, mined]]
    assert mined.size > 20235
    for pixel, series in zip(mined, kinds.T, strict=True):
        expected = expected_years(series)
        shifted = [year and year + 1984 for year in expected[:4]]
        assert [*when[:, pixel], *count[:, pixel]] == [*shifted, *expected[4:]]
    assert not count[:, np.setdiff1d(np.arange(codes.shape[1]), mined)].any()

"""Disturbance, reclamation and bare surface of pixels and sites."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import dask
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr
from shapely.geometry import box

import oracles
from minetrace.change import (
    bare_surface_percentage,
    class_areas,
    land_account,
    pixels,
    transition_areas,
    transitions,
)
from minetrace.errors import GridError, InputError, LegendError
from minetrace.grid import pixel_areas
from minetrace.schema import CHANGE, COVERS, TRANSITION_AREAS, Kind, check_table, load_legend
from minetrace.zones import cover
from strategies import kind_stacks

GLC = load_legend("glc_fcs30d")
CODES = np.array([0, 10, 51, 120, 130, 150, 200, 187], np.uint8)
"""One class of the legend for every kind."""
STEPS = [1985, 1990, 1995, *range(2000, 2023)]


def stack(kinds, years=None, *, chunks=None):
    """Land cover whose classes have the given kinds ``(time, y, x)``."""
    kinds = np.asarray(kinds)
    n_time, n_y, n_x = kinds.shape
    grid = GeoBox.from_bbox((300000, 0, 300000 + 30 * n_x, 30 * n_y), "EPSG:32622",
                            shape=(n_y, n_x))  # fmt: skip
    times = [f"{year}" for year in (years or STEPS[:n_time])]
    codes = wrap_xr(CODES[kinds], grid, time=times).rename("landcover")
    return codes if chunks is None else codes.chunk(chunks)


def sites_of(landcover, *shapes):
    """Sites given in pixels from the upper left corner."""
    t = landcover.odc.geobox.affine
    placed = [shapely.transform(s, lambda xy: xy * (t.a, t.e) + (t.c, t.f)) for s in shapes]
    return gpd.GeoDataFrame({"site_id": [f"s{i}" for i in range(len(shapes))]}, geometry=placed,
                            crs=landcover.odc.geobox.crs)  # fmt: skip


def random_stack(n_time=26, n_y=7, n_x=6, *, seed=0, chunks=None):
    rng = np.random.default_rng(seed)
    kinds = rng.choice([0, 1, 2, 3, 4, 5, 6, 6, 6, 7], (n_time, n_y, n_x))
    return stack(kinds, chunks=chunks)


def test_the_codes_of_these_tests_cover_every_kind():
    assert GLC.lut[CODES].tolist() == list(range(8))


# ---- pixels --------------------------------------------------------------------------


@given(kind_stacks(), st.integers(1, 3))
def test_pixels_equal_the_definition_by_runs(kinds, k):
    found = transitions(stack(kinds), min_persistence=k)
    for y in range(kinds.shape[1]):
        for x in range(kinds.shape[2]):
            events = oracles.events_by_runs(kinds[:, y, x], k)
            for what in ("development", "reclamation"):
                years = [STEPS[layer] for layer, kind, _ in events if kind == what]
                assert found[f"n_{what}"][y, x] == len(years)
                assert found[f"first_{what}"][y, x] == (years[0] if years else 0)
                assert found[f"last_{what}"][y, x] == (years[-1] if years else 0)


def test_the_contract_of_names_types_and_coordinates():
    found = transitions(random_stack())
    assert {n: str(v.dtype) for n, v in found.items()} == {v.name: v.dtype for v in CHANGE}
    assert all(found[v.name].attrs == v.attrs for v in CHANGE)
    assert found.odc.geobox == random_stack().odc.geobox


@given(st.tuples(st.integers(1, 7), st.integers(1, 6)), st.integers(1, 3))
def test_any_tiling_gives_the_same(tiles, k):
    lazy = transitions(random_stack(chunks={"y": tiles[0], "x": tiles[1]}), min_persistence=k)
    expected = transitions(random_stack(), min_persistence=k)
    xr.testing.assert_identical(lazy.compute(scheduler="sync"), expected)


def test_building_computes_nothing_and_promises_hold(no_compute):
    lazy = transitions(random_stack(chunks={"y": 3}))
    promised = {n: (v.dtype, v.shape) for n, v in lazy.items()}
    with dask.config.set(scheduler="sync"):
        assert {n: (v.dtype, v.shape) for n, v in lazy.compute().items()} == promised


def test_same_inputs_same_token_and_any_change_a_new_one():
    data = random_stack(chunks={"y": 3})
    lenient = replace(GLC, classes=tuple(c for c in GLC.classes if c.code != 187))
    names = [
        found.n_development.data.name
        for found in (
            transitions(data),
            transitions(data),
            transitions(random_stack(chunks={"y": 3}, seed=1)),
            transitions(data, min_persistence=2),
            transitions(data, legend=lenient),
            transitions(data.assign_coords(time=data.time + np.timedelta64(366, "D"))),
        )
    ]
    assert names[0] == names[1]
    assert len(set(names)) == len(names) - 1


def test_a_code_outside_the_legend_is_named(no_compute):
    data = random_stack()
    data[3, 2, 1], data[4, 0, 0] = 77, 99
    with pytest.raises(LegendError, match=r"'landcover' holds class codes \[77, 99\]"):
        transitions(data)
    lazy = transitions(data.chunk(y=2, x=2))
    with dask.config.set(scheduler="sync"), pytest.raises(LegendError, match="77"):
        lazy.compute()


WHOLE = ["int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("dtype", WHOLE)
def test_wider_codes_give_the_same(dtype):
    codes = np.minimum(random_stack().values, 120)
    narrow, wide = random_stack().copy(data=codes), random_stack().copy(data=codes.astype(dtype))
    xr.testing.assert_identical(transitions(wide), transitions(narrow))
    site = sites_of(narrow, box(0.5, 0.5, 5, 4))
    pd.testing.assert_frame_equal(class_areas(wide, site), class_areas(narrow, site))


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "int64", "uint64"])
def test_numbers_that_no_code_can_be_are_named(dtype):
    info = np.iinfo(dtype)
    strange = sorted({info.min, info.max} - {0, 127}) + ([255, 256] if info.max > 255 else [])
    data = random_stack()
    data = data.copy(data=np.minimum(data.values, 120).astype(dtype))
    for layer, number in enumerate(strange):
        data[layer, layer, 0] = number
    site = sites_of(data, box(0, 0, 2, 2))
    numbers = ", ".join(map(str, sorted(strange)))
    for face in (transitions, lambda d: class_areas(d, site)):
        with pytest.raises(LegendError, match=rf"codes \[{numbers}\]"):
            face(data)
    data.attrs["nodata"] = strange[-1]
    rest = ", ".join(map(str, sorted(strange[:-1])))
    if rest:
        with pytest.raises(LegendError, match=rf"codes \[{rest}\]"):
            transitions(data)


@pytest.mark.parametrize("change", [
    lambda d: d.astype("int16"), lambda d: d[:, ::-1], lambda d: d[:, :, ::2],
    lambda d: d.transpose("y", "time", "x"), lambda d: d.chunk(y=60, x=80),
    lambda d: d[:, 5], lambda d: d[:, 5, 3], lambda d: d.expand_dims(sensor=2),
])  # fmt: skip
def test_any_layout_in_bands_gives_the_same(change, monkeypatch):
    monkeypatch.setattr(pixels, "_BAND_VALUES", 5000)
    data = change(random_stack(9, 130, 95))
    plain = xr.DataArray(np.ascontiguousarray(data.transpose("time", ...)), data.coords,
                         data.transpose("time", ...).dims, attrs=data.attrs)  # fmt: skip
    found = transitions(data).compute(scheduler="sync")
    expected = transitions(plain.astype("uint8"))
    xr.testing.assert_equal(found.transpose(*expected.n_development.dims), expected)
    assert found.n_development.any()


def test_codes_of_all_bands_are_named(monkeypatch):
    monkeypatch.setattr(pixels, "_BAND_VALUES", 100)
    data = random_stack().astype("int16")
    data[1, 0, 0], data[1, 3, 0], data[2, 6, 5] = 77, -5, 300
    with pytest.raises(LegendError, match=r"codes \[-5, 77, 300\]"):
        transitions(data)


@pytest.mark.parametrize("n_row", [1, 7, 8, 21])
def test_areas_of_wide_codes_in_bands_are_those_of_uint8(n_row):
    data = random_stack(9, n_row, 30)
    sites = sites_of(data, box(0.4, 0, 17.5, n_row), box(9, 0.3, 30, n_row - 0.2))
    zones = cover(sites, data.odc.geobox)
    expected = land_account(data, zones)
    data = data.astype("int16")
    found = land_account(data, zones)
    for table in ("composition", "transitions"):
        pd.testing.assert_frame_equal(
            getattr(found, table), getattr(expected, table), check_exact=True
        )
    data[1, 0, 0], data[1, -1, 3], data[2, -1, 5] = 77, -5, 300
    with pytest.raises(LegendError, match=r"codes \[-5, 77, 300\]"):
        transition_areas(data, sites)


def test_contiguous_codes_are_not_copied():
    codes = random_stack(20, 300, 400).values
    data = random_stack(1, 300, 400)
    data = xr.DataArray(codes, {"time": np.arange(1990, 2010), "y": data.y, "x": data.x},
                        ("time", "y", "x"))  # fmt: skip
    transitions(data)
    tracemalloc.start()
    transitions(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # the result has 10 bytes a pixel
    assert peak < codes.size / 20 * 10 + 300_000


def test_more_layers_than_can_be_counted_are_refused():
    years = np.arange(1000, 1256)
    data = xr.DataArray(np.full((256, 2), 51, "uint8"), {"time": years}, ("time", "x"))
    with pytest.raises(InputError, match="256 layers; at most 255"):
        transitions(data)
    assert not transitions(data[1:]).n_development.any()


@pytest.mark.parametrize(("dtype", "fill"), [("uint16", 65535), ("int16", -9999), ("uint8", 255)])
@pytest.mark.parametrize("key", ["nodata", "_FillValue"])
def test_a_fill_value_that_the_legend_misses_is_no_data(dtype, fill, key):
    data = random_stack()
    codes = data.values.astype(dtype)
    codes[codes == 0] = fill
    filled = data.copy(data=codes)
    with pytest.raises(LegendError, match=str(fill)):
        transitions(filled)
    filled.attrs[key] = fill
    xr.testing.assert_identical(transitions(filled), transitions(data))


@pytest.mark.parametrize(
    ("dtype", "fill", "code"), [("uint8", -9999, 255), ("uint8", 300, 255), ("int16", 13.5, 13)]
)
def test_a_fill_value_that_cannot_occur_makes_no_code_lawful(dtype, fill, code):
    data = random_stack().astype(dtype).assign_attrs(nodata=fill)
    xr.testing.assert_identical(transitions(data), transitions(random_stack()))
    data[3, 2, 1] = code
    with pytest.raises(LegendError, match=rf"\[{code}\]"):
        transitions(data)


def test_an_array_without_a_name_is_called_the_array():
    for change in (lambda d: d.astype("float32"), lambda d: d + np.uint8(77)):
        with pytest.raises(InputError, match=r"^the array (is|holds)") as caught:
            transitions(change(random_stack().rename(None)))
        assert "None" not in str(caught.value)


def test_a_fill_value_that_the_legend_names_keeps_its_meaning():
    data = random_stack()
    xr.testing.assert_identical(transitions(data.assign_attrs(nodata=200)), transitions(data))


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (lambda d: d.astype("float32"), {}, InputError, "float32; class codes are integers"),
        (lambda d: d.chunk(time=5), {}, InputError, r"chunks along 'time'.*chunk"),
        (lambda d: d.isel(time=[1, 0]), {}, InputError, "does not increase"),
        (lambda d: d.drop_vars("time"), {}, InputError, "no dimension 'time'"),
        (lambda d: d, {"min_persistence": 0}, InputError, "min_persistence is 0"),
        (lambda d: d, {"legend": "nosuch"}, LegendError, "nosuch"),
    ],
)
def test_bad_input_is_refused_everywhere(change, options, error, message):
    data = change(random_stack())
    with pytest.raises(error, match=message):
        transitions(data, **options)
    with pytest.raises(error, match=message):
        transition_areas(data, sites_of(random_stack(), box(0, 0, 2, 2)), **options)


def test_two_layers_in_one_year_are_refused():
    data = random_stack(3)
    data = data.assign_coords(time=pd.to_datetime(["2000-01-01", "2000-07-01", "2001-01-01"]))
    with pytest.raises(InputError, match=r"several layers in \[2000\]"):
        transitions(data)


# ---- sites ---------------------------------------------------------------------------


def rounded(km2):
    """Cells of 900 m², to a 2⁻³⁰th of the power of two below them."""
    return np.rint(km2 * 2.0**41) / 2.0**41


def expected_table(landcover, zones, site, k):
    cells = slice(zones.offsets[site], zones.offsets[site + 1])
    rows, cols = zones.rows[cells], zones.cols[cells]
    km2 = rounded(pixel_areas(landcover.odc.geobox)[rows, cols] * zones.weight[cells] / 1e6)
    kinds = GLC.lut[landcover.values]
    return oracles.zone_table_by_runs(kinds, list(zip(rows, cols, km2, strict=True)), k)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("coverage", ["fraction", "centre"])
def test_areas_equal_the_definition_by_runs(k, coverage):
    landcover = random_stack()
    sites = sites_of(landcover, box(0.5, 0.25, 3.3, 6), box(2, 2, 5, 5), box(50, 50, 60, 60))
    table = transition_areas(landcover, sites, coverage=coverage, min_persistence=k)
    check_table(table, TRANSITION_AREAS)
    assert list(table.site_id) == list(np.repeat(["s0", "s1", "s2"], 25 * 5))
    assert list(table.year[:125]) == list(np.repeat(STEPS[1:], 5))
    assert list(table.interval_years[:125:5]) == [5, 5, 5] + [1] * 22
    assert tuple(table.cover[:5]) == COVERS
    zones = cover(sites, landcover.odc.geobox, coverage=coverage)
    flows = table.filter(like="km2").to_numpy().reshape(3, 25, 5, 4)
    for site in range(3):
        expected = expected_table(landcover, zones, site, k)
        assert not expected[0].any()
        np.testing.assert_allclose(flows[site], expected[1:], rtol=1e-12, atol=1e-18)
    assert flows[0].any()
    assert not flows[2].any()


def test_one_square_by_hand():
    # two pixels: forest is mined in 1990 and regrown as grass in 2000; the other never changes
    landcover = stack([[[2, 1]], [[6, 1]], [[6, 1]], [[4, 1]]])
    sites = sites_of(landcover, box(0.5, 0, 2, 1))
    table = transition_areas(landcover, sites).set_index(["year", "cover"])
    half = pixel_areas(landcover.odc.geobox)[0, 0] / 2e6
    lost = table.loc[(1990, "forest")]
    assert lost.development_km2 == lost.development_unique_km2 == pytest.approx(half)
    back = table.loc[(2000, "grassland")]
    assert back.reclamation_km2 == back.reclamation_unique_km2 == pytest.approx(half)
    assert table.filter(like="km2").to_numpy().sum() == pytest.approx(4 * half)
    bsp = bare_surface_percentage(landcover, sites)
    assert list(bsp.columns) == ["site_id", "year", "bsp"]
    assert bsp.year.tolist() == STEPS[:4]
    np.testing.assert_allclose(bsp.bsp, [0, 1 / 3, 1 / 3, 0], rtol=1e-6)


def test_an_event_that_repeats_is_ground_only_once():
    landcover = stack(np.array([2, 6, 2, 6, 2])[:, None, None])
    table = transition_areas(landcover, sites_of(landcover, box(0, 0, 1, 1)))
    km2 = rounded(pixel_areas(landcover.odc.geobox)[0, 0] / 1e6)
    sums = table.filter(like="km2").sum() / km2
    np.testing.assert_allclose(sums, [2, 2, 1, 1], rtol=1e-12)


def test_the_parts_of_a_site_add_up_to_it():
    landcover = random_stack()
    whole = box(0.3, 0.4, 5.7, 6.2)
    lines = shapely.union_all([shapely.LineString([(0, 1), (6, 5)]), whole.boundary,
                               shapely.LineString([(2.2, 0), (2.7, 7)])])  # fmt: skip
    parts = list(shapely.get_parts(shapely.polygonize([*lines.geoms])))
    assert len(parts) == 4
    sites = sites_of(landcover, whole, *parts)
    account = land_account(landcover, cover(sites, landcover.odc.geobox))
    for table, by in ((account.composition, ["year"]), (account.transitions, ["year", "cover"])):
        sums = [c for c in table if c.endswith("km2") or c == "n_pixels"]
        first = table.site_id == "s0"
        np.testing.assert_allclose(
            table[~first].groupby(by, sort=False)[sums].sum(), table[first][sums], rtol=1e-9,
            atol=1e-15,
        )  # fmt: skip


def test_a_year_without_data_is_missing_and_changes_nothing():
    kinds = np.random.default_rng(5).choice([1, 2, 6, 6, 7], (6, 4, 4))
    years = [2000, 2001, 2002, 2004, 2005, 2006]
    gap = np.insert(kinds, 3, 0, axis=0)
    without, with_gap = stack(kinds, years), stack(gap, [*years[:3], 2003, *years[3:]])
    xr.testing.assert_identical(transitions(with_gap), transitions(without))
    sites = sites_of(without, box(0, 0, 4, 4))
    zones = cover(sites, without.odc.geobox)
    plain, holed = land_account(without, zones), land_account(with_gap, zones)
    missing = holed.composition.year == 2003
    assert holed.composition[missing].bsp.isna().all()
    assert holed.composition[missing].observed_km2.tolist() == [0.0]
    pd.testing.assert_frame_equal(
        holed.composition[~missing].reset_index(drop=True), plain.composition
    )
    flows = holed.transitions[holed.transitions.year != 2003].reset_index(drop=True)
    pd.testing.assert_frame_equal(flows, plain.transitions)
    assert not holed.transitions.query("year == 2003").filter(like="km2").to_numpy().any()


@given(kind_stacks(), st.data())
def test_an_empty_layer_changes_no_other_row(kinds, draw):
    kinds = kinds.copy()
    kinds[0, 0, 0] = 1
    n_time, n_y, n_x = kinds.shape
    at = draw.draw(st.integers(1, n_time))
    years = list(range(1900, 1900 + 3 * n_time, 3))
    empty_year = years[at - 1] + 1
    holed = stack(np.insert(kinds, at, 0, axis=0), sorted([*years, empty_year]))
    plain = stack(kinds, years)
    sites = sites_of(plain, box(0, 0, n_x, n_y), box(0, 0, 0.5, 0.5))
    # both sites hold the first pixel, so the first layer observes them
    found = transition_areas(holed, sites)
    own = found.year == empty_year
    pd.testing.assert_frame_equal(
        found[~own].reset_index(drop=True), transition_areas(plain, sites)
    )
    assert own.sum() == 2 * len(COVERS)
    assert not found[own].filter(like="km2").to_numpy().any()


def test_an_interval_begins_where_the_site_was_last_seen():
    # the left pixel is seen in 2000 and 2004, the right one in 2001, 2002 and 2004
    landcover = stack([[[2, 0]], [[0, 2]], [[0, 6]], [[0, 0]], [[6, 6]]], range(2000, 2005))
    sites = sites_of(landcover, box(0, 0, 1, 1), box(1, 0, 2, 1), box(0, 0, 2, 1))
    table = transition_areas(landcover, sites)
    check_table(table, TRANSITION_AREAS)
    intervals = table[table.cover == "forest"].pivot(
        index="site_id", columns="year", values="interval_years"
    )
    assert intervals.to_numpy().tolist() == [[1, 2, 3, 4], [1, 1, 1, 2], [1, 1, 1, 2]]
    left = table[(table.site_id == "s0") & (table.development_km2 > 0)]
    assert left[["year", "interval_years", "cover"]].to_numpy().tolist() == [[2004, 4, "forest"]]


def test_composition_is_what_the_classes_say():
    landcover = random_stack()
    sites = sites_of(landcover, box(0.5, 0.25, 3.3, 6), box(50, 50, 60, 60))
    zones = cover(sites, landcover.odc.geobox)
    composition = land_account(landcover, zones).composition
    classes = class_areas(landcover, sites)
    classes["kind"] = GLC.lut[classes.code]
    first = composition[composition.site_id == "s0"].set_index("year")
    by_kind = classes.pivot_table("area_km2", "year", "kind", aggfunc="sum", fill_value=0.0)
    np.testing.assert_allclose(first.mine_km2, by_kind[Kind.MINE], rtol=1e-12)
    np.testing.assert_allclose(first.other_km2, by_kind[Kind.OTHER], rtol=1e-12)
    np.testing.assert_allclose(first.vegetated_km2, by_kind.loc[:, 1:5].sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(first.observed_km2, by_kind.loc[:, 1:].sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(first.bsp, first.mine_km2 / first.observed_km2, rtol=1e-12)
    pixels = classes[classes.kind > 0].groupby("year").n_pixels.sum()
    np.testing.assert_allclose(first.n_pixels, pixels, rtol=1e-12)
    np.testing.assert_allclose(classes.groupby("year").n_pixels.sum(), 2.8 * 5.75, rtol=1e-9)
    assert composition[composition.site_id == "s1"].bsp.isna().all()
    assert set(classes.name) <= {c.name for c in GLC.classes}
    assert not (classes.site_id == "s1").any()


def test_the_public_functions_are_parts_of_the_account():
    landcover = random_stack()
    sites = sites_of(landcover, box(0.5, 0.25, 3.3, 6), box(1, 1, 4, 4))
    account = land_account(landcover, cover(sites, landcover.odc.geobox), min_persistence=2)
    pd.testing.assert_frame_equal(
        account.transitions, transition_areas(landcover, sites, min_persistence=2)
    )
    pd.testing.assert_frame_equal(
        account.composition[["site_id", "year", "bsp"]], bare_surface_percentage(landcover, sites)
    )


def test_lazy_land_cover_is_read_once():
    reads = []
    data = random_stack()
    lazy = data.chunk(y=-1, x=-1)
    lazy = lazy.copy(data=lazy.data.map_blocks(lambda b: reads.append(1) or b, meta=lazy.data))
    reads.clear()
    zones = cover(sites_of(data, box(0, 0, 3, 3)), data.odc.geobox)
    account = land_account(lazy, zones)
    assert len(reads) == 1
    pd.testing.assert_frame_equal(account.composition, land_account(data, zones).composition)


def test_one_layer_and_no_sites_give_tables_without_rows():
    one = random_stack(1)
    account = land_account(one, cover(sites_of(one, box(0, 0, 3, 3)), one.odc.geobox))
    assert (len(account.composition), len(account.transitions)) == (1, 0)
    nothing = cover(sites_of(one, box(0, 0, 3, 3)).iloc[:0], one.odc.geobox)
    many = random_stack()
    account = land_account(many, nothing)
    assert (len(account.composition), len(account.transitions)) == (0, 0)
    check_table(account.transitions, TRANSITION_AREAS)
    assert list(account.composition)[:3] == ["site_id", "year", "bsp"]


def test_zones_of_another_grid_and_data_without_one_are_refused():
    data = random_stack()
    sites = sites_of(data, box(0, 0, 3, 3))
    with pytest.raises(InputError, match=r"\(7, 6\)"):
        land_account(data.isel(y=slice(3)), cover(sites, data.odc.geobox))
    bare = xr.DataArray(data.values, {"time": data.time}, data.dims)
    with pytest.raises(GridError, match="no pixel grid"):
        class_areas(bare, sites)


# ---- a real gold district ------------------------------------------------------------


@pytest.fixture
def lourenco(real_data):
    path = real_data("raster/mapbiomas_amapa_mines/lorenco_85a22.tif")
    with rasterio.open(path) as source:
        grid = GeoBox(source.shape, source.transform, source.crs)
        codes = source.read()
    return wrap_xr(codes, grid, time=[f"{y}" for y in range(1985, 2023)]).rename("landcover")


@pytest.mark.real
def test_mining_pixels_of_the_district(lourenco):
    grid = lourenco.odc.geobox
    whole = gpd.GeoDataFrame({"site_id": ["all"]}, geometry=[grid.extent.geom], crs=grid.crs)
    areas = class_areas(lourenco, whole, legend="mapbiomas_c8")
    mining = areas[areas.code == 30].set_index("year").n_pixels
    assert mining[1985] == pytest.approx(9756, abs=1e-6)
    assert mining[2022] == pytest.approx(20235, abs=1e-6)
    table = transition_areas(lourenco, whole, legend="mapbiomas_c8")
    km2 = table[["development_km2", "development_unique_km2"]].sum()
    assert km2.iloc[0] > km2.iloc[1] > 5
    change = transitions(lourenco, legend="mapbiomas_c8")
    first = change.first_development.values
    area = pixel_areas(grid) / 1e6
    by_year = table.groupby("year").development_unique_km2.sum()
    for year in (1986, 2000, 2022):
        assert by_year[year] == pytest.approx(area[first == year].sum(), rel=1e-9)

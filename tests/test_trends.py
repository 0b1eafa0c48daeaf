"""Trends and spectral indices as xarray sees them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr

import minetrace.trends as trends
import oracles
from minetrace.errors import InputError
from minetrace.schema import TREND, fill_value
from minetrace.trends import bare_soil_index, decimal_years, mann_kendall, nbr, ndvi, ndwi
from minetrace.trends import sens_slope as sen
from strategies import blocks

YEARS = pd.date_range("2013-01-01", periods=10, freq="YS")


def cube(n_y=6, n_x=5, *, gaps=0.2, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 9, (10, n_y, n_x)).astype(np.float32)
    values[rng.random(values.shape) < gaps] = np.nan
    grid = GeoBox((n_y, n_x), Affine(30, 0, 300000, 0, -30, 600), "EPSG:32622")
    return wrap_xr(values, grid, time=YEARS).rename("ndvi").assign_attrs(source="a test")


def line(values, time=None):
    values = np.asarray(values)
    time = np.arange(2000, 2000 + values.size) if time is None else time
    return xr.DataArray(values, coords={"time": time}, dims="time", name="bsp")


def test_the_contract_of_names_types_and_coordinates():
    found = mann_kendall(cube())
    assert {n: str(v.dtype) for n, v in found.items()} == {v.name: v.dtype for v in TREND}
    assert all(found[v.name].attrs == v.attrs for v in TREND)
    assert found.sizes == {"y": 6, "x": 5}
    assert set(found.coords) == {"y", "x", "spatial_ref"}
    assert found.attrs == {}
    assert found.odc.geobox == cube().odc.geobox


def test_every_pixel_equals_pymannkendall():
    data = cube()
    found = mann_kendall(data, min_valid=2)
    for y in range(6):
        for x in range(5):
            expected = oracles.pymannkendall_original(data[:, y, x].values)
            pixel = {name: float(found[name][y, x]) for name in expected}
            assert pixel == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("dims", [("time", "y", "x"), ("x", "time", "y"), ("y", "x", "time")])
def test_the_order_of_dimensions_does_not_matter(dims):
    expected = mann_kendall(cube())
    xr.testing.assert_identical(mann_kendall(cube().transpose(*dims)).transpose("y", "x"), expected)


@given(
    st.tuples(*[st.integers(1, 6)] * 2),
    st.sampled_from([("time", "y", "x"), ("y", "x", "time")]),
    st.sampled_from(["normal", "exact"]),
)
def test_any_tiling_gives_the_same(tiles, dims, p_value):
    data = cube().transpose(*dims)
    lazy = mann_kendall(data.chunk(y=tiles[0], x=tiles[1]), p_value=p_value)
    assert all(v.chunks is not None for v in lazy.data_vars.values())
    expected = mann_kendall(data, p_value=p_value)
    xr.testing.assert_identical(lazy.compute(scheduler="sync"), expected)


def test_building_computes_nothing_and_promises_hold(no_compute):
    lazy = mann_kendall(cube().chunk(y=2))
    promised = {n: (v.dtype, v.shape) for n, v in lazy.items()}
    import dask

    with dask.config.set(scheduler="sync"):
        kept = {n: (v.dtype, v.shape) for n, v in lazy.compute().items()}
    assert kept == promised
    sen(cube().chunk(y=2))
    ndvi(xr.Dataset({"red": cube().chunk(y=2), "nir": cube().chunk(y=2)}))


def test_one_block_is_tested_once(monkeypatch):
    calls = []
    kernel = trends.monotone.mann_kendall
    monkeypatch.setattr(
        trends.monotone, "mann_kendall", lambda *a: calls.append(a[0].shape) or kernel(*a)
    )
    mann_kendall(cube().chunk(y=3, x=-1)).compute(scheduler="sync")
    assert calls == [(10, 15), (10, 15)]


def test_same_inputs_same_token_and_any_change_a_new_one():
    data = cube().chunk(y=2)
    names = [
        found.s.data.name
        for found in (
            mann_kendall(data),
            mann_kendall(data),
            mann_kendall(data + 1),
            mann_kendall(data, alpha=0.1),
            mann_kendall(data, min_valid=5),
            mann_kendall(data, p_value="exact"),
            mann_kendall(data.assign_coords(time=YEARS + pd.Timedelta("1D"))),
            mann_kendall(data.assign_attrs(nodata=3)),
        )
    ]
    assert names[0] == names[1]
    assert len(set(names)) == len(names) - 1


def test_tables_of_sites_and_single_series():
    table = cube()[:, :, 0].rename(y="site").transpose("site", "time")
    found = mann_kendall(table)
    assert found.sizes == {"site": 6}
    one = mann_kendall(table[2])
    assert one.sizes == {}
    xr.testing.assert_identical(one, found.isel(site=2))


@pytest.mark.parametrize(
    ("values", "trend"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1),
        ([0.5, 0.4, 0.3, 0.2, 0.1], -1),
        ([0.1, 0.2, 0.3, 0.5, 0.4], 0),
        ([0.1, 0.2, 0.3, 0.4], 0),  # four values cannot reach 0.05
        ([0.3] * 8, 0),
        ([0.1, 0.2, np.nan, np.nan, 0.3], 0),  # fewer than min_valid
    ],
)
def test_the_sign_of_the_trend(values, trend):
    assert mann_kendall(line(values)).trend == trend


def test_six_values_need_a_score_of_thirteen():
    rising = line([1.0, 2, 3, 4, 5, 6])
    assert (int(mann_kendall(rising).s), int(mann_kendall(rising).trend)) == (15, 1)
    once = line([2.0, 1, 3, 4, 5, 6])
    assert (int(mann_kendall(once).s), int(mann_kendall(once).trend)) == (13, 1)
    twice = line([2.0, 1, 4, 3, 5, 6])
    assert (int(mann_kendall(twice).s), int(mann_kendall(twice).trend)) == (11, 0)
    assert float(mann_kendall(once).p) == pytest.approx(0.0242, abs=1e-4)
    assert float(mann_kendall(twice).p) == pytest.approx(0.0603, abs=1e-4)


def test_alpha_decides_with_the_p_that_is_reported():
    y = line([0.1, 0.2, 0.3, 0.4])
    assert mann_kendall(y, p_value="normal", alpha=0.085).trend == 0
    assert mann_kendall(y, p_value="exact", alpha=0.085).trend == 1


def test_slopes_use_true_dates():
    dates = np.array(["1985-01-01", "1990-01-01", "1995-01-01", "2000-01-01", "2001-01-01"], "M8")
    found = mann_kendall(line([0.0, 5.0, 10.0, 15.0, 16.0], dates))
    assert (float(found.slope), float(found.intercept)) == (1.0, 0.0)


@given(blocks(max_time=7))
def test_sen_slope_is_that_of_the_test(block):
    data = xr.DataArray(block, coords={"time": np.arange(block.shape[0])}, dims=("time", "pixel"))
    found = sen(data)
    assert list(found) == ["slope", "intercept", "n"]
    xr.testing.assert_identical(found, mann_kendall(data, min_valid=2)[list(found)])


@pytest.mark.parametrize("key", ["_FillValue", "nodata"])
@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32"])
def test_a_fill_value_is_a_gap(key, dtype):
    filled = line(np.array([1, 2, 99, 4, 5], dtype)).assign_attrs({key: 99})
    expected = mann_kendall(line([1, 2, np.nan, 4, 5]))
    xr.testing.assert_identical(mann_kendall(filled), expected)


@pytest.mark.parametrize("key", ["_FillValue", "nodata"])
@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("uint8", -9999), ("uint8", 257), ("uint8", 1e40), ("int16", 1.5), ("int16", 65537),
        ("int64", 2.0**63), ("float32", 1e40), ("float32", "nan"), ("uint8", np.nan),
        ("int16", np.float32("inf")), ("uint8", " NaN "),
    ],
)  # fmt: skip
def test_a_fill_value_that_cannot_occur_is_ignored(key, dtype, fill):
    # wrapping around or cutting off would turn the fill values into 1 or 241
    values = line(np.array([1, 2, 241, 4, 5]).astype(dtype))
    filled = values.assign_attrs({key: fill})
    assert fill_value(filled) is None
    xr.testing.assert_identical(mann_kendall(filled), mann_kendall(values))


def test_the_other_attribute_counts_where_one_cannot_occur():
    assert fill_value(line(np.ones(3, "uint8")).assign_attrs(_FillValue=-1, nodata=255)) == 255


@pytest.mark.parametrize(
    "fill", [99, 99.0, np.uint8(99), "99", "99.0", [99], (99,), np.array([99]), np.array(99)]
)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_fill_value_is_read_however_it_is_written(dtype, fill):
    filled = line(np.array([1, 2, 99, 4, 5], dtype)).assign_attrs(nodata=fill)
    xr.testing.assert_identical(mann_kendall(filled), mann_kendall(line([1, 2, np.nan, 4, 5])))


@pytest.mark.parametrize("fill", ["none", "", [], [1, 2], (0, 255), {"value": 0}, [[1], [2, 3]]])
@pytest.mark.parametrize("key", ["_FillValue", "nodata"])
def test_a_fill_value_that_is_no_number_is_refused(key, fill):
    with pytest.raises(InputError, match=rf"attribute '{key}' of 'bsp' is .*give one number"):
        mann_kendall(line([1.0, 2.0, 3.0, 4.0]).assign_attrs({key: fill}))


def test_large_integers_and_rounded_floats_are_fill_values_too():
    least = np.iinfo("int64").min
    assert fill_value(line([1, least]).assign_attrs(nodata=least)) == least
    assert fill_value(line([1, 2]).assign_attrs(nodata=2**53 + 1)) == 2**53 + 1
    sparse = line(np.array([1, 2, -3.4e38, 4, 5], "float32")).assign_attrs(nodata=-3.4e38)
    assert mann_kendall(sparse).n == 4


def test_integers_are_numbers():
    counts = line(np.array([200, 100, 250, 10, 0], np.uint8))
    xr.testing.assert_identical(mann_kendall(counts), mann_kendall(counts.astype(float)))


def test_decimal_years():
    dates = pd.DatetimeIndex(["1985-01-01", "2000-01-01", "2001-07-02T12", "2000-12-31T12"])
    expected = [1985.0, 2000.0, 2001.5, 2000 + 365.5 / 366]
    for unit in ("s", "ms", "us", "ns"):
        assert decimal_years(dates.as_unit(unit)).tolist() == expected
    assert decimal_years(np.array(["1985", "0001"], "M8[Y]")).tolist() == [1985.0, 1.0]
    assert decimal_years(np.array(["1985-02"], "M8[M]")).tolist() == [1985 + 31 / 365]
    assert decimal_years([1985, 1990]).dtype == np.float64


@given(st.lists(st.integers(-(10**9), 10**9), min_size=2, max_size=20, unique=True))
def test_decimal_years_keep_the_order_of_dates(seconds):
    years = decimal_years(np.sort(np.array(seconds)).astype("M8[s]"))
    assert (np.diff(years) > 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "hamed_rao"}, "'hamed_rao' is not available"),
        ({"p_value": "guess"}, "'guess'"),
        ({"alpha": 5}, "alpha is 5"),
        ({"min_valid": 1}, "min_valid is 1"),
        ({"dim": "year"}, "no dimension 'year'"),
    ],
)
def test_bad_options_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        mann_kendall(cube(), **change)


def test_a_chunked_time_axis_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"'ndvi' has 2 chunks along 'time'.*chunk\(.*-1"):
        mann_kendall(cube().chunk(time=5))


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ([2000, 2001, 2001, 2002], "does not increase after 2001"),
        ([2000, 2002, 2001, 2003], "does not increase after 2002"),
        (np.array(["2000", "NaT", "2002", "2003"], "M8[s]"), "missing dates"),
        (list("abcd"), "no years"),
    ],
)
def test_a_bad_time_axis_is_refused(time, message):
    with pytest.raises(InputError, match=message):
        mann_kendall(line([1.0, 2.0, 3.0, 4.0], time))


def test_what_is_no_number_and_no_axis_is_refused():
    with pytest.raises(InputError, match="bool"):
        mann_kendall(line([True, False, True, True]))
    with pytest.raises(InputError, match="no dimension"):
        mann_kendall(line([1.0, 2.0]).drop_vars("time"))
    with pytest.raises(InputError, match="0 steps"):
        mann_kendall(line([1.0]).isel(time=slice(0)))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.astype(bool),
        lambda d: d.drop_vars("time"),
        lambda d: d.isel(time=slice(0)),
        lambda d: d.isel(time=[1, 0]),
        lambda d: d.chunk(time=1),
        lambda d: d.assign_attrs(nodata="none"),
    ],
)
def test_an_array_without_a_name_is_called_the_array(change):
    with pytest.raises(InputError, match=r"\bthe array\b") as caught:
        mann_kendall(change(line([1.0, 2.0]).rename(None)))
    assert "None" not in str(caught.value)


BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")


def image(seed=1):
    rng = np.random.default_rng(seed)
    bands = {b: (("y", "x"), rng.random((4, 5), np.float32), {"scale": 2}) for b in BANDS}
    return xr.Dataset(bands)


@pytest.mark.parametrize(
    ("index", "formula"),
    [
        (ndvi, lambda d: (d.nir - d.red) / (d.nir + d.red)),
        (ndwi, lambda d: (d.green - d.nir) / (d.green + d.nir)),
        (nbr, lambda d: (d.nir - d.swir22) / (d.nir + d.swir22)),
        (
            bare_soil_index,
            lambda d: (d.swir16 + d.red - d.nir - d.blue) / (d.swir16 + d.red + d.nir + d.blue),
        ),
    ],
)
def test_indices(index, formula):
    ds = image()
    found = index(ds)
    assert found.dtype == np.float32
    assert found.name in ("ndvi", "ndwi", "nbr", "bsi")
    assert set(found.attrs) == {"long_name", "units"}
    np.testing.assert_allclose(found, formula(ds.astype("float64")), atol=2e-6)
    lazy = index(ds.chunk(x=2))
    assert (lazy.chunks, lazy.dtype) == (((4,), (2, 2, 1)), np.float32)
    xr.testing.assert_identical(lazy.compute(scheduler="sync"), found)
    with pytest.raises(InputError, match="nir"):
        index(ds.drop_vars("nir"))


def test_an_index_without_light_or_observation_is_missing():
    ds = xr.Dataset({"red": ("x", [0.0, np.nan, -0.1]), "nir": ("x", [0.0, 0.2, 0.1])})
    assert np.isnan(ndvi(ds)).all()


def test_integer_bands_do_not_wrap_around():
    ds = xr.Dataset({"red": ("x", np.array([3000], "u2")), "nir": ("x", np.array([1000], "u2"))})
    assert ndvi(ds).values.tolist() == [-0.5]

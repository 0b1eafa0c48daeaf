"""Trends and spectral indices as xarray sees them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pymannkendall
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr
from scipy.stats import norm

import oracles
from minetrace.errors import InputError
from minetrace.kernels import monotone
from minetrace.schema import TREND, fill_value
from minetrace.trends import bare_soil_index, columns, decimal_years, mann_kendall, nbr, ndvi, ndwi
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
    kernel = monotone.mann_kendall
    monkeypatch.setattr(monotone, "mann_kendall", lambda *a: calls.append(a[0].shape) or kernel(*a))
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
        ({"method": "hamed"}, "'hamed' is not available"),
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


# ---- the family ----------------------------------------------------------------------

SERIAL = tuple(oracles.SERIAL)
QUARTERS = pd.date_range("2013-01-01", periods=10, freq="QS")
FAMILY = {
    "original": {},
    "hamed_rao": {"lag": 3},
    "yue_wang": {},
    "pre_whitening": {},
    "trend_free_pre_whitening": {},
    "seasonal": {"period": 2},
    "correlated_seasonal": {"period": 2},
    "partial": {},
}


def family(method, data, **more):
    """Result of a method with the options it needs."""
    options = FAMILY[method] | more
    if method in ("seasonal", "correlated_seasonal"):
        data = data.assign_coords(time=2000 + np.arange(data.sizes["time"]) / options["period"])
    if method == "partial":
        options["covariate"] = data.isel(y=0, x=0, drop=True).fillna(4) ** 2
    return mann_kendall(data, method=method, **options)


@pytest.mark.parametrize("method", FAMILY)
def test_every_method_keeps_the_contract(method):
    found = family(method, cube(3, 2))
    assert {n: str(v.dtype) for n, v in found.items()} == {v.name: v.dtype for v in TREND}
    assert all(found[v.name].attrs == v.attrs for v in TREND)
    assert found.sizes == {"y": 3, "x": 2}
    assert found.odc.geobox == cube(3, 2).odc.geobox


@pytest.mark.parametrize("method", FAMILY)
@given(st.tuples(*[st.integers(1, 6)] * 2))
def test_any_tiling_gives_the_same_by_every_method(method, tiles):
    data = cube(4, 3, gaps=0.05)
    lazy = family(method, data.chunk(y=tiles[0], x=tiles[1]))
    assert all(v.chunks is not None for v in lazy.data_vars.values())
    xr.testing.assert_identical(lazy.compute(scheduler="sync"), family(method, data))


def test_building_any_method_computes_nothing(no_compute):
    data = cube().chunk(y=2)
    names = {family(method, data).s.data.name for method in FAMILY}
    names |= {mann_kendall(data, method=m, over="x").s.data.name for m in ("regional",)}
    assert len(names) == len(FAMILY) + 1
    assert sen(data, confidence=0.9).slope_low.chunks


@pytest.mark.parametrize("method", SERIAL)
def test_serial_methods_equal_pymannkendall_pixel_by_pixel(method):
    rng = np.random.default_rng(3)
    values = np.cumsum(rng.normal(size=(10, 3, 4)), axis=0)
    data = xr.DataArray(values, {"time": YEARS.year}, ("time", "y", "x"))
    found = mann_kendall(data, method=method)
    for y, x in np.ndindex(3, 4):
        expected = oracles.pymannkendall_results(oracles.SERIAL[method](values[:, y, x]))
        expected |= {} if expected["var_s"] > 0 else {"z": np.nan, "p": np.nan}
        pixel = {name: float(found[name][y, x]) for name in expected}
        assert pixel == pytest.approx(expected, rel=1e-10, abs=1e-12, nan_ok=True)


def test_a_variance_below_zero_is_no_trend():
    found = mann_kendall(line([0.0, 5, 1, 6, 2, 7, 3, 8, 4, 9]), method="yue_wang", lag=1)
    assert (found.var_s < 0, found.s > 0, found.trend) == (True, True, 0)
    assert np.isnan([found.z, found.p]).all()


def test_the_level_of_significance_decides_which_lags_count():
    rng = np.random.default_rng(1)
    data = line(np.cumsum(rng.normal(size=30)))
    strict, loose = (mann_kendall(data, method="hamed_rao", alpha=a) for a in (0.001, 0.5))
    assert strict.var_s != loose.var_s
    result = pymannkendall.hamed_rao_modification_test(data.values, alpha=0.5)
    assert float(loose.var_s) == pytest.approx(result.var_s, rel=1e-12)


def test_months_are_the_seasons_unless_said_otherwise():
    months = pd.date_range("2015-01-15", periods=50, freq=pd.DateOffset(months=1))
    values = np.random.default_rng(2).integers(0, 30, 50).astype(np.uint8)
    found = mann_kendall(line(values, months).assign_attrs(nodata=7), method="seasonal")
    gappy = np.where(values == 7, np.nan, values)
    expected = oracles.pymannkendall_results(pymannkendall.seasonal_test(gappy, 12))
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected, rel=1e-12)
    assert mann_kendall(line(values, months), method="seasonal", period=24).s != found.s


@pytest.mark.parametrize("method", ["regional", "multivariate"])
def test_locations_are_tested_together(method):
    data = cube(4, 3)
    found = mann_kendall(data, method=method, over="y")
    assert found.sizes == {"x": 3}
    for x in range(3):
        table = data[:, :, x].values
        result = pymannkendall.multivariate_test(table)
        column = {name: float(found[name][x]) for name in ("s", "var_s", "z", "p", "tau", "slope")}
        expected = oracles.pymannkendall_results(result)
        # pymannkendall has all locations in one row of steps, so location i stands i / 4 late
        del expected["intercept"]
        assert column == pytest.approx(expected, rel=1e-10)
        assert found.n[x] == np.isfinite(table).sum()
        years = decimal_years(YEARS)
        when = np.broadcast_to(years[:, None] - years[0], table.shape)[np.isfinite(table)]
        middle = np.nanmedian(table) - np.median(when) * column["slope"]
        assert float(found.intercept[x]) == pytest.approx(middle)
    tall = mann_kendall(data.transpose("x", "time", "y"), method=method, over="y")
    xr.testing.assert_identical(tall, found)


def test_one_location_is_the_original_test():
    data = cube(1, 3)
    found = mann_kendall(data, method="regional", over="y")
    xr.testing.assert_allclose(found, mann_kendall(data.isel(y=0, drop=True)), rtol=1e-12)


def test_correlated_seasons_equal_pymannkendall():
    rng = np.random.default_rng(4)
    values = np.round(rng.normal(size=30) + np.arange(30) / 8, 1)
    values[[3, 17]] = np.nan
    found = mann_kendall(line(values, 2000 + np.arange(30) / 4), method="correlated_seasonal",
                         period=4)  # fmt: skip
    expected = oracles.pymannkendall_results(pymannkendall.correlated_seasonal_test(values, 4))
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected, rel=1e-10)
    assert found.n == 28


def test_correlated_seasons_need_two_whole_years():
    values = np.arange(8.0)
    values[5] = np.nan
    found = mann_kendall(line(values, 2000 + np.arange(8) / 4), method="correlated_seasonal",
                         period=4)  # fmt: skip
    assert (float(found.slope), int(found.n), int(found.trend)) == (4.0, 7, 0)
    assert np.isnan([found.s, found.var_s, found.z, found.p, found.tau]).all()


def test_partial_test_equals_pymannkendall():
    rng = np.random.default_rng(6)
    table = np.cumsum(rng.normal(size=(12, 2)), axis=0)
    table[4, 1] = np.nan
    data, covariate = line(table[:, 0]), line(table[:, 1])
    found = mann_kendall(data, method="partial", covariate=covariate)
    expected = oracles.pymannkendall_results(pymannkendall.partial_test(table))
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected, rel=1e-10)
    assert found.n == 11
    wide = mann_kendall(data.expand_dims(y=3), method="partial", covariate=covariate)
    assert wide.sizes == {"y": 3}
    assert (wide.s == found.s).all()
    few = mann_kendall(data, method="partial", covariate=covariate.where(covariate.time < 2003))
    assert (int(few.n), int(few.trend)) == (3, 0)
    assert np.isnan([few.s, few.p, few.slope]).all()


def test_infinities_and_fill_values_are_gaps_of_the_rarer_tests():
    values = np.array([1, 4, 99, 2, 6, 5, 9, 7], float)
    marked, gappy = (
        line(values).assign_attrs(nodata=99),
        line(np.where(values == 99, np.inf, values)),
    )
    other = line(np.arange(8.0) ** 2)
    for options in ({"method": "partial", "covariate": other},
                    {"method": "correlated_seasonal", "period": 2}):  # fmt: skip
        axis = {"time": 2000 + np.arange(8) / options.get("period", 1)}
        options = {k: v.assign_coords(axis) if k == "covariate" else v for k, v in options.items()}
        a, b = (mann_kendall(d.assign_coords(axis), **options) for d in (marked, gappy))
        xr.testing.assert_identical(a, b)
        assert (int(a.n), bool(np.isfinite(a.s))) == (7, True)


@pytest.mark.parametrize("method", ["regional", "correlated_seasonal"])
def test_alpha_decides_where_pymannkendall_forgets_it(method):
    rng = np.random.default_rng(8)
    table = rng.normal(size=(8, 3)) + np.arange(8)[:, None] * 0.3
    if method == "regional":
        data = xr.DataArray(table, {"time": np.arange(8)}, ("time", "site"))
        options = {"over": "site"}
        result = pymannkendall.regional_test(table, alpha=1e-6)
    else:
        data, options = line(table.ravel(), np.arange(24) / 3), {"period": 3}
        result = pymannkendall.correlated_seasonal_test(table.ravel(), 3, alpha=1e-6)
    assert (result.trend, result.p > 1e-6) == ("increasing", True)
    assert mann_kendall(data, method=method, **options).trend == 1
    assert mann_kendall(data, method=method, alpha=1e-6, **options).trend == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "yue_wang", "p_value": "exact"}, "'exact' is for the method 'original'"),
        ({"lag": 3}, "lag is an option of .*'hamed_rao', 'yue_wang'.* not of .*'original'"),
        ({"method": "regional", "period": 4, "over": "y"}, "period is an option of .*'seasonal'"),
        ({"method": "seasonal", "over": "y"}, "over is an option of .*'regional'"),
        ({"method": "regional"}, "'regional' needs over="),
        ({"method": "partial"}, "'partial' needs covariate="),
        ({"method": "hamed_rao", "lag": 0}, "lag is 0"),
        ({"method": "hamed_rao", "lag": 1.5}, "lag is 1.5"),
        ({"method": "seasonal", "period": 0}, "period is 0"),
        ({"method": "correlated_seasonal", "period": 1}, "one season has nothing"),
        ({"method": "regional", "over": "time"}, "over is 'time'; name another"),
        ({"method": "regional", "over": "site"}, "over is 'site'; name another"),
    ],
)
def test_options_of_other_methods_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        mann_kendall(cube(), **options)


def test_what_is_tested_together_must_be_whole_and_not_too_much():
    with pytest.raises(InputError, match=r"2 chunks along 'y'.*chunk\(.*-1"):
        mann_kendall(cube().chunk(y=3), method="regional", over="y")
    long = xr.DataArray(np.zeros((10, 3300), "u1"), {"time": YEARS}, ("time", "site"))
    with pytest.raises(InputError, match=r"3300 × 10 values .*up to 32767"):
        mann_kendall(long, method="regional", over="site")


def test_two_values_in_one_season_are_refused():
    with pytest.raises(InputError, match="lie in one of 1 seasons a year"):
        mann_kendall(line(np.arange(10.0), QUARTERS), method="seasonal", period=1)


def test_a_covariate_on_another_axis_is_refused():
    data = line(np.arange(10.0))
    shifted = data.assign_coords(time=data.time + 1)
    with pytest.raises(InputError, match=r"covariate 'bsp' and 'bsp' have other coordinates"):
        mann_kendall(data, method="partial", covariate=shifted)
    with pytest.raises(InputError, match="bool"):
        mann_kendall(data, method="partial", covariate=data > 3)


def test_confidence_limits_enclose_the_slope():
    found = sen(cube(gaps=0.05), confidence=0.9)
    assert list(found) == ["slope", "intercept", "n", "slope_low", "slope_high"]
    assert found.slope_low.attrs["units"] == "year-1"
    xr.testing.assert_identical(found[["slope", "intercept", "n"]], sen(cube(gaps=0.05)))
    assert (found.slope_low <= found.slope).all()
    assert (found.slope <= found.slope_high).all()
    narrow = sen(cube(gaps=0.05), confidence=0.5)
    assert (narrow.slope_low >= found.slope_low).all()
    assert (narrow.slope_high < found.slope_high).any()
    lazy = sen(cube(gaps=0.05).chunk(y=2), confidence=0.9)
    xr.testing.assert_identical(lazy.compute(scheduler="sync"), found)


def test_the_limits_are_those_of_the_kernel_at_the_normal_quantile():
    data = line(np.random.default_rng(7).normal(size=20))
    low, high = monotone.sen_interval(data.values[:, None], data.time.values.astype(float),
                                      norm.ppf(0.975))  # fmt: skip
    found = sen(data, confidence=0.95)
    assert (float(found.slope_low), float(found.slope_high)) == (low[0], high[0])


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_is_a_share(confidence):
    with pytest.raises(InputError, match=f"confidence is {confidence}"):
        sen(cube(), confidence=confidence)


# ---- blocks as columns ---------------------------------------------------------------


def seen_by_the_kernel(monkeypatch, data, **options):
    """Arrays that reach the kernel."""
    seen = []
    kernel = monotone.mann_kendall
    monkeypatch.setattr(monotone, "mann_kendall", lambda *a: seen.append(a[0]) or kernel(*a))
    mann_kendall(data, **options)
    return seen


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_time_first_floats_reach_the_kernel_without_a_copy(monkeypatch, dtype):
    data = cube().astype(dtype)
    (columns,) = seen_by_the_kernel(monkeypatch, data)
    assert np.shares_memory(columns, data.values)
    assert (columns.shape, columns.dtype) == ((10, 30), dtype)


@pytest.mark.parametrize(
    ("dtype", "kernel_dtype"),
    [
        ("int8", "f4"), ("uint8", "f4"), ("int16", "f4"), ("uint16", "f4"), ("float16", "f4"),
        (">f4", "f4"), ("int32", "f8"), ("uint32", "f8"), ("int64", "f8"), ("uint64", "f8"),
        (">f8", "f8"),
    ],
)  # fmt: skip
def test_other_types_are_converted_exactly(monkeypatch, dtype, kernel_dtype):
    data = cube(gaps=0).astype(dtype)
    expected = mann_kendall(data.astype("f8"))
    (columns,) = seen_by_the_kernel(monkeypatch, data)
    assert columns.dtype == kernel_dtype
    xr.testing.assert_identical(mann_kendall(data), expected)


@pytest.mark.parametrize("shape", [(3, 7), (1, 21), (21, 1), (7, 3)])
@pytest.mark.parametrize("time", [0, 1, 2])
def test_copies_are_made_in_groups_that_leave_no_seam(monkeypatch, shape, time):
    monkeypatch.setattr(columns, "GROUP", 5)
    values = np.random.default_rng(9).integers(0, 90, (10, *shape)).astype(np.int16)
    data = xr.DataArray(values, {"time": YEARS}, ("time", "y", "x"))
    expected = mann_kendall(data.astype("f4"))
    dims = [d for d in data.dims if d != "time"]
    dims.insert(time, "time")
    other = data.transpose(*dims).copy()
    seen = seen_by_the_kernel(monkeypatch, other)
    assert max(a.shape[1] for a in seen) <= 5
    assert sum(a.shape[1] for a in seen) == 21
    xr.testing.assert_identical(mann_kendall(other), expected)


def test_what_may_not_be_written_is_copied_and_stays_as_it_was(monkeypatch):
    data = cube()
    data.values.flags.writeable = False
    (columns,) = seen_by_the_kernel(monkeypatch, data)
    assert columns.flags.writeable
    assert not np.shares_memory(columns, data.values)


@pytest.mark.parametrize("method", ["original", "yue_wang", "pre_whitening", "seasonal"])
@pytest.mark.parametrize("shape", [(0, 5), (1, 1), ()])
def test_no_pixel_one_pixel_one_series(method, shape):
    values = np.full((10, *shape), 2.0) + np.arange(10.0).reshape(-1, *[1] * len(shape))
    data = xr.DataArray(values, {"time": YEARS.year}, ("time", *["y", "x"][: len(shape)]))
    found = mann_kendall(data, method=method)
    assert found.slope.shape == shape
    assert (found.slope == 1).all()


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_extra_memory_is_below_half_of_the_data(dtype):
    values = np.random.default_rng(0).integers(0, 99, (40, 640, 640)).astype(dtype)
    data = xr.DataArray(values, {"time": np.arange(40)}, ("time", "y", "x"))
    mann_kendall(data[:, :2])
    tracemalloc.start()
    found = mann_kendall(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - found.nbytes < 0.5 * data.nbytes


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

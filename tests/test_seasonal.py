"""Seasonal Mann-Kendall test and seasonal Sen's slope."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pymannkendall
import pytest
import rasterio
from hypothesis import assume, given
from hypothesis import strategies as st

import oracles
from minetrace.errors import InputError
from minetrace.kernels import monotone
from minetrace.kernels.seasonal import seasonal_mann_kendall
from minetrace.trends.axis import decimal_years, locations, seasons
from plain import without_compiler
from strategies import numbers, uneven_years

NAN = np.nan


def run(y, groups, *, min_valid=2):
    """Statistics of one series as a dict."""
    values, n = seasonal_mann_kendall(np.asarray(y)[:, None], *groups, min_valid)
    return {**dict(zip(monotone.STATISTICS, values[:, 0].tolist(), strict=True)), "n": int(n[0])}


@st.composite
def regular(draw):
    """A regular series with gaps and ties, and its period."""
    period = draw(st.integers(1, 5))
    y = np.array(draw(st.lists(st.one_of(numbers(), st.just(NAN)), min_size=3, max_size=30)))
    groups = seasons(2000 + np.arange(y.size) / period, period)
    assume(np.isfinite(run(y, groups)["slope"]))
    return y, period, groups


@given(regular())
def test_regular_series_equal_pymannkendall(drawn):
    y, period, groups = drawn
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore")  # seasons without values
        result = pymannkendall.seasonal_test(y, period)
    found, expected = run(y, groups), oracles.pymannkendall_results(result)
    assert found["n"] == np.isfinite(y).sum()
    assert found["p"] == pytest.approx(expected.pop("p"), abs=1e-12)
    assert {name: found[name] for name in expected} == expected


@st.composite
def dated(draw):
    """Series with gaps, infinities and missing steps, their season and their year."""
    period = draw(st.integers(1, 4))
    steps = sorted(draw(st.sets(st.integers(0, 24), min_size=2, max_size=16)))
    elements = st.one_of(numbers(), st.sampled_from([NAN, np.inf, -np.inf]))
    y = draw(st.lists(elements, min_size=len(steps), max_size=len(steps)))
    groups = seasons(1990.5 + np.array(steps) / period, period)
    assume(np.isfinite(run(y, groups)["slope"]))
    place = np.array(steps) - steps[0]
    return np.array(y), place % period, place // period, groups


@given(dated())
def test_missing_steps_are_gaps(drawn):
    y, season, cycle, groups = drawn
    found = run(y, groups)
    expected = oracles.seasonal_by_hand(y.tolist(), season.tolist(), cycle.tolist())
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-14)
    valid = np.isfinite(y)
    place = (season + cycle * groups.period)[valid]
    middle = np.median(y[valid]) - np.median(place) / groups.period * expected["slope"]
    assert found["intercept"] == pytest.approx(middle, rel=1e-12, abs=1e-6)


@given(st.data())
def test_one_group_is_the_test_of_the_whole(data):
    y = np.array(data.draw(st.lists(st.one_of(numbers(), st.just(NAN)), min_size=2, max_size=14)))
    t = data.draw(uneven_years(y.size))
    found = run(y, locations(t, 1))
    values, n = monotone.mann_kendall(y[:, None], t, 2, False)
    whole = dict(zip(monotone.STATISTICS, values[:, 0].tolist(), strict=True))
    assert found.pop("n") == n[0]
    assert found.pop("intercept") == pytest.approx(whole.pop("intercept"), rel=1e-12, abs=1e-6,
                                                   nan_ok=True)  # fmt: skip
    assert found == pytest.approx(whole, rel=1e-15, nan_ok=True)


@given(regular())
def test_time_reversal_flips_every_sign(drawn):
    y, period, _ = drawn
    y = np.concatenate([y, np.full(-y.size % period, NAN)])
    groups = seasons(2000 + np.arange(y.size) / period, period)
    forwards, backwards = run(y, groups), run(y[::-1].copy(), groups)
    for name in ("s", "z", "tau", "slope"):
        assert backwards[name] == -forwards[name]
    assert backwards["p"] == forwards["p"]
    assert backwards["var_s"] == pytest.approx(forwards["var_s"], rel=1e-14)


@given(regular(), st.integers(-1000, 1000))
def test_each_season_may_have_its_own_level(drawn, level):
    y, period, groups = drawn
    y = np.round(y)
    lifted = run(y + level * (np.arange(y.size) % period), groups)
    base = run(y, groups)
    for name in ("s", "var_s", "z", "p", "tau", "slope", "n"):
        assert lifted[name] == base[name]


@given(regular())
def test_only_the_order_of_values_enters_the_test(drawn):
    y, _, groups = drawn
    stretched, base = run(np.sign(y) * y**2, groups), run(y, groups)
    for name in ("s", "var_s", "z", "p", "tau", "n"):
        assert stretched[name] == base[name]


@given(regular(), st.integers(1, 5))
def test_pixels_do_not_know_each_other_and_float32_is_enough(drawn, n_pixel):
    y, _, groups = drawn
    block = np.stack([np.roll(y, k) for k in range(n_pixel)], axis=1).astype(np.float32)
    whole, n = seasonal_mann_kendall(block, *groups, 2)
    for i in range(n_pixel):
        alone, n_alone = seasonal_mann_kendall(block[:, i : i + 1].astype(float), *groups, 2)
        np.testing.assert_array_equal(whole[:, i : i + 1], alone)
        assert n[i] == n_alone[0]


def test_too_few_values_and_none_that_can_be_compared():
    groups = seasons(2000 + np.arange(8) / 4, 4)
    for y, n in (([NAN] * 8, 0), ([1.0] + [NAN] * 7, 1), ([1.0, 2, 3, 4] + [NAN] * 4, 4)):
        found = run(y, groups)
        assert found.pop("n") == n
        assert np.isnan(list(found.values())).all()
    y = [1.0, NAN, NAN, NAN, 3.0, NAN, NAN, NAN]
    assert run(y, groups)["slope"] == 2.0
    assert np.isnan(run(y, groups, min_valid=3)["s"])


def test_constant_series():
    found = run([3.0] * 9, seasons(2000 + np.arange(9) / 3, 3))
    assert found == {"s": 0, "var_s": 0, "z": 0, "p": 1, "tau": 0, "slope": 0, "intercept": 3,
                     "n": 9}  # fmt: skip


@pytest.mark.parametrize("first", ["2012-01-01", "2012-01-16", "2011-08-31", "2012-02-29"])
def test_months_are_seasons_wherever_in_the_month_the_dates_lie(first):
    start = np.datetime64(first)
    months = np.arange(start.astype("M8[M]"), start.astype("M8[M]") + 61)
    day = (start - start.astype("M8[M]")).astype(int)
    last = ((months + 1).astype("M8[D]") - months.astype("M8[D]")).astype(int) - 1
    groups = seasons(decimal_years(months.astype("M8[D]") + np.minimum(day, last)), 12)
    np.testing.assert_array_equal(groups.positions, np.arange(61))


@pytest.mark.parametrize(("days", "period"), [(16, 23), (8, 46)])
def test_composites_that_begin_anew_each_year_are_seasons(days, period):
    starts = np.arange("2001", "2006", dtype="M8[Y]").astype("M8[D]")
    dates = (starts[:, None] + days * np.arange(period)).ravel()
    for first in (0, 1, period - 1):
        groups = seasons(decimal_years(dates[first:]), period)
        np.testing.assert_array_equal(groups.positions, np.arange(dates.size - first))


def test_two_values_in_one_season_are_refused():
    with pytest.raises(InputError, match=r"steps 1 and 2 .*2000\.2500.*one of 4 seasons"):
        seasons(np.array([2000.0, 2000.25, 2000.3, 2000.5]), 4)


def some_results():
    rng = np.random.default_rng(5)
    y = rng.integers(0, 6, (14, 4)).astype(float)
    y[rng.random(y.shape) < 0.3] = NAN
    y[1:, 3] = NAN
    return seasonal_mann_kendall(y, *seasons(2000 + np.arange(14) / 4, 4), 2)


def test_the_kernel_is_plain_python_too(tmp_path):
    for compiled, plain in zip(
        some_results(), without_compiler(some_results, tmp_path), strict=True
    ):
        np.testing.assert_array_equal(compiled, plain)


@pytest.mark.real
def test_reference_case_checked_against_r(real_data):
    path = real_data("raster/oracle_mannkendall/pymannkendall/reference_cases.json")
    cases = json.loads(path.read_text())
    y = np.array(cases["data"]["arbitrary_1d_data"], float)
    found = run(y, seasons(1990 + np.arange(y.size) / 12, 12))
    test = cases["expected"]["test_seasonal_test"]["asserts"]
    slope = cases["expected"]["test_seasonal_sens_slope"]["asserts"]
    assert (found["s"], found["slope"]) == (test["result.s"], slope["result.slope"])
    assert found["var_s"] == pytest.approx(test["result.var_s"], rel=1e-14)
    for name, its in (("z", "z"), ("p", "p"), ("tau", "Tau")):
        assert found[name] == pytest.approx(test[f"result.{its}"], rel=1e-12)
    assert found["intercept"] == pytest.approx(slope["result.intercept"], rel=1e-12)


@pytest.mark.real
def test_monthly_lights_of_new_york_equal_pymannkendall(real_data):
    oracle = real_data(
        "raster/oracle_mannkendall/nyc_ntl_rows40_60_cols50_80_pymannkendall_seasonal12.npz"
    )
    with rasterio.open(real_data("raster/usflite_blackmarble_nyc/nightlights.tif")) as source:
        lights = source.read()[:, 40:60, 50:80]
    months = np.arange("2012-01", "2022-01", dtype="M8[M]")
    groups = seasons(decimal_years(months), 12)
    # the oracle leaves out what was seen in less than half of the months
    values, _ = seasonal_mann_kendall(lights.reshape(120, -1).copy(), *groups, 60)
    with np.load(oracle) as expected:
        for name, found in zip(monotone.STATISTICS, values, strict=True):
            if name in ("p", "tau"):
                np.testing.assert_allclose(found, expected[name].ravel(), rtol=1e-14, atol=1e-12)
            else:
                np.testing.assert_array_equal(found, expected[name].ravel(), err_msg=name)

"""Mann-Kendall tests of serially correlated series, beside pymannkendall and the formulas."""

from __future__ import annotations

import csv
import json

import numpy as np
import pymannkendall
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import norm

import oracles
from minetrace.kernels import monotone, normal, serial
from minetrace.trends import methods
from plain import without_compiler
from strategies import series, uneven_years

NAN = np.nan
WHITENING = ("pre_whitening", "trend_free_pre_whitening")
HAMED_RAO_3 = "hamed_rao_modification_test_lag3"
BOUND = float(norm.ppf(0.975))


def run(y, method, t=None, *, lag=None, min_valid=2, bound=BOUND):
    """Statistics of every column of ``y`` (one series: as a dict)."""
    y = np.asarray(y)
    columns = y[:, None] if y.ndim == 1 else y
    years = 1985.0 + np.arange(len(y)) if t is None else t
    common = {"years": years, "min_valid": min_valid}
    if method in ("hamed_rao", "yue_wang"):
        ranked = method == "hamed_rao"
        values, n = methods.wider_variance(
            columns, lags=lag or len(y), ranked=ranked, bound=bound, **common
        )
    else:
        trend_free = method == "trend_free_pre_whitening"
        values, n = methods.whitened(columns, trend_free=trend_free, **common)
    if y.ndim == 2:
        return values, n
    return {**dict(zip(monotone.STATISTICS, values[:, 0].tolist(), strict=True)), "n": int(n[0])}


@st.composite
def memories(draw, *, min_size=4, max_size=40):
    """Series with memory, a trend and sometimes ties."""
    n = draw(st.integers(min_size, max_size))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    memory, trend = (
        draw(st.sampled_from([-0.6, 0.0, 0.5, 0.9])),
        draw(st.sampled_from([0, 0.1, -1])),
    )
    noise = rng.normal(size=n)
    for k in range(1, n):
        noise[k] += memory * noise[k - 1]
    y = noise + trend * np.arange(n)
    return np.round(y, 1) if draw(st.booleans()) else y


def has_near_ties(x):
    """Values that rounding alone may order: S is not determined then."""
    steps = np.diff(np.sort(x))
    return bool((steps < 1e-9 * (1 + np.abs(x).max())).any())


def assert_equal(found, expected):
    for name in ("s", "slope", "intercept", "tau"):
        assert found[name] == expected[name], name
    assert found["var_s"] == pytest.approx(expected["var_s"], rel=1e-12, abs=1e-9)
    if expected["var_s"] > 1:
        assert found["z"] == pytest.approx(expected["z"], rel=1e-11)
        assert found["p"] == pytest.approx(expected["p"], abs=1e-12)


@pytest.mark.parametrize("lag", [None, 1, 3])
@pytest.mark.parametrize("method", ["hamed_rao", "yue_wang"])
@given(y=memories())
def test_wider_variance_equals_pymannkendall(method, lag, y):
    assume(lag is None or lag < y.size)
    assume(np.ptp(y - np.arange(y.size) * run(y, method)["slope"]) > 1e-9)
    with np.errstate(invalid="ignore", divide="ignore"):
        result = oracles.SERIAL[method](y, lag=lag)
    assert_equal(run(y, method, lag=lag), oracles.pymannkendall_results(result))


@pytest.mark.parametrize("method", WHITENING)
@given(y=memories())
def test_whitening_equals_pymannkendall(method, y):
    slope = run(y, method)["slope"] if method.startswith("trend") else None
    x = oracles.whitened_by_hand(y, np.arange(y.size), slope)
    assume(not has_near_ties(x))
    assert_equal(run(y, method), oracles.pymannkendall_results(oracles.SERIAL[method](y)))


@st.composite
def gappy(draw):
    """A series with memory and gaps, on uneven dates."""
    y = draw(memories(min_size=8))
    for hole in draw(st.sets(st.integers(0, y.size - 1), max_size=4)):
        y[hole] = draw(st.sampled_from([NAN, np.inf, -np.inf]))
    return y, draw(uneven_years(y.size))


@pytest.mark.parametrize("method", ["hamed_rao", "yue_wang"])
@given(gappy(), st.sampled_from([1, 2, 99]))
def test_wider_variance_takes_the_line_off_on_true_dates(method, drawn, lags):
    y, t = drawn
    plain = oracles.mann_kendall_by_hand(y, t)
    factor = oracles.variance_factor_by_hand(y, t, plain["slope"], method, lags, BOUND)
    found = run(y, method, t, lag=lags)
    assert found["var_s"] == pytest.approx(plain["var_s"] * factor, rel=1e-9, abs=1e-7)
    assert (found["s"], found["slope"], found["n"]) == (plain["s"], plain["slope"], plain["n"])


@pytest.mark.parametrize("method", WHITENING)
@given(gappy())
def test_whitening_takes_the_line_off_on_true_dates(method, drawn):
    y, t = drawn
    plain = oracles.mann_kendall_by_hand(y, t)
    x = oracles.whitened_by_hand(y, t, plain["slope"] if method.startswith("trend") else None)
    assume(not has_near_ties(x))
    expected = oracles.mann_kendall_by_hand(x, range(len(x)))
    found = run(y, method, t)
    for name in ("s", "var_s", "z", "tau"):
        assert found[name] == expected[name]
    assert found["p"] == pytest.approx(expected["p"], rel=1e-12)
    assert (found["slope"], found["n"]) == (plain["slope"], plain["n"])


def test_a_line_with_a_gap_has_no_memory_left():
    years = np.arange(2000.0, 2012.0)
    y = 2 * (years - 2000) + 1
    y[4:7] = NAN
    plain, found = run_plain(y, years), run(y, "hamed_rao", years)
    assert (found["var_s"], found["z"]) == (plain["var_s"], plain["z"])
    # pymannkendall counts the values through and takes off a line per step of the whole axis
    assert pymannkendall.hamed_rao_modification_test(y).var_s > 1.5 * plain["var_s"]


def run_plain(y, t):
    values, _ = monotone.mann_kendall(np.asarray(y)[:, None], t, 2, False)
    return dict(zip(monotone.STATISTICS, values[:, 0].tolist(), strict=True))


@pytest.mark.parametrize("method", oracles.SERIAL)
@pytest.mark.parametrize("value", [3.0, 0.1])
def test_constant_series(method, value):
    found = run([value, value, NAN, value, value, value], method)
    assert found == {"s": 0, "var_s": 0, "z": 0, "p": 1, "tau": 0, "slope": 0, "intercept": value,
                     "n": 5}  # fmt: skip


@pytest.mark.parametrize("method", ["hamed_rao", "yue_wang", "trend_free_pre_whitening"])
def test_an_exact_line_is_a_trend_without_memory(method):
    n = 20 - (method == "trend_free_pre_whitening")
    found = run(np.arange(20.0), method)
    assert (found["s"], found["var_s"]) == (n * (n - 1) / 2, n * (n - 1) * (2 * n + 5) / 18)


def test_equal_values_have_no_memory_though_their_mean_is_rounded():
    # sums of these pass 2**53, so the mean is not the value
    y = 2.0**52 + 3 + np.arange(11.0)
    years, slope = 2000 + np.arange(11.0), np.array([1.0])
    factor = serial.variance_factor(y[:, None], years, slope, 11, False, BOUND)
    assert factor[0] == 1


@pytest.mark.parametrize("method", oracles.SERIAL)
def test_short_series(method):
    two, three = run([1.0, 2.0, NAN], method), run([1.0, 2.0, 4.0], method)
    assert (two["slope"], two["intercept"], two["n"]) == (1, 1, 2)
    assert three["s"] == (1 if method in WHITENING else 3)
    if method != "yue_wang":
        assert np.isnan([two["z"], two["p"]]).all()
    for y in ([NAN] * 3, [1.0, NAN, NAN]):
        found = run(y, method)
        assert found.pop("n") == np.isfinite(y).sum()
        assert np.isnan(list(found.values())).all()
    found = run([1.0, 2.0, 4.0], method, min_valid=4)
    assert found.pop("n") == 3
    assert np.isnan(list(found.values())).all()


def test_a_variance_below_zero_is_reported_and_decides_nothing():
    y = np.array([0.0, 5, 1, 6, 2, 7, 3, 8, 4, 9])
    found = run(y, "yue_wang", lag=1)
    assert found["s"] > 0 > found["var_s"]
    assert np.isnan([found["z"], found["p"]]).all()


def test_the_approximation():
    statistics = np.full((7, 5), NAN)
    statistics[normal.S] = [3, -3, 0, 3, NAN]
    statistics[normal.VAR_S] = [4, 4, -1, 0, NAN]
    normal.approximate(statistics, 1.0)
    np.testing.assert_array_equal(statistics[normal.Z], [1, -1, 0, NAN, NAN])
    p = 2 * norm.sf(1)
    np.testing.assert_allclose(statistics[normal.P], [p, p, 1, NAN, NAN], rtol=1e-14)
    normal.approximate(statistics, 0.0)
    np.testing.assert_array_equal(statistics[normal.Z], [1.5, -1.5, 0, NAN, NAN])


def test_the_places_of_the_statistics_are_those_of_their_names():
    assert [name.lower() for name in ("S", "VAR_S", "Z", "P", "TAU", "SLOPE", "INTERCEPT")] == list(
        monotone.STATISTICS
    )
    places = (normal.S, normal.VAR_S, normal.Z, normal.P, normal.TAU, normal.SLOPE)
    assert (*places, normal.INTERCEPT) == tuple(range(7))


@pytest.mark.parametrize("method", oracles.SERIAL)
@pytest.mark.parametrize("n_pixel", [1, serial.LANES, serial.LANES + 1, 2 * serial.LANES + 3])
def test_pixels_do_not_know_each_other(method, n_pixel):
    rng = np.random.default_rng(n_pixel)
    block = np.round(np.cumsum(rng.normal(size=(12, n_pixel)), axis=0), 1)
    block[rng.random(block.shape) < 0.2] = NAN
    whole, n = run(block, method)
    for i in {0, n_pixel // 2, n_pixel - 3, n_pixel - 1} & set(range(n_pixel)):
        alone, n_alone = run(block[:, i : i + 1].copy(), method)
        np.testing.assert_array_equal(whole[:, i : i + 1], alone)
        assert n[i] == n_alone[0]


def test_no_pixels():
    for method in oracles.SERIAL:
        values, n = run(np.empty((5, 0)), method)
        assert (values.shape, n.shape) == ((7, 0), (0,))


@pytest.mark.parametrize("method", oracles.SERIAL)
@given(memories())
def test_float32_gives_the_numbers_of_its_conversion(method, y):
    small = y.astype(np.float32)
    assert run(small, method) == pytest.approx(
        run(small.astype(np.float64), method), rel=0, nan_ok=True
    )


@pytest.mark.parametrize("method", oracles.SERIAL)
@given(series(min_valid=4, gaps=(NAN,)), st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_unit_of_the_values_does_not_matter(method, y, unit):
    found, scaled = run(y, method), run(y * unit, method)
    for name in ("s", "var_s", "z", "p", "tau"):
        assert scaled[name] == pytest.approx(found[name], rel=0, nan_ok=True)


def every_kernel():
    rng = np.random.default_rng(5)
    y = np.cumsum(rng.integers(-2, 4, (11, 4)), axis=0).astype(float)
    y[rng.random(y.shape) < 0.2] = NAN
    y[1:, 3], y[:, 2] = NAN, 2.0
    years, slope = 2000.0 + np.arange(11), np.array([0.5, 1.0, 0.0, NAN])
    return [
        *(serial.variance_factor(y, years, slope, 11, ranked, BOUND) for ranked in (True, False)),
        *(serial.whitened_score(y, years, slope, trend_free) for trend_free in (True, False)),
    ]


def test_kernels_are_plain_python_too(tmp_path):
    for compiled, plain in zip(
        every_kernel(), without_compiler(every_kernel, tmp_path), strict=True
    ):
        np.testing.assert_allclose(compiled, plain, rtol=1e-14)


def column(path):
    """Numbers of a csv file of one column, with or without a head."""
    rows = [row[-1] for row in csv.reader(path.read_text().splitlines()) if row]
    return np.array(
        [float(x) for x in rows if x.replace("NaN", "0").strip("-").strip()[:1].isdigit()]
    )


def scored(y):
    """S, and the sum over ties in its variance, of one series."""
    s, ties, equals = (np.empty(1, np.int64) for _ in range(3))
    serial.score(np.asarray(y, float)[:, None], s, ties, equals)
    return int(s[0]), int(ties[0])


@pytest.mark.real
def test_score_of_twenty_years_of_days(real_data):
    folder = real_data("raster/oracle_mannkendall/mannkendall_python")
    y = column(folder / "S_test_test1_in1.csv")
    dates = (folder / "S_test_test1_in2.csv").read_text().splitlines()[1:]
    years = np.array([int(date.split(",")[0]) for date in dates])
    # that program compares no two values of one year
    within = sum(scored(y[years == year])[0] for year in np.unique(years))
    assert scored(y)[0] - within == column(folder / "S_test_test1_out1.csv")[0]


@pytest.mark.real
def test_ties_of_a_reference_series(real_data):
    folder = real_data("raster/oracle_mannkendall/mannkendall_python")
    y, tied = (column(folder / f"Nb_tie_test1_{end}.csv") for end in ("in", "out"))
    # that program takes values within a resolution of 2 for equal
    assert scored(np.floor((y - 2) / 2))[1] == (tied * (tied - 1) * (2 * tied + 5)).sum()


@pytest.mark.real
def test_reference_cases_checked_against_r(real_data):
    path = real_data("raster/oracle_mannkendall/pymannkendall/reference_cases.json")
    cases = json.loads(path.read_text())
    y = np.array(cases["data"]["arbitrary_1d_data"], float)

    def expected(case):
        asserts = cases["expected"][f"test_{case}"]["asserts"]
        return {name.removeprefix("result."): value for name, value in asserts.items()}

    found, case = run(y, "pre_whitening"), expected("pre_whitening_modification_test")
    assert (found["s"], found["var_s"]) == (case["s"], case["var_s"])
    assert found["z"] == pytest.approx(case["z"], rel=1e-12)
    assert found["p"] == pytest.approx(case["p"], rel=1e-12)
    # the others take off a line whose slope knows of the gaps along an axis that does not
    plain = run_plain(y, np.arange(360.0))
    closed, steps = y[np.isfinite(y)][:, None], np.arange(353.0)
    slope = np.array([plain["slope"]])
    for name, lags in (("hamed_rao_modification_test", 353), (HAMED_RAO_3, 3)):
        factor = serial.variance_factor(closed, steps, slope, lags, True, BOUND)
        assert plain["var_s"] * factor[0] == pytest.approx(expected(name)["var_s"], rel=1e-12)
    case = expected("trend_free_pre_whitening_modification_test")
    s, var_s, tau = serial.whitened_score(closed, steps, slope, True)[:, 0]
    assert (s, var_s, tau) == (case["s"], case["var_s"], pytest.approx(case["Tau"], rel=1e-12))

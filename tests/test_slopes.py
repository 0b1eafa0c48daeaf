"""Sorting networks, and order statistics of pairwise slopes against all slopes sorted."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from minetrace.kernels import monotone, slopes
from minetrace.kernels.median import select
from minetrace.kernels.network import comparators, sort_columns
from strategies import blocks, uneven_years

ANNUAL = 1985.0 + np.arange(38)
MONTHLY = 2012.0 + np.arange(60) / 12
LANDCOVER = np.array([1985.0, 1990, 1995, *range(2000, 2023)])


@pytest.mark.parametrize("n", range(1, 11))
def test_a_network_that_sorts_all_zeros_and_ones_sorts_everything(n):
    columns = np.array(list(product([0, 1], repeat=n)), np.int16).T.copy()
    expected = np.sort(columns, axis=0)
    sort_columns(columns, comparators(n))
    np.testing.assert_array_equal(columns, expected)


@pytest.mark.parametrize("n", [16, 31, 38, 40, 64, 129])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
def test_long_networks_sort_numbers_and_infinities(n, dtype):
    columns = np.random.default_rng(n).integers(-9, 9, (n, 70)).astype(dtype)
    if dtype != "i2":
        columns[::5, ::3] = np.inf
    expected = np.sort(columns, axis=0)
    sort_columns(columns, comparators(n))
    np.testing.assert_array_equal(columns, expected)


def shaped(kind, years, n_pixel, rng):
    """Series whose slopes crowd, tie or spread in ways that searches get wrong."""
    noise = rng.normal(size=(years.size, n_pixel))
    time = (years - years[0])[:, None]
    jump = time < rng.uniform(0, time[-1], n_pixel)
    found = {
        "noise": noise,
        "coarse": np.round(noise, 1),
        "line": 0.3 * time + np.zeros(n_pixel),
        "line and one outlier": 0.3 * time
        + 0 * noise
        + 1e6 * (np.arange(years.size)[:, None] == 7),
        "almost constant": np.where(rng.random(noise.shape) < 0.1, noise, 0.0),
        "step": jump + 1e-3 * noise,
        "clean step": jump * 1.0,
        "walk": noise.cumsum(axis=0),
        "saw": np.mod(np.arange(years.size), 2)[:, None] + 1e-9 * noise,
        "far from zero": 1e6 + noise,
        "tiny": 1e-30 * noise,
        "subnormal": 1e-310 * noise,
        "huge": 1e300 * noise,
        "heavy tails": noise / rng.random(noise.shape) ** 3,
        "exponential": np.exp(np.minimum(time, 30)) + noise,
        "shares": np.round(np.clip(0.02 * time + 0.1 * noise, 0, 1), 3),
    }[kind]
    found[rng.random(found.shape) < rng.choice([0, 0.05, 0.6], n_pixel)] = np.nan
    return found


KINDS = ("noise", "coarse", "line", "line and one outlier", "almost constant", "step", "clean step",
         "walk", "saw", "far from zero", "tiny", "subnormal", "huge", "heavy tails", "exponential",
         "shares")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("years", [ANNUAL, MONTHLY, LANDCOVER], ids=["annual", "monthly", "uneven"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_sens_slope_is_the_median_of_all_slopes(kind, years, dtype):
    rng = np.random.default_rng(len(kind))
    with np.errstate(over="ignore"):
        values = shaped(kind, years, 300, rng).astype(dtype)
    statistics, _ = monotone.mann_kendall(values, years, 2, False)
    found = statistics[monotone.STATISTICS.index("slope")]
    np.testing.assert_array_equal(found, oracles.median_slopes(values, years))


@given(st.data())
@settings(max_examples=60)
def test_any_dates_and_values(data):
    values = data.draw(blocks(max_time=14))
    years = data.draw(uneven_years(values.shape[0]))
    statistics, _ = monotone.mann_kendall(values, years, 2, False)
    found = statistics[monotone.STATISTICS.index("slope")]
    np.testing.assert_array_equal(found, oracles.median_slopes(values, years))


@pytest.mark.parametrize("n_pixel", [0, 1, 255, 256, 257, 5000])
def test_any_number_of_series_gives_what_each_gives_alone(n_pixel):
    values = shaped("coarse", ANNUAL, n_pixel, np.random.default_rng(1)).astype("f4")
    whole, n = monotone.mann_kendall(values, ANNUAL, 4, False)
    assert whole.shape == (7, n_pixel)
    for i in range(0, n_pixel, 97):
        alone, n_alone = monotone.mann_kendall(values[:, i : i + 1], ANNUAL, 4, False)
        np.testing.assert_array_equal(whole[:, i : i + 1], alone)
        assert n[i] == n_alone[0]


def test_few_series_need_the_slow_way(monkeypatch):
    taken = []

    def counting(values, years, at, *rest):
        taken.append(len(at))
        slow(values, years, at, *rest)

    slow = slopes._select
    monkeypatch.setattr(slopes, "_select", counting)
    for kind in ("noise", "coarse", "walk", "shares"):
        values = shaped(kind, ANNUAL, 2048, np.random.default_rng(2)).astype("f4")
        monotone.mann_kendall(values, ANNUAL, 4, False)
    assert sum(taken) < 0.01 * 4 * 2048


@pytest.mark.parametrize("kind", ["noise", "coarse", "almost constant", "line", "shares"])
@pytest.mark.parametrize("quantile", [0.6744897501960817, 1.959963984540054])
def test_limits_of_the_slope_equal_interpolated_ranks(kind, quantile):
    values = shaped(kind, LANDCOVER, 40, np.random.default_rng(4))
    found = monotone.sen_interval(values, LANDCOVER, quantile)
    var_s = monotone.mann_kendall(values, LANDCOVER, 2, False)[0][1]
    expected = [
        oracles.slope_limits(y, LANDCOVER, quantile, v) if np.isfinite(v) else (np.nan, np.nan)
        for y, v in zip(values.T, var_s, strict=True)
    ]
    np.testing.assert_allclose(found.T, expected, rtol=1e-12, atol=1e-15)


def test_limits_hold_the_ranks_that_scipy_rounds_to():
    values = shaped("noise", ANNUAL, 50, np.random.default_rng(5))
    low, high = monotone.sen_interval(values, ANNUAL, scipy.stats.norm.ppf(0.975))
    for i, y in enumerate(values.T):
        seen = np.isfinite(y)
        if seen.sum() < 10:
            continue
        peer = scipy.stats.theilslopes(y[seen], ANNUAL[seen], 0.95)
        ordered = np.sort(oracles.all_slopes(y, ANNUAL))
        for ours, theirs in ((low[i], peer.low_slope), (high[i], peer.high_slope)):
            assert abs(np.searchsorted(ordered, ours) - np.searchsorted(ordered, theirs)) <= 1


def test_too_few_slopes_have_no_limits():
    few = np.array([[1.0], [2.0], [4.0]])
    assert np.isnan(monotone.sen_interval(few, np.arange(3.0), 1.96)).all()


def test_selection_finds_every_rank_among_ties():
    values = np.random.default_rng(6).integers(0, 9, 50).astype(float)
    for k in range(50):
        assert select(values.copy(), 50, k) == np.sort(values)[k]


@pytest.mark.real
def test_limits_of_a_daily_series_equal_those_of_the_mannkendall_programs(real_data):
    folder = real_data("raster/oracle_mannkendall/mannkendall_python")
    y = np.genfromtxt(folder / "Sen_slope_test1_in2.csv", skip_header=1)
    var_s, *expected = (
        np.loadtxt(folder / f"Sen_slope_test1_{part}.csv", skiprows=1)
        for part in ("in3", "out1", "out2", "out3")
    )
    days = np.arange(y.size, dtype=float)
    # the programs round the values for the variance; the limits themselves are defined alike
    ordered = np.sort(oracles.all_slopes(y, days))
    quantile = scipy.stats.norm.ppf(0.95)
    limits = oracles.slope_limits(y, days, quantile, float(var_s), ordered)
    np.testing.assert_allclose([np.median(ordered), *limits], expected, rtol=1e-12)

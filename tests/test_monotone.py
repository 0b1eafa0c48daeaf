"""Mann-Kendall and Sen's slope, series by series."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

import oracles
from minetrace.kernels import monotone
from minetrace.kernels.median import median
from plain import without_compiler
from strategies import blocks, series, uneven_years

NAN = np.nan


def run(y, t=None, *, min_valid=2, exact=False):
    """Statistics of one series as a dict."""
    y = np.asarray(y)
    t = 1985.0 + np.arange(y.size) if t is None else t
    values, n = monotone.mann_kendall(y[:, None], t, min_valid, exact)
    return {**dict(zip(monotone.STATISTICS, values[:, 0].tolist(), strict=True)), "n": int(n[0])}


@given(series(min_valid=2, gaps=(NAN,)))
def test_annual_series_equal_pymannkendall(y):
    found, expected = run(y), oracles.pymannkendall_original(y)
    assert found["p"] == pytest.approx(expected.pop("p"), abs=1e-12)
    assert found["tau"] == pytest.approx(expected.pop("tau"), rel=1e-15)
    assert {k: found[k] for k in expected} == expected


@given(st.data())
def test_uneven_dates_and_infinities_equal_the_textbook(data):
    y = data.draw(series(min_valid=2))
    t = data.draw(uneven_years(y.size))
    expected = oracles.mann_kendall_by_hand(y, t)
    found = run(y, t)
    assert found.pop("intercept") == pytest.approx(expected.pop("intercept"), rel=1e-12, abs=1e-6)
    assert found == pytest.approx(expected, rel=1e-14)


@given(series(min_valid=2, max_size=6))
def test_exact_p_equals_all_permutations(y):
    expected = oracles.exact_p_by_permutation(y[np.isfinite(y)].tolist())
    assert run(y, exact=True)["p"] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(("n", "p"), [(3, 2 / 6), (4, 2 / 24), (5, 2 / 120), (9, 2 / 362880)])
def test_exact_p_of_a_strictly_rising_series(n, p):
    assert run(np.arange(n, dtype=float), exact=True)["p"] == pytest.approx(p, rel=1e-15)


def test_from_ten_values_on_the_exact_option_is_the_approximation():
    y = np.arange(10.0)
    assert run(y, exact=True) == run(y, exact=False)
    assert run(y[:9], exact=True)["p"] < run(y[:9], exact=False)["p"]


@given(series(min_valid=2))
def test_time_reversal_flips_every_sign(y):
    forwards, backwards = run(y), run(y[::-1].copy())
    for name in ("s", "z", "tau", "slope"):
        assert backwards[name] == -forwards[name]
    assert (backwards["p"], backwards["var_s"]) == (forwards["p"], forwards["var_s"])


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=12), st.integers(-1000, 1000))
def test_adding_a_constant_only_lifts_the_line(values, constant):
    y = np.array(values, float)
    lifted, base = run(y + constant), run(y)
    assert lifted.pop("intercept") == pytest.approx(base.pop("intercept") + constant, abs=1e-9)
    assert lifted == base


@given(series(min_valid=2, gaps=(NAN,)))
def test_only_the_order_of_values_enters_the_test(y):
    stretched = run(np.sign(y) * y**2)
    base = run(y)
    for name in ("s", "var_s", "z", "p", "tau", "n"):
        assert stretched[name] == base[name]


@given(blocks())
def test_pixels_do_not_know_each_other(block):
    years = np.arange(block.shape[0], dtype=float)
    whole, n = monotone.mann_kendall(block, years, 2, False)
    for i in range(block.shape[1]):
        alone, n_alone = monotone.mann_kendall(block[:, i : i + 1].copy(), years, 2, False)
        np.testing.assert_array_equal(whole[:, i : i + 1], alone)
        assert n[i] == n_alone[0]


@given(blocks())
def test_float32_gives_the_numbers_of_its_conversion(block):
    years = np.arange(block.shape[0], dtype=float)
    small = block.astype(np.float32)
    for a, b in zip(
        monotone.mann_kendall(small, years, 2, True),
        monotone.mann_kendall(small.astype(np.float64), years, 2, True),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_constant_series():
    found = run([3.0, 3.0, NAN, 3.0, 3.0])
    assert found == {"s": 0, "var_s": 0, "z": 0, "p": 1, "tau": 0, "slope": 0, "intercept": 3,
                     "n": 4}  # fmt: skip
    assert run([3.0] * 4, exact=True)["p"] == 1


@pytest.mark.parametrize("y", [[NAN] * 5, [1.0] + [NAN] * 4, [1.0, 2.0, 3.0, NAN, np.inf]])
def test_too_few_values_give_no_statistic_but_their_number(y):
    found = run(y, min_valid=4)
    assert found.pop("n") == np.isfinite(y).sum()
    assert np.isnan(list(found.values())).all()


def test_the_minimum_is_enough():
    assert run([1.0, 2.0, 3.0, 4.0], min_valid=4)["s"] == 6


def test_the_line_starts_at_the_axis_even_where_its_first_year_is_a_gap():
    found = run([NAN, 2.0, 4.0, 6.0])
    assert (found["slope"], found["intercept"]) == (2.0, 0.0)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=40), st.sampled_from(["f4", "f8"]))
def test_median_equals_numpy_and_keeps_the_values(values, dtype):
    buffer = np.array(values, dtype)
    expected = np.median(buffer)
    before = np.sort(buffer)
    assert np.array(median(buffer, buffer.size), dtype) == expected
    np.testing.assert_array_equal(np.sort(buffer), before)


def every_kernel():
    """Results of all kernels of this file on one seeded input."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 4, (11, 5)).astype(float)
    y[rng.random(y.shape) < 0.2] = NAN
    years = np.arange(11.0)
    return [
        *monotone.mann_kendall(y, years, 3, True),
        *monotone.mann_kendall(y.astype(np.float32), years, 3, False),
        monotone.sen_interval(y, years, 1.0),
    ]


def test_kernels_are_plain_python_too(tmp_path):
    for compiled, plain in zip(
        every_kernel(), without_compiler(every_kernel, tmp_path), strict=True
    ):
        np.testing.assert_array_equal(compiled, plain)


@pytest.mark.real
def test_reference_cases_of_pymannkendall(real_data):
    path = real_data("raster/oracle_mannkendall/pymannkendall/reference_cases.json")
    cases = json.loads(path.read_text())
    y = np.array(cases["data"]["arbitrary_1d_data"], float)
    found = run(y)
    expected = {
        **cases["expected"]["test_original_test"]["asserts"],
        **cases["expected"]["test_sens_slope"]["asserts"],
    }
    assert (found["s"], found["var_s"], found["slope"]) == (
        expected["result.s"], expected["result.var_s"], expected["result.slope"],
    )  # fmt: skip
    assert found["z"] == pytest.approx(expected["result.z"], abs=1e-15)
    assert found["tau"] == pytest.approx(expected["result.Tau"], abs=1e-15)
    assert found["p"] == pytest.approx(expected["result.p"], abs=1e-14)
    assert found["intercept"] == pytest.approx(expected["result.intercept"], abs=1e-12)


@pytest.mark.real
def test_every_pixel_of_a_burnt_valley_equals_pymannkendall(real_data):
    folder = "raster/oracle_mannkendall/hilandyn_TCW_1985_2020_pymannkendall_original.npz"
    image = real_data("raster/hilandyn_landsat_aosta/lnd_si.tif")
    with rasterio.open(image) as source:
        bands = [i + 1 for i, d in enumerate(source.descriptions) if d.startswith("TCW")]
        stack = source.read(bands)
    values, n = monotone.mann_kendall(stack.reshape(36, -1), 1985.0 + np.arange(36), 2, False)
    with np.load(real_data(folder)) as oracle:
        for name, found in zip(monotone.STATISTICS, values, strict=True):
            expected = oracle[name].ravel()
            if name in ("p", "tau"):
                np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-12)
            else:
                np.testing.assert_array_equal(found, expected, err_msg=name)
    assert n.max() == 36

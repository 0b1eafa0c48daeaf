"""Mann-Kendall and Sen's slope beside pymannkendall, and the composite beside numpy."""

from __future__ import annotations

import warnings
from time import perf_counter

import numpy as np
import pandas as pd
import pymannkendall
import pytest
import xarray as xr

from minetrace import mann_kendall
from minetrace.kernels.composite import median_composite


def cube(n_time, n_y, n_x):
    rng = np.random.default_rng(0)
    values = rng.random((n_time, n_y, n_x), np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    time = pd.date_range("1985-01-01", periods=n_time, freq="YS")
    return xr.DataArray(values, {"time": time}, ("time", "y", "x"))


def by_pymannkendall(da):
    """S and slope of every pixel by pymannkendall, vectorised by xarray."""

    def test(y):
        found = pymannkendall.original_test(y)
        return found.s, found.slope

    return xr.apply_ufunc(
        test, da, input_core_dims=[["time"]], output_core_dims=[[], []], vectorize=True
    )


@pytest.mark.parametrize(
    ("layout", "shape", "sample"),
    [("one_pit_38y", (38, 40, 30), 40), ("status_6y_tile", (6, 500, 500), 1)],
)
def test_mann_kendall(benchmark, layout, shape, sample):
    da = cube(*shape)
    found = benchmark(mann_kendall, da, min_valid=2)
    part = da[:, :sample]
    start = perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peer takes medians of empty series
        s, slope = by_pymannkendall(part)
    peer = (perf_counter() - start) * shape[1] / sample
    enough = found.n[:sample] >= 2
    np.testing.assert_array_equal(found.s[:sample].where(enough), s.where(enough))
    np.testing.assert_array_equal(found.slope[:sample].where(enough), slope.where(enough))
    benchmark.extra_info["layout"] = layout
    benchmark.extra_info["pixels_per_second"] = shape[1] * shape[2] / benchmark.stats["median"]
    benchmark.extra_info["times_faster_than_pymannkendall"] = peer / benchmark.stats["median"]


def test_median_composite(benchmark):
    stack = cube(40, 300, 300).values
    middle, _ = benchmark(median_composite, stack)
    start = perf_counter()
    expected = np.nanmedian(stack, axis=0)
    peer = perf_counter() - start
    np.testing.assert_array_equal(middle, expected)
    benchmark.extra_info["times_faster_than_nanmedian"] = peer / benchmark.stats["median"]

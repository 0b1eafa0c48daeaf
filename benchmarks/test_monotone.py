"""Mann-Kendall and Sen's slope beside zeit-cdts and pymannkendall: five per cent of gaps, ties."""

from __future__ import annotations

import warnings

import dask
import numpy as np
import pandas as pd
import pymannkendall
import pytest
import xarray as xr
from turns import in_two_threads, peak_bytes, seconds

from minetrace import mann_kendall
from minetrace.kernels import monotone

SIDE = 384


def cube(kind, n_time, side=SIDE):
    """Float32 in steps of 0.01."""
    rng = np.random.default_rng(0)
    shape = (n_time, side, side)
    year = np.arange(n_time)[:, None, None]
    values = {
        "noise": lambda: rng.random(shape),
        "trends": lambda: 0.02 * year * rng.normal(size=shape[1:]) + 0.1 * rng.normal(size=shape),
        "walks": lambda: 0.05 * rng.normal(size=shape).cumsum(axis=0),
        "steps": lambda: (
            np.where(year < rng.integers(0, n_time, shape[1:]), 0.7, 0.2)
            + 0.03 * rng.normal(size=shape)
        ),
    }[kind]()
    values = np.round(values, 2).astype(np.float32)
    values[rng.random(shape, np.float32) < 0.05] = np.nan
    time = pd.date_range("1985-01-01", periods=n_time, freq="YS")
    return xr.DataArray(values, {"time": time}, ("time", "y", "x"))


def by_pymannkendall(da):
    """S and slope of every pixel, vectorised by xarray."""

    def test(y):
        found = pymannkendall.original_test(y)
        return found.s, found.slope

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # medians of empty series
        return xr.apply_ufunc(
            test, da, input_core_dims=[["time"]], output_core_dims=[[], []], vectorize=True
        )


@pytest.mark.parametrize(
    ("kind", "n_time"),
    [("noise", 38), ("trends", 38), ("walks", 38), ("steps", 38), ("noise", 23), ("noise", 6)],
)
def test_mann_kendall(benchmark, kind, n_time):
    da = cube(kind, n_time)
    flat, years = da.values.reshape(n_time, -1), 1985.0 + np.arange(n_time)
    few = da[:, 0, :64]

    def kernel(values):
        return monotone.mann_kendall(values, years, 4, False)

    found = mann_kendall(da)
    s, slope = by_pymannkendall(few)
    seen = found.n[0, :64] >= 4
    np.testing.assert_array_equal(found.s[0, :64].where(seen), s.where(seen))
    np.testing.assert_array_equal(found.slope[0, :64].where(seen), slope.where(seen))
    calls = {
        "kernel_1_thread": lambda: kernel(flat),
        "kernel_2_threads": in_two_threads(kernel, flat),
        "pymannkendall": lambda: by_pymannkendall(few),
    }
    try:
        import zeit
    except ImportError:
        benchmark.extra_info["zeit_cdts"] = "not installed: see benchmarks/requirements.txt"
    else:
        peer = zeit.mann_kendall(da, method="original", n_jobs=2).load()
        np.testing.assert_array_equal(peer.s.where(found.n >= 4), found.s)
        for n in (1, 2):
            calls[f"zeit_{n}_thread{'s'[: n - 1]}"] = lambda n=n: zeit.mann_kendall(
                da, method="original", n_jobs=n
            ).load()
    times = seconds(3, **calls)
    benchmark.pedantic(kernel, (flat,), rounds=3)
    info, pixels = benchmark.extra_info, SIDE**2
    peer = times["pymannkendall"] * pixels / few.size * n_time
    for threads in ("1_thread", "2_threads"):
        own = times[f"kernel_{threads}"]
        info[f"pixels_per_second_{threads}"] = pixels / own
        info[f"times_faster_than_pymannkendall_{threads}"] = peer / own
        if f"zeit_{threads}" in times:
            info[f"times_faster_than_zeit_cdts_{threads}"] = times[f"zeit_{threads}"] / own


@pytest.mark.parametrize("block", [256, 128, 32])
def test_through_dask(benchmark, block):
    da = cube("noise", 38, side=512)
    flat, years = da.values.reshape(38, -1), 1985.0 + np.arange(38)
    lazy = mann_kendall(da.chunk(y=block, x=block))

    def kernel(values):
        return monotone.mann_kendall(values, years, 4, False)

    with dask.config.set(scheduler="threads", num_workers=2):
        xr.testing.assert_identical(lazy.compute(), mann_kendall(da))
        times = seconds(5, bare=in_two_threads(kernel, flat), dask=lazy.compute)
        benchmark.pedantic(lazy.compute, rounds=3)
    benchmark.extra_info["share_of_the_bare_kernel_s_speed"] = times["bare"] / times["dask"]


def test_memory(benchmark):
    setup = (
        "import numpy as np\n"
        "from minetrace.kernels.monotone import mann_kendall\n"
        "years = np.arange(38.0)\n"
        "values = np.random.default_rng(0).random((38, 3_000_000), np.float32)\n"
        "mann_kendall(values[:, :5000].copy(), years, 4, False)\n"
    )
    grown = benchmark.pedantic(
        peak_bytes, (setup, "found = mann_kendall(values, years, 4, False)"), rounds=1
    )
    results = 3_000_000 * (7 * 8 + 2)
    benchmark.extra_info["extra_memory_share_of_input_without_results"] = (grown - results) / (
        38 * 3_000_000 * 4
    )

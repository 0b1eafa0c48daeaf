"""Composites beside numpy and bottleneck: ten per cent of gaps, one thread and two."""

from __future__ import annotations

import bottleneck
import dask
import numpy as np
import pytest
import xarray as xr
from turns import in_two_threads, seconds

from minetrace.composites import composite
from minetrace.kernels.composite import (
    max_index_composite,
    median_composite,
    medoid_composite,
    percentile_composite,
)
from minetrace.kernels.stacks import Packing

PACKING = Packing(nodata=0, scale=1e-4, offset=-0.1)


def stack(n_time, n_y, n_x, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.random((n_time, n_y, n_x), np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    return values


def record(benchmark, call, times, n_pixel):
    """The kernel's own row, and how many times faster than each peer it is."""
    benchmark.pedantic(call, rounds=3, warmup_rounds=1)
    ours = {k: v for k, v in times.items() if k.endswith(("thread", "threads"))}
    for mine, own in ours.items():
        benchmark.extra_info[f"nanoseconds_a_pixel_in_{mine}"] = own / n_pixel * 1e9
        for peer, other in times.items():
            if peer not in ours:
                benchmark.extra_info[f"times_faster_than_{peer}_in_{mine}"] = other / own


@pytest.mark.parametrize(("n_time", "side"), [(40, 512), (120, 256), (365, 128), (1000, 64)])
def test_median_of_float32(benchmark, n_time, side):
    values = stack(n_time, side, side)
    found, _ = median_composite(values)
    np.testing.assert_array_equal(found, bottleneck.nanmedian(values, axis=0))
    times = seconds(
        5,
        one_thread=lambda: median_composite(values),
        two_threads=in_two_threads(median_composite, values, axis=-2),
        numpy_nanmedian=lambda: np.nanmedian(values, axis=0),
        bottleneck_nanmedian=lambda: bottleneck.nanmedian(values, axis=0),
    )
    record(benchmark, lambda: median_composite(values), times, side**2)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_median_of_packed_integers(benchmark, dtype):
    stored = np.nan_to_num(stack(40, 512, 512) * 254 + 1).astype(dtype)

    def by_bottleneck():
        values = (stored * 1e-4 - 0.1).astype(np.float32)
        values[stored == 0] = np.nan
        return bottleneck.nanmedian(values, axis=0)

    def ours(part=stored):
        return median_composite(part, packing=PACKING)

    np.testing.assert_allclose(ours()[0], by_bottleneck(), rtol=1e-6, atol=1e-7)
    times = seconds(
        5,
        one_thread=ours,
        two_threads=in_two_threads(ours, stored, axis=-2),
        scaling_and_bottleneck=by_bottleneck,
    )
    record(benchmark, ours, times, 512**2)


def test_tenth_percentile(benchmark):
    values = stack(40, 128, 128)

    def ours(part=values):
        return percentile_composite(part, 10)

    np.testing.assert_allclose(ours()[0], np.nanpercentile(values, 10, axis=0), rtol=1e-6)
    times = seconds(
        3,
        one_thread=ours,
        two_threads=in_two_threads(ours, values, axis=-2),
        numpy_nanpercentile=lambda: np.nanpercentile(values, 10, axis=0),
    )
    record(benchmark, ours, times, 128**2)


def medoid_by_numpy(bands):
    """Time of the medoid: all distances of a row of pixels at once; no gaps."""
    out = []
    for row in bands.astype(np.float64).transpose(2, 0, 1, 3):
        total = np.zeros(row.shape[1:])
        for t in range(row.shape[1]):
            total += np.sqrt(((row - row[:, t : t + 1]) ** 2).sum(axis=0))
        out.append(total.argmin(axis=0))
    return np.array(out)


def test_medoid_of_six_bands(benchmark):
    bands = np.random.default_rng(0).random((6, 40, 128, 128), np.float32)
    np.testing.assert_array_equal(medoid_composite(bands)[1], medoid_by_numpy(bands))
    times = seconds(
        3,
        one_thread=lambda: medoid_composite(bands),
        two_threads=in_two_threads(medoid_composite, bands, axis=-2),
        numpy=lambda: medoid_by_numpy(bands),
    )
    record(benchmark, lambda: medoid_composite(bands), times, 128**2)


def test_largest_index_of_six_bands(benchmark):
    bands = np.random.default_rng(0).random((6, 40, 256, 256), np.float32)
    index = stack(40, 256, 256)

    def by_numpy():
        clear = np.isfinite(bands).all(axis=0)
        best = np.nanargmax(np.where(clear, index, np.nan), axis=0)
        return np.take_along_axis(bands, best[None, None], axis=1)[:, 0]

    np.testing.assert_array_equal(max_index_composite(bands, index)[0], by_numpy())
    times = seconds(
        5, one_thread=lambda: max_index_composite(bands, index), numpy_nanargmax=by_numpy
    )
    record(benchmark, lambda: max_index_composite(bands, index), times, 256**2)


def test_median_through_dask(benchmark):
    values = stack(40, 1024, 1024)
    lazy = xr.Dataset({"red": (("time", "y", "x"), values)}).chunk(y=256, x=256)
    # blocks as a loader hands them over, not windows of one array
    lazy["red"] = lazy.red.copy(data=lazy.red.data.map_blocks(np.ascontiguousarray).persist())

    def through_dask():
        with dask.config.set(scheduler="threads", num_workers=2):
            return composite(lazy).compute()

    np.testing.assert_array_equal(through_dask().red, median_composite(values)[0])
    times = seconds(5, dask=through_dask, kernel=in_two_threads(median_composite, values, axis=-2))
    benchmark.pedantic(through_dask, rounds=3)
    benchmark.extra_info["speed_beside_the_kernel_in_two_threads"] = times["kernel"] / times["dask"]

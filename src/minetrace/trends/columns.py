"""Blocks of any layout as columns of series, which the kernels take, and their results' names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from minetrace.kernels.monotone import STATISTICS
from minetrace.schema import TREND, Variable

Results = tuple[NDArray[np.float64], NDArray[np.int16]]
"""Statistics ``(7, pixel)`` in the order of `minetrace.kernels.monotone.STATISTICS`, and n."""

Test = Callable[[NDArray[Any]], Results]
"""Test of float32 or float64 columns ``(row, pixel)`` with NaN or infinities at gaps."""

GROUP = 2**14
"""Series that are copied at once, where the kernel cannot take a block as it lies."""


def as_dataset(arrays: Iterable[xr.DataArray], variables: tuple[Variable, ...]) -> xr.Dataset:
    """Dataset of results under their registered names and attributes.

    The arrays come with the attributes of what they were computed from: xarray would otherwise
    drop those of the coordinates as well, and with them the CRS.
    """
    ds = xr.Dataset({v.name: a for v, a in zip(variables, arrays, strict=True)})
    for v in variables:
        ds[v.name].attrs = dict(v.attrs)
    return ds


def trend_block(
    *blocks: NDArray[Any], test: Test, fills: Sequence[float | None], n_core: int, alpha: float
) -> tuple[NDArray[Any], ...]:
    """Variables of `TREND` of blocks whose last ``n_core`` axes make a series."""
    shape, statistics, n = results_of(test, blocks, fills, n_core)
    named: dict[str, NDArray[Any]] = dict(zip(STATISTICS, statistics, strict=True))
    named["n"] = n
    clear, s = named["p"] < alpha, named["s"]
    named["trend"] = np.subtract(clear & (s > 0), clear & (s < 0), dtype=np.int8)
    return tuple(named[v.name].astype(v.dtype, copy=False).reshape(shape) for v in TREND)


def results_of(
    test: Test,
    blocks: Sequence[NDArray[Any]],
    fills: Sequence[float | None],
    n_core: int,
    n_row: int = len(STATISTICS),
) -> tuple[tuple[int, ...], NDArray[np.float64], NDArray[np.int16]]:
    """Shape of the series in ``blocks``, and the results of ``test`` for them as columns.

    A block that lies in memory as the kernels want it is handed over as it is. Everything else
    (integers, fill values, time last, a part of a larger array) is copied, `GROUP` series at a
    time.
    """
    lead = np.broadcast_shapes(*(b.shape[: b.ndim - n_core] for b in blocks))
    series = [_series_first(b, lead, n_core) for b in blocks]
    if len(series) == 1 and fills[0] is None and _is_plain(series[0]):
        return lead, *test(_as_columns(series[0], n_core))
    statistics = np.empty((n_row, math.prod(lead)))
    n = np.empty(math.prod(lead), np.int16)
    start = 0
    for views in _groups(series, n_core):
        parts = [_columns(v, fill, n_core) for v, fill in zip(views, fills, strict=True)]
        columns = parts[0] if len(parts) == 1 else np.concatenate(parts)
        stop = start + columns.shape[1]
        statistics[:, start:stop], n[start:stop] = test(columns)
        start = stop
    return lead, statistics, n


def _series_first(block: NDArray[Any], lead: tuple[int, ...], n_core: int) -> NDArray[Any]:
    """View ``(*core, *lead)`` of a block ``(..., *core)``; single series get an axis of one."""
    shape = (*lead, *block.shape[block.ndim - n_core :])
    whole = block if block.shape == shape else np.broadcast_to(block, shape)
    view = np.moveaxis(whole, range(-n_core, 0), range(n_core))
    return view if lead else view[..., None]


def _is_plain(series: NDArray[Any]) -> bool:
    """Whether a kernel takes it as it is.

    Arrays that cannot be written to are types of their own, for which it would be compiled again.
    """
    known = series.dtype in (np.float32, np.float64)
    return known and series.flags.c_contiguous and series.flags.writeable


def _groups(series: list[NDArray[Any]], n_core: int) -> Iterator[list[NDArray[Any]]]:
    """Views of `GROUP` series each, or fewer, in their order."""
    before: tuple[Any, ...] = (slice(None),) * n_core
    first, *others = series[0].shape[n_core:]
    width = math.prod(others)
    if width > GROUP:
        for i in range(first):
            yield from _groups([s[(*before, i)] for s in series], n_core)
        return
    step = GROUP // max(width, 1)
    for i in range(0, first, step):
        yield [s[(*before, slice(i, i + step))] for s in series]


def _columns(view: NDArray[Any], fill: float | None, n_core: int) -> NDArray[Any]:
    """Copy as contiguous float32, or float64 where float32 is too coarse, with NaN for ``fill``."""
    dtype = np.float32 if np.can_cast(view.dtype, np.float32) else np.float64
    copy = np.array(view, dtype, order="C")
    if fill is not None:
        copy[view == fill] = np.nan
    return _as_columns(copy, n_core)


def _as_columns(series: NDArray[Any], n_core: int) -> NDArray[Any]:
    """View ``(row, pixel)`` of a contiguous array ``(*core, *lead)``."""
    shape = series.shape
    return series.reshape(math.prod(shape[:n_core]), math.prod(shape[n_core:]))

"""Composites of image series: one image of the best, the middle or any rank of every pixel.

A value enters if it is finite, is not the nodata value and is not hidden. Packed integers are
compared as they are stored and scaled at the end; all arithmetic is float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit, jit_inline
from minetrace.kernels.medoid import largest, medoids, take, unpack
from minetrace.kernels.network import comparators, sort_columns
from minetrace.kernels.stacks import PLAIN, Packing, hide_gaps, nodata, pieces

# columns of 512 bytes: of 128 to 2048 the fastest for series of 40 to 1000 float32, since the
# columns of one strip stay in the caches and a row is long enough to be worth its loop
_STRIP_BYTES = 512
_BUFFER = 2**16


def median_composite(
    values: NDArray[Any], *, hidden: NDArray[np.bool_] | None = None, packing: Packing = PLAIN
) -> tuple[NDArray[Any], NDArray[np.uint16]]:
    """Median of every pixel over the first axis, and the number of values that entered it.

    Parameters and result as for `percentile_composite`; of an even number of values the mean of
    the middle two.

    Examples
    --------
    >>> red = np.array([[[0.1]], [[np.nan]], [[0.7]], [[0.3]]], np.float32)
    >>> middle, count = median_composite(red)
    >>> middle.tolist(), count.tolist()
    ([[0.30000001192092896]], [[3]])
    """
    return percentile_composite(values, 50.0, hidden=hidden, packing=packing)


def percentile_composite(
    values: NDArray[Any],
    percentile: float,
    *,
    hidden: NDArray[np.bool_] | None = None,
    packing: Packing = PLAIN,
) -> tuple[NDArray[Any], NDArray[np.uint16]]:
    """Percentile of every pixel over the first axis, and the number of values that entered it.

    Parameters
    ----------
    values
        Integers or floats ``(time, ...)`` with at most 32,767 times. What is not C-contiguous is
        copied in parts.
    percentile
        0 to 100. Between two values it is interpolated (the "linear" method of numpy,
        definition 7 of Hyndman and Fan); half way between them it is their mean.
    hidden
        bool of the same shape: values to leave out.
    packing
        Nodata, scale (above 0) and offset of the stored numbers.

    Returns
    -------
    values, n_obs
        float32 (float64 for float64 input) without the first axis, NaN where nothing entered,
        and uint16.

    References
    ----------
    Hyndman and Fan (1996), doi:10.2307/2684934.

    Examples
    --------
    >>> stored = np.array([[[1000]], [[0]], [[2000]], [[3000]]], np.uint16)
    >>> value, count = percentile_composite(stored, 25, packing=Packing(nodata=0, scale=1e-4))
    >>> value.tolist(), count.tolist()
    ([[0.15000000596046448]], [[3]])
    """
    shape = values.shape[1:]
    dtype = np.float64 if values.dtype == np.float64 else np.float32
    made, n_obs = np.empty(math.prod(shape), dtype), np.empty(math.prod(shape), np.uint16)
    pairs = comparators(values.shape[0])
    for at, (flat, hide) in pieces([values], hidden):
        width = max(min(flat.shape[1], _STRIP_BYTES // flat.itemsize), 1)
        _percentiles(
            # as bytes, since loops over bool do not become vector instructions
            flat, hide.view(np.uint8), nodata(flat, packing), _largest_number(flat.dtype),
            percentile / 100, float(packing.scale), float(packing.offset), pairs,
            np.empty((flat.shape[0], width), flat.dtype), made[at], n_obs[at],
        )  # fmt: skip
    return made.reshape(shape), n_obs.reshape(shape)


def medoid_composite(
    bands: NDArray[Any] | Sequence[NDArray[Any]],
    *,
    hidden: NDArray[np.bool_] | None = None,
    packings: Sequence[Packing] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.uint16]]:
    """Observation of every pixel that lies closest to all its others.

    Closest is the least sum of Euclidean distances over the bands in physical units; of equals
    the first. An observation enters if all its bands do.

    Parameters
    ----------
    bands
        ``(band, time, ...)``, or a sequence of arrays ``(time, ...)`` of any types.
    hidden
        bool ``(time, ...)``: observations to leave out.
    packings
        One a band; all plain by default.

    Returns
    -------
    values, chosen, n_obs
        float32 ``(band, ...)``, NaN where nothing was observed; int16 position of the
        observation on the time axis, -1 where there is none; uint16 number that entered.

    References
    ----------
    Flood (2013), Seasonal composite Landsat TM/ETM+ images using the medoid,
    doi:10.3390/rs5126481.

    Examples
    --------
    >>> red, nir = np.array([[0.1, 0.2, 0.9], [0.5, 0.4, 0.1]])[:, :, None]
    >>> values, chosen, count = medoid_composite([red, nir])
    >>> chosen.tolist(), values[:, 0].round(3).tolist(), count.tolist()
    ([1], [0.20000000298023224, 0.4000000059604645], [3])
    """
    return _composite_of_chosen(list(bands), packings, hidden, index_last=False)


def max_index_composite(
    bands: NDArray[Any] | Sequence[NDArray[Any]],
    index: NDArray[Any],
    *,
    hidden: NDArray[np.bool_] | None = None,
    packings: Sequence[Packing] | None = None,
    index_packing: Packing = PLAIN,
) -> tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.uint16]]:
    """Observation of every pixel with the largest value of an index; of equals the first.

    Parameters and result as for `medoid_composite`. An observation enters if all its bands and
    its index do.

    Parameters
    ----------
    index
        ``(time, ...)``, of any type.

    Examples
    --------
    >>> red, greenness = np.array([[0.1, 0.2, 0.3], [0.5, 0.8, np.nan]])[:, :, None]
    >>> values, chosen, count = max_index_composite([red], greenness)
    >>> chosen.tolist(), count.tolist()
    ([1], [2])
    """
    packings = [*([PLAIN] * len(bands) if packings is None else packings), index_packing]
    return _composite_of_chosen([*bands, index], packings, hidden, index_last=True)


def _composite_of_chosen(
    stacks: list[NDArray[Any]],
    packings: Sequence[Packing] | None,
    hidden: NDArray[np.bool_] | None,
    *,
    index_last: bool,
) -> tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.uint16]]:
    """Values of the medoids, or of the largest of the last stack."""
    codes = [PLAIN] * len(stacks) if packings is None else packings
    n_time, *shape = stacks[0].shape
    n_pixel, first = math.prod(shape), len(stacks) - 1 if index_last else 0
    made = np.empty((first or len(stacks), n_pixel), np.float32)
    chosen, n_obs = np.empty(n_pixel, np.int16), np.empty(n_pixel, np.uint16)
    width = max(1, _BUFFER // max(1, (len(stacks) - first) * n_time))
    for at, (*flat, hide) in pieces(stacks, hidden):
        for start in range(0, at.stop - at.start, width):
            stop = min(start + width, at.stop - at.start)
            out = slice(at.start + start, at.start + stop)
            gap = np.zeros((n_time, stop - start), np.bool_)
            if hide.size:
                gap[:] = hide[:, start:stop]
            for stack, code in zip(flat, codes, strict=True):
                hide_gaps(stack, start, stop - start, nodata(stack, code), gap, 0)
            some = slice(start, stop)
            x = np.stack(
                [
                    unpack(stack[:, some], gap, code.scale, code.offset)
                    for stack, code in zip(flat[first:], codes[first:], strict=True)
                ]
            )
            (largest if index_last else medoids)(x, chosen[out], n_obs[out])
            for stack, code, row in zip(flat, codes, made, strict=False):
                row[out] = take(stack[:, some], chosen[out], code.scale, code.offset)
    return made.reshape(len(made), *shape), chosen.reshape(shape), n_obs.reshape(shape)


def _largest_number(dtype: np.dtype[Any]) -> Any:
    return dtype.type(np.inf if dtype.kind == "f" else np.iinfo(dtype).max)


@jit
def _percentiles(
    values: NDArray[Any],
    hidden: NDArray[np.uint8],
    nodata: NDArray[Any],
    filler: Any,
    share: float,
    scale: float,
    offset: float,
    pairs: NDArray[np.int32],
    rows: NDArray[Any],
    out: NDArray[Any],
    n_obs: NDArray[np.uint16],
) -> None:
    """Percentiles of all columns, a strip of them at a time."""
    width = rows.shape[1]
    for start in range(0, n_obs.size, width):
        count = n_obs[start : start + width]
        _gather(values, start, hidden, nodata, filler, rows, count)
        sort_columns(rows, pairs)
        _pick(rows, count, share, scale, offset, out[start : start + width])


@jit_inline
def _gather(
    values: NDArray[Any],
    start: int,
    hidden: NDArray[np.uint8],
    nodata: NDArray[Any],
    filler: Any,
    rows: NDArray[Any],
    count: NDArray[np.uint16],
) -> None:
    """Copy columns from ``start``, gaps as the largest number, and count what is observed.

    Of values and gaps of that same number sorting leaves one before the other, and it does not
    matter which.
    """
    blank = nodata[0] if nodata.size > 0 else filler
    no_blank = nodata.size == 0
    width = count.size
    count[:] = 0
    for t in range(values.shape[0]):
        source, row = values[t, start : start + width], rows[t]
        # one loop without a mask and one with it: the compiler does not take the test out
        if hidden.size == 0:
            for i in range(width):
                seen = np.isfinite(source[i]) & (no_blank | (source[i] != blank))
                row[i] = source[i] if seen else filler
                count[i] += seen
        else:
            hide = hidden[t, start : start + width]
            for i in range(width):
                seen = np.isfinite(source[i]) & (no_blank | (source[i] != blank)) & (hide[i] == 0)
                row[i] = source[i] if seen else filler
                count[i] += seen


@jit_inline
def _pick(
    rows: NDArray[Any],
    count: NDArray[np.uint16],
    share: float,
    scale: float,
    offset: float,
    out: NDArray[Any],
) -> None:
    """Percentile of each sorted column, of which the first ``count`` values are observed."""
    for i in range(count.size):
        if count[i] == 0:
            out[i] = np.nan
            continue
        position = (count[i] - 1) * share
        below = int(position)
        part = position - below
        a = np.float64(rows[below, i])
        b = np.float64(rows[min(below + 1, count[i] - 1), i])
        if part < 0.5:
            value = a + (b - a) * part
        elif part > 0.5:
            value = b - (b - a) * (1.0 - part)
        else:
            value = (a + b) / 2.0
        out[i] = value * scale + offset

"""Image layers under zones: sums, extremes, quantiles and classes of what the zones cover."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import ONE, ZERO, jit, jit_inline, jit_sum
from minetrace.kernels.strips import (
    Cells,
    Strip,
    Window,
    gather,
    largest_zone,
    new_strip,
    next_strip,
)

AREA_VALUE, AREA, SHARE_VALUE, SHARE, LEAST, MOST = range(6)
"""Columns of the table of `zone_sums`."""

_STRIP = 4096
_ROWS = 2**14
"""Rows of `zone_classes` that are filled at once."""
_ROUNDING = 1e-12


def zone_sums(
    values: NDArray[Any],
    window: Window,
    nodata: float,
    cells: Cells,
    zones: NDArray[np.int64],
    extremes: bool,
) -> NDArray[np.float64]:
    """Weighted sums of the observed values in zones, layer by layer.

    Parameters
    ----------
    values
        Real ``(time, pixel)``, contiguous: the layers of a window row by row. What is not finite,
        or equals ``nodata``, was not observed.
    window
        The part of the grid that the values are of.
    nodata
        Value of gaps; NaN for none.
    cells
        Cells of all zones. Those outside the window are passed over.
    zones
        int64 ``(k,)``: the zones to sum.
    extremes
        Whether to look for the least and the greatest value.

    Returns
    -------
    ndarray
        float64 ``(k, time, 6)``: area times value, area, share times value, share, least value
        (inf for none), greatest value (-inf for none). The tables of windows that tile the grid
        add up to that of the grid.
    """
    table = np.zeros((zones.size, values.shape[0], 6))
    table[..., LEAST], table[..., MOST] = np.inf, -np.inf
    buffer = np.empty(_STRIP, values.dtype)
    _add_layers(values, window, nodata, cells, zones, extremes, new_strip(_STRIP), buffer, table)
    return table


@jit
def _add_layers(
    values: NDArray[Any],
    window: Window,
    nodata: float,
    cells: Cells,
    zones: NDArray[np.int64],
    extremes: bool,
    strip: Strip,
    buffer: NDArray[Any],
    table: NDArray[np.float64],
) -> None:
    n_time = values.shape[0]
    for i in range(zones.size):
        k, column = cells.runs.offsets[zones[i]], ZERO
        while k < cells.runs.offsets[zones[i] + 1]:
            k, column, n_span, n = next_strip(cells, zones[i], k, column, window, strip)
            for t in range(n_time):
                gather(values[t], strip, n_span, buffer)
                _add_sums(buffer[:n], nodata, strip.area[:n], strip.share[:n], table[i, t])
                if extremes:
                    _add_extremes(buffer[:n], nodata, table[i, t])


def zone_quantiles(
    values: NDArray[Any],
    window: Window,
    nodata: float,
    cells: Cells,
    quantiles: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Quantiles of the observed values in every zone and layer, weighted by area.

    Parameters
    ----------
    values, window, nodata, cells
        As for `zone_sums`; zones that reach beyond the window are cut off.
    quantiles
        float64 ``(q,)``, 0 to 1. Quantile q is the smallest value such that values up to it take
        the share q of the observed area, to within 1e-12 of the area.

    Returns
    -------
    ndarray
        float64 ``(zone, time, q)``; NaN where nothing was observed.
    """
    found = np.full((cells.runs.offsets.size - 1, values.shape[0], quantiles.size), np.nan)
    strip = new_strip(largest_zone(cells.runs))
    buffer, area = np.empty(strip.area.size, values.dtype), np.empty(strip.area.size)
    _select_layers(values, window, nodata, cells, quantiles, strip, buffer, area, found)
    return found


@jit
def _select_layers(
    values: NDArray[Any],
    window: Window,
    nodata: float,
    cells: Cells,
    quantiles: NDArray[np.float64],
    strip: Strip,
    buffer: NDArray[Any],
    area: NDArray[np.float64],
    found: NDArray[np.float64],
) -> None:
    for zone in range(found.shape[0]):
        k = cells.runs.offsets[zone]
        if k == cells.runs.offsets[zone + 1]:
            continue
        _, _, n_span, n = next_strip(cells, zone, k, ZERO, window, strip)
        for t in range(values.shape[0]):
            gather(values[t], strip, n_span, buffer)
            seen, total = ZERO, 0.0
            for i in range(n):
                if _observed(np.float64(buffer[i]), nodata):
                    buffer[seen], area[seen] = buffer[i], strip.area[i]
                    total += area[seen]
                    seen += 1
            for q in range(quantiles.size if seen > 0 else 0):
                target = quantiles[q] * total * (1.0 - _ROUNDING)
                found[zone, t, q] = _weighted_select(buffer, area, seen, target)


def zone_classes(
    values: NDArray[Any],
    window: Window,
    nodata: float,
    cells: Cells,
    zones: NDArray[np.int64],
    lowest: int,
    n_codes: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Area and pixel shares of every class code in zones, layer by layer.

    Parameters
    ----------
    values
        Integers, else as for `zone_sums`, as are the other parameters.
    lowest, n_codes
        Smallest number of the values' type, and how many it has.

    Returns
    -------
    keys, sums
        int64 ``(row, 3)`` zone, layer and code; float64 ``(row, 2)`` area and share. A large zone
        may have several rows of one key: add them up.
    """
    strip, buffer = new_strip(_STRIP), np.empty(_STRIP, values.dtype)
    bins, met = np.zeros((n_codes, 2)), np.empty(n_codes, np.int64)
    # room for one strip at least
    n_row = max(values.shape[0] * min(n_codes, _STRIP), _ROWS)
    keys, sums = np.empty((n_row, 3), np.int64), np.empty((n_row, 2))
    parts = [(keys[:0].copy(), sums[:0].copy())]
    i, done, column = 0, 0, 0
    while i < zones.size:
        i, done, column, n_row = _add_strips(
            values, window, nodata, cells, zones, lowest, (i, done, column), strip, buffer, bins,
            met, keys, sums,
        )  # fmt: skip
        parts.append((keys[:n_row].copy(), sums[:n_row].copy()))
    every_key, every_sum = zip(*parts, strict=True)
    return np.concatenate(every_key), np.concatenate(every_sum)


@jit
def _add_strips(
    values: NDArray[Any],
    window: Window,
    nodata: float,
    cells: Cells,
    zones: NDArray[np.int64],
    lowest: int,
    place: tuple[int, int, int],
    strip: Strip,
    buffer: NDArray[Any],
    bins: NDArray[np.float64],
    met: NDArray[np.int64],
    keys: NDArray[np.int64],
    sums: NDArray[np.float64],
) -> tuple[int, int, int, int]:
    """Fill ``keys`` and ``sums`` from a place on: zone, its runs done, column.

    Returns the place to go on from, and the number of rows filled.
    """
    i, done, column = place
    n_row, most = 0, values.shape[0] * min(bins.shape[0], strip.area.size)
    while i < zones.size and n_row + most <= keys.shape[0]:
        first, end = cells.runs.offsets[zones[i]], cells.runs.offsets[zones[i] + 1]
        k, column, n_span, n = next_strip(cells, zones[i], first + done, column, window, strip)
        for t in range(values.shape[0]):
            gather(values[t], strip, n_span, buffer)
            for code in met[: _add_classes(buffer[:n], nodata, strip, lowest, bins, met)]:
                keys[n_row, 0], keys[n_row, 1], keys[n_row, 2] = zones[i], t, code + lowest
                sums[n_row, 0], sums[n_row, 1] = bins[code, 0], bins[code, 1]
                bins[code, 0], bins[code, 1] = 0.0, 0.0
                n_row += 1
        done = k - first
        if k >= end:
            i, done, column = i + 1, 0, 0
    return i, done, column, n_row


@jit_inline
def _observed(value: float, nodata: float) -> bool:
    return (abs(value) < np.inf) & (value != nodata)


@jit_sum
def _add_sums(
    values: NDArray[Any],
    nodata: float,
    area: NDArray[np.float64],
    share: NDArray[np.float64],
    sums: NDArray[np.float64],
) -> None:
    area_value, area_seen, share_value, share_seen = 0.0, 0.0, 0.0, 0.0
    for i in range(values.size):
        raw = np.float64(values[i])
        seen = _observed(raw, nodata)
        value = raw if seen else 0.0
        a = area[i] if seen else 0.0
        s = share[i] if seen else 0.0
        area_value += a * value
        area_seen += a
        share_value += s * value
        share_seen += s
    sums[AREA_VALUE] += area_value
    sums[AREA] += area_seen
    sums[SHARE_VALUE] += share_value
    sums[SHARE] += share_seen


@jit
def _add_extremes(values: NDArray[Any], nodata: float, sums: NDArray[np.float64]) -> None:
    least, most = sums[LEAST], sums[MOST]
    for i in range(values.size):
        value = np.float64(values[i])
        if _observed(value, nodata):
            least, most = min(least, value), max(most, value)
    sums[LEAST], sums[MOST] = least, most


@jit
def _add_classes(
    values: NDArray[Any],
    nodata: float,
    strip: Strip,
    lowest: int,
    bins: NDArray[np.float64],
    met: NDArray[np.int64],
) -> int:
    """Add the cells to the bins of their codes; list the codes met, from 0, and count them."""
    n = 0
    for i in range(values.size):
        if np.float64(values[i]) == nodata:
            continue
        code = np.int64(values[i]) - lowest
        if bins[code, 1] == 0.0:
            met[n] = code
            n += 1
        bins[code, 0] += strip.area[i]
        bins[code, 1] += strip.share[i]
    return n


@jit
def _weighted_select(
    values: NDArray[Any], weight: NDArray[np.float64], n: int, target: float
) -> Any:
    """Smallest of ``values[:n]`` up to which the weights reach ``target``; reorders both."""
    start, stop, step = ZERO, n, 1
    pivot = values[0]
    while start < stop:
        step = (step * 1103515245 + 12345) % 2147483648
        size = stop - start
        a = values[start + step % size]
        b = values[start + step // 8 % size]
        c = values[start + step // 64 % size]
        pivot = max(min(a, b), min(max(a, b), c))
        below, taken = _partition(values, weight, start, stop, pivot, ZERO)
        if below > start and target <= taken:
            stop = below
            continue
        target -= taken
        start, taken = _partition(values, weight, below, stop, pivot, ONE)
        if target <= taken:
            return pivot
        target -= taken
    # the weights add up to less than the target, by rounding: the last pivot is the greatest
    return pivot


@jit
def _partition(
    values: NDArray[Any],
    weight: NDArray[np.float64],
    start: int,
    stop: int,
    pivot: float,
    equals: int,
) -> tuple[int, float]:
    """Move what is below the pivot (``equals=1``: or equal) to the front.

    Returns where it ends and what it weighs. Branchless, as `minetrace.kernels.median`.
    """
    end, taken = start, 0.0
    for i in range(start, stop):
        value, w = values[i], weight[i]
        values[i], weight[i] = values[end], weight[end]
        values[end], weight[end] = value, w
        front = int(value < pivot) + equals * int(value == pivot)
        end += front
        taken += w * front
    return end, taken

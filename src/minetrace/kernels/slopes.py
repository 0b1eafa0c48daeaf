"""Order statistics of all pairwise slopes of many series at once, without computing the slopes.

How many slopes lie below m is how many pairs fall once the line m·t is taken off the series: one
comparison a pair, and every comparison runs along a block of series. A few such counts, made on
16-bit residuals, close in on the slopes of the wanted ranks. Only the handful of pairs that they
cannot decide are divided, in float64, and sorted: the result is the exact order statistic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import ZERO, jit
from minetrace.kernels.lines import RANGE, Buffers, close_in, count_falls, first_lines, residuals
from minetrace.kernels.median import select
from minetrace.kernels.network import comparators, sort_columns

_SCALES = (1e-30, 1e30)
"""Beyond these a range is too large or too small for float32; all slopes are taken."""
_SURE = 0.02
"""Bound of the float32 error of the difference of two residuals, in steps."""
_BLUR = 1.5
"""How far beyond the bracket rounding may leave a pair undecided, in steps."""
_NARROW = 8.0
"""Blurs between two lines that are not worth another count: ties hold the pairs together."""
_ROOM, _LARGEST_ROOM = 32, 1024
"""Room for undecided slopes of one series."""
_LOWEST_BIT = np.array([0, 1, 2, 5, 3, 9, 6, 11, 15, 4, 8, 10, 14, 7, 13, 12], np.int64)
"""Place of the only bit of 16 that is set, by the upper four bits of its product with 0x09AF."""


@dataclass(frozen=True, eq=False)
class Dates:
    """When the values of all series were taken."""

    years: NDArray[np.float64]
    """float64 ``(time,)``, increasing decimal years."""
    centred: NDArray[np.float32]
    """float32 ``(time,)``: years from the middle of their span."""
    sure: float
    """Steps a year by which a slope differs from a line to lie on one side of it for sure."""
    blur: float
    """Steps a year by which lines are moved apart to leave the wanted slopes between them."""
    room: int
    """Undecided slopes of one series that are sorted; with more, all are selected from."""

    @classmethod
    def of(cls, years: NDArray[np.float64]) -> Dates:
        """Dates of series that have a value, or a gap, in each of ``years``."""
        span = years[-1] - years[0] if years.size > 1 else 1.0
        sure = _SURE / np.diff(years).min(initial=span)
        centred = (years - (years[0] + years[-1]) / 2).astype(np.float32)
        # long series: of some thousand pairs 16-bit steps leave one undecided
        room = min(max(_ROOM, 1 << (years.size**2 // 256).bit_length()), _LARGEST_ROOM)
        return cls(years, centred, sure, max(6 * _BLUR / span, 2 * sure), room)


@dataclass(frozen=True, eq=False)
class Series:
    """Blocks of series, and what their order tells."""

    values: NDArray[Any]
    """float32 or float64 ``(block, time, lane)``, NaN for gaps."""
    gap: NDArray[np.int16]
    """int16 ``(block, time, lane)``: 1 where a value is missing."""
    least: NDArray[Any]
    """``(block, lane)``, of the type of the values."""
    largest: NDArray[Any]
    """``(block, lane)``, of the type of the values."""
    pairs: NDArray[np.int32]
    """int32 ``(3, block, lane)``: pairs of values that fall, are level, and rise."""


def slopes_of_rank(series: Series, dates: Dates, ranks: NDArray[np.int32]) -> NDArray[np.float64]:
    """Slopes of two ranks of every series.

    Parameters
    ----------
    series, dates
        The series.
    ranks
        int32 ``(2, block, lane)``: a rank from 0, and the same or the next; below 0 to leave a
        series out.

    Returns
    -------
    ndarray
        float64 ``(2, block, lane)``: the two slopes, 0 for series left out.
    """
    first, last = ranks
    fall, level, _ = series.pairs
    open_ = (first >= 0) & ((first < fall) | (last >= fall + level))
    found = np.zeros(ranks.shape)
    if not open_.any():
        return found
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        extent = series.largest.astype(np.float64) - series.least
        scale = np.where(open_, RANGE / extent, 0.0)
        # beyond these float32 does not hold the steps
        active = open_ & (scale > _SCALES[0]) & (scale < _SCALES[1])
        scale = np.where(active, scale, 0.0)
        middle = np.where(active, series.least + (series.largest - series.least) / 2, 0)
    buffer = Buffers.of(series.values.shape)
    scaled = np.empty(series.values.shape, np.float32)
    _scale(series.values, middle.astype(series.values.dtype), scale.astype(np.float32), scaled)
    line, below, starts = first_lines(series.pairs, ranks, dates.centred)
    centred = dates.centred
    close_in(scaled, series.gap, centred, series.pairs, ranks, active, starts, dates.room,
              float(_NARROW * dates.blur), buffer, line, below)  # fmt: skip
    line += np.array([-dates.blur, dates.blur], np.float32)[:, None, None]
    undecided = np.full((*active.shape[:1], dates.room, *active.shape[1:]), np.inf)
    count = np.zeros(active.shape, np.int32)
    _divide_undecided(
        series.values, scaled, series.gap, dates.years, centred, active, line, below[0],
        buffer, undecided, count,
    )  # fmt: skip
    sort_half, sort_all = comparators(dates.room // 2), comparators(dates.room)
    # half the room is enough for most blocks
    for slopes, most in zip(undecided, count.max(axis=1), strict=True):
        sort_columns(slopes, sort_half if most <= dates.room // 2 else sort_all)
    places = ranks - below[0]
    inside = active & (places[0] >= 0) & (places[1] < count) & (count <= dates.room)
    for k in range(2):
        place = np.where(inside, places[k], 0)[:, None]
        found[k] = np.where(inside, np.take_along_axis(undecided, place, axis=1)[:, 0], 0.0)
    # what the lines decided lies on the far sides of both slopes, rounding included
    sure = inside & (found[0] * scale > line[0] + dates.sure)
    sure &= found[1] * scale < line[1] - dates.sure
    at = np.argwhere(open_ & ~sure)
    if at.size:
        every = np.empty(series.values.shape[1] * (series.values.shape[1] - 1) // 2)
        _select(series.values, dates.years, at, ranks, every, found)
    return found


@jit
def _scale(
    values: NDArray[Any],
    middle: NDArray[Any],
    scale: NDArray[np.float32],
    scaled: NDArray[np.float32],
) -> None:
    """Values about the middle of their range, in 16-bit steps; 0 for gaps."""
    for block in range(values.shape[0]):
        for t in range(values.shape[1]):
            for lane in range(values.shape[2]):
                value = values[block, t, lane]
                steps = np.float32(value - middle[block, lane]) * scale[block, lane]
                scaled[block, t, lane] = steps if value == value else np.float32(0)


@jit
def _divide_undecided(
    values: NDArray[Any],
    scaled: NDArray[np.float32],
    gap: NDArray[np.int16],
    years: NDArray[np.float64],
    dates: NDArray[np.float32],
    active: NDArray[np.bool_],
    lines: NDArray[np.float32],
    below: NDArray[np.int32],
    buffer: Buffers,
    undecided: NDArray[np.float64],
    count: NDArray[np.int32],
) -> None:
    """Slopes that are neither below the lower nor above the upper line.

    Fills ``undecided``, ``(block, room, lane)``, and ``count``, which may exceed the room, and
    counts anew what is ``below``.
    """
    n_block, n_time, n_lanes = values.shape
    room = undecided.shape[1]
    earlier, later = buffer.rests[:2], buffer.rests[2:]
    row_counts, word = buffer.row_counts, buffer.word
    for block in range(n_block):
        for k in range(2):
            residuals(scaled[block], gap[block], dates, lines[k, block], earlier[k], later[k])
        count_falls(earlier[0], later[0], row_counts, below[block])
        for i in range(n_time - 1):
            low, high = earlier[0, i], earlier[1, i]
            for start in range((i + 1) // 16 * 16, n_time, 16):
                word[:] = 0
                for j in range(max(start, i + 1), min(start + 16, n_time)):
                    one, two = later[0, j], later[1, j]
                    bit, none = np.uint16(1 << (j - start)), np.uint16(0)
                    for lane in range(n_lanes):
                        # & loads all four always: AVX2 has no loads that depend on a comparison
                        undecidable = (one[lane] >= low[lane]) & (two[lane] <= high[lane])
                        word[lane] |= bit if undecidable else none
                for lane in range(n_lanes):
                    bits = np.int64(word[lane]) if active[block, lane] else 0
                    while bits != 0:
                        j = start + _LOWEST_BIT[((bits & -bits) * 0x09AF >> 12) & 15]
                        bits &= bits - 1
                        if count[block, lane] < room:
                            rise = np.float64(values[block, j, lane]) - values[block, i, lane]
                            undecided[block, count[block, lane], lane] = rise / (
                                years[j] - years[i]
                            )
                        count[block, lane] += 1


@jit
def _select(
    values: NDArray[Any],
    years: NDArray[np.float64],
    at: NDArray[np.int64],
    ranks: NDArray[np.int32],
    slopes: NDArray[np.float64],
    found: NDArray[np.float64],
) -> None:
    """The two slopes of the series at ``(block, lane)`` by selection among all slopes."""
    for block, lane in at:
        n = ZERO
        for i in range(years.size - 1):
            for j in range(i + 1, years.size):
                rise = np.float64(values[block, j, lane]) - values[block, i, lane]
                if not np.isnan(rise):
                    slopes[n] = rise / (years[j] - years[i])
                    n += 1
        found[1, block, lane] = select(slopes, n, np.int64(ranks[1, block, lane]))
        found[0, block, lane] = select(slopes, n, np.int64(ranks[0, block, lane]))

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

from minetrace.kernels.jit import jit
from minetrace.kernels.median import select
from minetrace.kernels.network import comparators, sort_columns

_FULL = 32000.0
"""Largest residual, of the 32,767 that 16 bits hold."""
_STEEPEST = np.float32(3.5)
"""Slopes, in ranges of the values over the span of the dates, between which the search starts."""
_RANGE = np.float32(_FULL / (0.5 + 3.5 / 2))
"""What the range of a series is scaled to, so that no residual is larger than `_FULL`."""
_SCALES = (1e-30, 1e30)
"""Beyond these a range is too large or too small for float32; all slopes are taken."""
_GAP_EARLIER, _GAP_LATER = np.int16(-32768), np.int16(32767)
"""Residuals of a gap: as the earlier value below, as the later above everything."""
_SURE = 0.02
"""Bound of the float32 error of the difference of two residuals, in steps."""
_BLUR = 1.5
"""How far beyond the bracket rounding may leave a pair undecided, in steps."""
_AIM = np.float32(3.0)
"""Ranks by which a line is laid beside the wanted one."""
_NARROW = 8.0
"""Blurs between two lines that are not worth another count: ties hold the pairs together."""
_MAX_COUNTS = 16
_ROOM, _LARGEST_ROOM = 32, 1024
"""Room for undecided slopes of one series."""
_COSTLY = 8
"""What selecting from all slopes of a series costs, in rooms."""
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
        scale = np.where(open_, _RANGE / extent, 0.0)
        # beyond these float32 does not hold the steps
        active = open_ & (scale > _SCALES[0]) & (scale < _SCALES[1])
        scale = np.where(active, scale, 0.0)
        middle = np.where(active, series.least + (series.largest - series.least) / 2, 0)
    scaled = np.empty(series.values.shape, np.float32)
    _scale(series.values, middle.astype(series.values.dtype), scale.astype(np.float32), scaled)
    line = np.zeros(ranks.shape, np.float32)
    below = np.zeros(ranks.shape, np.int32)
    centred = dates.centred
    _close_in(scaled, series.gap, centred, series.pairs, ranks, active, dates.room,
              float(_NARROW * dates.blur), line, below)  # fmt: skip
    line += np.array([-dates.blur, dates.blur], np.float32)[:, None, None]
    undecided = np.full((*active.shape[:1], dates.room, *active.shape[1:]), np.inf)
    count = np.zeros(active.shape, np.int32)
    _divide_undecided(
        series.values, scaled, series.gap, dates.years, centred, active, line, below[0],
        undecided, count,
    )  # fmt: skip
    _sort_undecided(
        undecided, count, *(comparators(n).copy() for n in (dates.room // 2, dates.room))
    )
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
        _select(series.values, dates.years, at, ranks, found)
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
def _close_in(
    scaled: NDArray[np.float32],
    gap: NDArray[np.int16],
    dates: NDArray[np.float32],
    pairs: NDArray[np.int32],
    ranks: NDArray[np.int32],
    active: NDArray[np.bool_],
    room: int,
    narrow: float,
    lines: NDArray[np.float32],
    counts_below: NDArray[np.int32],
) -> None:
    """Lay lines through the series and count the slopes below, until few are left between two.

    Fills ``lines`` and ``counts_below``, ``(2, block, lane)``, with the lines next to the wanted
    slopes and the numbers of slopes below them.
    """
    n_block, n_time, n_lanes = scaled.shape
    # the nearest lines above the first rank and below the last: one may part the two
    above, beneath = np.empty(n_lanes, np.float32), np.empty(n_lanes, np.float32)
    n_above, n_beneath = np.empty(n_lanes, np.int32), np.empty(n_lanes, np.int32)
    line, density = np.empty(n_lanes, np.float32), np.empty(n_lanes, np.float32)
    counts, row_counts = np.empty(n_lanes, np.int32), np.empty(n_lanes, np.int16)
    earlier = np.empty((n_time, n_lanes), np.int16)
    later = np.empty((n_time, n_lanes), np.int16)
    steepest = _STEEPEST * _RANGE / (dates[-1] - dates[0])
    dense = _density(dates)
    # all slopes of a short series are sorted without a count
    few = room if n_time * (n_time - 1) // 2 <= room else room // 3
    for block in range(n_block):
        first, last = ranks[0, block], ranks[1, block]
        low, high = lines[0, block], lines[1, block]
        n_low, n_high = counts_below[0, block], counts_below[1, block]
        some = 0
        for lane in range(n_lanes):
            some += int(active[block, lane])
            fall, level = pairs[0, block, lane], pairs[1, block, lane]
            every = fall + level + pairs[2, block, lane]
            up, down = first[lane] - fall - level, fall - 1 - last[lane]
            density[lane] = dense * max(every, 1)
            steps = _short_of(up) if up >= 0 else -_short_of(down) if down >= 0 else _AIM
            line[lane] = min(max(steps / density[lane], -steepest / 2), steepest / 2)
            low[lane] = 0.0 if up >= 0 else -steepest
            n_low[lane] = fall if up >= 0 else 0
            high[lane] = 0.0 if down >= 0 else steepest
            n_high[lane] = fall if down >= 0 else every
            above[lane], n_above[lane] = high[lane], n_high[lane]
            beneath[lane], n_beneath[lane] = low[lane], n_low[lane]
        for k in range(_MAX_COUNTS):
            left = 0
            for lane in range(n_lanes):
                inside = n_high[lane] - n_low[lane]
                cost = inside if inside <= room else _COSTLY * room
                left += cost if active[block, lane] else 0
            if left <= few * some:
                break
            _residuals(scaled[block], gap[block], dates, line, earlier, later)
            count_falls(earlier, later, row_counts, counts)
            for lane in range(n_lanes):
                n, m = counts[lane], line[lane]
                under, over = n <= first[lane], n > last[lane]
                low[lane] = m if under else low[lane]
                n_low[lane] = n if under else n_low[lane]
                high[lane] = m if over else high[lane]
                n_high[lane] = n if over else n_high[lane]
                above[lane] = above[lane] if under else m
                n_above[lane] = n_above[lane] if under else n
                beneath[lane] = beneath[lane] if over else m
                n_beneath[lane] = n_beneath[lane] if over else n
            if k == 0:
                for lane in range(n_lanes):
                    zero = pairs[0, block, lane] + pairs[1, block, lane] / np.float32(2)
                    passed = (abs(counts[lane] - zero) + 1) / max(abs(line[lane]), np.float32(1e-3))
                    density[lane] = min(max(passed, density[lane] / 4), density[lane] * 8)
            aim = _AIM + np.float32(k % 2)
            for lane in range(n_lanes):
                raise_low = first[lane] - n_low[lane] > n_high[lane] - 1 - last[lane]
                a = low[lane] if raise_low else beneath[lane]
                b = above[lane] if raise_low else high[lane]
                n_a = n_low[lane] if raise_low else n_beneath[lane]
                n_b = n_above[lane] if raise_low else n_high[lane]
                head, tail = np.float32(first[lane] - n_a), np.float32(n_b - 1 - last[lane])
                between = np.float32(max(n_b - n_a, 1))
                share = (head - aim if raise_low else between - tail + aim) / between
                share = min(max(share, np.float32(0.03)), np.float32(0.97))
                # ties bend the distribution so much that aiming by ranks hardly moves
                inside = n_high[lane] - n_low[lane]
                share = np.float32(0.5) if k % 2 == 1 and inside > 2 * few else share
                # an end where nothing was counted says nothing of the density
                reach = np.float32(0.8) * (b - a)
                onwards = a + min((head + aim * (k + 1)) / density[lane], reach)
                back = b - min((tail + aim * (k + 1)) / density[lane], reach)
                m = onwards if b == steepest else a + share * (b - a)
                m = back if a == -steepest else m
                tied = inside <= room and high[lane] - low[lane] < narrow
                line[lane] = low[lane] if inside <= few or tied else m


@jit
def _density(dates: NDArray[np.float32]) -> np.floating[Any]:
    """Share of the slopes in one step a year about their median, for normal noise.

    A pair of dates d apart has slopes of standard deviation sqrt(2) s / d, and s is about a
    quarter of the range.
    """
    apart = np.float32(0)
    for i in range(dates.size):
        apart += dates[i] * (2 * i + 1 - dates.size)
    pairs = np.float32(dates.size * (dates.size - 1) // 2)
    return apart / pairs / (np.float32(2 * np.sqrt(np.pi) / 4) * _RANGE)


@jit
def _short_of(ranks: int) -> np.floating[Any]:
    """Ranks to go so as to arrive a little before ``ranks``."""
    return ranks - _AIM if ranks > 2 * _AIM else np.float32(ranks + 1) / 2


@jit
def _residuals(
    scaled: NDArray[np.float32],
    gap: NDArray[np.int16],
    dates: NDArray[np.float32],
    line: NDArray[np.float32],
    earlier: NDArray[np.int16],
    later: NDArray[np.int16],
) -> None:
    """Take the lines off the series. Rounding towards 0 keeps the order of any two."""
    for t in range(dates.size):
        for lane in range(line.size):
            rest = np.int16(scaled[t, lane] - line[lane] * dates[t])
            earlier[t, lane] = _GAP_EARLIER if gap[t, lane] != 0 else rest
            later[t, lane] = _GAP_LATER if gap[t, lane] != 0 else rest


@jit
def count_falls(
    earlier: NDArray[Any],
    later: NDArray[Any],
    row_counts: NDArray[np.int16],
    counts: NDArray[np.int32],
) -> None:
    """Count the pairs of rows whose later value is the smaller, column by column.

    The narrow ``row_counts`` are a buffer: sums as wide as the values keep the vectors full.
    """
    n_time, n_lanes = earlier.shape
    counts[:] = 0
    for i in range(n_time - 1):
        a = earlier[i]
        row_counts[:] = 0
        # four dates at once: the counts are loaded and stored a quarter as often
        ahead = i + 1 + (n_time - 1 - i) // 4 * 4
        for j in range(i + 1, ahead, 4):
            b, c, d, e = later[j], later[j + 1], later[j + 2], later[j + 3]
            for lane in range(n_lanes):
                value = a[lane]
                row_counts[lane] += np.int16(
                    np.int16(np.int16(b[lane] < value) + np.int16(c[lane] < value))
                    + np.int16(np.int16(d[lane] < value) + np.int16(e[lane] < value))
                )
        for j in range(ahead, n_time):
            b = later[j]
            for lane in range(n_lanes):
                row_counts[lane] += np.int16(b[lane] < a[lane])
        for lane in range(n_lanes):
            counts[lane] += row_counts[lane]


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
    undecided: NDArray[np.float64],
    count: NDArray[np.int32],
) -> None:
    """Slopes that are neither below the lower nor above the upper line.

    Fills ``undecided``, ``(block, room, lane)``, and ``count``, which may exceed the room, and
    counts anew what is ``below``.
    """
    n_block, n_time, n_lanes = values.shape
    room = undecided.shape[1]
    earlier = np.empty((2, n_time, n_lanes), np.int16)
    later = np.empty((2, n_time, n_lanes), np.int16)
    row_counts, word = np.empty(n_lanes, np.int16), np.empty(n_lanes, np.uint16)
    for block in range(n_block):
        for k in range(2):
            _residuals(scaled[block], gap[block], dates, lines[k, block], earlier[k], later[k])
        count_falls(earlier[0], later[0], row_counts, below[block])
        for i in range(n_time - 1):
            low, high = earlier[0, i], earlier[1, i]
            for start in range((i + 1) // 16 * 16, n_time, 16):
                word[:] = 0
                for j in range(max(start, i + 1), min(start + 16, n_time)):
                    one, two = later[0, j], later[1, j]
                    bit, none = np.uint16(1 << (j - start)), np.uint16(0)
                    for lane in range(n_lanes):
                        undecidable = one[lane] >= low[lane] and two[lane] <= high[lane]
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
def _sort_undecided(
    undecided: NDArray[np.float64],
    count: NDArray[np.int32],
    sort_half: NDArray[np.int32],
    sort_all: NDArray[np.int32],
) -> None:
    """Sort what `_divide_undecided` found; half the room is enough for most blocks."""
    half = undecided.shape[1] // 2
    for block in range(count.shape[0]):
        most = 0
        for lane in range(count.shape[1]):
            most = max(most, count[block, lane])
        pairs = sort_half if most <= half else sort_all
        sort_columns(undecided[block], pairs)


@jit
def _select(
    values: NDArray[Any],
    years: NDArray[np.float64],
    at: NDArray[np.int64],
    ranks: NDArray[np.int32],
    found: NDArray[np.float64],
) -> None:
    """The two slopes of the series at ``(block, lane)`` by selection among all slopes."""
    slopes = np.empty(years.size * (years.size - 1) // 2)
    for block, lane in at:
        n = 0
        for i in range(years.size - 1):
            for j in range(i + 1, years.size):
                rise = np.float64(values[block, j, lane]) - values[block, i, lane]
                if not np.isnan(rise):
                    slopes[n] = rise / (years[j] - years[i])
                    n += 1
        found[1, block, lane] = select(slopes, n, ranks[1, block, lane])
        found[0, block, lane] = select(slopes, n, ranks[0, block, lane])

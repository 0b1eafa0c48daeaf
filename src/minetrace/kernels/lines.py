"""Lines laid through series, and the counts of pairs that fall below them.

The slopes of wanted ranks are closed in on: a line lies above a slope if more pairs than its rank
fall once the line is taken off the series. Counts are made on 16-bit residuals.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit

_FULL = 32000.0
"""Largest residual, of the 32,767 that 16 bits hold."""
_STEEPEST = np.float32(3.5)
"""Slopes, in ranges of the values over the span of the dates, between which the search starts."""
RANGE = np.float32(_FULL / (0.5 + 3.5 / 2))
"""What the range of a series is scaled to, so that no residual is larger than `_FULL`."""
_GAP_EARLIER, _GAP_LATER = np.int16(-32768), np.int16(32767)
"""Residuals of a gap: as the earlier value below, as the later above everything."""
_AIM = np.float32(3.0)
"""Ranks by which a line is laid beside the wanted one."""
_MAX_COUNTS = 16
_COSTLY = 8
"""What selecting from all slopes of a series costs, in rooms."""


class Buffers(NamedTuple):
    """What the search needs for one block."""

    row_counts: NDArray[np.int16]
    """int16 ``(lane,)``."""
    word: NDArray[np.uint16]
    """uint16 ``(lane,)``."""
    rests: NDArray[np.int16]
    """int16 ``(4, time, lane)``: residuals of two lines, as earlier and as later values."""

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Buffers:
        """Buffers for blocks of a shape ``(block, time, lane)``."""
        n_time, n_lanes = shape[1:]
        return cls(
            np.empty(n_lanes, np.int16), np.empty(n_lanes, np.uint16),
            np.empty((4, n_time, n_lanes), np.int16),
        )  # fmt: skip


def first_lines(
    pairs: NDArray[np.int32], ranks: NDArray[np.int32], dates: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Lines that enclose the slopes of the ranks, slopes below them, and where to begin.

    The last, ``(2, block, lane)``, are the first line and the slopes expected in one step a year
    about it. Lines of slope 0 need no count.
    """
    steepest = _STEEPEST * RANGE / (dates[-1] - dates[0])
    fall, level, rise = pairs
    every = fall + level + rise
    up, down = ranks[0] - fall - level, fall - 1 - ranks[1]
    rises, falls = up >= 0, down >= 0
    line = np.zeros(ranks.shape, np.float32)
    line[0, ~rises], line[1, ~falls] = -steepest, steepest
    below = np.stack([fall * rises, np.where(falls, fall, every)])
    density = np.float32(_density(dates)) * np.maximum(every, 1).astype(np.float32)
    # to arrive a little before the rank
    away = np.where(rises, up, down).astype(np.float32)
    steps = np.where(away > 2 * _AIM, away - _AIM, (away + 1) / 2)
    steps = np.where(rises | falls, steps, _AIM) / density
    np.negative(steps, out=steps, where=falls & ~rises)
    first = np.clip(steps, -steepest / 2, steepest / 2)
    return line, below, np.stack([first, density])


def _density(dates: NDArray[np.float32]) -> float:
    """Share of the slopes in one step a year about their median, for normal noise.

    A pair of dates d apart has slopes of standard deviation sqrt(2) s / d, and s is about a
    quarter of the range.
    """
    n = dates.size
    apart = float(dates @ (2 * np.arange(n) + 1 - n)) / (n * (n - 1) // 2)
    return apart / (2 * math.sqrt(math.pi) / 4 * float(RANGE))


@jit
def close_in(
    scaled: NDArray[np.float32],
    gap: NDArray[np.int16],
    dates: NDArray[np.float32],
    pairs: NDArray[np.int32],
    ranks: NDArray[np.int32],
    active: NDArray[np.bool_],
    starts: NDArray[np.float32],
    room: int,
    narrow: float,
    buffer: Buffers,
    lines: NDArray[np.float32],
    counts_below: NDArray[np.int32],
) -> None:
    """Lay lines through the series and count the slopes below, until few are left between two.

    ``lines`` and ``counts_below``, ``(2, block, lane)``, come and ``starts`` comes from
    `first_lines`; filled in are the lines next to the wanted slopes and the slopes below them.
    """
    n_block, n_time, n_lanes = scaled.shape
    # the nearest lines above the first rank and below the last: one may part the two
    # allocated here: of arrays that come from outside LLVM does not know that they are apart
    above, beneath = np.empty(n_lanes, np.float32), np.empty(n_lanes, np.float32)
    n_above, n_beneath = np.empty(n_lanes, np.int32), np.empty(n_lanes, np.int32)
    line, density = np.empty(n_lanes, np.float32), np.empty(n_lanes, np.float32)
    counts = np.empty(n_lanes, np.int32)
    row_counts, earlier, later = buffer.row_counts, buffer.rests[0], buffer.rests[1]
    steepest = _STEEPEST * RANGE / (dates[-1] - dates[0])
    # all slopes of a short series are sorted without a count
    few = room if n_time * (n_time - 1) // 2 <= room else room // 3
    for block in range(n_block):
        first, last = ranks[0, block], ranks[1, block]
        low, high = lines[0, block], lines[1, block]
        n_low, n_high = counts_below[0, block], counts_below[1, block]
        some = 0
        for lane in range(n_lanes):
            some += int(active[block, lane])
            line[lane], density[lane] = starts[0, block, lane], starts[1, block, lane]
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
            residuals(scaled[block], gap[block], dates, line, earlier, later)
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
                share = np.float32(0.5) if (k % 2 == 1) & (inside > 2 * few) else share
                # an end where nothing was counted says nothing of the density
                reach = np.float32(0.8) * (b - a)
                onwards = a + min((head + aim * (k + 1)) / density[lane], reach)
                back = b - min((tail + aim * (k + 1)) / density[lane], reach)
                m = onwards if b == steepest else a + share * (b - a)
                m = back if a == -steepest else m
                tied = (inside <= room) & (high[lane] - low[lane] < narrow)
                line[lane] = low[lane] if inside <= few or tied else m


@jit
def residuals(
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

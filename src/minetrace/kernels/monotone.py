"""Mann-Kendall test and Sen's slope of many series at once.

A value that is not finite was not observed: it pairs with nothing. Series are taken in blocks of
`LANES`, time first, so that every comparison of two dates runs along them, and some blocks at a
time, so that they stay in the cache from one step to the next. Results are those of float64
arithmetic on each series alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit
from minetrace.kernels.lines import count_falls
from minetrace.kernels.network import comparators, sort_columns
from minetrace.kernels.normal import P, approximate
from minetrace.kernels.slopes import Dates, Series, slopes_of_rank

STATISTICS = ("s", "var_s", "z", "p", "tau", "slope", "intercept")
"""Rows of the result of `mann_kendall`."""

EXACT_BELOW = 10
"""Series shorter than this have their exact null distribution evaluated on request."""

LANES = 256
"""Series in a block: 38 16-bit values of each, and what is counted of them, fill the L1 cache."""

_NARROWEST = 32
"""Lanes of the narrowest block."""

_LAYERS = 640
"""Rows of `LANES` values taken at a time: with all buffers of them about 2 MB."""


def mann_kendall(
    values: NDArray[Any], years: NDArray[np.float64], min_valid: int, exact: bool
) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
    """Test every column of ``values`` for a monotone trend.

    Parameters
    ----------
    values
        float32 or float64 ``(time, pixel)``; what is not finite is skipped.
    years
        float64 ``(time,)``, increasing decimal years.
    min_valid
        Columns with fewer valid values (2 at least) give NaN.
    exact
        Whether p of fewer than `EXACT_BELOW` values is the exact one.

    Returns
    -------
    statistics, n
        float64 ``(7, pixel)`` in the order of `STATISTICS`, and the int16 count of valid values.
    """
    statistics = np.full((len(STATISTICS), values.shape[1]), np.nan)
    n_valid = np.zeros(values.shape[1], np.int16)
    dates = Dates.of(years)
    for at, taken in _blocks(values):
        n, pairs = taken.n, taken.n * (taken.n - 1) // 2
        enough = n >= max(min_valid, 2)
        ranks = np.where(enough, np.stack([(pairs - 1) // 2, pairs // 2]), -1)
        slope = slopes_of_rank(taken.series, dates, ranks).sum(axis=0) / 2
        s = taken.series.pairs[2] - taken.series.pairs[0]
        var_s = taken.var_s
        with np.errstate(divide="ignore", invalid="ignore"):
            tau = s / (0.5 * n * (n - 1))
        centre = taken.middle_value - (taken.middle_year(years) - years[0]) * slope
        found = np.stack([s, var_s, tau, tau, tau, slope, centre])
        approximate(found.reshape(len(STATISTICS), -1), 1.0)
        if exact:
            _exact_p_values(s, n, taken.ordered, found[P])
        found = np.where(enough, found, np.nan)
        statistics[:, at] = found.reshape(len(STATISTICS), -1)[:, : at.stop - at.start]
        n_valid[at] = n.ravel()[: at.stop - at.start]
    return statistics, n_valid


def sen_interval(
    values: NDArray[Any], years: NDArray[np.float64], quantile: float
) -> NDArray[np.float64]:
    """Confidence limits of Sen's slope of every column.

    Parameters
    ----------
    values, years
        As for `mann_kendall`.
    quantile
        Of the standard normal distribution: 1.96 for 95 %.

    Returns
    -------
    ndarray
        float64 ``(2, pixel)``: lower and upper limit, after Sen (1968) and Gilbert (1987). Of N
        ordered slopes they are those of the ranks (N - C) / 2 and (N + C) / 2 + 1 from 1, where
        C is ``quantile`` times the standard deviation of S; interpolated between two ranks, NaN
        beyond the first or last.
    """
    limits = np.full((2, values.shape[1]), np.nan)
    dates = Dates.of(years)
    for at, taken in _blocks(values):
        pairs = taken.n * (taken.n - 1) // 2
        half = quantile * np.sqrt(taken.var_s) / 2
        for k, place in enumerate((pairs / 2 - half - 1, pairs / 2 + half)):
            known = (taken.n >= 2) & (place >= 0) & (place <= pairs - 1)
            lower = np.where(known, np.floor(place), -1).astype(np.int32)
            ranks = np.stack([lower, np.where(known, np.ceil(place), -1).astype(np.int32)])
            a, b = slopes_of_rank(taken.series, dates, ranks)
            found = np.where(known, a + (place - lower) * (b - a), np.nan)
            limits[k, at] = found.ravel()[: at.stop - at.start]
    return limits


@dataclass(frozen=True, eq=False)
class _Taken:
    """Blocks of series with what sorting and comparing them gives; arrays ``(block, lane)``."""

    series: Series
    ordered: NDArray[Any]
    """``(block, time, lane)``: the values sorted, gaps last as infinities."""
    n: NDArray[np.int32]
    """Valid values."""
    ties: NDArray[np.int64]
    """Sum of t (t - 1) (2 t + 5) over the groups of t equal values."""

    @property
    def var_s(self) -> NDArray[np.float64]:
        """Variance of S under the null hypothesis, corrected for ties."""
        n = self.n.astype(np.int64)
        return np.asarray((n * (n - 1) * (2 * n + 5) - self.ties) / 18)

    @property
    def middle_value(self) -> NDArray[np.float64]:
        """Median of the values; nothing of use where there are none."""
        a, b = (
            np.take_along_axis(self.ordered, np.maximum(k, 0)[:, None], axis=1)[:, 0]
            for k in ((self.n - 1) // 2, np.minimum(self.n // 2, self.n - 1))
        )
        with np.errstate(invalid="ignore"):
            return np.asarray((a.astype(np.float64) + b) / 2)

    def middle_year(self, years: NDArray[np.float64]) -> NDArray[np.float64]:
        """Median of the dates of the values."""
        at = np.empty((2, *self.n.shape), np.int16)
        _middle_dates(self.series.gap, self.n, np.empty((3, self.n.shape[1]), np.int16), at)
        return np.asarray((years[at[0]] + years[at[1]]) / 2)


def _blocks(values: NDArray[Any]) -> Iterator[tuple[slice, _Taken]]:
    """Take the columns, blocks at a time, with the place they come from."""
    n_time, n_pixel = values.shape
    network = comparators(n_time)
    lanes = min(LANES, (n_pixel // _NARROWEST + 1) * _NARROWEST)
    step = lanes * max(1, _LAYERS // n_time)
    row_counts, equals = np.empty(lanes, np.int16), np.empty(lanes, np.int32)
    for start in range(0, n_pixel, step):
        at = slice(start, min(start + step, n_pixel))
        shape = (-((start - at.stop) // lanes), n_time, lanes)
        y, ordered = np.empty(shape, values.dtype), np.empty(shape, values.dtype)
        gap = np.empty(shape, np.int16)
        n, pairs = np.zeros(shape[::2], np.int32), np.zeros((3, *shape[::2]), np.int32)
        ties = np.zeros(shape[::2], np.int64)
        last = at.stop - at.start - (shape[0] - 1) * lanes
        y[-1, :, last:], ordered[-1, :, last:], gap[-1, :, last:] = np.nan, np.inf, 1
        _load(values, at.start, at.stop, y, ordered, gap, n)
        _compare(y, ordered, n, network, row_counts, equals, pairs, ties)
        largest = np.take_along_axis(ordered, np.maximum(n - 1, 0)[:, None], axis=1)[:, 0]
        yield at, _Taken(Series(y, gap, ordered[:, 0], largest, pairs), ordered, n, ties)


@jit
def _load(
    values: NDArray[Any],
    start: int,
    stop: int,
    y: NDArray[Any],
    ordered: NDArray[Any],
    gap: NDArray[np.int16],
    n: NDArray[np.int32],
) -> None:
    """Copy columns to blocks."""
    n_block, n_time, n_lanes = y.shape
    for block in range(n_block):
        first = start + block * n_lanes
        width = min(n_lanes, stop - first)
        for t in range(n_time):
            row = values[t, first : first + width]
            for lane in range(width):
                valid = abs(row[lane]) < np.inf
                y[block, t, lane] = row[lane] if valid else np.nan
                ordered[block, t, lane] = row[lane] if valid else np.inf
                gap[block, t, lane] = 0 if valid else 1
                n[block, lane] += int(valid)


@jit
def _compare(
    y: NDArray[Any],
    ordered: NDArray[Any],
    n: NDArray[np.int32],
    network: NDArray[np.int32],
    row_counts: NDArray[np.int16],
    equals: NDArray[np.int32],
    pairs: NDArray[np.int32],
    ties: NDArray[np.int64],
) -> None:
    """Sort ``ordered``, fill ``pairs`` (falling, level, rising) and ``ties``; the rest are buffers.

    Of e.g. 4 4 4 7 the numbers e of earlier equals are 0 1 2 0: level pairs are their sum, and
    t (t - 1) (2 t + 5) over a group is that of 6 e (e + 2).
    """
    n_block, n_time, n_lanes = y.shape
    for block in range(n_block):
        sort_columns(ordered[block], network)
        count_falls(y[block], y[block], row_counts, pairs[0, block])
        equals[:] = 0
        for t in range(1, n_time):
            a, b = ordered[block, t - 1], ordered[block, t]
            for lane in range(n_lanes):
                level = (a[lane] == b[lane]) & (t < n[block, lane])
                equals[lane] = equals[lane] + 1 if level else 0
                pairs[1, block, lane] += equals[lane]
                ties[block, lane] += 6 * equals[lane] * (equals[lane] + 2)
        for lane in range(n_lanes):
            every = n[block, lane] * (n[block, lane] - 1) // 2
            pairs[2, block, lane] = every - pairs[1, block, lane] - pairs[0, block, lane]


@jit
def _middle_dates(
    gap: NDArray[np.int16],
    n: NDArray[np.int32],
    buffer: NDArray[np.int16],
    at: NDArray[np.int16],
) -> None:
    """Fill ``at`` with the places of the middle two valid values, the same for an odd number."""
    n_lanes = n.shape[1]
    seen, half = buffer[0], buffer[1:]
    for block in range(n.shape[0]):
        for lane in range(n_lanes):
            seen[lane] = 0
            half[0, lane], half[1, lane] = (n[block, lane] - 1) // 2, n[block, lane] // 2
            at[0, block, lane], at[1, block, lane] = -1, -1
        for t in range(gap.shape[1]):
            for lane in range(n_lanes):
                # on the way to valid value k, and at it, k or fewer were seen before
                at[0, block, lane] += np.int16(seen[lane] <= half[0, lane])
                at[1, block, lane] += np.int16(seen[lane] <= half[1, lane])
                seen[lane] += np.int16(1) - gap[block, t, lane]


@jit
def _exact_p_values(
    s: NDArray[np.int32], n: NDArray[np.int32], ordered: NDArray[Any], p: NDArray[np.float64]
) -> None:
    """Two-sided p of short series by the distribution of all orders of the values."""
    for block in range(n.shape[0]):
        for lane in range(n.shape[1]):
            if n[block, lane] < EXACT_BELOW:
                p[block, lane] = _exact_p(s[block, lane], ordered[block, : n[block, lane], lane])


@jit
def _exact_p(s: int, ordered: NDArray[Any]) -> float:
    """P(|S| >= |s|) over all orders of the series' own values.

    The orders with k inversions are counted by the coefficients of the q-multinomial
    prod(1 - q^i, i = 1..n) / prod(1 - q^i, i = 1..t, every tie group of t), and
    S = untied pairs - 2k.
    """
    n = ordered.size
    rank = np.ones(n, np.int64)
    untied = n * (n - 1) // 2
    for j in range(1, n):
        if ordered[j] == ordered[j - 1]:
            rank[j] = rank[j - 1] + 1
            untied -= rank[j - 1]
    orders = np.zeros(untied + 1, np.int64)
    orders[0] = 1
    for i in range(1, n + 1):
        for k in range(untied, i - 1, -1):
            orders[k] -= orders[k - i]
    for j in range(n):
        for k in range(rank[j], untied + 1):
            orders[k] += orders[k - rank[j]]
    extreme, every = 0, 0
    for k in range(untied + 1):
        every += orders[k]
        if abs(untied - 2 * k) >= abs(s):
            extreme += orders[k]
    return extreme / every

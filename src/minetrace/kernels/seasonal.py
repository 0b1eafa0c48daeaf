"""Mann-Kendall test over seasons, or over any other groups of the values of one series."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import ZERO, jit
from minetrace.kernels.median import median
from minetrace.kernels.normal import INTERCEPT, SLOPE, TAU, VAR_S, S, approximate


def seasonal_mann_kendall(
    values: NDArray[Any],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    times: NDArray[np.float64],
    positions: NDArray[np.float64],
    period: float,
    min_valid: int,
) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
    """Test every column of ``values`` for a trend within groups of its rows.

    Parameters
    ----------
    values
        float32 or float64 ``(row, pixel)``; what is not finite is skipped.
    order, starts
        int64 ``(row,)`` and ``(group + 1,)``: group g has the rows
        ``order[starts[g]:starts[g + 1]]``, in time's order. Values of different groups are never
        compared.
    times
        float64 ``(row,)``: times of which the differences count within a group.
    positions, period
        float64 ``(row,)``: positions from the first step on, ``period`` of them in a unit of
        time; they place the intercept.
    min_valid
        Columns with fewer valid values (2 at least), or with no two in one group, give NaN.

    Returns
    -------
    statistics, n
        As `monotone.mann_kendall`: sums of s and var_s over groups, tau of all pairs within
        groups, the median of these pairs' slopes.
    """
    n_row, n_pixel = values.shape
    statistics = np.full((7, n_pixel), np.nan)
    n_valid = np.zeros(n_pixel, np.int16)
    size = np.diff(starts)
    slopes = np.empty((size * (size - 1) // 2).sum())
    _test_columns(
        values, order, starts, times, positions, period, min_valid, slopes,
        np.empty(n_row, np.int64), np.empty((3, n_row)), statistics, n_valid,
    )  # fmt: skip
    approximate(statistics, 1.0)
    return statistics, n_valid


@jit
def _test_columns(
    values: NDArray[Any],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    times: NDArray[np.float64],
    positions: NDArray[np.float64],
    period: float,
    min_valid: int,
    slopes: NDArray[np.float64],
    equals: NDArray[np.int64],
    taken: NDArray[np.float64],
    statistics: NDArray[np.float64],
    n_valid: NDArray[np.int16],
) -> None:
    """Fill all but z and p of ``statistics``; ``slopes``, ``equals`` and ``taken`` are buffers."""
    y, t, where = taken[0], taken[1], taken[2]
    for pixel in range(values.shape[1]):
        n, pairs, s, var_s = ZERO, ZERO, ZERO, 0.0
        for group in range(starts.size - 1):
            first = n
            for row in order[starts[group] : starts[group + 1]]:
                value = np.float64(values[row, pixel])
                if np.isfinite(value):
                    y[n], t[n], where[n] = value, times[row], positions[row]
                    n += 1
            m = n - first
            s += _compare(y[first:n], t[first:n], slopes[pairs:], equals)
            var_s += _variance(m, equals)
            pairs += m * (m - 1) // 2
        n_valid[pixel] = n
        if n >= max(min_valid, 2) and pairs > 0:
            out = statistics[:, pixel]
            out[S], out[VAR_S], out[TAU] = s, var_s, s / pairs
            out[SLOPE] = median(slopes, pairs)
            out[INTERCEPT] = median(y, n) - median(where, n) / period * out[SLOPE]


@jit
def _compare(
    y: NDArray[np.float64],
    t: NDArray[np.float64],
    slopes: NDArray[np.float64],
    equals: NDArray[np.int64],
) -> int:
    """Rising minus falling pairs of one group; fills ``slopes`` and the counts of earlier equals.

    Groups are short (one value a year), so one loop over pairs does all three.
    """
    s, pair = 0, 0
    for j in range(y.size):
        equals[j] = 0
        for i in range(j):
            slopes[pair] = (y[j] - y[i]) / (t[j] - t[i])
            s += int(y[j] > y[i]) - int(y[j] < y[i])
            equals[j] += int(y[j] == y[i])
            pair += 1
    return s


@jit
def _variance(n: int, equals: NDArray[np.int64]) -> float:
    """Variance of S of one group of ``n`` values, corrected for ties as in `serial.score`."""
    ties = 0
    for j in range(n):
        ties += 6 * equals[j] * (equals[j] + 2)
    return (n * (n - 1) * (2 * n + 5) - ties) / 18

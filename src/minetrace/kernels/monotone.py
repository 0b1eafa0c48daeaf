"""Mann-Kendall test and Sen's slope of many series at once.

A value that is not finite was not observed: it pairs with nothing. All arithmetic is float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit
from minetrace.kernels.median import median

STATISTICS = ("s", "var_s", "z", "p", "tau", "slope", "intercept")
"""Rows of the result of `mann_kendall`."""

EXACT_BELOW = 10
"""Series shorter than this have their exact null distribution evaluated on request."""


@jit
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
    n_time, n_pixel = values.shape
    statistics = np.full((len(STATISTICS), n_pixel), np.nan)
    n_valid = np.zeros(n_pixel, np.int16)
    y = np.empty(n_time)
    t = np.empty(n_time)
    slopes = np.empty(n_time * (n_time - 1) // 2)
    equals = np.empty(n_time, np.int64)
    for pixel in range(n_pixel):
        n = _gather(values, years, pixel, y, t)
        n_valid[pixel] = n
        if n >= max(min_valid, 2):
            _test(y[:n], t[:n], years[0], exact, slopes, equals, statistics[:, pixel])
    return statistics, n_valid


@jit
def _gather(
    values: NDArray[Any],
    years: NDArray[np.float64],
    pixel: int,
    y: NDArray[np.float64],
    t: NDArray[np.float64],
) -> int:
    """Copy one column's valid values and their years to the buffers; return how many."""
    n = 0
    for i in range(years.size):
        value = np.float64(values[i, pixel])
        if np.isfinite(value):
            y[n] = value
            t[n] = years[i]
            n += 1
    return n


@jit
def _test(
    y: NDArray[np.float64],
    t: NDArray[np.float64],
    origin: float,
    exact: bool,
    slopes: NDArray[np.float64],
    equals: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:
    """Fill ``out`` with `STATISTICS` of one gapless series; ``y`` and ``t`` are reordered."""
    n = y.size
    s = _compare_pairs(y, t, slopes, equals)
    var_s = _variance(n, equals)
    z = (s - np.sign(s)) / math.sqrt(var_s) if s != 0 else 0.0
    p = _exact_p(s, n, equals) if exact and n < EXACT_BELOW else math.erfc(abs(z) / math.sqrt(2.0))
    slope = median(slopes, n * (n - 1) // 2)
    out[0] = s
    out[1] = var_s
    out[2] = z
    out[3] = p
    out[4] = s / (0.5 * n * (n - 1))
    out[5] = slope
    out[6] = median(y, n) - (median(t, n) - origin) * slope


@jit
def _compare_pairs(
    y: NDArray[np.float64],
    t: NDArray[np.float64],
    slopes: NDArray[np.float64],
    equals: NDArray[np.int64],
) -> int:
    """Rising minus falling pairs: 1 3 2 -> (+ + -) -> 1.

    Fills ``slopes`` with one slope a pair and ``equals[j]`` with the number of earlier values
    equal to the j-th: 4 7 4 4 -> 0 0 1 2.
    """
    n = y.size
    for j in range(n):
        equals[j] = 0
    s = 0
    first = 0
    for i in range(n - 1):
        # slices from 0 and one result a loop: these vectorise, one loop for all three does not
        later, when, ties = y[i + 1 :], t[i + 1 :], equals[i + 1 : n]
        slope = slopes[first : first + later.size]
        for j in range(later.size):
            slope[j] = (later[j] - y[i]) / (when[j] - t[i])
        for j in range(later.size):
            s += int(later[j] > y[i]) - int(later[j] < y[i])
        for j in range(later.size):
            ties[j] += int(later[j] == y[i])
        first += later.size
    return s


@jit
def _variance(n: int, equals: NDArray[np.int64]) -> float:
    """Variance of S under the null hypothesis, corrected for ties.

    The usual sum of t(t-1)(2t+5) over groups of t tied values telescopes into 6e(e+2) over the
    values, e being the number of earlier equals.
    """
    ties = 0
    for j in range(n):
        ties += 6 * equals[j] * (equals[j] + 2)
    return (n * (n - 1) * (2 * n + 5) - ties) / 18


@jit
def _exact_p(s: int, n: int, equals: NDArray[np.int64]) -> float:
    """P(|S| >= |s|) over all orders of the series' own values.

    The orders with k inversions are counted by the coefficients of the q-multinomial
    prod(1 - q^i, i = 1..n) / prod(1 - q^i, i = 1..t, every tie group of t), and
    S = untied pairs - 2k.
    """
    untied = n * (n - 1) // 2
    for j in range(n):
        untied -= equals[j]
    orders = np.zeros(untied + 1, np.int64)
    orders[0] = 1
    for i in range(1, n + 1):
        for k in range(untied, i - 1, -1):
            orders[k] -= orders[k - i]
    for j in range(n):
        rank = equals[j] + 1
        for k in range(rank, untied + 1):
            orders[k] += orders[k - rank]
    extreme, every = 0, 0
    for k in range(untied + 1):
        every += orders[k]
        if abs(untied - 2 * k) >= abs(s):
            extreme += orders[k]
    return extreme / every

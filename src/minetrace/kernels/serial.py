"""Mann-Kendall tests of serially correlated series: what their variance and their values become.

Series are handled `LANES` at a time, time-first, as one row of numbers a step: every loop over
lanes is a vector loop. The valid values of a series stand first in its lane, as if consecutive; the
lag between two of them is counted in values. All arithmetic is float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit, jit_inline

LANES = 256
"""Series handled at once: 40 steps of them fit into the second-level cache."""


def variance_factor(
    values: NDArray[Any],
    years: NDArray[np.float64],
    slope: NDArray[np.float64],
    lags: int,
    ranked: bool,
    bound: float,
) -> NDArray[np.float64]:
    """By how much serial correlation widens the variance of S.

    Parameters
    ----------
    values
        float32 or float64 ``(time, pixel)``; what is not finite is skipped.
    years
        float64 ``(time,)``, increasing decimal years.
    slope
        float64 ``(pixel,)`` per year, of the line that is taken off first; NaN leaves a column out.
    lags
        Number of lags that count.
    ranked
        The factor of Hamed and Rao (1998), from the ranks of the values and significant lags
        only; else that of Yue and Wang (2004), from the values and all lags.
    bound
        Autocorrelation times √n from which a lag is significant.

    Returns
    -------
    ndarray
        float64 ``(pixel,)``; NaN without values and, for ranks, with fewer than three.
    """
    n_time, n_pixel = values.shape
    factor = np.empty(n_pixel)
    y, t, d, r, n = _buffers(n_time, min(LANES, n_pixel))
    weighted = np.empty(n.size)
    for first in range(0, n_pixel, LANES):
        lanes = slice(first, first + n.size)
        pack(values, years, slope, first, y, t, n)
        add_line(y, t, slope[lanes], -1.0, 1.0)
        if ranked:
            _centre_ranks(y, d)
        else:
            _centre(y, n, d)
        _add_lags(d, n, min(lags, n_time - 1), ranked, bound, r, weighted)
        m = n.astype(np.float64)
        every = m * (m - 1.0) * (m - 2.0) if ranked else m
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(every > 0, 1.0 + 2.0 / every * weighted, np.nan)
        factor[lanes] = found[: n_pixel - first]
    return factor


def whitened_score(
    values: NDArray[Any],
    years: NDArray[np.float64],
    slope: NDArray[np.float64],
    trend_free: bool,
) -> NDArray[np.float64]:
    """S of every column after its lag-1 autocorrelation was taken out.

    Parameters
    ----------
    values, years, slope
        As for `variance_factor`.
    trend_free
        Whether the line is taken off before the correlation is measured and removed, and put
        back afterwards.

    Returns
    -------
    ndarray
        float64 ``(3, pixel)``: s, var_s and tau of the whitened series, which is one value
        shorter; NaN where it has fewer than two values.
    """
    n_time, n_pixel = values.shape
    found = np.full((3, n_pixel), np.nan)
    y, t, d, r, n = _buffers(n_time, min(LANES, n_pixel))
    s, ties, equals = np.empty_like(n), np.empty_like(n), np.empty_like(n)
    weighted = np.empty(n.size)
    for first in range(0, n_pixel, LANES):
        lanes = slice(first, first + n.size)
        pack(values, years, slope, first, y, t, n)
        if trend_free:
            add_line(y, t, slope[lanes], -1.0, 1.0)
        _centre(y, n, d)
        _add_lags(d, n, 1, False, 0.0, r, weighted)
        whiten(y, r[1])
        if trend_free:
            add_line(y, t, slope[lanes], 1.0, 0.0)
        score(y[1:], s, ties, equals)
        m = n - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            made = np.stack([s, (m * (m - 1) * (2 * m + 5) - ties) / 18, s / (0.5 * m * (m - 1))])
        made[:, m < 2] = np.nan
        found[:, lanes] = made[:, : n_pixel - first]
    return found


def _buffers(n_time: int, width: int) -> tuple[NDArray[Any], ...]:
    """Values, years and deviations ``(time, lane)``, correlations ``(2, lane)``, counts."""
    shape = (n_time, width)
    y, t, d = np.empty(shape), np.empty(shape), np.empty(shape)
    return y, t, d, np.empty((2, width)), np.empty(width, np.int64)


def pack(
    values: NDArray[Any],
    years: NDArray[np.float64],
    slope: NDArray[np.float64],
    first: int,
    y: NDArray[np.float64],
    t: NDArray[np.float64],
    n: NDArray[np.int64],
) -> None:
    """Copy the valid values of the columns from ``first`` on to the top of ``y``: 4 . 7 -> 4 7 nan.

    ``t`` gets the years since the first of them and ``n`` their number; a lane without a column,
    or with a slope of NaN, stays empty.
    """
    part, of = values[:, first : first + n.size], slope[first : first + n.size]
    width = part.shape[1]
    valid = np.isfinite(part) & np.isfinite(of)
    n[:width], n[width:] = valid.sum(axis=0), 0
    order = np.argsort(~valid, axis=0, kind="stable")
    there = np.arange(years.size)[:, None] < n
    y[:], t[:] = np.nan, 0.0
    np.copyto(y[:, :width], np.take_along_axis(part, order, axis=0), where=there[:, :width])
    np.copyto(t[:, :width], years[order] - years[order[:1]], where=there[:, :width])


def add_line(
    y: NDArray[np.float64],
    t: NDArray[np.float64],
    slope: NDArray[np.float64],
    sign: float,
    ahead: float,
) -> None:
    """Add the line that has ``ahead`` years' rise at the first value of a lane, times ``sign``."""
    y[:, : slope.size] += sign * ((t[:, : slope.size] + ahead) * slope)


def _centre(y: NDArray[np.float64], n: NDArray[np.int64], d: NDArray[np.float64]) -> None:
    """Fill ``d`` with deviations from the lane's mean; 0 where there is no value.

    A lane of equal values deviates by exactly 0, though its mean may be rounded.
    """
    there = y == y
    low, high = np.fmin.reduce(y), np.fmax.reduce(y)
    # one value after the other: how numpy's own sums are rounded depends on the number of lanes
    total = np.cumsum(np.where(there, y, 0.0), axis=0)[-1]
    mean = np.where(low == high, low, total / np.maximum(n, 1))
    d[...] = np.where(there, y - mean, 0.0)


@jit
def _centre_ranks(y: NDArray[np.float64], d: NDArray[np.float64]) -> None:
    """Fill ``d`` with average ranks less their mean: half of (smaller minus larger values)."""
    d[:] = 0.0
    for k in range(y.shape[0]):
        row, out = y[k], d[k]
        for other in range(y.shape[0]):
            rival = y[other]
            for i in range(row.size):
                out[i] += 0.5 * (int(row[i] > rival[i]) - int(row[i] < rival[i]))


@jit_inline
def _autocorrelate(
    d: NDArray[np.float64], n: NDArray[np.int64], lag: int, r: NDArray[np.float64]
) -> None:
    """Fill ``r[1]`` with correlations of values ``lag`` apart; lag 0, first, gives variances in 0.

    A lane of equal values has no correlation.
    """
    variance, out = r[0], r[min(lag, 1)]
    for i in range(out.size):
        out[i] = 0.0
    for k in range(d.shape[0] - lag):
        row, later = d[k], d[k + lag]
        for i in range(row.size):
            out[i] += row[i] * later[i]
    for i in range(out.size):
        mean = out[i] / max(n[i], 1)
        known = variance[i] > 0
        out[i] = mean if lag == 0 else (mean / variance[i] if known else 0.0)


@jit
def _add_lags(
    d: NDArray[np.float64],
    n: NDArray[np.int64],
    lags: int,
    ranked: bool,
    bound: float,
    r: NDArray[np.float64],
    weighted: NDArray[np.float64],
) -> None:
    """Sum of the correlations, weighted by their number; for ranks of the significant ones.

    ``r`` gets the variances, and the correlations of the last lag.
    """
    weighted[:] = 0.0
    for lag in range(lags + 1):
        _autocorrelate(d, n, lag, r)
        for i in range(n.size if lag > 0 else 0):
            m = float(n[i] - lag)
            weight = m * (m - 1.0) * (m - 2.0) if ranked else m
            counts = not ranked or abs(r[1, i]) > bound / np.sqrt(max(n[i], 1))
            weighted[i] += weight * r[1, i] if counts else 0.0


def whiten(y: NDArray[np.float64], r: NDArray[np.float64]) -> None:
    """Take from every value ``r`` times the one before it; the first row is used up."""
    y[1:] -= y[:-1] * r


@jit
def score(
    y: NDArray[np.float64],
    s: NDArray[np.int64],
    ties: NDArray[np.int64],
    equals: NDArray[np.int64],
) -> None:
    """Rising minus falling pairs of every lane; NaN pairs with nothing.

    ``ties`` gets the sum of u(u-1)(2u+5) over groups of u tied values, which telescopes into
    6e(e+2) over the values, e being the number of earlier equals.
    """
    s[:] = 0
    ties[:] = 0
    for k in range(y.shape[0]):
        row = y[k]
        equals[:] = 0
        for earlier in range(k):
            rival = y[earlier]
            for i in range(row.size):
                s[i] += int(row[i] > rival[i]) - int(row[i] < rival[i])
                equals[i] += int(row[i] == rival[i])
        for i in range(row.size):
            ties[i] += 6 * equals[i] * (equals[i] + 2)

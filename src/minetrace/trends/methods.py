"""The Mann-Kendall family as tests of columns."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from minetrace.kernels import monotone, serial
from minetrace.kernels.normal import SLOPE, TAU, VAR_S, S, approximate
from minetrace.kernels.seasonal import seasonal_mann_kendall
from minetrace.trends import rare
from minetrace.trends.axis import Groups, locations, seasons
from minetrace.trends.columns import Results, Test

Method = Literal[
    "original",
    "hamed_rao",
    "yue_wang",
    "pre_whitening",
    "trend_free_pre_whitening",
    "seasonal",
    "correlated_seasonal",
    "regional",
    "multivariate",
    "partial",
]


def original(
    values: NDArray[Any], *, years: NDArray[np.float64], min_valid: int, exact: bool
) -> Results:
    """Independent observations."""
    statistics, n = monotone.mann_kendall(values, years, min_valid, exact)
    return statistics, n


def wider_variance(
    values: NDArray[Any],
    *,
    years: NDArray[np.float64],
    min_valid: int,
    lags: int,
    ranked: bool,
    bound: float,
) -> Results:
    """Hamed-Rao (``ranked``) and Yue-Wang: the variance of S takes serial correlation in."""
    statistics, n = monotone.mann_kendall(values, years, min_valid, False)
    slope = statistics[SLOPE]
    statistics[VAR_S] *= serial.variance_factor(values, years, slope, lags, ranked, bound)
    approximate(statistics, 1.0)
    return statistics, n


def whitened(
    values: NDArray[Any], *, years: NDArray[np.float64], min_valid: int, trend_free: bool
) -> Results:
    """Pre-whitening: S of the series without its lag-1 autocorrelation; slope of the series."""
    statistics, n = monotone.mann_kendall(values, years, min_valid, False)
    score = serial.whitened_score(values, years, statistics[SLOPE], trend_free)
    statistics[S], statistics[VAR_S], statistics[TAU] = score
    approximate(statistics, 1.0)
    return statistics, n


def grouped(values: NDArray[Any], *, groups: Groups, min_valid: int) -> Results:
    """Seasonal: S and its variance are sums over groups of rows."""
    statistics, n = seasonal_mann_kendall(values, *groups, min_valid)
    return statistics, n


def test_of(
    method: Method,
    years: NDArray[np.float64],
    min_valid: int,
    *,
    exact: bool,
    alpha: float,
    lag: int | None,
    period: int | None,
    n_joint: int,
) -> Test:
    """Test of columns that a method is; ``n_joint`` series of one column are tested together."""
    own: dict[str, Any] = {"years": years, "min_valid": min_valid}
    if method == "original":
        return partial(original, exact=exact, **own)
    if method in ("hamed_rao", "yue_wang"):
        bound = float(ndtri(1 - alpha / 2))
        ranked = method == "hamed_rao"
        return partial(wider_variance, lags=lag or years.size, ranked=ranked, bound=bound, **own)
    if method in ("pre_whitening", "trend_free_pre_whitening"):
        return partial(whitened, trend_free=method == "trend_free_pre_whitening", **own)
    if method == "partial":
        return partial(rare.partial, **own)
    if method in ("regional", "multivariate"):
        return partial(rare.multivariate, groups=locations(years, n_joint), min_valid=min_valid)
    groups = seasons(years, period or 12)
    test = grouped if method == "seasonal" else rare.correlated_seasonal
    return partial(test, groups=groups, min_valid=min_valid)

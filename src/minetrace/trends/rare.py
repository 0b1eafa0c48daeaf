"""The rarer tests of the family, by pymannkendall itself, series by series.

pymannkendall gives s, var_s and tau. The slopes are those of the kernels, as it knows no dates; p
and the trend are made as for all other methods, as two of its tests pass no alpha on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels import monotone
from minetrace.kernels.normal import SLOPE, TAU, VAR_S, S, approximate
from minetrace.kernels.seasonal import seasonal_mann_kendall
from minetrace.trends.axis import Groups
from minetrace.trends.columns import Results

_Table = NDArray[np.float64]


def correlated_seasonal(values: NDArray[Any], *, groups: Groups, min_valid: int) -> Results:
    """Seasonal test whose seasons may be correlated; only years with every season count."""
    from pymannkendall import correlated_multivariate_test  # type: ignore[import-untyped]

    period = int(groups.period)
    place = groups.positions.astype(np.int64)
    n_year = int(place[-1]) // period + 1

    def complete_years(series: NDArray[np.float64]) -> _Table:
        regular = np.full(n_year * period, np.nan)
        regular[place] = series
        table = regular.reshape(n_year, period)
        return np.compress(np.isfinite(table).all(axis=1), table, axis=0)

    statistics, n = seasonal_mann_kendall(values, *groups, min_valid)
    tables = map(complete_years, _series(values))
    _replace_scores(statistics, correlated_multivariate_test, tables)
    approximate(statistics, 0.0)
    return statistics, n


def multivariate(values: NDArray[Any], *, groups: Groups, min_valid: int) -> Results:
    """Sum of the tests of several locations or variables, taken for independent."""
    from pymannkendall import multivariate_test

    n_group = groups.starts.size - 1
    statistics, n = seasonal_mann_kendall(values, *groups, min_valid)
    tables = (series.reshape(n_group, -1).T for series in _series(values))
    _replace_scores(statistics, multivariate_test, tables)
    approximate(statistics, 1.0)
    return statistics, n


def partial(values: NDArray[Any], *, years: NDArray[np.float64], min_valid: int) -> Results:
    """Trend that a covariate leaves; the rows are those of the series, then the covariate's."""
    from pymannkendall import partial_test

    own, covariate = values[: years.size], values[years.size :]
    n = (np.isfinite(own) & np.isfinite(covariate)).sum(axis=0).astype(np.int16)
    statistics, _ = monotone.mann_kendall(own, years, 2, False)
    statistics[:, n < max(min_valid, 2)] = np.nan
    tables = (series.reshape(2, -1).T for series in _series(values))
    _replace_scores(statistics, partial_test, tables)
    approximate(statistics, 0.0)
    return statistics, n


def _series(values: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """Columns as float64 with NaN for all that is not finite, which pymannkendall would rank."""
    for column in values.T:
        yield np.where(np.isfinite(column), column, np.nan).astype(np.float64)


def _replace_scores(
    statistics: NDArray[np.float64], test: Callable[[_Table], Any], tables: Iterable[_Table]
) -> None:
    """Put what ``test`` finds into the columns that have a slope."""
    for pixel, table in enumerate(tables):
        score = (np.nan, np.nan, np.nan)
        if np.isfinite(statistics[SLOPE, pixel]) and len(table) >= 2:
            with np.errstate(all="ignore"):
                found = test(table)
            score = (found.s, found.var_s, found.Tau)
        statistics[S, pixel], statistics[VAR_S, pixel], statistics[TAU, pixel] = score

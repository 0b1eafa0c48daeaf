"""Time axes: decimal years, and the seasons or locations that group the values of a series."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from minetrace.errors import InputError
from minetrace.schema import label

MAX_STEPS = np.iinfo(np.int16).max


class Groups(NamedTuple):
    """Groups of a series' values; only values of one group are compared with each other.

    The arguments of `minetrace.kernels.seasonal.seasonal_mann_kendall`, which says what they are.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    times: NDArray[np.float64]
    positions: NDArray[np.float64]
    period: float


def decimal_years(time: ArrayLike | xr.DataArray) -> NDArray[np.float64]:
    """Dates as decimal years: 1 January, 0 h is the whole number, years have their own length.

    Parameters
    ----------
    time
        ``datetime64`` of any unit, or years as integers or floats, which pass through.

    Returns
    -------
    ndarray
        float64 of the same shape.

    Raises
    ------
    InputError
        Other types, or missing dates.

    Examples
    --------
    >>> decimal_years(np.array(["1985-01-01", "2000-07-02"], "datetime64[D]")).tolist()
    [1985.0, 2000.5]
    >>> decimal_years([1985, 1990]).tolist()
    [1985.0, 1990.0]
    """
    dates = np.asarray(time)
    if dates.dtype.kind in "iuf":
        years = dates.astype(np.float64)
    elif dates.dtype.kind == "M":
        whole = dates.astype("datetime64[Y]")
        start, end = (w.astype("datetime64[us]") for w in (whole, whole + 1))
        years = 1970 + whole.astype(np.float64)
        years = years + (dates.astype("datetime64[us]") - start) / (end - start)
    else:
        raise InputError(
            f"a time axis of type {dates.dtype} has no years; use datetime64 or "
            "integer years (pd.to_datetime)"
        )
    if not np.isfinite(years).all():
        raise InputError("the time axis has missing dates; drop or fill them first")
    return years


def increasing_years(da: xr.DataArray, dim: Hashable) -> NDArray[np.float64]:
    """Decimal years of a whole, increasing time axis, or `InputError`."""
    if dim not in da.dims or dim not in da.coords:
        raise InputError(f"{label(da)} has no dimension {dim!r} with dates on it (dims: {da.dims})")
    require_one_chunk(da, dim)
    if not 1 <= da.sizes[dim] <= MAX_STEPS:
        raise InputError(
            f"{label(da)} has {da.sizes[dim]} steps along {dim!r}; give 1 to {MAX_STEPS}"
        )
    years = decimal_years(da[dim])
    if not (np.diff(years) > 0).all():
        at = int(np.argmin(np.diff(years) > 0))
        raise InputError(
            f"{dim!r} of {label(da)} does not increase after {da[dim].values[at]}: "
            f"use .sortby({dim!r}) and keep one value a date"
        )
    return years


def require_one_chunk(da: xr.DataArray, dim: Hashable) -> None:
    """Refuse an array that is cut along ``dim``: a series must be whole."""
    n_chunks = len(da.chunksizes.get(dim, (0,)))
    if n_chunks > 1:
        raise InputError(
            f"{label(da)} has {n_chunks} chunks along {dim!r}; a series must be "
            f"whole: .chunk({{{dim!r}: -1}})"
        )


def seasons(years: NDArray[np.float64], period: int) -> Groups:
    """Group the steps of an axis by season, ``period`` of them a year.

    A step's position is the number of seasons since the first step, rounded; steps with the same
    position modulo ``period`` are one season, years apart.

    Raises
    ------
    InputError
        Two steps in one season of one year.

    Examples
    --------
    >>> quarters = decimal_years(np.array(["2020-01", "2020-04", "2021-01"], "datetime64[M]"))
    >>> found = seasons(quarters, 4)
    >>> found.order.tolist(), found.starts.tolist(), found.times.tolist()
    ([0, 2, 1], [0, 2, 3, 3, 3], [0.0, 0.0, 1.0])
    """
    # from the first step, not from 1 January: dates in mid-month lie half-way between months of
    # the calendar, where rounding would flicker
    positions = np.rint((years - years[0]) * period).astype(np.int64)
    if not (np.diff(positions) > 0).all():
        at = int(np.argmin(np.diff(positions) > 0))
        raise InputError(
            f"the steps {at} and {at + 1} of the time axis ({years[at]:.4f} and "
            f"{years[at + 1]:.4f}) lie in one of {period} seasons a year; give one value a "
            "season (.resample), or another period"
        )
    cycle, season = np.divmod(positions, period)
    return Groups(
        np.argsort(season, kind="stable"),
        np.concatenate([[0], np.cumsum(np.bincount(season, minlength=period))]),
        cycle.astype(np.float64),
        positions.astype(np.float64),
        float(period),
    )


def locations(years: NDArray[np.float64], count: int) -> Groups:
    """Group rows that hold one location after the other, each with all ``years``."""
    return Groups(
        np.arange(count * years.size),
        years.size * np.arange(count + 1),
        np.tile(years, count),
        np.tile(years - years[0], count),
        1.0,
    )

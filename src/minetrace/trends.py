"""Trends of yearly series, and the spectral indices they are computed from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from minetrace.errors import InputError
from minetrace.kernels import monotone
from minetrace.schema import TREND, Variable, fill_value, label

PValue = Literal["normal", "exact"]
_METHODS = ("original",)
_MAX_LAYERS = np.iinfo(np.int16).max


def mann_kendall(
    da: xr.DataArray,
    *,
    dim: str = "time",
    method: str = "original",
    alpha: float = 0.05,
    min_valid: int = 4,
    p_value: PValue = "normal",
) -> xr.Dataset:
    """Mann-Kendall test and Sen's slope along one dimension.

    Parameters
    ----------
    da
        Real numbers with any other dims, such as ``(time, y, x)`` or ``(site, time)``. Values
        that are not finite, or equal ``_FillValue`` or ``nodata`` of the attributes, are gaps and
        are skipped; a fill value outside the data's type is ignored, as it cannot occur. Dask
        data stay lazy and need the whole of ``dim`` in one chunk.
    dim
        Dimension with a coordinate of dates or years, increasing.
    method
        ``"original"``: independent observations.
    alpha
        Level of significance, two-sided.
    min_valid
        Series with fewer values give NaN and trend 0.
    p_value
        ``"normal"``: the usual approximation. ``"exact"``: below 10 values, the share of all
        orders of the series' own values, ties included, whose S is as far from 0; from 10
        values on the approximation.

    Returns
    -------
    Dataset
        Without ``dim``: ``trend`` int8 (-1, 0, 1); ``p``, ``z``, ``tau``, ``s``, ``var_s``,
        ``slope`` (per year), ``intercept`` (the Sen line at the first step of ``dim``) float64;
        ``n`` int16 valid values.

    Raises
    ------
    InputError
        Unknown method or option, no such dim, dates that do not increase, ``dim`` in several
        chunks, or a fill value that is no number.

    Notes
    -----
    The variance of S is corrected for ties and z for continuity. Slopes are per decimal year
    (`decimal_years`), so annual steps are exactly 1 and a missing year stays a gap of two. A
    constant series has s = 0, z = 0, p = 1, slope 0.

    Short series can hardly be significant. The smallest p that n values can reach is

    == ========= ========
    n  normal    exact
    == ========= ========
    4  0.089     0.083
    5  0.027     0.017
    6  0.0085    0.0028
    7  0.0027    0.00040
    8  0.00083   0.000050
    9  0.00026   0.0000055
    == ========= ========

    References
    ----------
    Mann (1945), doi:10.2307/1907187; Kendall (1975), Rank Correlation Methods; Sen (1968),
    doi:10.1080/01621459.1968.10480934.

    Examples
    --------
    >>> share = xr.DataArray([0.1, 0.2, 0.3, np.nan, 0.6, 0.7],
    ...                      coords={"time": range(2017, 2023)}, dims="time")
    >>> found = mann_kendall(share)
    >>> int(found.trend), int(found.n), round(float(found.slope), 3), round(float(found.p), 3)
    (1, 5, 0.122, 0.027)
    """
    if method not in _METHODS:
        raise InputError(f"method {method!r} is not available; use one of {_METHODS}")
    if p_value not in get_args(PValue):
        raise InputError(f"p_value is {p_value!r}; use one of {get_args(PValue)}")
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha!r}; a level of significance lies between 0 and 1")
    if min_valid < 2:
        raise InputError(f"min_valid is {min_valid!r}; a trend needs 2 values at least")
    years = increasing_years(da, dim)
    if da.dtype.kind not in "iuf":
        raise InputError(f"{label(da)} is {da.dtype}; a trend needs integers or floats")
    results = xr.apply_ufunc(
        _trend_block,
        da,
        kwargs={
            "years": years,
            "fill": fill_value(da),
            "alpha": alpha,
            "min_valid": min_valid,
            "exact": p_value == "exact",
        },
        input_core_dims=[[dim]],
        output_core_dims=[[]] * len(TREND),
        dask="parallelized",
        output_dtypes=[v.dtype for v in TREND],
        keep_attrs=True,
    )
    return as_dataset(results, TREND)


def sens_slope(da: xr.DataArray, *, dim: str = "time") -> xr.Dataset:
    """Sen's slope along one dimension: the median of all pairwise slopes.

    Parameters, gaps and chunks as for `mann_kendall`; two valid values are enough.

    Returns
    -------
    Dataset
        ``slope`` (per year), ``intercept`` (the line at the first step of ``dim``), ``n``.

    Raises
    ------
    InputError
        As `mann_kendall`.

    Examples
    --------
    >>> share = xr.DataArray([1.0, 3.0, 9.0], coords={"time": [2000, 2001, 2003]}, dims="time")
    >>> float(sens_slope(share).slope)
    2.666...
    """
    return mann_kendall(da, dim=dim, min_valid=2)[["slope", "intercept", "n"]]


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


def increasing_years(da: xr.DataArray, dim: str) -> NDArray[np.float64]:
    """Decimal years of a whole, increasing time axis, or `InputError`."""
    if dim not in da.dims or dim not in da.coords:
        raise InputError(f"{label(da)} has no dimension {dim!r} with dates on it (dims: {da.dims})")
    n_chunks = len(da.chunksizes.get(dim, (0,)))
    if n_chunks > 1:
        raise InputError(
            f"{label(da)} has {n_chunks} chunks along {dim!r}; a series must be "
            f"whole: .chunk({{{dim!r}: -1}})"
        )
    if not 1 <= da.sizes[dim] <= _MAX_LAYERS:
        raise InputError(
            f"{label(da)} has {da.sizes[dim]} steps along {dim!r}; give 1 to {_MAX_LAYERS}"
        )
    years = decimal_years(da[dim])
    if not (np.diff(years) > 0).all():
        at = int(np.argmin(np.diff(years) > 0))
        raise InputError(
            f"{dim!r} of {label(da)} does not increase after {da[dim].values[at]}: "
            f"use .sortby({dim!r}) and keep one value a date"
        )
    return years


def as_dataset(arrays: Iterable[xr.DataArray], variables: tuple[Variable, ...]) -> xr.Dataset:
    """Dataset of results under their registered names and attributes.

    The arrays come with the attributes of what they were computed from: xarray would otherwise
    drop those of the coordinates as well, and with them the CRS.
    """
    ds = xr.Dataset({v.name: a for v, a in zip(variables, arrays, strict=True)})
    for v in variables:
        ds[v.name].attrs = dict(v.attrs)
    return ds


def ndvi(ds: xr.Dataset) -> xr.DataArray:
    """Vegetation index (nir - red) / (nir + red).

    Parameters
    ----------
    ds
        Reflectance bands of any dims. Dask data stay lazy.

    Returns
    -------
    DataArray
        float32, NaN where a band is NaN or the denominator is 0.

    Raises
    ------
    InputError
        A band is missing.

    Examples
    --------
    >>> float(ndvi(xr.Dataset({"red": 0.125, "nir": 0.375})))
    0.5
    """
    return _index(ds, "ndvi", "normalised difference vegetation index", ("nir",), ("red",))


def ndwi(ds: xr.Dataset) -> xr.DataArray:
    """Open-water index (green - nir) / (green + nir), McFeeters (1996).

    Bands, result and errors as for `ndvi`.

    References
    ----------
    doi:10.1080/01431169608948714

    Examples
    --------
    >>> float(ndwi(xr.Dataset({"green": 0.375, "nir": 0.125})))
    0.5
    """
    return _index(ds, "ndwi", "normalised difference water index", ("green",), ("nir",))


def nbr(ds: xr.Dataset) -> xr.DataArray:
    """Burn ratio (nir - swir22) / (nir + swir22).

    Bands, result and errors as for `ndvi`.

    Examples
    --------
    >>> float(nbr(xr.Dataset({"nir": 0.375, "swir22": 0.125})))
    0.5
    """
    return _index(ds, "nbr", "normalised burn ratio", ("nir",), ("swir22",))


def bare_soil_index(ds: xr.Dataset) -> xr.DataArray:
    """Bare-soil index ((swir16 + red) - (nir + blue)) / ((swir16 + red) + (nir + blue)).

    Bands, result and errors as for `ndvi`.

    Examples
    --------
    >>> soil = xr.Dataset({"blue": 0.125, "red": 0.25, "nir": 0.25, "swir16": 0.375})
    >>> float(bare_soil_index(soil))
    0.25
    """
    return _index(ds, "bsi", "bare soil index", ("swir16", "red"), ("nir", "blue"))


def _index(
    ds: xr.Dataset, name: str, long_name: str, plus: tuple[str, ...], minus: tuple[str, ...]
) -> xr.DataArray:
    """(plus - minus) / (plus + minus) of sums of bands."""
    missing = [band for band in (*plus, *minus) if band not in ds]
    if missing:
        raise InputError(f"{name} needs the bands {missing}; the dataset has {list(ds.data_vars)}")
    bands: list[xr.DataArray] = [ds[band] for band in (*plus, *minus)]
    index: xr.DataArray = xr.apply_ufunc(
        _normalised_difference,
        *bands,
        kwargs={"n_plus": len(plus)},
        dask="parallelized",
        output_dtypes=[np.float32],
        keep_attrs=True,
    )
    index.attrs = {"long_name": long_name, "units": "1"}
    return index.rename(name)


def _normalised_difference(*bands: NDArray[Any], n_plus: int) -> NDArray[np.float32]:
    values = [np.asarray(b, np.float32) for b in bands]
    plus, minus = sum(values[:n_plus]), sum(values[n_plus:])
    total = np.asarray(plus + minus)
    out = np.full(total.shape, np.nan, np.float32)
    np.divide(plus - minus, total, out=out, where=total != 0)
    return out


def _trend_block(
    values: NDArray[Any],
    *,
    years: NDArray[np.float64],
    fill: float | None,
    alpha: float,
    min_valid: int,
    exact: bool,
) -> tuple[NDArray[Any], ...]:
    """Variables of `TREND` of a block ``(..., time)``."""
    shape = values.shape[:-1]
    series = np.moveaxis(values, -1, 0).reshape(years.size, -1)
    statistics, n = monotone.mann_kendall(_with_gaps(series, fill), years, min_valid, exact)
    named: dict[str, NDArray[Any]] = dict(zip(monotone.STATISTICS, statistics, strict=True))
    named["n"] = n
    named["trend"] = np.where(named["p"] < alpha, np.sign(named["s"]), 0)
    return tuple(named[v.name].astype(v.dtype).reshape(shape) for v in TREND)


def _with_gaps(values: NDArray[Any], fill: float | None) -> NDArray[Any]:
    """Values as float32 or float64 with NaN where they equal ``fill``."""
    floats = values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
    if fill is None:
        return floats
    return np.where(values == fill, np.nan, floats)

"""Spectral indices of reflectance bands."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from minetrace.errors import InputError


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

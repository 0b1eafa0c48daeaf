"""Stacks of layers as arrays, with their pixel grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import dask
import numpy as np
import odc.geo.xr  # noqa: F401  registers the .odc accessor
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from minetrace.errors import GridError, InputError
from minetrace.kernels.strips import Window
from minetrace.schema import label

T = TypeVar("T")


def geobox_of(da: xr.DataArray) -> GeoBox:
    """Pixel grid of a DataArray, or `GridError`."""
    geobox = da.odc.geobox
    if not isinstance(geobox, GeoBox) or geobox.crs is None:
        raise GridError(
            f"{label(da)} has no pixel grid: it needs evenly spaced y and x "
            "coordinates and a CRS (da.odc.assign_crs)"
        )
    return geobox


def space_last(da: xr.DataArray) -> NDArray[Any]:
    """Values as a contiguous array ``(time, y, x)``; computes lazy data."""
    return np.ascontiguousarray(time_first(da).to_numpy())


def each_block(da: xr.DataArray, function: Callable[[NDArray[Any], int, Window], T]) -> list[T]:
    """Results of ``function(values, layer, window)`` for every block of the data.

    ``values`` is contiguous ``(time, pixel)``, from that layer on. Lazy data go through block by
    block in dask's threads; others are one block.
    """
    ordered = time_first(da)

    def apply(values: NDArray[Any], layer: int, row: int, column: int) -> T:
        n_time, height, width = values.shape
        # kernels need contiguous values in the processor's byte order
        flat = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        window = row, column, height, width
        return function(flat.reshape(n_time, height * width), layer, window)

    if ordered.chunks is None:
        return [apply(ordered.to_numpy(), 0, 0, 0)]
    starts = [np.cumsum([0, *sizes]).tolist() for sizes in ordered.chunks]
    blocks = ordered.data.to_delayed()
    work = dask.delayed(apply, pure=False)
    tasks = [
        work(blocks[i], *(start[k] for start, k in zip(starts, i, strict=True)))
        for i in np.ndindex(blocks.shape)
    ]
    return list(dask.compute(*tasks))


def time_first(da: xr.DataArray) -> xr.DataArray:
    """The data with dims ``(time, y, x)``, or `InputError` where they are others."""
    geobox_of(da)
    dims = ("time", *da.odc.spatial_dims)
    if set(da.dims) != set(dims):
        raise InputError(f"{label(da)} has dims {da.dims}; expected {dims}")
    return da.transpose(*dims)

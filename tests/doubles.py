"""Stand-ins for what tests must not use, or must see through."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords


class RaisingScheduler:
    """A dask scheduler that refuses to compute anything."""

    def __call__(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"the graph was computed, but it should only be built: {keys}")


def position_image(geobox: GeoBox) -> xr.Dataset:
    """Image whose pixels hold the coordinates of their own centres (easting, northing)."""
    cols, rows = np.meshgrid(np.arange(geobox.shape.x) + 0.5, np.arange(geobox.shape.y) + 0.5)
    a = geobox.affine
    easting, northing = a.a * cols + a.b * rows + a.c, a.d * cols + a.e * rows + a.f
    coords = xr_coords(geobox)
    dims = tuple(geobox.dimensions)
    return xr.Dataset({"easting": (dims, easting), "northing": (dims, northing)}, coords=coords)

"""The UTM plane in which simulated mines are drawn, and the ways out of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely import transform
from shapely.geometry.base import BaseGeometry

UTM = "EPSG:32622"
LONLAT = "EPSG:4326"

Field = NDArray[np.float64]


def reproject(shape: BaseGeometry, source: str, target: str) -> BaseGeometry:
    """Move the vertices of a geometry from one CRS to another."""
    course = Transformer.from_crs(source, target, always_xy=True)

    def move(points: Field) -> Field:
        return np.column_stack(course.transform(points[:, 0], points[:, 1]))

    return transform(shape, move)


def pixel_centres(grid: GeoBox) -> tuple[Field, Field]:
    """UTM easting and northing of every pixel centre of a grid in any CRS."""
    rows, columns = np.indices(grid.shape) + 0.5
    a, b, c, d, e, f = list(grid.affine)[:6]
    x, y = a * columns + b * rows + c, d * columns + e * rows + f
    east, north = Transformer.from_crs(str(grid.crs), UTM, always_xy=True).transform(x, y)
    return np.asarray(east), np.asarray(north)


def lonlat_grid(plane: GeoBox, step: float) -> GeoBox:
    """Lattice of whole multiples of the step in degrees that covers a UTM grid."""
    to_lonlat = Transformer.from_crs(UTM, LONLAT, always_xy=True)
    bounds = to_lonlat.transform_bounds(*plane.boundingbox.bbox)
    return GeoBox.from_bbox(bounds, LONLAT, resolution=step)

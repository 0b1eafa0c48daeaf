"""Rings: how far each pixel lies from the site, in classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray
from odc.geo import Geometry
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from minetrace.cubes.lattice import grid_coords
from minetrace.cubes.layers import CHUNK
from minetrace.grid import transformer, utm_crs
from minetrace.schema import NODES, RingsRecipe

BEYOND = 255
"""Class of pixels farther away than the last ring."""
_DENSE = 0.001
"""Degrees between the points of a site's straight edges when they are projected."""


def rings_node(
    geometry: BaseGeometry,
    part: RingsRecipe,
    geobox: GeoBox,
    *,
    chunks: Mapping[str, int] | None,
) -> xr.Dataset:
    """Distance class of every pixel: 0 in the site, i up to ``distances_m[i - 1]``, `BEYOND`.

    The distance is that of the pixel's centre from the site's outline in the plane of the site's
    UTM zone, whatever the grid; it is exact there, and UTM is true to 0.1 %.
    """
    plane = utm_crs(geometry)
    outline = Geometry(geometry, "EPSG:4326").to_crs(plane, resolution=_DENSE)
    sizes = {"y": CHUNK, "x": CHUNK, **(chunks or {})}
    blocks = da.core.normalize_chunks((sizes["y"], sizes["x"]), shape=geobox.shape)
    classes = da.map_blocks(
        _ring_block, chunks=blocks, dtype=np.uint8, meta=np.empty((0, 0), np.uint8),
        geobox=geobox, plane=str(plane), outline=shapely.make_valid(outline.geom).wkb,
        distances=part.distances_m,
    )  # fmt: skip
    var = NODES["rings"]["ring"]
    limits = [f"within_{d:g}_m" for d in part.distances_m]
    attrs = {
        **var.attrs,
        "distances_m": list(part.distances_m),
        "flag_values": np.array([*range(len(limits) + 1), BEYOND], np.uint8),
        "flag_meanings": " ".join(["site", *limits, "beyond"]),
        "grid_mapping": "spatial_ref",
    }
    return xr.Dataset({var.name: (var.dims, classes, attrs)}, coords=grid_coords(geobox))


def _ring_block(
    *,
    geobox: GeoBox,
    plane: str,
    outline: bytes,
    distances: tuple[float, ...],
    block_info: Any = None,
) -> NDArray[np.uint8]:
    (y0, y1), (x0, x1) = block_info[None]["array-location"]
    cols, rows = np.meshgrid(np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5)
    x, y = geobox.pix2wld(cols, rows)
    if str(geobox.crs) != plane:
        x, y = transformer(str(geobox.crs), plane).transform(x, y)
    return distance_classes(shapely.from_wkb(outline), x, y, distances)


def distance_classes(
    outline: BaseGeometry,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    distances: tuple[float, ...],
) -> NDArray[np.uint8]:
    """Class of points: 0 inside, i within the i-th distance, `BEYOND` beyond the last.

    Examples
    --------
    >>> from shapely.geometry import box
    >>> x = np.array([5.0, 11.0, 13.0, 40.0])
    >>> distance_classes(box(0, 0, 10, 10), x, np.full(4, 5.0), (2.0, 20.0)).tolist()
    [0, 1, 2, 255]
    """
    shapely.prepare(outline)
    out = np.full(x.shape, BEYOND, np.uint8)
    points = shapely.points(x, y)
    left = np.ones(x.shape, bool)
    for ring, distance in enumerate((0.0, *distances)):
        near = left.copy()
        near[left] = shapely.dwithin(outline, points[left], distance)
        out[near] = ring
        left &= ~near
    return out

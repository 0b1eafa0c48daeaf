"""Outlines of sites as rings in pixel units of a grid."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

from minetrace.errors import GridError, SiteError
from minetrace.grid import to_pixels, transformer

_TOLERANCE_PX = 2e-4
_MAX_PIECES = 4096


def require_north_up(geobox: GeoBox) -> None:
    """Refuse grids that are rotated, mirrored or without a CRS."""
    t = geobox.affine
    if geobox.crs is None:
        raise GridError("the grid has no CRS, so sites cannot be placed on it")
    if t.b != 0 or t.d != 0 or t.a <= 0 or t.e >= 0:
        raise GridError(
            f"the grid's transform {tuple(t)[:6]} is rotated or not north-up; sort the data by "
            "descending y and ascending x, or warp them to a north-up grid"
        )


def site_ids(sites: gpd.GeoDataFrame) -> tuple[str, ...]:
    """Ids of the sites as texts, or `SiteError` where they or the CRS cannot be used."""
    if "site_id" not in sites.columns:
        raise SiteError(
            f"the sites have no column 'site_id' (columns: {list(sites.columns)}); "
            "read them with read_sites"
        )
    if sites.crs is None:
        raise SiteError("the sites have no CRS; set it with .set_crs(...)")
    ids = pd.Series([str(i) for i in sites["site_id"]], dtype=object)
    twice = sorted(set(ids[ids.duplicated()]))
    if twice:
        raise SiteError(f"site_id {twice[:5]} are given more than once; ids must be unique")
    return tuple(ids)


def polygon_parts(geometries: NDArray[np.object_]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Valid single polygons with shells and holes wound apart, and the row each came from."""
    shapes = shapely.force_2d(geometries)
    xy, row = shapely.get_coordinates(shapes, return_index=True)
    shapes[row[~np.isfinite(xy).all(axis=1)]] = None
    broken = ~shapely.is_valid(shapes) & ~shapely.is_missing(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken])
    parts, owner = shapely.get_parts(shapes, return_index=True)
    # a repaired shape may be a collection that holds a multipolygon
    parts, inner = shapely.get_parts(parts, return_index=True)
    areal = (shapely.get_type_id(parts) == 3) & ~shapely.is_empty(parts)
    return shapely.normalize(parts[areal]), owner[inner][areal]


def on_grid(
    parts: NDArray[Any], crs: CRS, geobox: GeoBox
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Vertices in pixel units, ring offsets, and polygon offsets into the rings."""
    if parts.size == 0:
        return np.empty((0, 2)), np.zeros(1, np.int64), np.zeros(1, np.int64)
    _, xy, offsets = shapely.to_ragged_array(parts)
    rings, polygons = (o.astype(np.int64) for o in offsets)
    t = geobox.affine
    if CRS(crs) != CRS(str(geobox.crs)):
        to_grid = transformer(crs.to_wkt(), str(geobox.crs))
        xy, rings = _densify(xy, rings, to_grid, min(t.a, -t.e) * _TOLERANCE_PX)
        xy = _project(to_grid, xy)
    return np.column_stack(to_pixels(geobox, xy[:, 0], xy[:, 1])), rings, polygons


def _project(to_grid: Transformer, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack(to_grid.transform(xy[:, 0], xy[:, 1]))


def _densify(
    xy: NDArray[np.float64], rings: NDArray[np.int64], to_grid: Transformer, tolerance: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Divide edges until their chords stray from the projected curve by less than ``tolerance``.

    The straying is probed at the quarters of each edge and falls with the square of the number
    of pieces.
    """
    start, end = xy[:-1], xy[1:]
    middle = (start + end) / 2
    probes = ((start + middle) / 2, middle, (middle + end) / 2)
    on_grid = _project(to_grid, xy)
    a, b = on_grid[:-1], on_grid[1:]
    with np.errstate(invalid="ignore"):
        stray = np.max(
            [
                np.hypot(*(_project(to_grid, probe) - (a + f * (b - a))).T)
                for f, probe in zip((0.25, 0.5, 0.75), probes, strict=True)
            ],
            axis=0,
        )
    stray[~np.isfinite(stray)] = 0.0
    pieces = np.ones(len(xy), np.int64)
    pieces[:-1] = np.clip(np.ceil(np.sqrt(stray / tolerance)), 1, _MAX_PIECES)
    pieces[rings[1:] - 1] = 1
    first = np.concatenate([[0], np.cumsum(pieces)])
    edge = np.repeat(np.arange(len(xy)), pieces)
    along = (np.arange(first[-1]) - first[edge]) / pieces[edge]
    step = np.vstack([end - start, [[0.0, 0.0]]])
    return xy[edge] + along[:, None] * step[edge], first[rings]

"""Outlines of sites: repair, canonical form, hash and geodesic area."""

from __future__ import annotations

import hashlib
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyproj import Geod
from shapely import GeometryType, Polygon
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from minetrace.errors import SiteError

LONLAT = "EPSG:4326"
_WGS84 = Geod(ellps="WGS84")


def geodesic_area_km2(geometry: gpd.GeoSeries) -> pd.Series:
    """Area of polygons on the WGS 84 ellipsoid, their edges taken as geodesics.

    Parameters
    ----------
    geometry
        Polygons and MultiPolygons in EPSG:4326, any ring orientation; holes are subtracted.

    Returns
    -------
    Series
        float64, km², on the index of ``geometry``; NaN where there is no geometry.

    Raises
    ------
    SiteError
        The geometries are not in EPSG:4326.

    Examples
    --------
    >>> from shapely.geometry import box
    >>> float(geodesic_area_km2(gpd.GeoSeries([box(0, 0, 1, 1)], crs=4326)).__round__(1)[0])
    12308.8
    """
    require_lonlat(geometry.crs, "area_km2 needs geometries")
    shapes = shapely.orient_polygons(geometry.to_numpy())
    areas = [np.nan if s is None else abs(_WGS84.geometry_area_perimeter(s)[0]) for s in shapes]
    return pd.Series(areas, index=geometry.index, dtype="float64", name="area_km2") / 1e6


def require_lonlat(crs: Any, what: str) -> None:
    """Raise `SiteError` unless a CRS is EPSG:4326."""
    if crs is None or not crs.equals(LONLAT, ignore_axis_order=True):
        name = "no CRS" if crs is None else crs.name
        raise SiteError(f"{what} in EPSG:4326, not in {name}; use .to_crs(4326)")


def mend(shape: BaseGeometry) -> tuple[BaseGeometry | None, str]:
    """Repaired polygon and what was done, or None and why nothing could be."""
    notes = []
    west, _, east, _ = shape.bounds
    if west < -180 or east > 180 or any(_jumps(ring) for ring in _rings(shape)):
        unwrapped = _unwrap(shape)
        if unwrapped is None:
            return None, "a ring that runs round a pole: cut it at 180°"
        shape = _wrap(shapely.make_valid(unwrapped, method="structure", keep_collapsed=False))
        notes.append("split at 180°")
    if not shape.is_valid:
        notes.append(shapely.is_valid_reason(shape))
        shape = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    if shape.geom_type == "GeometryCollection":
        shape = shapely.union_all(_polygons(shape))
        notes.append("lines and points dropped")
    if shape.area == 0:
        return None, "no area"
    return shape, "; ".join(notes)


def _polygons(shape: BaseGeometry) -> list[Polygon]:
    if isinstance(shape, Polygon):
        return [shape]
    return [p for part in getattr(shape, "geoms", ()) for p in _polygons(part)]


def _rings(shape: BaseGeometry) -> list[NDArray[np.float64]]:
    return [np.asarray(r.coords) for p in _polygons(shape) for r in (p.exterior, *p.interiors)]


def _jumps(ring: NDArray[np.float64]) -> bool:
    return bool((np.abs(np.diff(ring[:, 0])) > 180).any())


def _unwrap(shape: BaseGeometry) -> BaseGeometry | None:
    """Polygons with steady longitudes, beyond 180° where need be; None round a pole."""
    polygons = []
    for polygon in _polygons(shape):
        rings = [np.asarray(r.coords).copy() for r in (polygon.exterior, *polygon.interiors)]
        for ring in rings:
            ring[:, 0] = np.unwrap(ring[:, 0], period=360)
            if abs(ring[0, 0] - ring[-1, 0]) > 180:
                return None
            # a hole may start on the other side of 180° than its shell
            ring[:, 0] += 360 * np.round((rings[0][:, 0].mean() - ring[:, 0].mean()) / 360)
        polygons.append(shapely.Polygon(rings[0], rings[1:]))
    return shapely.MultiPolygon(polygons)


def _wrap(shape: BaseGeometry) -> BaseGeometry:
    """Cut at every odd multiple of 180° and bring the pieces back to -180..180."""
    pieces = []
    for turn in (-720, -360, 0, 360, 720):
        piece = shapely.intersection(shape, shapely.box(turn - 180, -90, turn + 180, 90))
        pieces += _polygons(translate(piece, -turn))
    return shapely.union_all(pieces)


def canonical(shapes: NDArray[Any]) -> NDArray[Any]:
    """One spelling per outline: ring starts, part order, orientation; no one-part multis."""
    lone = shapely.get_type_id(shapes) == GeometryType.MULTIPOLYGON
    lone &= shapely.get_num_geometries(shapes) == 1
    plain = np.where(lone, shapely.get_geometry(shapes, 0), shapes)
    return np.asarray(shapely.orient_polygons(shapely.normalize(plain)), object)


def outline_ids(shapes: NDArray[Any]) -> NDArray[Any]:
    """Hash of each outline, rounded to 1e-9° (0.1 mm)."""
    rounded = shapely.transform(shapes, lambda xy: np.round(xy, 9) + 0.0)
    wkb = shapely.to_wkb(canonical(rounded), byte_order=1)
    return np.array([hashlib.sha1(w, usedforsecurity=False).hexdigest()[:12] for w in wkb], object)

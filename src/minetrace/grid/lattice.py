"""From a site to a pixel grid, and windows of one pixel lattice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS, Geometry
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from pyproj.exceptions import CRSError
from shapely import box, union_all
from shapely.geometry.base import BaseGeometry

from minetrace.errors import GridError

_ANCHORS = 4096
"""Pixels between the places that others are measured from: of fewer digits none is rounded off."""
_FINEST = 2.0**36
"""Parts of a pixel to which places are rounded: whole pixels are then added without rounding."""
MAX_PIXELS = 2**31
"""Largest grid that is accepted; a typing slip in a resolution asks for more."""


def crosses_antimeridian(geometry: BaseGeometry) -> bool:
    """Whether a geometry in longitude and latitude has parts on both sides of 180°.

    The rule of GeoJSON (RFC 7946) is assumed: such a geometry is split at 180°, so it spans
    nearly the whole circle but leaves the middle empty.
    """
    west, _, east, _ = geometry.bounds
    if east - west <= 180:
        return False
    parts = getattr(geometry, "geoms", [geometry])
    return all(p.bounds[2] - p.bounds[0] < 180 for p in parts)


def utm_crs(geometry: BaseGeometry) -> CRS:
    """UTM zone (or polar stereographic CRS beyond 84° N and 80° S) of a lon/lat geometry.

    Examples
    --------
    >>> from shapely.geometry import Point
    >>> utm_crs(Point(-51.6, 2.3)).to_epsg()
    32622
    """
    lon, lat = middle(geometry)
    if lat > 84 or lat < -80:
        return CRS("EPSG:32661" if lat > 0 else "EPSG:32761")
    zone = min(int((lon + 180) // 6) + 1, 60)
    return CRS(f"EPSG:{(32600 if lat >= 0 else 32700) + zone}")


def middle(geometry: BaseGeometry) -> tuple[float, float]:
    """Longitude and latitude of the middle of a geometry's extent; 180° E for one across it.

    Examples
    --------
    >>> from shapely.geometry import box
    >>> middle(box(10, -4, 12, 0))
    (11.0, -2.0)
    """
    west, south, east, north = geometry.bounds
    lon = 180.0 if crosses_antimeridian(geometry) else (west + east) / 2
    return lon, (south + north) / 2


def surroundings(geometry: BaseGeometry, buffer_m: float) -> BaseGeometry:
    """Box in longitude and latitude that holds all ground within a distance of a geometry.

    It is split at 180° where it crosses it, as RFC 7946 asks.

    Examples
    --------
    >>> from shapely.geometry import box
    >>> surroundings(box(10, 0, 10.1, 0.1), 11_132).bounds
    (9.89..., -0.10..., 10.20..., 0.20...)
    """
    boxes = []
    parts = geometry.geoms if crosses_antimeridian(geometry) else [geometry]
    for part in parts:
        west, south, east, north = part.bounds
        # degrees are shortest, in metres, at the equator (latitude) and at the far end (longitude)
        up = buffer_m / 110_574
        low, high = max(south - up, -90.0), min(north + up, 90.0)
        wide = buffer_m / (111_320 * max(math.cos(math.radians(max(-low, high))), 1e-9))
        boxes.append(lonlat_box(west - wide, low, east + wide, high))
    return union_all(boxes)


def lonlat_box(west: float, south: float, east: float, north: float) -> BaseGeometry:
    """Box in longitude and latitude, split at 180° if it reaches past it.

    Examples
    --------
    >>> lonlat_box(179, 0, 181, 1).bounds
    (-180.0, 0.0, 180.0, 1.0)
    """
    if east - west >= 360:
        return box(-180, south, 180, north)
    parts = [box(max(west, -180), south, min(east, 180), north)]
    if west < -180:
        parts.append(box(west + 360, south, 180, north))
    if east > 180:
        parts.append(box(-180, south, east - 360, north))
    return union_all(parts)


def site_geobox(
    geometry: BaseGeometry, *, crs: str | CRS, resolution: float, buffer_m: float = 0.0
) -> GeoBox:
    """Pixel-snapped grid that covers a site.

    Parameters
    ----------
    geometry
        Site in EPSG:4326.
    crs
        ``"utm"`` for the site's own zone, or any CRS.
    resolution
        Pixel side in units of ``crs``. Pixel edges lie on its whole multiples, so that grids of
        neighbouring sites line up.
    buffer_m
        Margin in metres around the site.

    Raises
    ------
    GridError
        The site has no finite extent in ``crs`` or the grid would be absurdly large.

    Examples
    --------
    >>> from shapely.geometry import box
    >>> site_geobox(box(-51.61, 2.30, -51.60, 2.31), crs="utm", resolution=30).resolution.x
    30.0
    """
    try:
        target = utm_crs(geometry) if crs == "utm" else CRS(crs)
    except CRSError as err:
        raise GridError(f"{crs!r} is no CRS; use 'utm' or an authority code: {err}") from err
    left, bottom, right, top = _projected_bounds(geometry, target, buffer_m)
    i0, i1 = _snap(left, right, resolution)
    j0, j1 = _snap(bottom, top, resolution)
    _refuse_too_large(i1 - i0, j1 - j0)
    return GeoBox.from_bbox(
        (i0 * resolution, j0 * resolution, i1 * resolution, j1 * resolution),
        target,
        shape=(j1 - j0, i1 - i0),
        tight=True,
    )


def crop_native(native: GeoBox, geometry: BaseGeometry, *, buffer_m: float = 0.0) -> GeoBox:
    """Part of a source's own pixel lattice that covers a site.

    The result keeps the lattice exactly, so reading it resamples nothing. It may extend past
    ``native`` where the site does, since the next tile continues the lattice.

    Raises
    ------
    GridError
        The site crosses 180° and the lattice is in degrees, or has no extent in its CRS.
    """
    if native.crs is None:
        raise GridError("the source raster has no CRS; assign one (gdal_edit.py -a_srs) first")
    if native.crs.geographic and crosses_antimeridian(geometry):
        raise GridError(
            "the site crosses 180° longitude and the source's grid is in degrees: split the site "
            "at 180°, or choose a projected grid (crs = 'utm')"
        )
    if native.affine.b or native.affine.d:
        raise GridError("the source's grid is rotated; warp it to rows and columns of its CRS")
    left, bottom, right, top = _projected_bounds(geometry, native.crs, buffer_m)
    x, step_x, nx = _cut(native.affine.c, native.affine.a, left, right)
    y, step_y, ny = _cut(native.affine.f, native.affine.e, bottom, top)
    _refuse_too_large(nx, ny)
    return GeoBox((ny, nx), Affine(step_x, 0.0, x, 0.0, step_y, y), native.crs)


def _cut(origin: float, step: float, low: float, high: float) -> tuple[float, float, int]:
    """Origin, step and length of the part of an axis that covers ``low`` to ``high``."""
    size = abs(step)
    offset, _ = lattice_phase(origin, step)
    first, last = _snap((low - offset) / size, (high - offset) / size, 1.0)
    return offset + (first if step > 0 else last) * size, step, last - first


def lattice_phase(origin: float, step: float) -> tuple[float, int]:
    """Offset of a lattice from zero, and the number of the pixel edge at ``origin``.

    Origins of tiles and windows of one lattice differ by rounding. The offset is therefore rounded
    to less than a billionth of a pixel: every window of the lattice gets bit-equal coordinates,
    whichever origin it was derived from.
    """
    size = abs(step)
    digits = 9 - math.floor(math.log10(size))
    offset = round(origin % size, digits)
    if size - offset < 10.0**-digits:
        offset = 0.0
    return offset, round((origin - offset) / size)


def lattice_window(native: GeoBox, rows: tuple[int, int], cols: tuple[int, int]) -> GeoBox:
    """Part of a pixel lattice by its rows and columns, counted from the corner of ``native``.

    It is the grid that `crop_native` gives for a site that fills it.

    Examples
    --------
    >>> grid = GeoBox.from_bbox((0, 0, 10, 10), "EPSG:32631", resolution=1)
    >>> lattice_window(grid, (1, 3), (-2, 4)).boundingbox.bbox
    (-2.0, 7.0, 4.0, 9.0)
    """
    t = native.affine
    (left, col), (top, row) = lattice_phase(t.c, t.a), lattice_phase(t.f, t.e)
    x = left + (col + (cols[0] if t.a > 0 else -cols[0])) * abs(t.a)
    y = top + (row + (rows[0] if t.e > 0 else -rows[0])) * abs(t.e)
    shape = (rows[1] - rows[0], cols[1] - cols[0])
    return GeoBox(shape, Affine(t.a, 0.0, x, 0.0, t.e, y), native.crs)


def to_pixels(
    geobox: GeoBox, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows of places on a north-up grid, to 1e-10 pixels.

    On two windows of one lattice they differ by whole pixels, exactly: what a site covers does
    not depend on the window that it is seen in.

    Examples
    --------
    >>> grid = GeoBox.from_bbox((0.1, 0.2, 0.5, 0.6), "EPSG:4326", shape=(4, 4))
    >>> col, row = to_pixels(grid, np.array([0.25]), np.array([0.35]))
    >>> round(float(col[0]), 6), round(float(row[0]), 6)
    (1.5, 2.5)
    """
    t = geobox.affine
    return _along(x, t.c, t.a), _along(y, t.f, t.e)


def _along(places: NDArray[np.float64], origin: float, step: float) -> NDArray[np.float64]:
    size = abs(step)
    offset, first = lattice_phase(origin, step)
    anchor = np.floor((places - offset) / (size * _ANCHORS)) * _ANCHORS
    rest = (places - (offset + anchor * size)) / size
    pixels: NDArray[np.float64] = np.rint(rest * _FINEST) / _FINEST + (anchor - first)
    return pixels if step > 0 else -pixels


def same_lattice(a: GeoBox, b: GeoBox) -> bool:
    """Whether two grids are windows of one pixel lattice (same CRS, step and phase)."""
    if a.crs != b.crs:
        return False
    ta, tb = a.affine, b.affine
    scale = max(abs(ta.a), abs(ta.e))
    if (
        max(
            abs(p - q)
            for p, q in zip((ta.a, ta.b, ta.d, ta.e), (tb.a, tb.b, tb.d, tb.e), strict=True)
        )
        > 1e-9 * scale
    ):
        return False
    col, row = a.wld2pix(tb.c, tb.f)
    return bool(abs(col - round(col)) < 0.01 and abs(row - round(row)) < 0.01)


@lru_cache(maxsize=64)
def transformer(source: str, target: str) -> Transformer:
    """Coordinate transformation in x, y order; kept, since making one takes 16 ms."""
    return Transformer.from_crs(source, target, always_xy=True)


def _projected_bounds(
    geometry: BaseGeometry, crs: CRS, buffer_m: float
) -> tuple[float, float, float, float]:
    shape = Geometry(geometry, "EPSG:4326")
    if crosses_antimeridian(geometry):
        boxes: Sequence[Geometry] = [
            Geometry(p, "EPSG:4326") for p in getattr(geometry, "geoms", ())
        ]
    else:
        boxes = [shape]
    # straight edges in degrees bend in a projection: densify before taking the extent
    bounds = np.array([g.to_crs(crs, resolution=0.01).boundingbox.bbox for g in boxes])
    out = (*bounds[:, :2].min(axis=0), *bounds[:, 2:].max(axis=0))
    if not all(math.isfinite(v) for v in out):
        raise GridError(f"the site has no finite extent in {crs}; is it inside that CRS's domain?")
    if not buffer_m:
        return float(out[0]), float(out[1]), float(out[2]), float(out[3])
    if crs.geographic:
        lat = math.radians(min(89.0, max(abs(out[1]), abs(out[3]))))
        dy = buffer_m / 110_574
        dx = buffer_m / (111_320 * math.cos(lat))
    else:
        dx = dy = buffer_m
    return float(out[0] - dx), float(out[1] - dy), float(out[2] + dx), float(out[3] + dy)


def _snap(low: float, high: float, step: float) -> tuple[int, int]:
    # an edge within a millionth of a pixel of the lattice is on it
    i0 = math.floor(low / step + 1e-6)
    i1 = max(math.ceil(high / step - 1e-6), i0 + 1)
    return i0, i1


def _refuse_too_large(nx: int, ny: int) -> None:
    if nx * ny > MAX_PIXELS:
        raise GridError(
            f"a grid of {nx} × {ny} pixels was asked for; check the resolution's unit "
            "and whether the site crosses 180°"
        )

"""From a site to a pixel grid, and the exact area of that grid's pixels.

Areas are those of the WGS 84 ellipsoid. They come from the equal-area cylindrical projection of
the ellipsoid, in which the plane area of a small quadrilateral is its area on Earth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

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

_EQUAL_AREA = "+proj=cea +ellps=WGS84 +units=m"
_AROUND = 2 * math.pi * 6_378_137.0
"""Width of the equal-area plane: the equator's length, metres."""
_APART = 0.5
"""Most degrees between the pixels whose areas are taken exactly."""
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
    offset, _ = _phase(origin, step)
    first, last = _snap((low - offset) / size, (high - offset) / size, 1.0)
    return offset + (first if step > 0 else last) * size, step, last - first


def _phase(origin: float, step: float) -> tuple[float, int]:
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
    (left, col), (top, row) = _phase(t.c, t.a), _phase(t.f, t.e)
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
    offset, first = _phase(origin, step)
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


def pixel_areas(geobox: GeoBox) -> NDArray[np.float64]:
    """Area of every pixel on the WGS 84 ellipsoid.

    Parameters
    ----------
    geobox
        Any grid with a CRS.

    Returns
    -------
    ndarray
        float64 ``(y, x)``, m². The sum over the grid equals the area of its outline to a few
        parts in 1e9, and so does each pixel, up to the whole Earth at 0.1° (tested to 5e-9).

    Notes
    -----
    The area changes smoothly, so it is taken exactly for pixels half a degree apart at most and
    interpolated between them, by cubics through the nearest four of a row or column. These pixels
    are the same for all windows of a lattice, and so are the areas. A pixel is taken as a
    quadrilateral of the equal-area plane: a projected pixel next to a pole is not.

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> equator = GeoBox.from_bbox((0, 0, 1, 1), "EPSG:4326", shape=(1, 1))
    >>> round(float(pixel_areas(equator)[0, 0]) / 1e6)
    12308
    """
    spline = area_spline(geobox)
    areas = np.zeros(geobox.shape)
    for i, factor in enumerate(spline.factor.T):
        areas += factor[:, None] * spline.columns[spline.first + i]
    return areas


class AreaSpline(NamedTuple):
    """Pixel areas of a grid in the form of a spline, m².

    The area of pixel (r, c) is the sum of ``factor[r, i] * columns[first[r] + i, c]`` over i, 0
    to 3.
    """

    columns: NDArray[np.float64]
    """float64 ``(node, x)``."""
    first: NDArray[np.int64]
    """int64 ``(y,)``."""
    factor: NDArray[np.float64]
    """float64 ``(y, 4)``."""


def area_spline(geobox: GeoBox) -> AreaSpline:
    """`pixel_areas` in a form that gives single pixels without the whole grid.

    Raises
    ------
    GridError
        As `pixel_areas`.

    Examples
    --------
    >>> grid = GeoBox.from_bbox((0, 0, 30000, 60000), "EPSG:32622", shape=(2000, 1000))
    >>> spline = area_spline(grid)
    >>> spline.columns.shape, spline.factor.shape
    ((5, 1000), (2000, 4))
    """
    if geobox.crs is None:
        raise GridError("the grid has no CRS, so its pixels have no area")
    (ny, nx), t = geobox.shape, geobox.affine
    degrees = 1.0 if geobox.crs.geographic else 1 / 111_320
    rows = _nodes(ny, t.f, t.e or t.d, degrees)
    cols = _nodes(nx, t.c, t.a or t.b, degrees)
    areas = _quad_areas(geobox, rows.at, cols.at)
    if not np.isfinite(areas).all():
        # at the edge of the CRS's domain there may be no pixels beyond the grid to lean on
        rows, cols = _every_pixel(ny), _every_pixel(nx)
        areas = _quad_areas(geobox, rows.at, cols.at)
    if not np.isfinite(areas).all():
        raise GridError(f"the grid {geobox.boundingbox} leaves the domain of {geobox.crs}")
    # term by term: a matrix product rounds differently in windows of different widths
    columns = sum(cols.factor[:, i] * areas[:, cols.first + i] for i in range(4))
    return AreaSpline(np.ascontiguousarray(columns), rows.first, rows.factor)


@lru_cache(maxsize=64)
def transformer(source: str, target: str) -> Transformer:
    """Coordinate transformation in x, y order; kept, since making one takes 16 ms."""
    return Transformer.from_crs(source, target, always_xy=True)


class _Nodes(NamedTuple):
    """Pixels of an axis whose areas are taken exactly, and how all others lean on them."""

    at: NDArray[np.int64]
    """Their numbers in the grid, beyond its ends too."""
    first: NDArray[np.int64]
    """The first of four nodes of every pixel."""
    factor: NDArray[np.float64]
    """float64 ``(pixel, 4)``."""


def _nodes(n: int, origin: float, step: float, degrees: float) -> _Nodes:
    """Nodes at whole multiples, on the lattice, of a power of two of pixels."""
    apart = 2 ** max(0, math.floor(math.log2(_APART / (abs(step) * degrees))))
    if apart == 1:
        return _every_pixel(n)
    _, edge = _phase(origin, step)
    pixels = edge + np.arange(n) if step > 0 else edge - 1 - np.arange(n)
    node = pixels // apart
    t = (pixels - node * apart) / apart
    factor = np.stack(
        [-t * (t - 1) * (t - 2) / 6, (t + 1) * (t - 1) * (t - 2) / 2,
         -(t + 1) * t * (t - 2) / 2, (t + 1) * t * (t - 1) / 6], axis=1,
    )  # fmt: skip
    lowest = int(node.min()) - 1
    on_lattice = np.arange(lowest, int(node.max()) + 3) * apart
    at = on_lattice - edge if step > 0 else edge - 1 - on_lattice
    return _Nodes(at, node - 1 - lowest, factor)


def _every_pixel(n: int) -> _Nodes:
    # the last pixel has three more behind it, with factors of 0
    return _Nodes(np.minimum(np.arange(n + 3), n - 1), np.arange(n), np.eye(1, 4).repeat(n, axis=0))


def _quad_areas(
    geobox: GeoBox, rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Area of the pixels at ``rows × cols`` from their corners in the equal-area plane."""
    r, c = np.meshgrid(rows.astype(float), cols.astype(float), indexing="ij")
    to_plane = transformer(str(geobox.crs), _EQUAL_AREA)
    corners = [
        to_plane.transform(*_edges(geobox, c + dc, r + dr))
        for dr, dc in ((0, 0), (0, 1), (1, 1), (1, 0))
    ]
    # corners relative to the first: the plane coordinates are 1e7 m, the pixels 1e1 m
    with np.errstate(invalid="ignore"):
        x = np.stack([cx - corners[0][0] for cx, _ in corners])
        y = np.stack([cy - corners[0][1] for _, cy in corners])
        # a pixel across 180° has corners at both ends of the plane
        x -= _AROUND * np.round(x / _AROUND)
        nxt = [1, 2, 3, 0]
        area: NDArray[np.float64] = np.abs((x * y[nxt] - x[nxt] * y).sum(axis=0)) / 2
    return area


def _edges(
    geobox: GeoBox, cols: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places of pixel edges, bit-equal on all windows of a lattice."""
    t = geobox.affine
    if t.b or t.d:
        x, y = geobox.pix2wld(cols, rows)
        return x, y
    (left, col), (top, row) = _phase(t.c, t.a), _phase(t.f, t.e)
    across = left + (col + math.copysign(1, t.a) * cols) * abs(t.a)
    return across, top + (row + math.copysign(1, t.e) * rows) * abs(t.e)


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

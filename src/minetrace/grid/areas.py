"""Exact areas of pixels on the WGS 84 ellipsoid.

They come from the equal-area cylindrical projection of the ellipsoid, in which the plane area of a
small quadrilateral is its area on Earth.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from minetrace.errors import GridError
from minetrace.grid.lattice import lattice_phase, transformer

_EQUAL_AREA = "+proj=cea +ellps=WGS84 +units=m"
_AROUND = 2 * math.pi * 6_378_137.0
"""Width of the equal-area plane: the equator's length, metres."""
_APART = 0.5
"""Most degrees between the pixels whose areas are taken exactly."""


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
    _, edge = lattice_phase(origin, step)
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
    (left, col), (top, row) = lattice_phase(t.c, t.a), lattice_phase(t.f, t.e)
    across = left + (col + math.copysign(1, t.a) * cols) * abs(t.a)
    return across, top + (row + math.copysign(1, t.e) * rows) * abs(t.e)

"""Sites on a pixel grid: which cells each one covers, and how much of each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import geopandas as gpd
import numpy as np
import odc.geo.xr  # noqa: F401  registers the .odc accessor
import pandas as pd
import shapely
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

from minetrace.errors import GridError, InputError, SiteError
from minetrace.grid import pixel_areas, transformer
from minetrace.kernels.coverage import cover_centres, cover_fractions
from minetrace.kernels.zonal import zone_means
from minetrace.schema import label

Coverage = Literal["fraction", "centre"]
"""``fraction``: the exact share of each pixel; ``centre``: pixels whose centre lies inside."""

_TOLERANCE_PX = 2e-4
_MAX_PIECES = 4096
_SLIVER = 1e-10
_WINDOW_CELLS = 2**22
_NONE: NDArray[np.float64] = np.empty(0)


@dataclass(frozen=True, eq=False)
class Zones:
    """Sparse coverage weights: the cells of site i are ``offsets[i]:offsets[i + 1]``."""

    site_ids: tuple[str, ...]
    offsets: NDArray[np.int64]
    """int64 ``(site + 1,)``."""
    rows: NDArray[np.int32]
    """int32 ``(cell,)``, from the top; the cells of a site run row by row."""
    cols: NDArray[np.int32]
    weight: NDArray[np.float64]
    """Share of each cell inside the site, above 0 and at most 1."""
    shape: tuple[int, int]
    """Rows and columns of the grid."""

    def __len__(self) -> int:
        return len(self.site_ids)


def cover(sites: gpd.GeoDataFrame, geobox: GeoBox, *, coverage: Coverage = "fraction") -> Zones:
    """Share of every grid cell inside every site.

    Parameters
    ----------
    sites
        Polygons in any CRS, with a unique ``site_id``. Sites may overlap: each gets its full
        share. A row whose geometry is missing, empty, not finite or off the grid gets no cells.
    geobox
        North-up grid.
    coverage
        ``"fraction"`` for exact shares, ``"centre"`` for whole pixels by their centre. A centre
        on the common edge of two sites belongs to one of them.

    Returns
    -------
    Zones
        Rows in the order of ``sites``.

    Raises
    ------
    GridError
        The grid is rotated, not north-up, or has no CRS.
    SiteError
        No ``site_id`` column, repeated ids, or no CRS.
    InputError
        Unknown ``coverage``.

    Notes
    -----
    Straight edges of the sites' own CRS bend on the grid: they are divided until they stray from
    the true curve by less than 1/1000 pixel. Where an edge is divided depends on that edge alone,
    so sites that share it share every point of it. Shares are exact in float64; those below
    1e-10 are dropped, so the parts of a partition add up to the whole to about 1e-9.

    Examples
    --------
    >>> from shapely.geometry import box
    >>> grid = GeoBox.from_bbox((0, 0, 3, 3), "EPSG:32622", shape=(3, 3))
    >>> sites = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[box(0.5, 0.5, 2.5, 2.5)],
    ...                          crs="EPSG:32622")
    >>> zones = cover(sites, grid)
    >>> float(zones.weight.sum()), zones.weight[:3].tolist()
    (4.0, [0.25, 0.5, 0.25])
    """
    if coverage not in get_args(Coverage):
        raise InputError(f"coverage is {coverage!r}; use one of {get_args(Coverage)}")
    _require_north_up(geobox)
    ids = _site_ids(sites)
    parts, owner = _polygon_parts(sites.geometry.to_numpy())
    xy, rings, polygons = _on_grid(parts, sites.crs, geobox)
    # of site i: the parts first[i]:first[i + 1], so the rings polygons[first[i]] onwards
    first = np.searchsorted(owner, np.arange(len(ids) + 1))
    kernel = cover_fractions if coverage == "fraction" else cover_centres
    cells = [
        _cells(kernel, xy, rings[polygons[a] : polygons[b] + 1], geobox.shape)
        for a, b in pairwise(first)
    ]
    rows, cols, weight = zip(*cells, strict=True) if cells else ((_NONE,),) * 3
    return Zones(
        ids,
        np.cumsum([0, *(c[0].size for c in cells)], dtype=np.int64),
        np.concatenate(rows).astype(np.int32),
        np.concatenate(cols).astype(np.int32),
        np.concatenate(weight),
        (int(geobox.shape[0]), int(geobox.shape[1])),
    )


def zonal_mean(
    da: xr.DataArray, sites: gpd.GeoDataFrame, *, coverage: Coverage = "fraction"
) -> pd.DataFrame:
    """Mean of an image layer inside every site, weighted by the area inside it.

    Parameters
    ----------
    da
        Float ``(time, y, x)``, NaN where nothing was observed. Lazy data are computed here.
    sites, coverage
        As for `cover`.

    Returns
    -------
    DataFrame
        ``site_id, time, value, n_pixels``: one row a site and layer. ``value`` is NaN where
        nothing was observed; ``n_pixels`` is the sum of the shares of the observed pixels.

    Raises
    ------
    GridError, SiteError, InputError
        As for `cover`, and for data that are not float or have no time.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> from shapely.geometry import box
    >>> grid = GeoBox.from_bbox((0, 0, 3, 3), "EPSG:32622", shape=(3, 3))
    >>> ndvi = xr_zeros(grid, "float32").expand_dims(time=[2020]) + 0.5
    >>> sites = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[box(0.5, 0.5, 2.5, 2.5)],
    ...                          crs="EPSG:32622")
    >>> zonal_mean(ndvi, sites)
      site_id  time  value  n_pixels
    0       a  2020    0.5       4.0
    """
    return mean_in_zones(da, cover(sites, geobox_of(da), coverage=coverage))


def mean_in_zones(da: xr.DataArray, zones: Zones) -> pd.DataFrame:
    """`zonal_mean` for zones that are at hand: build them once for many layers of one grid."""
    if da.dtype.kind != "f":
        raise InputError(
            f"{label(da)} is {da.dtype}; a mean needs floats with NaN for gaps: use "
            ".where(da != nodata) first"
        )
    area_km2 = cell_km2(zones, geobox_of(da))
    mean, n_pixels = zone_means(
        space_last(da), zones.offsets, zones.rows, zones.cols, area_km2, zones.weight
    )
    n_time = mean.shape[1]
    return pd.DataFrame(
        {
            "site_id": np.repeat(np.asarray(zones.site_ids, object), n_time),
            "time": np.tile(da["time"].to_numpy(), len(zones)),
            "value": mean.ravel(),
            "n_pixels": n_pixels.ravel(),
        }
    ).astype({"site_id": "str"})


def cell_km2(zones: Zones, geobox: GeoBox) -> NDArray[np.float64]:
    """Area on the ellipsoid of the part of every cell that lies inside its site, km²."""
    if tuple(geobox.shape) != zones.shape:
        raise InputError(
            f"the zones were made for a grid of {zones.shape} pixels, the data have "
            f"{tuple(geobox.shape)}: call cover() with the data's own grid"
        )
    area: NDArray[np.float64] = pixel_areas(geobox)[zones.rows, zones.cols]
    return area * zones.weight / 1e6


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
    geobox_of(da)
    dims = ("time", *da.odc.spatial_dims)
    if set(da.dims) != set(dims):
        raise InputError(f"{label(da)} has dims {da.dims}; expected {dims}")
    return np.ascontiguousarray(da.transpose(*dims).to_numpy())


def _require_north_up(geobox: GeoBox) -> None:
    t = geobox.affine
    if geobox.crs is None:
        raise GridError("the grid has no CRS, so sites cannot be placed on it")
    if t.b != 0 or t.d != 0 or t.a <= 0 or t.e >= 0:
        raise GridError(
            f"the grid's transform {tuple(t)[:6]} is rotated or not north-up; sort the data by "
            "descending y and ascending x, or warp them to a north-up grid"
        )


def _site_ids(sites: gpd.GeoDataFrame) -> tuple[str, ...]:
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


def _polygon_parts(geometries: NDArray[np.object_]) -> tuple[NDArray[Any], NDArray[np.int64]]:
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


def _on_grid(
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
    return (xy - (t.c, t.f)) / (t.a, t.e), rings, polygons


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


def _cells(
    kernel: Any, xy: NDArray[np.float64], rings: NDArray[np.int64], shape: tuple[int, int]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Rows, columns and shares of one site's cells, row by row."""
    window = _window(xy[rings[0] : rings[-1]], shape)
    if window is None:
        return _NONE, _NONE, _NONE
    row0, col0, row1, col1 = window
    # a site may be as large as the grid: bound the dense buffer
    band = max(1, _WINDOW_CELLS // (col1 - col0))
    out = []
    for top in range(row0, row1, band):
        share = kernel(xy, rings, top, col0, min(band, row1 - top), col1 - col0)
        r, c = np.nonzero(share > _SLIVER)
        out.append((r + top, c + col0, np.minimum(share[r, c], 1.0)))
    rows, cols, shares = (np.concatenate(k) for k in zip(*out, strict=True))
    return rows, cols, shares


def _window(xy: NDArray[np.float64], shape: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """First and last row and column that a site touches, or None if it misses the grid."""
    if len(xy) == 0 or not np.isfinite(xy).all():
        return None
    (left, top), (right, bottom) = xy.min(axis=0), xy.max(axis=0)
    row0, row1 = max(math.floor(top), 0), min(math.ceil(bottom), shape[0])
    col0, col1 = max(math.floor(left), 0), min(math.ceil(right), shape[1])
    return (row0, col0, row1, col1) if row0 < row1 and col0 < col1 else None

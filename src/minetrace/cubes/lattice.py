"""The grid of a cube: the lattice that items share, windows of it, and grids of one's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import odc.stac
import pystac
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from shapely.geometry.base import BaseGeometry

from minetrace.cubes.claims import stated_grid
from minetrace.errors import GridError
from minetrace.grid import (
    crop_native,
    lonlat_box,
    pixel_areas,
    same_lattice,
    site_geobox,
    transformer,
)

_LONLAT = "EPSG:4326"


def native_grid(items: Sequence[pystac.Item], keys: str | Sequence[str]) -> GeoBox:
    """Pixel lattice that the items share; of several assets that of the finest.

    Raises
    ------
    GridError
        An item carries no projection metadata, or the items lie on several lattices.
    """
    keys = [keys] if isinstance(keys, str) else keys
    shared: GeoBox | None = None
    for item in items:
        own = _lattices(item, keys)
        if len(own) < len(keys):
            raise GridError(
                f"item {item.id!r}, asset {keys[len(own)]!r}, has no proj:shape, proj:transform "
                "and proj:code, so its grid is unknown; give the recipe crs and "
                "resolution"
            )
        finest = min(own, key=lambda grid: abs(grid.affine.a))
        if finest.crs is None:
            raise GridError(f"item {item.id!r} has no CRS (proj:code)")
        if shared is None:
            shared = finest
        elif finest is not shared and not same_lattice(shared, finest):
            raise GridError(
                f"item {item.id!r} lies on another pixel lattice than {items[0].id!r}; give "
                "imagery a grid of its own (crs = 'utm' and a resolution: only items of another "
                "zone are then resampled), and land cover or lights one collection a lattice"
            )
    if shared is None:
        raise GridError("no items, so no grid")
    return shared


def site_grid(
    items: Sequence[pystac.Item],
    keys: str | Sequence[str],
    geometry: BaseGeometry,
    *,
    crs: str = "native",
    resolution: float | None = None,
    buffer_m: float = 0.0,
) -> GeoBox:
    """Grid of a cube: a window of the source's lattice, or a pixel-snapped grid of one's own.

    A grid of one's own takes the lattice of the items that have its CRS and resolution, so that
    these are not resampled (Landsat's pixel edges lie at odd multiples of 15 m). Of several such
    lattices that of most items is taken. Without such items edges are multiples of the resolution.
    """
    if crs == "native":
        return crop_native(native_grid(items, keys), geometry, buffer_m=buffer_m)
    if resolution is None:
        raise GridError(f"the recipe asks for crs {crs!r}: give it a resolution too")
    own = site_geobox(geometry, crs=crs, resolution=resolution, buffer_m=buffer_m)
    shared = _most_common(items, [keys] if isinstance(keys, str) else keys, own)
    return own if shared is None else crop_native(shared, geometry, buffer_m=buffer_m)


def _lattices(item: pystac.Item, keys: Sequence[str]) -> list[GeoBox]:
    """Grids of an item's assets, up to the first that is not declared."""
    stated = [stated_grid(item, key) if key in item.assets else None for key in keys]
    if all(stated):
        return [grid for grid in stated if grid is not None]
    # odc-stac knows rarer ways of stating a grid, at 3 ms an item
    parsed = odc.stac.parse_item(item)
    band = int(item.properties.get("minetrace:band", 1))
    out: list[GeoBox] = []
    for key in keys:
        raster = parsed.bands.get((key, band)) or parsed.bands.get((key, 1))
        if raster is None or not isinstance(raster.geobox, GeoBox):
            break
        out.append(raster.geobox)
    return out


def _most_common(
    items: Sequence[pystac.Item], keys: Sequence[str], wanted: GeoBox
) -> GeoBox | None:
    """Lattice of the wanted CRS and pixel that most assets lie on; of equals the lowest."""
    step = wanted.affine.a
    found: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for grid in (grid for item in items for grid in _lattices(item, keys)):
        t = grid.affine
        square = max(abs(abs(t.a) - step), abs(abs(t.e) - step), abs(t.b), abs(t.d)) < 1e-9 * step
        if grid.crs == wanted.crs and square:
            phase = t.c % step, t.f % step
            near = round(phase[0] / step, 3) % 1, round(phase[1] / step, 3) % 1
            found.setdefault(near, []).append(phase)
    if not found:
        return None
    best = min(found, key=lambda near: (-len(found[near]), near))
    x, y = min(found[best])
    return GeoBox((1, 1), Affine(step, 0.0, x, 0.0, -step, y), wanted.crs)


def grid_outline(geobox: GeoBox) -> BaseGeometry:
    """Box in longitude and latitude that holds a grid, split at 180° if it reaches past it."""
    if geobox.crs is None:
        raise GridError("the grid has no CRS; give GeoBox one")
    if geobox.affine.b or geobox.affine.d:
        raise GridError("the grid is rotated; rows and columns must follow the axes of its CRS")
    ny, nx = geobox.shape
    along = np.linspace(0, 1, 33)
    cols = np.concatenate([along * nx, along * nx, 0 * along, 0 * along + nx])
    rows = np.concatenate([0 * along, 0 * along + ny, along * ny, along * ny])
    lon, lat = transformer(str(geobox.crs), _LONLAT).transform(*geobox.pix2wld(cols, rows))
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise GridError(f"the grid {geobox.boundingbox} leaves the domain of {geobox.crs}")
    # longitudes on one side of the first, so that a grid across 180° stays in one piece
    lon = lon[0] + (lon - lon[0] + 180) % 360 - 180
    west, south, east, north = lon.min(), lat.min(), lon.max(), lat.max()
    for pole in (-90.0, 90.0):
        x, y = transformer(_LONLAT, str(geobox.crs)).transform(0.0, pole)
        if not geobox.crs.geographic and np.isfinite([x, y]).all():
            col, row = geobox.wld2pix(x, y)
            if 0 <= col <= nx and 0 <= row <= ny:
                west, east = -180, 180
                south, north = min(south, pole), max(north, pole)
    return lonlat_box(float(west), float(south), float(east), float(north))


def is_metric(geobox: GeoBox) -> bool:
    """Whether pixel sides are metres on the ground, to 1 %, at the middle of the grid."""
    if geobox.crs is None or geobox.crs.geographic:
        return False
    ny, nx = geobox.shape
    pixel = geobox[ny // 2 : ny // 2 + 1, nx // 2 : nx // 2 + 1]
    nominal = abs(geobox.affine.a * geobox.affine.e)
    return bool(abs(pixel_areas(pixel)[0, 0] / nominal - 1) < 0.02)


def grid_coords(geobox: GeoBox) -> dict[str, xr.DataArray]:
    """Pixel-centre ``y`` and ``x`` and the CF ``spatial_ref`` of a grid."""
    return {str(k): v for k, v in xr_coords(geobox, dims=("y", "x")).items()}


def node_grid(node: xr.Dataset | xr.DataArray) -> GeoBox:
    """Exact grid of a cube's node.

    The coordinates give it to rounding only; the transform kept with ``spatial_ref`` is exact.
    """
    crs = node.odc.geobox.crs
    transform = Affine.from_gdal(*map(float, node.spatial_ref.attrs["GeoTransform"].split()))
    return GeoBox((node.sizes["y"], node.sizes["x"]), transform, crs)


def crop_node(layer: xr.DataArray, geobox: GeoBox) -> xr.DataArray:
    """Part of a layer on a window of its own lattice, as if it had been opened there.

    Raises
    ------
    GridError
        The window is on another lattice, or reaches outside the layer.
    """
    grid = node_grid(layer)
    col, row = (round(v) for v in grid.wld2pix(geobox.affine.c, geobox.affine.f))
    ny, nx = geobox.shape
    inside = row >= 0 and col >= 0 and row + ny <= grid.shape[0] and col + nx <= grid.shape[1]
    if not inside or not same_lattice(grid, geobox):
        raise GridError("the window is no part of this layer's grid")
    part = layer.isel(y=slice(row, row + ny), x=slice(col, col + nx))
    return part.assign_coords(grid_coords(geobox))

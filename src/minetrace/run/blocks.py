"""Which sites need a block of a file in common."""

from __future__ import annotations

from typing import NamedTuple

import geopandas as gpd
import numpy as np
import pystac
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from minetrace.catalog import Source, item_time
from minetrace.catalog.search import footprint
from minetrace.cubes.claims import stated_grid
from minetrace.cubes.windows import block_shape
from minetrace.errors import GridError, SourceError
from minetrace.grid import crop_native, to_pixels
from minetrace.run.windows import Rects, blocks_of, number_blocks
from minetrace.schema import Recipe

_SLACK = 1e-6


class Tile(NamedTuple):
    """Files of one extent."""

    grid: GeoBox
    items: list[pystac.Item]


def tiles_of(recipe: Recipe, source: Source) -> list[Tile]:
    """Extents of the land-cover files of a source in the years of a recipe."""
    key, part = source.asset_key("landcover"), recipe.landcover
    wanted = (part.collection if part else None) or source.config.collection
    found: dict[GeoBox, Tile] = {}
    for item in source.items:
        in_time = recipe.years[0] <= item_time(item).year <= recipe.years[1]
        if not in_time or wanted not in (None, item.collection_id) or key not in item.assets:
            continue
        try:
            grid = stated_grid(item, key)
        except SourceError:
            # the unit that needs it says so
            continue
        if grid is not None:
            found.setdefault(grid, Tile(grid, [])).items.append(item)
    return list(found.values())


def sites_that_share_blocks(
    sites: gpd.GeoDataFrame, recipe: Recipe, source: Source
) -> NDArray[np.int64]:
    """Number of the group of each site: those of a group need blocks in common, in a chain."""
    n = len(sites)
    site, block, n_block = [], [], 0
    tiles = tiles_of(recipe, source)
    shape = block_shape(source, tiles[0].items[0]) if tiles else (1, 1)
    geometries = sites.geometry.to_numpy()
    tree = shapely.STRtree(geometries)
    for tile in tiles:
        near = np.sort(tree.query(footprint(tile.items[0]), predicate="intersects"))
        rects, placed = site_rects(tile.grid, geometries[near])
        which, place = blocks_of(rects, shape)
        number = number_blocks(place)
        site.append(near[placed][which])
        block.append(n + n_block + number)
        n_block += int(number.max(initial=-1)) + 1
    if not site:
        return np.arange(n)
    at = np.concatenate(site), np.concatenate(block)
    links = coo_array((np.ones(at[0].size, np.int8), at), shape=(n + n_block,) * 2)
    group: NDArray[np.int64] = connected_components(links, directed=False)[1][:n].astype(np.int64)
    return group


def site_rects(native: GeoBox, geometries: NDArray[np.object_]) -> tuple[Rects, NDArray[np.int64]]:
    """First and last pixels of sites on a lattice, and the positions of those that have a place."""
    t = native.affine
    if native.crs is None or t.b or t.d:
        return np.empty((0, 4), np.int64), np.empty(0, np.int64)
    bounds = shapely.bounds(geometries)
    if native.crs == "EPSG:4326":
        placed = np.flatnonzero(bounds[:, 2] - bounds[:, 0] < 180)
        x, y = to_pixels(native, bounds[placed][:, [0, 2]], bounds[placed][:, [1, 3]])
        return _whole_pixels(y, x), placed
    found, rects = [], []
    for i, geometry in enumerate(geometries):
        try:
            grid = crop_native(native, geometry)
        except GridError:
            continue
        col, row = (round(v) for v in native.wld2pix(grid.affine.c, grid.affine.f))
        found.append(i)
        rects.append((row, row + grid.shape[0], col, col + grid.shape[1]))
    return np.array(rects, np.int64).reshape(-1, 4), np.array(found, np.int64)


def _whole_pixels(rows: NDArray[np.float64], cols: NDArray[np.float64]) -> Rects:
    rects = []
    for ends in (rows, cols):
        first = np.floor(ends.min(axis=1) + _SLACK)
        rects += [first, np.maximum(np.ceil(ends.max(axis=1) - _SLACK), first + 1)]
    return np.stack(rects, axis=1).astype(np.int64)

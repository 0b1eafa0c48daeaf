"""One product of the sites in one window, through the functions that a user calls for one site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import geopandas as gpd
import numpy as np
import pystac
import rasterio.errors
import xarray as xr
from shapely.geometry.base import BaseGeometry

from minetrace.catalog import Source, covers
from minetrace.change import land_sums, transitions
from minetrace.cubes import build_cube, crop_node, layer_years, node_grid, open_legend
from minetrace.errors import ReadError, causes
from minetrace.grid import crop_native
from minetrace.run.rows import SiteRows, land_rows
from minetrace.schema import Legend, Recipe
from minetrace.trends import mann_kendall, ndvi
from minetrace.zones import cover, geobox_of, zonal_mean

_TREND_BANDS = ["slope", "p", "z", "s", "trend", "n"]
# odc-geo asserts when an opened file has no CRS, as a damaged one has not
_READ_FAULTS = (rasterio.errors.RasterioError, AssertionError)
_Lazy = TypeVar("_Lazy", xr.DataArray, xr.Dataset)


def measure(
    product: str,
    sites: gpd.GeoDataFrame,
    window: BaseGeometry,
    recipe: Recipe,
    source: Source,
    items: Sequence[pystac.Item],
) -> list[SiteRows]:
    """Series of a product in every site that its items cover.

    Every site is taken on its own part of the window and with the layers that cover it, both as
    `open_cube` would give them for it alone: neighbours change none of its numbers.

    Raises
    ------
    ReadError
        A raster of the window cannot be read.
    """
    layer = load_layer(product, window, recipe, source, items)
    legend = open_legend(recipe)
    out = []
    for site in (sites.iloc[[i]] for i in range(len(sites))):
        part = _own_part(layer, site, recipe, items, product)
        if part is not None:
            out.append(_series(product, part, site, recipe, legend))
    return out


def load_layer(
    product: str,
    window: BaseGeometry,
    recipe: Recipe,
    source: Source,
    items: Sequence[pystac.Item],
) -> xr.DataArray:
    """The variable of a product that sites are measured by, in memory."""
    return _loaded(_open_layer(product, window, recipe, source, items))


def _open_layer(
    product: str,
    window: BaseGeometry,
    recipe: Recipe,
    source: Source,
    items: Sequence[pystac.Item],
) -> xr.DataArray:
    cube = build_cube("", window, recipe, {product: source}, {product: list(items)})
    node = cube[product].to_dataset()
    named = {"landcover": "landcover", "lights": "ntl", "terrain": "elevation"}
    return ndvi(node) if product == "imagery" else node[named[product]]


def _loaded(lazy: _Lazy) -> _Lazy:
    try:
        return lazy.load()
    except _READ_FAULTS as err:
        raise ReadError(f"a raster could not be read: {causes(err)}") from err


def unreadable(
    product: str,
    window: BaseGeometry,
    recipe: Recipe,
    source: Source,
    items: Sequence[pystac.Item],
) -> Iterator[tuple[pystac.Item, str]]:
    """Items of a window that cannot be read, each with the reason."""
    for item in items:
        try:
            load_layer(product, window, recipe, source, [item])
        except ReadError as err:
            yield item, str(err)


def change_map(
    window: BaseGeometry,
    recipe: Recipe,
    source: Source,
    items: Sequence[pystac.Item],
    legend: Legend,
) -> xr.Dataset:
    """First years of disturbance and reclamation, first and last land cover of a window."""
    codes = load_layer("landcover", window, recipe, source, items)
    moves = transitions(codes, legend=legend, min_persistence=recipe.change.min_persistence)
    return xr.Dataset(
        {
            "first_development": moves["first_development"],
            "first_reclamation": moves["first_reclamation"],
            "first_landcover": codes.isel(time=0, drop=True).astype(np.int16),
            "last_landcover": codes.isel(time=-1, drop=True).astype(np.int16),
        }
    )


def trend_map(
    product: str,
    window: BaseGeometry,
    recipe: Recipe,
    source: Source,
    items: Sequence[pystac.Item],
) -> xr.Dataset:
    """Trends of the pixels of a window: bands of `mann_kendall` with its defaults, float32."""
    layer = _open_layer(product, window, recipe, source, items)
    # by blocks: a window of many years would not fit as a whole
    trend = _loaded(mann_kendall(layer)[_TREND_BANDS]).astype(np.float32)
    unit = str(layer.attrs.get("units", "1"))
    if unit != "1":
        trend["slope"].attrs["units"] = f"{unit} year-1"
    years = layer["time"].dt.year.values
    return trend.assign_attrs(
        series=str(layer.attrs["long_name"]), first_year=str(years[0]), last_year=str(years[-1])
    )


def _own_part(
    layer: xr.DataArray,
    site: gpd.GeoDataFrame,
    recipe: Recipe,
    items: Sequence[pystac.Item],
    product: str,
) -> xr.DataArray | None:
    """What `open_cube` would give for this site alone: its grid, and the years that cover it."""
    geometry = site.geometry.iloc[0]
    own = [item for item in items if covers(item, geometry)]
    years = layer_years(product, recipe, own, geometry)
    if not years:
        return None
    grid = crop_native(node_grid(layer), geometry, buffer_m=recipe.buffer_m)
    mine = crop_node(layer, grid)
    return mine.isel(time=np.isin(mine.time.dt.year, years))


def _series(
    product: str,
    part: xr.DataArray,
    site: gpd.GeoDataFrame,
    recipe: Recipe,
    legend: Legend | None,
) -> SiteRows:
    ids, change = [str(site["site_id"].iloc[0])], recipe.change
    if product == "landcover":
        assert legend is not None
        zones = cover(site, geobox_of(part), coverage=change.coverage)
        years, sums = land_sums(part, zones, legend=legend, min_persistence=change.min_persistence)
        return land_rows(ids, years, sums)
    means = zonal_mean(part, site, coverage=change.coverage)
    series = {n: means[n].to_numpy("float64")[None] for n in ("value", "n_pixels")}
    return SiteRows(ids, part["time"].dt.year.to_numpy().astype(np.int64), series)

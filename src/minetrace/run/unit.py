"""The work of one unit: cube → accounts, means → panel, table, map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import rasterio.errors
import xarray as xr
from shapely.geometry.base import BaseGeometry

from minetrace.catalog import Source, covers
from minetrace.change import land_account, transitions
from minetrace.cubes import build_cube, crop_node, layer_years, node_grid, open_legend
from minetrace.errors import ReadError, causes
from minetrace.grid import crop_native
from minetrace.panel import site_panel, site_table
from minetrace.schema import Legend, Recipe
from minetrace.trends import ndvi
from minetrace.zones import cover, geobox_of, zonal_mean

PARTIAL = 0.99
"""A site of which less than this share was ever observed is recorded as a gap."""

# odc-geo asserts when an opened file has no CRS, as a damaged one has not
_READ_FAULTS = (rasterio.errors.RasterioError, AssertionError)

Failure = dict[str, str | None]
Items = Mapping[str, list[pystac.Item]]
_Lazy = TypeVar("_Lazy", xr.DataArray, xr.Dataset)


@dataclass
class UnitResult:
    """Tables of one unit; ``change_map`` is what the report draws."""

    panel: gpd.GeoDataFrame
    table: gpd.GeoDataFrame
    transitions: pd.DataFrame | None
    failures: list[Failure]
    layers: dict[str, list[int]]
    items: list[str]
    change_map: xr.Dataset | None = field(default=None, repr=False)


def analyse(
    sites: gpd.GeoDataFrame,
    window: BaseGeometry,
    recipe: Recipe,
    *,
    sources: Mapping[str, Source],
    items: Items,
) -> UnitResult:
    """Panel, table, transitions and change map of the sites in one window.

    This is the same chain of public functions that a user calls for one site. Every site is
    taken on its own part of the window and with the layers that cover it, both as `open_cube`
    would give them for it alone: neighbours change none of its numbers.

    Raises
    ------
    ReadError
        A raster of the window cannot be read.
    """
    cube = build_cube("", window, recipe, sources, items)
    legend = open_legend(recipe)
    where = window_text(window)
    gaps = [g for name in items for g in _product_gaps(name, cube, where)]
    frames: dict[str, pd.DataFrame | None] = {}
    moves = change_map = None
    if "landcover" in cube.children and legend is not None:
        codes = _load(cube["landcover"].to_dataset()["landcover"])
        frames["landcover"], moves = _accounts(codes, sites, recipe, legend, items["landcover"])
        change_map = _change_map(codes, recipe, legend)
    if "imagery" in cube.children:
        index = _load(ndvi(cube["imagery"].to_dataset()))
        frames["imagery"] = _annual_means(index, sites, recipe, items["imagery"], "imagery")
    if "lights" in cube.children:
        lit = _load(cube["lights"].to_dataset()["ntl"])
        frames["lights"] = _annual_means(lit, sites, recipe, items["lights"], "lights")
    seen = _observed_sites(sites, frames)
    for name, frame in frames.items():
        gaps += _site_gaps(name, frame, seen, where)
    gaps += _outside(sites, seen, where)
    kept = sites[sites.site_id.isin(seen)]
    composition, green, lights = (
        _only(frames.get(name), seen) for name in ("landcover", "imagery", "lights")
    )
    moves = _only(moves, seen)
    panel = site_panel(kept, composition=composition, transitions=moves, ndvi=green, ntl=lights)
    table = site_table(
        panel, kept, composition=composition, transitions=moves,
        status=recipe.status, change=recipe.change,
    )  # fmt: skip
    gaps += _partial(table, where)
    return UnitResult(
        panel, table, moves, gaps,
        layers={n: c["time"].dt.year.values.tolist() for n, c in cube.children.items()},
        items=sorted({i.id for found in items.values() for i in found}),
        change_map=change_map,
    )  # fmt: skip


def unreadable(
    window: BaseGeometry, recipe: Recipe, sources: Mapping[str, Source], items: Items
) -> list[tuple[str, pystac.Item, str]]:
    """Items of a window that cannot be read, each with its product and the reason."""
    bad = []
    for product, found in items.items():
        for item in found:
            try:
                cube = build_cube("", window, recipe, sources, {product: [item]})
                _load(cube[product].to_dataset())
            except ReadError as err:
                bad.append((product, item, str(err)))
    return bad


def _load(lazy: _Lazy) -> _Lazy:
    try:
        return lazy.load()
    except _READ_FAULTS as err:
        raise ReadError(f"a raster could not be read: {causes(err)}") from err


def _accounts(
    codes: xr.DataArray,
    sites: gpd.GeoDataFrame,
    recipe: Recipe,
    legend: Legend,
    items: list[pystac.Item],
) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """Composition and transitions of every site that the items cover."""
    change = recipe.change
    parts = []
    for row in _each(sites):
        part = _own_part(codes, row, recipe, items, "landcover")
        if part is not None:
            zones = cover(row, geobox_of(part), coverage=change.coverage)
            parts.append(
                land_account(part, zones, legend=legend, min_persistence=change.min_persistence)
            )
    if not parts:
        return None, None
    return (
        pd.concat([p.composition for p in parts], ignore_index=True),
        pd.concat([p.transitions for p in parts], ignore_index=True),
    )


def _annual_means(
    layer: xr.DataArray,
    sites: gpd.GeoDataFrame,
    recipe: Recipe,
    items: list[pystac.Item],
    product: str,
) -> pd.DataFrame | None:
    """Mean of every site that the items cover, and year."""
    own = ((row, _own_part(layer, row, recipe, items, product)) for row in _each(sites))
    means = [
        zonal_mean(mine, row, coverage=recipe.change.coverage)
        for row, mine in own
        if mine is not None
    ]
    if not means:
        return None
    joined = pd.concat(means, ignore_index=True)
    years = pd.DatetimeIndex(joined["time"]).year.astype("int64")
    return joined.assign(year=years).drop(columns="time")


def _own_part(
    layer: xr.DataArray,
    site: gpd.GeoDataFrame,
    recipe: Recipe,
    items: list[pystac.Item],
    product: str,
) -> xr.DataArray | None:
    """What `open_cube` would give for this site alone: its grid, and the years that cover it."""
    geometry = site.geometry.iloc[0]
    years = layer_years(
        product, recipe, [item for item in items if covers(item, geometry)], geometry
    )
    if not years:
        return None
    grid = crop_native(node_grid(layer), geometry, buffer_m=recipe.buffer_m)
    mine = crop_node(layer, grid)
    return mine.isel(time=np.isin(mine.time.dt.year, years))


def _each(sites: gpd.GeoDataFrame) -> Iterator[gpd.GeoDataFrame]:
    return (sites.iloc[[i]] for i in range(len(sites)))


def _change_map(codes: xr.DataArray, recipe: Recipe, legend: Legend) -> xr.Dataset:
    moves = transitions(codes, legend=legend, min_persistence=recipe.change.min_persistence)
    return xr.Dataset(
        {
            "first_development": moves["first_development"],
            "first_reclamation": moves["first_reclamation"],
            "first_landcover": codes.isel(time=0, drop=True).astype(np.int16),
            "last_landcover": codes.isel(time=-1, drop=True).astype(np.int16),
        }
    )


def _product_gaps(product: str, cube: xr.DataTree, where: str) -> list[Failure]:
    """A product without items here, or without one in a year amid its annual layers."""
    if product not in cube.children:
        reason = f"no {product} item covers this window in these years"
        return [failure(None, reason, where, asset=product)]
    years = set(cube[product]["time"].dt.year.values.tolist())
    annual = {y for y in years if y + 1 in years}
    return [
        failure(None, f"no {product} item in {year}", where, asset=product)
        for year in range(min(years), max(years))
        if year not in years and any(y < year for y in annual) and any(y > year for y in annual)
    ]


def _site_gaps(
    product: str, frame: pd.DataFrame | None, seen: set[str], where: str
) -> list[Failure]:
    """Sites that are traced, but not in every layer of a product, or by no layer of it."""
    rows = pd.DataFrame(columns=["site_id", "year", "n_pixels"]) if frame is None else frame
    out = []
    for site_id in sorted(seen):
        mine = rows[rows["site_id"] == site_id]
        empty = sorted(mine.loc[mine["n_pixels"] <= 0, "year"])
        if mine.empty:
            out.append(failure(site_id, f"no {product} item covers the site", where, asset=product))
        elif len(empty) == len(mine):
            reason = f"no layer of {product} has a valid pixel in the site"
            out.append(failure(site_id, reason, where, asset=product))
        elif empty:
            reason = f"no valid pixel in {', '.join(map(str, empty))}"
            out.append(failure(site_id, reason, where, asset=product))
    return out


def _observed_sites(sites: gpd.GeoDataFrame, frames: Mapping[str, pd.DataFrame | None]) -> set[str]:
    seen: set[str] = set()
    for frame in frames.values():
        if frame is not None:
            seen |= set(frame.loc[frame["n_pixels"] > 0, "site_id"])
    return seen & set(sites.site_id)


def _outside(sites: gpd.GeoDataFrame, seen: set[str], where: str) -> list[Failure]:
    reason = (
        "no layer of any product has a valid pixel in the site: it lies outside the data, or, "
        "with coverage = 'centre', holds no pixel centre"
    )
    return [failure(s, reason, where) for s in sites.site_id if s not in seen]


def _partial(table: gpd.GeoDataFrame, where: str) -> list[Failure]:
    part = table[table["observed_share"] < PARTIAL]
    return [
        failure(
            s, f"only {share:.1%} of the site is covered by land cover", where, asset="landcover"
        )
        for s, share in zip(part["site_id"], part["observed_share"], strict=True)
    ]


def _only(frame: pd.DataFrame | None, seen: set[str]) -> pd.DataFrame | None:
    return None if frame is None else frame[frame["site_id"].isin(seen)]


def window_text(window: BaseGeometry) -> str:
    """Bounds of a window as the failures table gives them."""
    return ",".join(f"{v:.5f}" for v in window.bounds)


def failure(
    site_id: str | None, reason: str, window: str, *,
    item: str | None = None, asset: str | None = None,
) -> Failure:  # fmt: skip
    """One row of the failures table."""
    return {"site_id": site_id, "item": item, "asset": asset, "window": window, "reason": reason}

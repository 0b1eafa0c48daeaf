"""The work of one unit: cube → accounts, means → panel, table, map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from minetrace.catalog import Source
from minetrace.change import land_account, transitions
from minetrace.cubes import crop_node, node_grid, open_cube, open_legend
from minetrace.grid import crop_native, site_geobox
from minetrace.panel import site_panel, site_table
from minetrace.schema import ImageryRecipe, Legend, Recipe
from minetrace.trends import ndvi
from minetrace.zones import cover, geobox_of, zonal_mean

PARTIAL = 0.99
"""A site of which less than this share was ever observed is recorded as a gap."""


@dataclass
class UnitResult:
    """Tables of one unit; ``change_map`` is what the report draws."""

    panel: gpd.GeoDataFrame
    table: gpd.GeoDataFrame
    transitions: pd.DataFrame | None
    failures: list[dict[str, str | None]]
    layers: dict[str, list[int]]
    items: int
    change_map: xr.Dataset | None = field(default=None, repr=False)


def analyse(
    sites: gpd.GeoDataFrame,
    window: BaseGeometry,
    recipe: Recipe,
    *,
    sources: Mapping[str, Source],
) -> UnitResult:
    """Panel, table, transitions and change map of the sites in one window.

    This is the same chain of public functions that a user calls for one site.
    """
    cube = open_cube(window, recipe, sources=dict(sources))
    legend = open_legend(recipe)
    where = ",".join(f"{v:.5f}" for v in window.bounds)
    failures = _missing_products(cube, where)
    composition = moves = change_map = None
    if "landcover" in cube.children and legend is not None:
        codes = cube["landcover"].to_dataset()["landcover"].load()
        composition, moves = _accounts(codes, sites, recipe, legend)
        change_map = _change_map(codes, recipe, legend)
        failures += _empty_years(composition, "landcover", where)
    green = lights = None
    if "imagery" in cube.children and {"red", "nir"} <= set(cube["imagery"].data_vars):
        index = ndvi(cube["imagery"].to_dataset()).load()
        green = _annual_means(index, sites, recipe, recipe.imagery)
        failures += _empty_years(green, "imagery", where)
    if "lights" in cube.children:
        lit = cube["lights"].to_dataset()["ntl"].load()
        lights = _annual_means(lit, sites, recipe, None)
        failures += _empty_years(lights, "lights", where)
    seen = _observed_sites(sites, (composition, green, lights))
    failures += _outside(sites, seen, where)
    kept = sites[sites.site_id.isin(seen)]
    composition, moves, green, lights = (
        _only(t, seen) for t in (composition, moves, green, lights)
    )
    panel = site_panel(kept, composition=composition, transitions=moves, ndvi=green, ntl=lights)
    table = site_table(
        panel, kept, composition=composition, transitions=moves,
        status=recipe.status, change=recipe.change,
    )  # fmt: skip
    failures += _partial(table, where)
    return UnitResult(
        panel, table, moves, failures,
        layers={n: c["time"].dt.year.values.tolist() for n, c in cube.children.items()},
        items=sum(len(c.attrs["item_ids"]) for c in cube.children.values()),
        change_map=change_map,
    )  # fmt: skip


def _accounts(
    codes: xr.DataArray, sites: gpd.GeoDataFrame, recipe: Recipe, legend: Legend
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Land accounts of every site, each on its own window.

    A site's window is bit-equal to the grid that `open_cube` makes for it alone, so are its
    numbers; on the shared window its areas would differ in the last digits.
    """
    change = recipe.change
    parts = []
    for row in _each(sites):
        part = crop_node(codes, _own_grid(codes, row, recipe, None))
        zones = cover(row, geobox_of(part), coverage=change.coverage)
        parts.append(
            land_account(part, zones, legend=legend, min_persistence=change.min_persistence)
        )
    return (
        pd.concat([p.composition for p in parts], ignore_index=True),
        pd.concat([p.transitions for p in parts], ignore_index=True),
    )


def _annual_means(
    layer: xr.DataArray, sites: gpd.GeoDataFrame, recipe: Recipe, part: ImageryRecipe | None
) -> pd.DataFrame:
    """Mean of every site and year, each on the site's own window."""
    means = pd.concat(
        [
            zonal_mean(
                crop_node(layer, _own_grid(layer, row, recipe, part)), row,
                coverage=recipe.change.coverage,
            )
            for row in _each(sites)
        ],
        ignore_index=True,
    )  # fmt: skip
    years = pd.DatetimeIndex(means["time"]).year.astype("int64")
    return means.assign(year=years).drop(columns="time")


def _each(sites: gpd.GeoDataFrame) -> Iterator[gpd.GeoDataFrame]:
    return (sites.iloc[[i]] for i in range(len(sites)))


def _own_grid(
    layer: xr.DataArray, site: gpd.GeoDataFrame, recipe: Recipe, part: ImageryRecipe | None
) -> GeoBox:
    """Grid that `open_cube` would make for this site alone."""
    geometry = site.geometry.iloc[0]
    if part is None or part.crs == "native" or part.resolution is None:
        return crop_native(node_grid(layer), geometry, buffer_m=recipe.buffer_m)
    return site_geobox(geometry, crs=part.crs, resolution=part.resolution, buffer_m=recipe.buffer_m)


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


def _missing_products(cube: xr.DataTree, where: str) -> list[dict[str, str | None]]:
    names = [n for n in str(cube.attrs["missing"]).split(",") if n]
    return [
        failure(None, f"no {n} item covers this window in these years", where, asset=n)
        for n in names
    ]


def _empty_years(frame: pd.DataFrame, product: str, where: str) -> list[dict[str, str | None]]:
    """Sites with data in some layers of a product but none in others."""
    out = []
    for site_id, rows in frame.groupby("site_id", sort=True):
        years = sorted(rows.loc[rows["n_pixels"] <= 0, "year"])
        if years and len(years) < len(rows):
            text = f"no valid pixel in {', '.join(map(str, years))}"
            out.append(failure(str(site_id), text, where, asset=product))
    return out


def _observed_sites(sites: gpd.GeoDataFrame, frames: tuple[pd.DataFrame | None, ...]) -> set[str]:
    seen: set[str] = set()
    for frame in frames:
        if frame is not None:
            seen |= set(frame.loc[frame["n_pixels"] > 0, "site_id"])
    return seen & set(sites.site_id)


def _outside(sites: gpd.GeoDataFrame, seen: set[str], where: str) -> list[dict[str, str | None]]:
    reason = "no layer of any product has a valid pixel inside the site: it lies outside the data"
    return [failure(s, reason, where) for s in sites.site_id if s not in seen]


def _partial(table: gpd.GeoDataFrame, where: str) -> list[dict[str, str | None]]:
    part = table[table["observed_share"] < PARTIAL]
    return [
        failure(
            s, f"only {share:.1%} of the site is covered by land cover", where, asset="landcover"
        )
        for s, share in zip(part["site_id"], part["observed_share"], strict=True)
    ]


def _only(frame: pd.DataFrame | None, seen: set[str]) -> pd.DataFrame | None:
    return None if frame is None else frame[frame["site_id"].isin(seen)]


def failure(
    site_id: str | None, reason: str, window: str, *,
    item: str | None = None, asset: str | None = None,
) -> dict[str, str | None]:  # fmt: skip
    """One row of the failures table."""
    return {"site_id": site_id, "item": item, "asset": asset, "window": window, "reason": reason}

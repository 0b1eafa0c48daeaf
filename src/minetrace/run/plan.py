"""Group sites into units: what one task reads, measures and commits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from minetrace.catalog import Source
from minetrace.errors import InputError, RecipeError
from minetrace.grid import crosses_antimeridian, surroundings
from minetrace.run.blocks import sites_that_share_blocks
from minetrace.schema import PRODUCTS, Recipe

MAPS = "maps"
"""Maps of change by pixel, beside the products of a recipe."""
TRENDS = "trends"
"""Rasters of trends by pixel."""
CUBES = "cubes"
"""Cubes of single sites, as `minetrace.save_cube` stores them."""
OUTPUTS = ("panel", MAPS, TRENDS, CUBES)
"""What a run can be asked for. The panel is made of the series of all products of a recipe."""
_MADE_OF = {"panel": PRODUCTS, MAPS: ("landcover",), TRENDS: ("imagery", "lights")}
CELL_DEGREES = 0.25
"""Side of the cells whose sites share a window: about 28 km, 900 Landsat pixels."""
MOST_SITES = 256
"""Sites of a unit of land cover, unless more share blocks."""
_ROOT_DEGREES = 5
_LEAST_DEGREES = 0.02
_CHAIN = 4 * MOST_SITES


@dataclass(frozen=True)
class Unit:
    """Sites that are done together for one product."""

    id: str
    product: str
    """A product of the recipe, of which it makes series, or `MAPS`, `TRENDS` or `CUBES`."""
    source: str
    """The product of the recipe that it reads; empty for `CUBES`, which hold all of them."""
    rows: tuple[int, ...]
    """Positions in the sites frame."""
    window: BaseGeometry
    """What holds the sites, EPSG:4326."""
    careful: bool = False
    """Whether its one site is measured after a fault, item by item if need be."""

    def reads(self, names: Iterable[str]) -> list[str]:
        """The layers that it reads among those of a recipe."""
        return [name for name in names if self.source in ("", name)]


def check_products(products: Sequence[str], recipe: Recipe) -> None:
    """Refuse products that there are not, or that a recipe has nothing for.

    Raises
    ------
    InputError, RecipeError
    """
    if not products or not set(products) <= set(OUTPUTS):
        names = ", ".join(f"'{name}'" for name in OUTPUTS)
        raise InputError(f"products are {tuple(products)}; give {names}, or some of them")
    for name, parts in _MADE_OF.items():
        # maps are asked for by default, also of a recipe without land cover
        told = name in products and (name != MAPS or {*products} == {MAPS})
        if told and not {*parts} & {*recipe.products}:
            raise RecipeError(
                f"recipe {recipe.name!r} has none of {', '.join(parts)}, which {name!r} is made "
                f"of; add one to the recipe, or leave {name!r} out of the products"
            )
    bands = recipe.imagery.bands if recipe.imagery is not None else ("red", "nir")
    if {"panel", TRENDS} & {*products} and not {"red", "nir"} <= set(bands):
        raise RecipeError(
            f"recipe {recipe.name!r}: imagery.bands are {bands}; NDVI needs red and nir"
        )


def plan_units(
    sites: gpd.GeoDataFrame,
    recipe: Recipe,
    sources: Mapping[str, Source],
    *,
    products: Sequence[str] = ("panel", MAPS),
) -> list[Unit]:
    """Group sites by product and place.

    Every site belongs to one unit a product. Its numbers depend on its own pixels only, so any
    grouping gives the same results. Where the files of land cover are known, sites that need a
    block of a file in common stay together, in cells that are quartered until they hold
    `MOST_SITES` at most. Elsewhere sites are grouped by cells of `CELL_DEGREES`, and one that is
    wider, or lies across 180°, is a unit alone; so is every site for its cube.
    """
    units: list[Unit] = []
    if "panel" in products:
        for product in recipe.products:
            if product == "landcover" and sources[product].items:
                units += _by_blocks(sites, recipe, sources[product])
            else:
                units += _by_places(sites, recipe, product, product)
    if MAPS in products and recipe.landcover is not None:
        units += _by_cells(sites, MAPS, "landcover")
    if TRENDS in products:
        for source in (p for p in _MADE_OF[TRENDS] if p in recipe.products):
            units += _by_places(sites, recipe, TRENDS, source)
    if CUBES in products:
        units += [_alone(sites, CUBES, "", row) for row in range(len(sites))]
    return units


def single_units(
    sites: gpd.GeoDataFrame, unit: Unit, rows: Iterable[int] | None = None
) -> list[Unit]:
    """Sites of a unit, one a unit: how a fault in a shared window is narrowed down."""
    return [
        replace(_alone(sites, unit.product, unit.source, row), careful=True)
        for row in (unit.rows if rows is None else rows)
    ]


def place_of(unit: Unit, recipe: Recipe) -> BaseGeometry:
    """What holds all items that a unit may need, EPSG:4326."""
    return surroundings(unit.window, recipe.buffer_m) if recipe.buffer_m else unit.window


def _by_places(sites: gpd.GeoDataFrame, recipe: Recipe, product: str, source: str) -> list[Unit]:
    part = recipe.imagery
    if source == "imagery" and part is not None and part.composite == "least_cloudy_month":
        # the month is chosen for a whole window, so neighbours would have a say
        return [_alone(sites, product, source, row) for row in range(len(sites))]
    return _by_cells(sites, product, source)


def _by_cells(sites: gpd.GeoDataFrame, product: str, source: str) -> list[Unit]:
    cells: dict[tuple[int, int], list[int]] = {}
    units = []
    bounds = sites.geometry.bounds.to_numpy()
    for row in range(len(sites)):
        west, south, east, north = bounds[row]
        if max(east - west, north - south) > CELL_DEGREES:
            units.append(_alone(sites, product, source, row))
            continue
        lon, lat = (west + east) / 2 / CELL_DEGREES, (south + north) / 2 / CELL_DEGREES
        cells.setdefault((math.floor(lon), math.floor(lat)), []).append(row)
    for cell, found in sorted(cells.items()):
        name = "_".join(f"{'m' if v < 0 else 'p'}{abs(v)}" for v in cell)
        units.append(_unit(sites, product, source, name, found))
    return units


def _by_blocks(sites: gpd.GeoDataFrame, recipe: Recipe, source: Source) -> list[Unit]:
    group = sites_that_share_blocks(sites, recipe, source)
    bounds = sites.geometry.bounds.to_numpy()
    across = np.array([crosses_antimeridian(g) for g in sites.geometry], bool)
    size = np.bincount(group)[group]
    # a chain of many sites is parted: the blocks on its seams are read for both sides
    group = np.where(size > _CHAIN, group.max(initial=0) + 1 + np.arange(len(sites)), group)
    centre = (bounds[:, :2] + bounds[:, 2:]) / 2
    _, number = np.unique(group, return_inverse=True)
    n = np.maximum(np.bincount(number), 1)
    anchor = np.stack([np.bincount(number, c) / n for c in centre.T], axis=1)[number]
    land = "landcover", "landcover"
    units = [_alone(sites, *land, int(row)) for row in np.flatnonzero(across)]
    for name, rows in _quarters(anchor, np.flatnonzero(~across)):
        units.append(_unit(sites, *land, name, rows.tolist()))
    return units


def _quarters(
    anchor: NDArray[np.float64], rows: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Cells of 5° with their sites by name, quartered while they hold too many."""
    cell = np.floor(anchor[rows] / _ROOT_DEGREES).astype(np.int64)
    for west, south in np.unique(cell, axis=0):
        mine = rows[(cell == (west, south)).all(axis=1)]
        lon, lat = int(west) * _ROOT_DEGREES, int(south) * _ROOT_DEGREES
        name = f"{'w' if lon < 0 else 'e'}{abs(lon):03d}{'s' if lat < 0 else 'n'}{abs(lat):02d}"
        yield from _quarter(name, anchor, mine, float(lon), float(lat), _ROOT_DEGREES)


def _quarter(
    name: str,
    anchor: NDArray[np.float64],
    rows: NDArray[np.int64],
    west: float,
    south: float,
    side: float,
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    if rows.size <= MOST_SITES or side < _LEAST_DEGREES:
        yield name, rows
        return
    half = side / 2
    part = (anchor[rows, 0] >= west + half) + 2 * (anchor[rows, 1] >= south + half)
    for k in np.unique(part):
        corner = west + half * (k % 2), south + half * (k // 2)
        yield from _quarter(f"{name}{k}", anchor, rows[part == k], *corner, half)


def _alone(sites: gpd.GeoDataFrame, product: str, source: str, row: int) -> Unit:
    name = hashlib.sha256(str(sites["site_id"].iloc[row]).encode()).hexdigest()[:12]
    return _unit(sites, product, source, f"site-{name}", [row])


def _unit(sites: gpd.GeoDataFrame, product: str, source: str, name: str, rows: list[int]) -> Unit:
    shapes = sites.geometry.array[rows]
    window = shapes[0] if len(rows) == 1 else box(*shapes.total_bounds)
    stem = f"{product}-{source}" if product == TRENDS else product
    return Unit(f"{stem}-{name}", product, source, tuple(rows), window)

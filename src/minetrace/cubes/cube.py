"""Open the cube of one site: recipe + sources + grid → lazy DataTree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, get_args

import geopandas as gpd
import pandas as pd
import pystac
import xarray as xr
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from minetrace._version import __version__
from minetrace.catalog import Source, item_time, items_hash, open_source, search
from minetrace.cubes.imagery import imagery_items, imagery_node
from minetrace.cubes.landcover import landcover_node
from minetrace.cubes.lattice import grid_outline, is_metric, node_grid
from minetrace.cubes.layers import Engine
from minetrace.cubes.lights import lights_node
from minetrace.cubes.provenance import series_hash, year_attrs
from minetrace.cubes.rings import rings_node
from minetrace.cubes.terrain import terrain_node
from minetrace.cubes.years import search_span, season_items, site_months
from minetrace.errors import InputError, RecipeError, SiteError, SourceError
from minetrace.grid import site_geobox, surroundings
from minetrace.schema import (
    PRODUCTS,
    ImageryRecipe,
    Legend,
    Recipe,
    load_legend,
    load_recipe,
    validate,
)

Sources: TypeAlias = Mapping[str, Source | str | Path] | Source | str | Path
_SOURCED = (*PRODUCTS, "terrain")
"""Parts of a recipe that items are looked up for."""
_ALL_YEARS = (1900, 2100)
Site: TypeAlias = "BaseGeometry | gpd.GeoDataFrame | gpd.GeoSeries | pd.Series"


def open_cube(
    site: Site,
    recipe: str | Path | Recipe,
    *,
    sources: Sources | None = None,
    years: Sequence[int] | None = None,
    chunks: Mapping[str, int] | None = None,
    engine: Engine = "odc",
    grid: GeoBox | None = None,
) -> xr.DataTree:
    """Open the lazy cube of one site.

    Catalogue metadata are read; pixels are not. Every variable is dask-backed and nothing is
    computed until asked.

    Parameters
    ----------
    site
        One row of a sites frame, or a geometry in EPSG:4326.
    recipe
        A shipped recipe's name, a TOML file, or a `Recipe`.
    sources
        Sources that replace the recipe's: one for all products, or product → source.
    years
        First and last year, both included, or a range; default the recipe's.
    chunks
        Spatial chunk sizes ``{"y": …, "x": …}`` in pixels, default 1024. Time is one chunk.
    engine
        Library that loads pixels, see `minetrace.cubes.load_layers`.
    grid
        Grid of the imagery, in place of the recipe's ``crs`` and ``resolution``. It need not end
        at the site. Land cover and lights stay on their source's pixels.

    Returns
    -------
    DataTree
        Nodes ``/imagery``, ``/landcover``, ``/lights`` with dims ``(time, y, x)``, ``/terrain`` and
        ``/rings`` with dims ``(y, x)``, as far as the recipe asks for them and items exist; see
        `minetrace.schema.NODES`. Products without a single item are no node: the root's
        attribute ``missing`` names them.

        Terrain and rings lie on the grid of the imagery where that is in metres, true to 1 %,
        else on a grid of their own in the site's UTM zone.

    Raises
    ------
    SiteError, RecipeError, SourceError, HrefError, GridError
        Each names what was wrong and where. No product at all has items: `SourceError`.

    Examples
    --------
    >>> import tempfile
    >>> from minetrace.simulate import simulate_mines
    >>> folder = tempfile.mkdtemp()
    >>> catalog, truth = simulate_mines(folder, sites=1, years=range(2018, 2023))
    >>> cube = open_cube(truth.iloc[0], f"{folder}/recipe.toml")
    >>> cube["landcover/landcover"].dims
    ('time', 'y', 'x')
    """
    if engine not in get_args(Engine):
        raise InputError(f"engine is {engine!r}; use one of {', '.join(get_args(Engine))}")
    plan = load_recipe(recipe)
    site_id, geometry = site_geometry(site)
    span = check_years(plan.years if years is None else years)
    opened = open_sources(plan, sources)
    found = find_items(plan, opened, geometry, span, grid=grid)
    return build_cube(
        site_id or "", geometry, plan, opened, found, chunks=chunks, engine=engine, grid=grid
    )


def check_years(years: Sequence[int]) -> tuple[int, int]:
    """First and last year of a pair, or of a range of years.

    Examples
    --------
    >>> check_years((2018, 2020)), check_years(range(2018, 2021))
    ((2018, 2020), (2018, 2020))
    """
    every = isinstance(years, range) and years.step == 1 and len(years) > 0
    pair = not isinstance(years, range) and len(years) == 2 and years[0] <= years[1]
    if not every and not pair:
        raise InputError(f"years are {years!r}; give the first and the last year, both included")
    return int(years[0]), int(years[-1])


def find_items(
    recipe: Recipe,
    sources: Mapping[str, Source],
    geometry: BaseGeometry,
    span: tuple[int, int],
    *,
    grid: GeoBox | None = None,
) -> dict[str, list[pystac.Item]]:
    """Items of every product of a recipe for a place, its margin, and a span of years.

    Imagery is looked for where ``grid`` lies, if there is one. Scenes out of season or too cloudy
    are left out. Terrain has no years.

    Raises
    ------
    SourceError
        No product has any; some lists may be empty.
    """
    found = {
        product: product_items(product, recipe, source, geometry, span, grid=grid)
        for product, source in sources.items()
    }
    if not any(found.values()):
        names = ", ".join(dict.fromkeys(source.name for source in sources.values()))
        raise SourceError(
            f"no product has any item: {names} has no item here in {span[0]}-{span[1]}"
        )
    return found


def product_items(
    product: str,
    recipe: Recipe,
    source: Source,
    geometry: BaseGeometry,
    span: tuple[int, int],
    *,
    grid: GeoBox | None = None,
) -> list[pystac.Item]:
    """Items of one product, as `find_items`; there may be none."""
    part = getattr(recipe, product)
    around = surroundings(geometry, recipe.buffer_m) if recipe.buffer_m else geometry
    if not isinstance(part, ImageryRecipe):
        years = _ALL_YEARS if product == "terrain" else span
        return search(source, around, years, collection=part.collection)
    place = around if grid is None else grid_outline(grid)
    years = search_span(part, geometry, span)
    items = search(source, place, years, collection=part.collection)
    return imagery_items(items, part, geometry, span)


def layer_years(
    product: str, recipe: Recipe, items: Sequence[pystac.Item], geometry: BaseGeometry
) -> list[int]:
    """Years of a product's layers that items make at a place."""
    if product == "imagery" and recipe.imagery is not None:
        months = [site_months(recipe.imagery, geometry, fallback=later) for later in (False, True)]
        return sorted({year for m in months for year in season_items(items, geometry, m)})
    return sorted({item_time(item).year for item in items})


def build_cube(
    site_id: str,
    geometry: BaseGeometry,
    recipe: Recipe,
    sources: Mapping[str, Source],
    items: Mapping[str, list[pystac.Item]],
    *,
    chunks: Mapping[str, int] | None = None,
    engine: Engine = "odc",
    grid: GeoBox | None = None,
) -> xr.DataTree:
    """Lazy cube from items at hand, see `open_cube`."""
    nodes: dict[str, xr.Dataset] = {}
    how = _How(geometry, recipe, chunks, engine, grid)
    for product, found in items.items():
        if found and product != "terrain":
            nodes[product] = _annual(product, sources[product], found, how)
            nodes[product].attrs = _provenance(product, recipe, sources[product], found)
            nodes[product].attrs |= year_attrs(recipe, product, found, geometry)
    still = _still_grid(nodes.get("imagery"), how)
    if recipe.terrain is not None and items.get("terrain"):
        nodes["terrain"] = terrain_node(
            sources["terrain"], items["terrain"], recipe.terrain, still(recipe.terrain.resolution),
            chunks=chunks, engine=engine,
        )  # fmt: skip
        nodes["terrain"].attrs = _provenance(
            "terrain", recipe, sources["terrain"], items["terrain"]
        )
    if not nodes:
        raise SourceError("no item is left to make a cube of")
    if recipe.rings is not None:
        ring_grid = still(recipe.rings.resolution)
        nodes["rings"] = rings_node(geometry, recipe.rings, ring_grid, chunks=chunks)
        nodes["rings"].attrs = _stamp(recipe) | {"series_hash": series_hash(recipe, "rings")}
    root = xr.Dataset(
        attrs={
            "recipe": recipe.name,
            "recipe_hash": recipe.fingerprint,
            "minetrace_version": __version__,
            "site_id": site_id,
            "missing": ",".join(product for product, found in items.items() if not found),
        }
    )
    return validate(xr.DataTree.from_dict({"/": root, **nodes}))


def open_sources(recipe: Recipe, sources: Sources | None = None) -> dict[str, Source]:
    """Open the source of every product of a recipe, or the given ones in their place.

    Relative paths in a recipe are relative to the recipe's folder.
    """
    asked = [product for product in _SOURCED if getattr(recipe, product) is not None]
    if isinstance(sources, Mapping):
        unknown = set(sources) - set(_SOURCED)
        if unknown:
            raise RecipeError(f"sources are given for {sorted(unknown)}; products are {_SOURCED}")
        given = dict(sources)
    elif sources is not None:
        given = dict.fromkeys(asked, sources)
    else:
        given = {}
    opened: dict[str | Path, Source] = {}
    out: dict[str, Source] = {}
    for product in asked:
        wanted = given.get(product)
        if wanted is None:
            wanted = _recipe_path(recipe, getattr(recipe, product).source)
        if not isinstance(wanted, Source):
            # one catalogue often serves several products: read it once
            if wanted not in opened:
                opened[wanted] = open_source(wanted)
            wanted = opened[wanted]
        if wanted.config.product not in (None, product):
            raise SourceError(
                f"source {wanted.name!r} holds {wanted.config.product}, but the recipe asks it "
                f"for {product}"
            )
        out[product] = wanted
    return out


def open_legend(recipe: Recipe) -> Legend | None:
    """Legend of a recipe's land cover; a path is relative to the recipe."""
    if recipe.landcover is None:
        return None
    return load_legend(_recipe_path(recipe, recipe.landcover.legend))


def _recipe_path(recipe: Recipe, name: str) -> str | Path:
    path = recipe.folder / name
    return path if path.exists() else name


@dataclass(frozen=True)
class _How:
    """What all nodes of a cube are made with."""

    geometry: BaseGeometry
    recipe: Recipe
    chunks: Mapping[str, int] | None
    engine: Engine
    grid: GeoBox | None


def _annual(product: str, source: Source, items: list[pystac.Item], how: _How) -> xr.Dataset:
    recipe, place, chunks, engine = how.recipe, how.geometry, how.chunks, how.engine
    legend = open_legend(recipe)
    if product == "landcover" and legend is not None:
        return landcover_node(source, items, place, recipe, legend, chunks=chunks, engine=engine)
    if product == "imagery" and recipe.imagery is not None:
        return imagery_node(
            source, items, place, recipe, recipe.imagery, chunks=chunks, engine=engine,
            grid=how.grid,
        )  # fmt: skip
    assert recipe.lights is not None
    return lights_node(source, items, place, recipe, recipe.lights, chunks=chunks, engine=engine)


def _still_grid(imagery: xr.Dataset | None, how: _How) -> Callable[[float], GeoBox]:
    """Grid of what holds for all years: that of the imagery, or one of its own resolution."""
    shared = None if imagery is None else node_grid(imagery)

    def grid(resolution: float) -> GeoBox:
        if shared is not None and is_metric(shared):
            return shared
        return site_geobox(
            how.geometry, crs="utm", resolution=resolution, buffer_m=how.recipe.buffer_m
        )

    return grid


def site_geometry(site: Site) -> tuple[str | None, BaseGeometry]:
    """Id (if any) and geometry of one site given as a row, a one-row frame or a geometry.

    Raises
    ------
    SiteError
        More than one row, a CRS other than EPSG:4326, or no usable geometry.
    """
    if isinstance(site, gpd.GeoDataFrame | gpd.GeoSeries):
        if len(site) != 1:
            raise SiteError(
                f"one site was expected, the frame has {len(site)} rows; take one with "
                "sites.iloc[[0]]"
            )
        if site.crs is not None and not site.crs.equals("EPSG:4326"):
            raise SiteError(f"the site is in {site.crs.to_string()}; use .to_crs('EPSG:4326')")
        site = site.iloc[0]
    site_id = None
    if isinstance(site, pd.Series):
        site_id = None if site.get("site_id") is None else str(site["site_id"])
        site = site.get("geometry")
    if not isinstance(site, BaseGeometry) or site.is_empty:
        raise SiteError(f"site {site_id or ''} has no geometry")
    west, south, east, north = site.bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise SiteError(
            f"site {site_id or ''} spans {site.bounds}: not longitude and latitude. "
            "Sites are in EPSG:4326; read files with read_sites"
        )
    return site_id, site


def _provenance(
    product: str, recipe: Recipe, source: Source, items: list[pystac.Item]
) -> dict[str, str | list[str]]:
    legend = open_legend(recipe) if product == "landcover" else None
    return {
        **_stamp(recipe),
        "source": source.name,
        "collection": ",".join(sorted({str(item.collection_id) for item in items})),
        "item_ids": [item.id for item in items],
        "items_hash": items_hash(items),
        "series_hash": series_hash(recipe, product, source),
        **({} if legend is None else {"legend_hash": legend.fingerprint}),
    }


def _stamp(recipe: Recipe) -> dict[str, str | list[str]]:
    return {
        "Conventions": "CF-1.11",
        "recipe_hash": recipe.fingerprint,
        "minetrace_version": __version__,
    }

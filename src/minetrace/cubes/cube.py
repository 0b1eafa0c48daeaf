"""Open the cube of one site: recipe + sources + grid → lazy DataTree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import geopandas as gpd
import pandas as pd
import pystac
import xarray as xr
from shapely.geometry.base import BaseGeometry

from minetrace._version import __version__
from minetrace.catalog import Source, items_hash, open_source, search
from minetrace.cubes.products import imagery_node, landcover_node, lights_node
from minetrace.errors import InputError, RecipeError, SiteError, SourceError
from minetrace.schema import PRODUCTS, Legend, Recipe, load_legend, load_recipe, validate

Sources: TypeAlias = Mapping[str, Source | str | Path] | Source | str | Path
Site: TypeAlias = "BaseGeometry | gpd.GeoDataFrame | gpd.GeoSeries | pd.Series"


def open_cube(
    site: Site,
    recipe: str | Path | Recipe,
    *,
    sources: Sources | None = None,
    years: Sequence[int] | None = None,
    chunks: Mapping[str, int] | None = None,
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

    Returns
    -------
    DataTree
        Nodes ``/imagery``, ``/landcover``, ``/lights`` as far as the recipe asks for them and
        items exist, with dims ``(time, y, x)``; see `minetrace.schema.NODES`. Products without a
        single item are no node: the root's attribute ``missing`` names them.

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
    plan = load_recipe(recipe)
    site_id, geometry = site_geometry(site)
    span = check_years(plan.years if years is None else years)
    opened = open_sources(plan, sources)
    found = find_items(plan, opened, geometry, span)
    return build_cube(site_id or "", geometry, plan, opened, found, chunks=chunks)


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
    recipe: Recipe, sources: Mapping[str, Source], geometry: BaseGeometry, span: tuple[int, int]
) -> dict[str, list[pystac.Item]]:
    """Items of every product of a recipe for a place and span of years.

    Raises
    ------
    SourceError
        No product has any; some lists may be empty.
    """
    found = {
        product: search(source, geometry, span, collection=getattr(recipe, product).collection)
        for product, source in sources.items()
    }
    if not any(found.values()):
        names = ", ".join(dict.fromkeys(source.name for source in sources.values()))
        raise SourceError(
            f"no product has any item: {names} has no item here in {span[0]}-{span[1]}"
        )
    return found


def build_cube(
    site_id: str,
    geometry: BaseGeometry,
    recipe: Recipe,
    sources: Mapping[str, Source],
    items: Mapping[str, list[pystac.Item]],
    *,
    chunks: Mapping[str, int] | None = None,
) -> xr.DataTree:
    """Lazy cube from items at hand, see `open_cube`."""
    nodes: dict[str, xr.Dataset] = {}
    for product, found in items.items():
        if found:
            node = _build(product, sources[product], found, geometry, recipe, chunks)
            node.attrs = _provenance(product, recipe, sources[product], found)
            nodes[product] = node
    if not nodes:
        raise SourceError("no item is left to make a cube of")
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
    if isinstance(sources, Mapping):
        unknown = set(sources) - set(PRODUCTS)
        if unknown:
            raise RecipeError(f"sources are given for {sorted(unknown)}; products are {PRODUCTS}")
        given = dict(sources)
    elif sources is not None:
        given = dict.fromkeys(recipe.products, sources)
    else:
        given = {}
    opened: dict[str | Path, Source] = {}
    out: dict[str, Source] = {}
    for product in recipe.products:
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


def _build(
    product: str,
    source: Source,
    items: list[pystac.Item],
    geometry: BaseGeometry,
    recipe: Recipe,
    chunks: Mapping[str, int] | None,
) -> xr.Dataset:
    legend = open_legend(recipe)
    if product == "landcover" and legend is not None:
        return landcover_node(source, items, geometry, recipe, legend, chunks=chunks)
    if product == "imagery" and recipe.imagery is not None:
        return imagery_node(source, items, geometry, recipe, recipe.imagery, chunks=chunks)
    assert recipe.lights is not None
    return lights_node(source, items, geometry, recipe, recipe.lights, chunks=chunks)


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
        "Conventions": "CF-1.11",
        "source": source.name,
        "collection": ",".join(sorted({str(item.collection_id) for item in items})),
        "item_ids": [item.id for item in items],
        "items_hash": items_hash(items),
        **({} if legend is None else {"legend_hash": legend.fingerprint}),
        "recipe_hash": recipe.fingerprint,
        "minetrace_version": __version__,
    }

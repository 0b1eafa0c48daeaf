"""Imagery: annual composites of clear surface reflectance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import dask.array as da
import numpy as np
import pystac
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from minetrace.catalog import Source
from minetrace.composites import geometric_median, require_geomedian
from minetrace.cubes.lattice import grid_coords, site_grid
from minetrace.cubes.layers import Engine
from minetrace.cubes.least_cloudy import Candidate, least_cloudy
from minetrace.cubes.scenes import open_days
from minetrace.cubes.years import by_month, season_items, site_months, stack_years
from minetrace.errors import SourceError
from minetrace.kernels.composite import max_index_composite, median_composite, medoid_composite
from minetrace.schema import NODES, ImageryRecipe, Recipe, Variable


def imagery_node(
    source: Source,
    items: Sequence[pystac.Item],
    geometry: BaseGeometry,
    recipe: Recipe,
    part: ImageryRecipe,
    *,
    chunks: Mapping[str, int] | None,
    engine: Engine = "odc",
    grid: GeoBox | None = None,
) -> xr.Dataset:
    """Annual composites of clear surface reflectance, and how many clear views entered them.

    All bands of a pixel and its ``n_obs`` come from the same observations. The scenes of a year are
    read once. ``grid`` takes the place of the recipe's.
    """
    if part.composite == "geomedian":
        require_geomedian()
    keys = [source.asset_key(band) for band in part.bands]
    geobox = grid or site_grid(
        items, keys, geometry, crs=part.crs, resolution=part.resolution, buffer_m=recipe.buffer_m
    )

    def composite(group: Sequence[pystac.Item]) -> tuple[da.Array, int]:
        days = open_days(source, group, part, geobox, chunks=chunks, engine=engine)
        return days.map(composed, (len(part.bands) + 1,)), len(days.times)

    composed = partial(_composite, method=part.composite, red_nir=_red_nir(part))
    layers = [*part.bands, "n_obs"]
    groups = season_items(items, geometry, site_months(part, geometry))
    if part.composite == "least_cloudy_month":
        layers.append("month")
        spare = season_items(items, geometry, site_months(part, geometry, fallback=True))
        years = sorted({*groups, *spare})
        made = [
            least_cloudy(
                [
                    Candidate(*composite(group), month=month, fallback=later)
                    for later, found in ((False, groups), (True, spare))
                    for month, group in by_month(found.get(year, []), geometry)
                ],
                min_clear=part.min_clear,
            )
            for year in years
        ]
    else:
        years = list(groups)
        made = [composite(group)[0] for group in groups.values()]
    variables = {name: NODES["imagery"].get(name) or _extra_band(name) for name in layers}
    return stack_years(
        [
            {n: year[i].astype(variables[n].dtype) for i, n in enumerate(layers)}
            for year in made
        ],
        np.array(years),
        variables,
        grid_coords(geobox),
    )  # fmt: skip


def imagery_items(
    items: Sequence[pystac.Item], part: ImageryRecipe, geometry: BaseGeometry, span: tuple[int, int]
) -> list[pystac.Item]:
    """Items that enter the composites of a span of years: in season and not too cloudy."""
    entering: dict[int, pystac.Item] = {}
    for fallback in (False, True):
        found = season_items(items, geometry, site_months(part, geometry, fallback=fallback))
        for year, group in found.items():
            if span[0] <= year <= span[1]:
                entering |= {id(item): item for item in group if not _too_cloudy(item, part)}
    return [item for item in items if id(item) in entering]


def _too_cloudy(item: pystac.Item, part: ImageryRecipe) -> bool:
    cover = item.properties.get("eo:cloud_cover")
    if part.max_cloud_cover is None or cover is None:
        return False
    try:
        return float(cover) > part.max_cloud_cover
    except (TypeError, ValueError) as err:
        raise SourceError(
            f"item {item.id!r} has eo:cloud_cover {cover!r}, which is no number; mend the item, or "
            "leave max_cloud_cover out"
        ) from err


def _red_nir(part: ImageryRecipe) -> tuple[int, int] | None:
    """Where the bands are that choose an observation, for the composites that choose by NDVI."""
    if part.composite != "max_ndvi":
        return None
    return part.bands.index("red"), part.bands.index("nir")


def _composite(
    bands: NDArray[np.float32], *, method: str, red_nir: tuple[int, int] | None
) -> NDArray[np.float32]:
    """Bands ``(band, day, y, x)`` → ``(band + 1, y, x)``, the number of observations last."""
    out = np.empty((len(bands) + 1, *bands[0].shape[1:]), np.float32)
    if red_nir is not None:
        index = _ndvi(bands[red_nir[0]], bands[red_nir[1]])
        out[:-1], _, out[-1] = max_index_composite(bands, index)
    elif method == "medoid":
        out[:-1], _, out[-1] = medoid_composite(bands)
    elif method == "geomedian":
        out[:-1], out[-1] = geometric_median(list(bands))
    else:
        # a scene is clear in all bands or in none: each band counts the same observations
        for made, band in zip(out[:-1], bands, strict=True):
            made[:], out[-1] = median_composite(band)
    return out


def _ndvi(red: NDArray[np.float32], nir: NDArray[np.float32]) -> NDArray[np.float32]:
    """NDVI, NaN where a negative reflectance takes it beyond ±1: it would win every time."""
    with np.errstate(divide="ignore", invalid="ignore"):
        index = (nir - red) / (nir + red)
    index[~(np.abs(index) <= 1)] = np.nan
    return index


def _extra_band(name: str) -> Variable:
    return Variable(name, "float32", "1", f"surface reflectance, {name}")

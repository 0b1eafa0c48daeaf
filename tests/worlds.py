"""Small catalogues of real COGs whose every pixel the test chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
from odc.geo.geobox import GeoBox
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from doubles import position_image
from minetrace.schema import ImageryRecipe, Recipe
from minetrace.simulate.stac import Layer, write_cog


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def item(
    folder: Path,
    name: str,
    when: str,
    grid: GeoBox,
    layers: Mapping[str, Layer],
    *,
    outline: BaseGeometry | None = None,
    **properties: Any,
) -> pystac.Item:
    """Item with one file a layer; its outline is the grid's unless it is given."""
    folder.mkdir(parents=True, exist_ok=True)
    outline = grid.geographic_extent.geom if outline is None else outline
    made = pystac.Item(
        name, mapping(outline), list(outline.bounds), moment(when),
        {"proj:code": str(grid.crs), "proj:shape": list(grid.shape),
         "proj:transform": list(grid.affine)[:6], **properties},
        stac_extensions=[
            "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
    )  # fmt: skip
    for key, layer in layers.items():
        path = folder / f"{name}_{key}.tif"
        write_cog(path, grid, layer)
        asset = pystac.Asset(str(path), roles=["data"])
        asset.extra_fields["raster:bands"] = [layer.band]
        made.add_asset(key, asset)
    return made


def catalog(folder: Path, items: Sequence[pystac.Item], more: str = "") -> Path:
    """Static source of items in one collection, which may lie beside its folder."""
    root = pystac.Catalog("test", "test")
    times = [i.datetime or i.common_metadata.start_datetime for i in items]
    collection = pystac.Collection(
        "c", "c",
        pystac.Extent(
            pystac.SpatialExtent([[-180, -90, 180, 90]]),
            pystac.TemporalExtent([[min(times), max(times)]]),
        ),
        license="CC0-1.0",
    )  # fmt: skip
    for one in items:
        collection.add_item(one.clone())
    root.add_child(collection)
    root.normalize_hrefs(str(folder))
    root.save(pystac.CatalogType.SELF_CONTAINED)
    config = folder / "source.toml"
    config.write_text(
        f'name = "test"\nkind = "static"\nhref = "catalog.json"\nroots = [".."]\n{more}'
    )
    return config


def positions(grid: GeoBox) -> dict[str, Layer]:
    """Two bands that hold each pixel's own easting and northing."""
    image = position_image(grid)
    return {
        band: Layer(image[name].values.astype(np.float32), np.nan)
        for band, name in (("red", "easting"), ("nir", "northing"))
    }


def imagery_recipe(source: Path, years: tuple[int, int], **options: Any) -> Recipe:
    """Recipe of imagery alone; ``buffer_m`` belongs to the recipe, the rest to the imagery."""
    buffer_m = options.pop("buffer_m", 0.0)
    part = ImageryRecipe(source=str(source), **options)
    return Recipe(name="t", years=years, buffer_m=buffer_m, imagery=part)

"""Write simulated rasters as cloud-optimised GeoTIFFs with a static STAC catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pystac.layout import TemplateLayoutStrategy
from shapely import box
from shapely.geometry import mapping

from minetrace.simulate.plane import LONLAT, reproject

EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
)
EO = "https://stac-extensions.github.io/eo/v1.1.0/schema.json"
TITLES = {
    "landcover": "Simulated annual land cover (GLC_FCS30D classes)",
    "imagery": "Simulated optical scenes (layout of Sentinel-2 level 2A)",
    "lights": "Simulated monthly night-time radiance (layout of VIIRS)",
}


@dataclass(frozen=True)
class Layer:
    """One raster to write, with what its ``raster:bands`` entry says."""

    pixels: NDArray[np.generic]
    nodata: float
    scale: float = 1.0
    offset: float = 0.0
    unit: str | None = None
    categories: bool = False

    @property
    def band(self) -> dict[str, str | float]:
        """Entry of ``raster:bands``; scale and offset only where they change anything."""
        fields: dict[str, str | float] = {
            "data_type": str(self.pixels.dtype),
            "nodata": "nan" if np.isnan(self.nodata) else self.nodata,
        }
        if self.scale != 1.0:
            fields |= {"scale": self.scale, "offset": self.offset}
        return fields | ({"unit": self.unit} if self.unit else {})


def write_item(
    folder: Path,
    grid: GeoBox,
    time: datetime,
    layers: Mapping[str, Layer],
    *,
    name: str,
    properties: Mapping[str, object] | None = None,
) -> pystac.Item:
    """Write one raster per asset below ``folder`` and return the item that points to them."""
    outline = reproject(box(*grid.boundingbox.bbox), str(grid.crs), LONLAT)
    item = pystac.Item(
        id=name,
        geometry=mapping(outline),
        bbox=list(outline.bounds),
        datetime=time,
        properties={
            **(properties or {}),
            "proj:code": str(grid.crs),
            "proj:shape": list(grid.shape),
            "proj:transform": list(grid.affine)[:6],
        },
        stac_extensions=[*EXTENSIONS, *([EO] if properties else [])],
    )
    for key, layer in layers.items():
        file = f"{name}.tif" if len(layers) == 1 else f"{name}_{key}.tif"
        write_cog(folder / file, grid, layer)
        asset = pystac.Asset(f"./{file}", media_type=pystac.MediaType.COG, roles=["data"])
        asset.extra_fields["raster:bands"] = [layer.band]
        item.add_asset(key, asset)
    return item


def write_cog(path: Path, grid: GeoBox, layer: Layer) -> None:
    """Write a tiled, deflated GeoTIFF with overviews."""
    height, width = grid.shape
    with rasterio.open(
        path, "w", driver="COG", height=height, width=width, count=1,
        dtype=layer.pixels.dtype.name, crs=str(grid.crs), transform=grid.affine,
        nodata=layer.nodata, compress="deflate", predictor="yes", blocksize=256,
        overview_resampling="nearest" if layer.categories else "average",
    ) as out:  # fmt: skip
        out.write(layer.pixels, 1)


def save_catalog(folder: Path, items: Mapping[str, Sequence[pystac.Item]]) -> None:
    """Write ``catalog.json`` and one folder per collection, all links relative."""
    catalog = pystac.Catalog(
        "minetrace-simulation", "Synthetic mines with known truth", title="Simulated mines"
    )
    for name, members in items.items():
        collection = pystac.Collection(
            name, TITLES[name], _extent(members), title=TITLES[name], license="CC0-1.0"
        )
        collection.add_items(members)
        catalog.add_child(collection)
    flat = TemplateLayoutStrategy(collection_template="${id}", item_template="")
    catalog.normalize_hrefs(str(folder), strategy=flat)
    catalog.save(pystac.CatalogType.SELF_CONTAINED)


def _extent(items: Sequence[pystac.Item]) -> pystac.Extent:
    times = [item.datetime for item in items if item.datetime]
    bbox = items[0].bbox or []
    return pystac.Extent(
        pystac.SpatialExtent([bbox]), pystac.TemporalExtent([[min(times), max(times)]])
    )

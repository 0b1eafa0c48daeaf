"""Small COGs and the items that lead to them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pystac
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from minetrace.catalog import Source, SourceConfig

EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
]
START = dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC)


def grid(side: int, *, x: float = 600_000, y: float = 5_000_000, step: float = 20) -> GeoBox:
    """Square grid in UTM zone 32 with its corner at (x, y)."""
    return GeoBox((side, side), Affine(step, 0, x, 0, -step, y), "EPSG:32632")


def write_cog(
    path: Path, values: np.ndarray, where: GeoBox, *, nodata: float | None = 0, block: int = 128,
    compress: str = "deflate",
) -> Path:  # fmt: skip
    """COG of one band ``(y, x)`` or several ``(band, y, x)``, without overviews."""
    layers = values[None] if values.ndim == 2 else values
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="COG", height=layers.shape[1], width=layers.shape[2],
        count=layers.shape[0], dtype=layers.dtype, crs=str(where.crs), transform=where.affine,
        nodata=nodata, compress=compress, blocksize=block, overviews="NONE",
    ) as out:  # fmt: skip
        out.write(layers)
    return path


def make_item(
    name: str, assets: dict[str, str], where: GeoBox, *, day: int = 0, nodata: float | None = 0,
    dtype: str = "uint16", bands: int = 1,
) -> pystac.Item:  # fmt: skip
    """Item of assets on one grid, ``day`` days after 1 January 2020, noon."""
    box = where.extent.to_crs("EPSG:4326")
    item = pystac.Item(
        name, box.json, list(box.boundingbox.bbox), START + dt.timedelta(days=day),
        {"proj:code": str(where.crs), "proj:shape": list(where.shape),
         "proj:transform": list(where.affine)[:6]},
        stac_extensions=EXTENSIONS, collection="scenes",
    )  # fmt: skip
    about = {"data_type": dtype} | ({} if nodata is None else {"nodata": nodata})
    for key, href in assets.items():
        asset = pystac.Asset(
            href, media_type="image/tiff; application=geotiff", roles=["data"],
            extra_fields={"raster:bands": [dict(about) for _ in range(bands)]},
        )  # fmt: skip
        item.add_asset(key, asset)
    return item


def make_source(folder: Path, **config: object) -> Source:
    """Source whose files lie in a folder, or on the hosts that ``config`` names."""
    named = {"name": "cogs", "kind": "static", "href": "catalog.json", **config}
    return Source(SourceConfig(**named), folder)

"""Rasters of a build: opened, checked, described, rewritten as cloud-optimised GeoTIFF."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
import rasterio.errors
import rasterio.windows
from rasterio.io import DatasetReader
from rasterio.warp import transform_bounds

from minetrace.catalog.policy import RASTER_DRIVERS, check_href
from minetrace.catalog.profile import Layer
from minetrace.errors import SourceError
from minetrace.schema import Legend

_MULTIHASH_SHA256 = "1220"
"""Multihash prefix: the code of SHA-256 and its length of 32 bytes."""
_CODES = ("landcover", "quality", "scl", "qa_pixel", "qa_radsat", "fmask", "qa60")
"""Variables of which no mean can be taken."""


@dataclass(frozen=True)
class RasterFile:
    """A raster that an asset points to."""

    path: Path
    checksum: str


def check_georeference(src: DatasetReader, path: Path) -> None:
    """Refuse a raster without CRS, or one that is not north-up.

    Raises
    ------
    SourceError
        Naming the file and how to mend it.
    """
    if src.crs is None:
        raise SourceError(
            f"{path} has no CRS; assign one first, e.g. rio edit-info --crs EPSG:4326 FILE"
        )
    east, skew, _, tilt, south = tuple(src.transform)[:5]
    if skew or tilt or east <= 0 or south >= 0:
        raise SourceError(
            f"{path} is not north-up (it is rotated, mirrored or has no transform); make it so "
            "first: gdalwarp -r near FILE NEW.tif"
        )


def open_raster(path: Path) -> DatasetReader:
    """Open a raster by the drivers whose files hold their own pixels.

    Raises
    ------
    SourceError
        No such file, or none of these formats.
    """
    try:
        # rasterio.open takes one driver only
        with rasterio.Env():
            return DatasetReader(str(path), driver=list(RASTER_DRIVERS))
    except rasterio.errors.RasterioIOError as err:
        raise SourceError(
            f"{path} cannot be read as a raster: {err} (read are {', '.join(RASTER_DRIVERS)}; "
            "turn other files into GeoTIFF with gdal_translate)"
        ) from err


def link_file(path: Path) -> RasterFile:
    """File that an asset points to where it lies; refused where it could not be opened later."""
    real = path.resolve()
    check_href(str(real), roots=[real.parent])
    return hash_file(real)


def hash_file(path: Path) -> RasterFile:
    """File with its SHA-256 as a multihash."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return RasterFile(path, _MULTIHASH_SHA256 + digest)


def check_codes(src: DatasetReader, layer: Layer, legend: Legend) -> None:
    """Read a layer and refuse class codes that a legend misses."""
    nodata = _nodata(src, layer)
    seen: set[int] = set()
    for window in _strips(src):
        seen.update(np.unique(src.read(layer.band, window=window)).tolist())
    seen.discard(nodata)
    legend.require(sorted(seen), f"{layer.path} band {layer.band}")


def _strips(src: DatasetReader) -> Iterable[rasterio.windows.Window]:
    step = max(1, 2**24 // src.width)
    for row in range(0, src.height, step):
        yield rasterio.windows.Window(0, row, src.width, min(step, src.height - row))


def write_cog(src: DatasetReader, layer: Layer, product: str, work: Path) -> Path:
    """Write a layer as a cloud-optimised GeoTIFF into its item's folder."""
    folder = work / product / layer.item
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{layer.item}-{layer.variable}.tif"
    profile = {
        "driver": "COG", "width": src.width, "height": src.height, "count": 1,
        "dtype": src.dtypes[layer.band - 1], "crs": src.crs, "transform": src.transform,
        "nodata": _nodata(src, layer), "compress": "DEFLATE", "blocksize": 512,
        "predictor": "YES",
        "overview_resampling": "NEAREST" if layer.variable in _CODES else "AVERAGE",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dst:
        for window in _strips(src):
            dst.write(src.read(layer.band, window=window), 1, window=window)
    return path


def _nodata(src: DatasetReader, layer: Layer) -> float | None:
    declared: float | None = src.nodatavals[layer.band - 1]
    return layer.nodata if declared is None else declared


@dataclass(frozen=True)
class Described:
    """What an item says of one layer."""

    file: RasterFile
    bands: list[dict[str, object]]
    grid: dict[str, object]
    bounds: tuple[float, float, float, float]
    index: int | None
    """Band of a linked file that holds several."""


def describe(src: DatasetReader, layer: Layer, file: RasterFile, *, linked: bool) -> Described:
    """What an item says of a layer: grid, bounds, type, scale, offset and gaps."""
    epsg = src.crs.to_epsg()
    grid = {
        "proj:shape": [src.height, src.width],
        "proj:transform": list(src.transform)[:6],
        **({"proj:code": f"EPSG:{epsg}"} if epsg else {"proj:wkt2": src.crs.to_wkt()}),
    }
    bands = []
    for i, dtype in enumerate(src.dtypes):
        own: dict[str, object] = {"data_type": dtype, "scale": layer.scale, "offset": layer.offset}
        nodata = _nodata(src, replace(layer, band=i + 1))
        bands.append(own if nodata is None else {**own, "nodata": _json_nodata(nodata)})
    several = linked and len(bands) > 1
    bounds = transform_bounds(src.crs, "EPSG:4326", *src.bounds, densify_pts=21)
    return Described(
        file, bands if several else [bands[layer.band - 1]], grid, bounds,
        layer.band if several else None,
    )  # fmt: skip


def _json_nodata(value: float) -> float | int | str:
    if np.isnan(value):
        return "nan"
    return int(value) if float(value).is_integer() else value

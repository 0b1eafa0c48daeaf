"""Turn plain rasters into a static STAC catalogue that any STAC client reads."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pystac
import rasterio
import rasterio.errors
import rasterio.windows
from rasterio.io import DatasetReader
from rasterio.warp import transform_bounds
from shapely.geometry import box, mapping

from minetrace.catalog.policy import RASTER_DRIVERS, check_href
from minetrace.catalog.stamp import given_time, named_time
from minetrace.errors import InputError, SourceError
from minetrace.schema import NODES, Legend, load_legend

_EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
]
_MARKER = "source.toml"
_MULTIHASH_SHA256 = "1220"
"""Multihash prefix: the code of SHA-256 and its length of 32 bytes."""
Product = Literal["landcover", "lights", "imagery"]


@dataclass(frozen=True)
class _File:
    """A raster that an asset points to."""

    path: Path
    checksum: str


@dataclass(frozen=True)
class _Layer:
    """One band of one file at one moment."""

    path: Path
    band: int
    time: dt.datetime

    @property
    def id(self) -> str:
        return f"{self.path.stem}-{self.time:%Y%m%d}"


def build_catalog(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    product: Product = "landcover",
    variable: str | None = None,
    legend: str | Path | None = None,
    times: Sequence[dt.date | str] | None = None,
    scale: float = 1.0,
    offset: float = 0.0,
    link: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Build a static STAC catalogue from plain rasters, one item per band.

    Parameters
    ----------
    files
        North-up GeoTIFF, JPEG 2000, PNG, HFA, ENVI, ASCII grid or netCDF rasters; bands are
        times, tiles of one time may be several files.
    out
        Folder to make. It gets ``catalog.json``, ``source.toml`` (for recipes) and, unless
        ``link``, one cloud-optimised GeoTIFF per band.
    product
        Which cube node the layers belong to.
    variable
        Cube variable; default the product's own (``landcover``, ``ntl``).
    legend
        Checked against every value of the data when given.
    times
        One date per band over all files in order: dates, or YYYY-MM-DD, YYYY-MM, YYYY. Default:
        a year, year-month or date in the band description, else (single-band files) in the file
        name.
    scale, offset
        Physical value = stored × scale + offset; recorded in the items.
    link
        Leave the rasters (GeoTIFF, JPEG 2000 or PNG) where they are. The catalogue then works
        only where they stay.
    progress
        Called with (done, total) after each layer.

    Returns
    -------
    Path
        ``out/catalog.json``; with ``link`` ``out/source.toml``, which allows the rasters' folders.

    Raises
    ------
    SourceError
        A file cannot be read, has no CRS, is not north-up, has no time or one that may be several
        years, two layers are the same place and time, or ``out`` is a file, holds something else
        or cannot be written. Nothing is left behind.
    LegendError
        The data hold a code that the legend misses.
    """
    # pystac makes asset addresses relative to absolute folders only
    out = Path(out).resolve()
    spec = None if legend is None else load_legend(legend)
    name = variable or {"landcover": "landcover", "lights": "ntl"}.get(product)
    if name is None:
        raise InputError("imagery has several bands: name the variable, e.g. variable='red'")
    layers = _layers([Path(f) for f in files], times)
    _check_free(out)
    inside = [layer.path for layer in layers if layer.path.resolve().is_relative_to(out)]
    if inside:
        raise SourceError(
            f"{inside[0]} lies in {out}, which a build replaces; choose another folder"
        )
    work = _scratch(out)
    try:
        collection = _collection(product, spec, layers)
        done = 0
        for path in dict.fromkeys(layer.path for layer in layers):
            # one open file for all its bands: GDAL then decodes interleaved bands once
            with _open(path) as src:
                linked = _link(path) if link else None
                for layer in (entry for entry in layers if entry.path == path):
                    if spec is not None:
                        _check_codes(src, layer, spec)
                    asset = linked or _file(_write_cog(src, layer, product, work))
                    collection.add_item(
                        _item(src, layer, name, asset, linked=link, scale=scale, offset=offset)
                    )
                    done += 1
                    if progress is not None:
                        progress(done, len(layers))
        collection.update_extent_from_items()
        catalog = pystac.Catalog(out.name, f"{len(layers)} layers of {product}")
        catalog.add_child(collection)
        catalog.normalize_hrefs(str(work))
        catalog.make_all_asset_hrefs_relative()
        catalog.save(pystac.CatalogType.SELF_CONTAINED)
        folders = {os.path.relpath(layer.path.resolve().parent, out) for layer in layers}
        roots = sorted(folders) if link else []
        _write_source(work / _MARKER, out.name, product, collection.id, legend, roots)
        if out.exists():
            shutil.rmtree(out)
        work.replace(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out / (_MARKER if link else "catalog.json")


def _check_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise SourceError(f"{out} is a file; give a new or an empty folder")
    if out.exists() and any(out.iterdir()) and not (out / _MARKER).is_file():
        raise SourceError(f"{out} holds other files; give a new or an empty folder")


def _scratch(out: Path) -> Path:
    """Folder beside ``out`` to build in: a rename publishes it, relative addresses hold."""
    # tempfile's own folders are closed to everybody else
    work = out.with_name(f".{out.name}-{uuid.uuid4().hex}")
    try:
        work.mkdir(parents=True)
    except OSError as err:
        raise SourceError(
            f"{out} cannot be made: {err.strerror}; give a folder that you may write to"
        ) from err
    return work


def _layers(files: list[Path], times: Sequence[dt.date | str] | None) -> list[_Layer]:
    if not files:
        raise SourceError("no rasters were given")
    bands: list[tuple[Path, int, str | None]] = []
    for path in files:
        with _open(path) as src:
            _check_georeference(src, path)
            bands += [(path, i, src.descriptions[i - 1]) for i in range(1, src.count + 1)]
    if times is not None and len(times) != len(bands):
        raise SourceError(f"{len(times)} times were given for {len(bands)} bands")
    layers = []
    for i, (path, band, text) in enumerate(bands):
        if times is not None:
            moment = given_time(times[i], i + 1)
        else:
            single = sum(b[0] == path for b in bands) == 1
            moment = _own_time(path, band, text, single=single)
        layers.append(_Layer(path, band, moment))
    ids = [layer.id for layer in layers]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise SourceError(f"layers given twice for one file and time: {twice[:5]}")
    return sorted(layers, key=lambda layer: (layer.time, layer.id))


def _check_georeference(src: DatasetReader, path: Path) -> None:
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


def _own_time(path: Path, band: int, text: str | None, *, single: bool) -> dt.datetime:
    where = f"{path} band {band}"
    moment = named_time(text or "", where) or (named_time(path.stem, where) if single else None)
    if moment is None:
        raise SourceError(
            f"{where} has no time: neither its description nor its file name holds a year; "
            "give --times, one date per band"
        )
    return moment


def _open(path: Path) -> DatasetReader:
    try:
        # rasterio.open takes one driver only
        with rasterio.Env():
            return DatasetReader(str(path), driver=list(RASTER_DRIVERS))
    except rasterio.errors.RasterioIOError as err:
        raise SourceError(
            f"{path} cannot be read as a raster: {err} (read are {', '.join(RASTER_DRIVERS)}; "
            "turn other files into GeoTIFF with gdal_translate)"
        ) from err


def _link(path: Path) -> _File:
    real = path.resolve()
    check_href(str(real), roots=[real.parent])
    return _file(real)


def _file(path: Path) -> _File:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _File(path, _MULTIHASH_SHA256 + digest)


def _check_codes(src: DatasetReader, layer: _Layer, legend: Legend) -> None:
    nodata = src.nodatavals[layer.band - 1]
    seen: set[int] = set()
    for window in _strips(src):
        seen.update(np.unique(src.read(layer.band, window=window)).tolist())
    seen.discard(nodata)
    legend.require(sorted(seen), f"{layer.path} band {layer.band}")


def _strips(src: DatasetReader) -> Iterable[rasterio.windows.Window]:
    step = max(1, 2**24 // src.width)
    for row in range(0, src.height, step):
        yield rasterio.windows.Window(0, row, src.width, min(step, src.height - row))


def _write_cog(src: DatasetReader, layer: _Layer, product: Product, work: Path) -> Path:
    folder = work / product / layer.id
    folder.mkdir(parents=True)
    path = folder / f"{layer.id}.tif"
    profile = {
        "driver": "COG", "width": src.width, "height": src.height, "count": 1,
        "dtype": src.dtypes[layer.band - 1], "crs": src.crs, "transform": src.transform,
        "nodata": src.nodatavals[layer.band - 1], "compress": "DEFLATE", "blocksize": 512,
        "predictor": "YES",
        "overview_resampling": "NEAREST" if product == "landcover" else "AVERAGE",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dst:
        for window in _strips(src):
            dst.write(src.read(layer.band, window=window), 1, window=window)
    return path


def _item(
    src: DatasetReader, layer: _Layer, variable: str, file: _File,
    *, linked: bool, scale: float, offset: float,
) -> pystac.Item:  # fmt: skip
    bounds = transform_bounds(src.crs, "EPSG:4326", *src.bounds, densify_pts=21)
    epsg = src.crs.to_epsg()
    properties = {
        "proj:shape": [src.height, src.width],
        "proj:transform": list(src.transform)[:6],
        **({"proj:code": f"EPSG:{epsg}"} if epsg else {"proj:wkt2": src.crs.to_wkt()}),
    }
    bands = [
        {"data_type": dtype, "scale": scale, "offset": offset}
        | ({} if nodata is None else {"nodata": _json_nodata(nodata)})
        for dtype, nodata in zip(src.dtypes, src.nodatavals, strict=True)
    ]
    if linked and len(bands) > 1:
        properties["minetrace:band"] = layer.band
    else:
        bands = [bands[layer.band - 1]]
    item = pystac.Item(
        id=layer.id, geometry=mapping(box(*bounds)), bbox=list(bounds), datetime=layer.time,
        properties=properties, stac_extensions=list(_EXTENSIONS),
    )  # fmt: skip
    asset = pystac.Asset(
        str(file.path), media_type=pystac.MediaType.COG, roles=["data"],
        extra_fields={"raster:bands": bands, "file:checksum": file.checksum},
    )  # fmt: skip
    item.add_asset(variable, asset)
    return item


def _json_nodata(value: float) -> float | int | str:
    if np.isnan(value):
        return "nan"
    return int(value) if float(value).is_integer() else value


def _collection(
    product: Product, legend: Legend | None, layers: Sequence[_Layer]
) -> pystac.Collection:
    spec = next(iter(NODES[product].values()))
    title = legend.title if legend is not None else spec.long_name
    span = pystac.TemporalExtent([[layers[0].time, layers[-1].time]])
    world = pystac.SpatialExtent([[-180.0, -90.0, 180.0, 90.0]])
    return pystac.Collection(
        product, title, pystac.Extent(world, span), title=title, license="other"
    )


def _write_source(
    path: Path, name: str, product: Product, collection: str,
    legend: str | Path | None, roots: Sequence[str],
) -> None:  # fmt: skip
    lines = [
        f"name = {_quote(name)}", 'kind = "static"', 'href = "catalog.json"',
        f"collection = {_quote(collection)}", f"product = {_quote(product)}",
    ]  # fmt: skip
    if roots:
        lines.append(f"roots = [{', '.join(_quote(r) for r in roots)}]")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

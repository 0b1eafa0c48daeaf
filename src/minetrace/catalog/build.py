"""Turn plain rasters into a static STAC catalogue that any STAC client reads."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import tempfile
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

from minetrace.errors import InputError, SourceError
from minetrace.schema import NODES, Legend, load_legend

_STAMP = re.compile(
    r"(?<!\d)((?:19|20)\d{2})(?:[-_.]?(0[1-9]|1[0-2])(?:[-_.]?(0[1-9]|[12]\d|3[01]))?)?(?!\d)"
)
_EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
]
_MARKER = "source.toml"
Product = Literal["landcover", "lights", "imagery"]


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
        Rasters that GDAL reads; bands are times, tiles of one time may be several files.
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
        One date per band over all files in order. Default: a year, year-month or date in the band
        description, else (single-band files) in the file name.
    scale, offset
        Physical value = stored × scale + offset; recorded in the items.
    link
        Leave the rasters where they are. The catalogue then works only where they stay.
    progress
        Called with (done, total) after each layer.

    Returns
    -------
    Path
        ``out/catalog.json``.

    Raises
    ------
    SourceError
        A file cannot be read, has no CRS or no time, two layers are the same place and time, or
        ``out`` holds something else. Nothing is left behind.
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
    if out.exists() and any(out.iterdir()) and not (out / _MARKER).is_file():
        raise SourceError(f"{out} holds other files; give a new or an empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        collection = _collection(product, spec, layers)
        done = 0
        for path in dict.fromkeys(layer.path for layer in layers):
            # one open file for all its bands: GDAL then decodes interleaved bands once
            with _open(path) as src:
                for layer in (entry for entry in layers if entry.path == path):
                    if spec is not None:
                        _check_codes(src, layer, spec)
                    target = path.resolve() if link else _write_cog(src, layer, product, work)
                    collection.add_item(
                        _item(src, layer, name, target, linked=link, scale=scale, offset=offset)
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
    return out / "catalog.json"


def _layers(files: list[Path], times: Sequence[dt.date | str] | None) -> list[_Layer]:
    if not files:
        raise SourceError("no rasters were given")
    bands: list[tuple[Path, int, str | None]] = []
    for path in files:
        with _open(path) as src:
            if src.crs is None:
                raise SourceError(
                    f"{path} has no CRS; assign one first, e.g. rio edit-info --crs EPSG:4326 FILE"
                )
            bands += [(path, i, src.descriptions[i - 1]) for i in range(1, src.count + 1)]
    if times is not None and len(times) != len(bands):
        raise SourceError(f"{len(times)} times were given for {len(bands)} bands")
    layers = []
    for i, (path, band, text) in enumerate(bands):
        single = sum(b[0] == path for b in bands) == 1
        given = None if times is None else str(times[i])
        moment = _moment(given or text or "") or (_moment(path.stem) if single else None)
        if moment is None:
            raise SourceError(
                f"{path} band {band} has no time: neither its description nor its "
                "file name holds a year; give --times, one date per band"
            )
        layers.append(_Layer(path, band, moment))
    ids = [layer.id for layer in layers]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise SourceError(f"layers given twice for one file and time: {twice[:5]}")
    return sorted(layers, key=lambda layer: (layer.time, layer.id))


def _moment(text: str) -> dt.datetime | None:
    found = _STAMP.search(text)
    if found is None:
        return None
    year, month, day = found.group(1), found.group(2) or "1", found.group(3) or "1"
    try:
        return dt.datetime(int(year), int(month), int(day), tzinfo=dt.UTC)
    except ValueError:
        return None


def _open(path: Path) -> DatasetReader:
    try:
        return rasterio.open(path)
    except rasterio.errors.RasterioIOError as err:
        raise SourceError(f"{path} cannot be read as a raster: {err}") from err


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
    src: DatasetReader, layer: _Layer, variable: str, path: Path,
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
        str(path), media_type=pystac.MediaType.COG, roles=["data"],
        extra_fields={"raster:bands": bands},
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

"""Turn plain rasters into a static STAC catalogue that any STAC client reads."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pystac
from shapely.geometry import box, mapping

from minetrace.catalog.config import SourceConfig
from minetrace.catalog.profile import Layer, named_layers
from minetrace.catalog.rasters import (
    Described,
    check_codes,
    check_georeference,
    describe,
    hash_file,
    link_file,
    open_raster,
    write_cog,
)
from minetrace.catalog.source import Source, open_source
from minetrace.catalog.stamp import given_time, named_time
from minetrace.catalog.tiles import open_field
from minetrace.errors import InputError, SourceError
from minetrace.schema import NODES, Legend, load_legend

_EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
]
_MARKER = "source.toml"
Product = Literal["landcover", "lights", "imagery", "terrain"]
_VARIABLE = {"landcover": "landcover", "lights": "ntl", "terrain": "elevation"}


def build_catalog(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    profile: str | Path | Source | None = None,
    product: Product | None = None,
    variable: str | None = None,
    legend: str | Path | None = None,
    times: Sequence[dt.date | str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    link: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Build a static STAC catalogue from plain rasters.

    Parameters
    ----------
    files
        North-up GeoTIFF, JPEG 2000, PNG, HFA, ENVI, ASCII grid or netCDF rasters; bands are
        times, tiles of one time may be several files. HDF5 tiles where the profile knows their
        fields, as those of Black Marble (``minetrace[hdf5]``).
    out
        Folder to make. It gets ``catalog.json``, ``source.toml`` (for recipes) and, unless
        ``link``, one cloud-optimised GeoTIFF per band.
    profile
        Source of kind ``files`` that knows the product: a shipped name as ``glc_fcs30d``, or a
        TOML file. Names, times, variables, legend, nodata and scale are then its own. Files of
        one place and time, as radiance and the number of views, become one item.
    product
        Which cube node the layers belong to; default ``landcover``.
    variable
        Cube variable; default the product's own (``landcover``, ``ntl``, ``elevation``).
    legend
        Checked against every value of the data when given, or when the profile names one.
    times
        One date per band over all files in order: dates, or YYYY-MM-DD, YYYY-MM, YYYY. Default:
        a year, year-month or date in the band description, else (single-band files) in the file
        name.
    scale, offset
        Physical value = stored × scale + offset (default 1 and 0); recorded in the items.
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
    InputError
        A profile together with what it says itself; HDF5 tiles to be linked, or without h5py.
    SourceError
        A file cannot be read, has no CRS, is not north-up, has no time or one that may be several
        years, is not named as the profile says, two layers are the same place and time, or ``out``
        is a file, holds something else or cannot be written. Nothing is left behind.
    LegendError
        The data hold a code that the legend misses.
    """
    # pystac makes asset addresses relative to absolute folders only
    out = Path(out).resolve()
    paths = [Path(f) for f in files]
    if profile is not None:
        known = _profile(profile, product, variable, times, scale, offset)
        product, legend = _of_profile(known), legend or known.legend
        layers = named_layers(paths, known, _count)
        if link and any(layer.field is not None for layer in layers):
            raise InputError("HDF5 tiles are no rasters that could be linked; build without link")
    else:
        product = product or "landcover"
        name = variable or _VARIABLE.get(product)
        if name is None:
            raise InputError("imagery has several bands: name the variable, e.g. variable='red'")
        layers = _dated_layers(paths, times, name)
        layers = [replace(k, scale=scale or 1.0, offset=offset or 0.0) for k in layers]
    spec = None if legend is None else load_legend(legend)
    items = _grouped(layers)
    _check_free(out)
    inside = [layer.path for layer in layers if layer.path.resolve().is_relative_to(out)]
    if inside:
        raise SourceError(
            f"{inside[0]} lies in {out}, which a build replaces; choose another folder"
        )
    work = _scratch(out)
    try:
        assets: dict[Layer, Described] = {}
        for path, field in dict.fromkeys((layer.path, layer.field) for layer in layers):
            # one open file for all its bands: GDAL then decodes interleaved bands once
            with open_raster(path) if field is None else open_field(path, field) as src:
                linked = link_file(path) if link else None
                for layer in (k for k in layers if (k.path, k.field) == (path, field)):
                    if spec is not None:
                        check_codes(src, layer, spec)
                    file = linked or hash_file(write_cog(src, layer, product, work))
                    own = layer
                    if field is not None:
                        own = replace(layer, scale=src.scales[0], offset=src.offsets[0])
                    assets[layer] = describe(src, own, file, linked=link)
                    if progress is not None:
                        progress(len(assets), len(layers))
        index = _band_index(assets) if link else {}
        collection = _collection(product, spec, layers)
        for group in items.values():
            collection.add_item(_item(group, assets, own_band=link and not index))
        collection.update_extent_from_items()
        catalog = pystac.Catalog(out.name, f"{len(layers)} layers of {product}")
        catalog.add_child(collection)
        catalog.normalize_hrefs(str(work))
        catalog.make_all_asset_hrefs_relative()
        catalog.save(pystac.CatalogType.SELF_CONTAINED)
        folders = {os.path.relpath(layer.path.resolve().parent, out) for layer in layers}
        roots = sorted(folders) if link else []
        _write_source(work / _MARKER, out.name, product, collection.id, legend, roots, index)
        if out.exists():
            shutil.rmtree(out)
        work.replace(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out / (_MARKER if link else "catalog.json")


def _profile(
    profile: str | Path | Source, product: str | None, variable: str | None,
    times: Sequence[object] | None, scale: float | None, offset: float | None,
) -> SourceConfig:  # fmt: skip
    said = {"product": product, "variable": variable, "times": times, "scale": scale,
            "offset": offset}  # fmt: skip
    twice = [name for name, value in said.items() if value is not None]
    if twice:
        raise InputError(f"a profile says {', '.join(twice)} itself; leave that out")
    config = open_source(profile).config
    if config.kind != "files":
        raise SourceError(
            f"source {config.name!r} is of kind {config.kind!r}; a profile is of kind 'files'"
        )
    return config


def _of_profile(config: SourceConfig) -> Product:
    if config.product is None:
        raise SourceError(f"source {config.name!r} names no product; a build needs one")
    return config.product


def _count(path: Path) -> int:
    with open_raster(path) as src:
        check_georeference(src, path)
        return int(src.count)


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


def _dated_layers(
    files: list[Path], times: Sequence[dt.date | str] | None, variable: str
) -> list[Layer]:
    bands: list[tuple[Path, int, str | None]] = []
    for path in files:
        with open_raster(path) as src:
            check_georeference(src, path)
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
        layers.append(Layer(path, band, moment, variable, f"{path.stem}-{moment:%Y%m%d}"))
    return layers


def _grouped(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """Layers of each item, in order of time."""
    if not layers:
        raise SourceError("no rasters were given")
    items: dict[str, list[Layer]] = {}
    for layer in sorted(layers, key=lambda k: (k.time, k.item)):
        group = items.setdefault(layer.item, [])
        twice = [k.path.name for k in group if k.variable == layer.variable]
        if twice:
            raise SourceError(
                f"two layers of {layer.variable!r} are given twice for one place and time "
                f"({layer.item}): {twice[0]} and {layer.path.name}; keep one"
            )
        group.append(layer)
    return items


def _own_time(path: Path, band: int, text: str | None, *, single: bool) -> dt.datetime:
    where = f"{path} band {band}"
    moment = named_time(text or "", where) or (named_time(path.stem, where) if single else None)
    if moment is None:
        raise SourceError(
            f"{where} has no time: neither its description nor its file name holds a year; "
            "give --times, one date per band"
        )
    return moment


def _band_index(assets: Mapping[Layer, Described]) -> dict[str, int]:
    """Band of each variable, where the variables of one item lie in different bands."""
    bands: dict[str, set[int | None]] = {}
    for layer, asset in assets.items():
        bands.setdefault(layer.variable, set()).add(asset.index)
    if len(bands) < 2 or all(known == {None} for known in bands.values()):
        return {}
    index = {name: known.pop() for name, known in bands.items() if len(known) == 1}
    if len(index) < len(bands) or None in index.values():
        raise SourceError(
            "the linked files hold their variables in bands that change from file to file; build "
            "without link"
        )
    return {name: band for name, band in index.items() if band is not None}


def _item(
    layers: Sequence[Layer], assets: Mapping[Layer, Described], *, own_band: bool
) -> pystac.Item:
    first = assets[layers[0]]
    bounds = first.bounds
    properties = dict(first.grid)
    if own_band and first.index is not None:
        properties["minetrace:band"] = first.index
    item = pystac.Item(
        id=layers[0].item, geometry=mapping(box(*bounds)), bbox=list(bounds),
        datetime=layers[0].time, properties=properties, stac_extensions=list(_EXTENSIONS),
    )  # fmt: skip
    if layers[0].whole_year:
        start = layers[0].time
        item.common_metadata.start_datetime = start
        item.common_metadata.end_datetime = start.replace(start.year + 1) - dt.timedelta(seconds=1)
    for layer in layers:
        own = assets[layer]
        # an asset on a grid of its own says so itself
        grid = {} if own.grid == first.grid else own.grid
        item.add_asset(
            layer.variable,
            pystac.Asset(
                str(own.file.path), media_type=pystac.MediaType.COG, roles=["data"],
                extra_fields={
                    "raster:bands": own.bands, "file:checksum": own.file.checksum, **grid,
                },
            ),
        )  # fmt: skip
    return item


def _collection(
    product: Product, legend: Legend | None, layers: Sequence[Layer]
) -> pystac.Collection:
    nouns = NODES.get(product, {})
    spec = nouns.get(layers[0].variable) or next(iter(nouns.values()), None)
    title = legend.title if legend is not None else spec.long_name if spec else product
    moments = [layer.time for layer in layers]
    span = pystac.TemporalExtent([[min(moments), max(moments)]])
    world = pystac.SpatialExtent([[-180.0, -90.0, 180.0, 90.0]])
    return pystac.Collection(
        product, title, pystac.Extent(world, span), title=title, license="other"
    )


def _write_source(
    path: Path, name: str, product: Product, collection: str,
    legend: str | Path | None, roots: Sequence[str], index: Mapping[str, int],
) -> None:  # fmt: skip
    lines = [
        f"name = {_quote(name)}", 'kind = "static"', 'href = "catalog.json"',
        f"collection = {_quote(collection)}", f"product = {_quote(product)}",
    ]  # fmt: skip
    if legend is not None:
        lines.append(f"legend = {_quote(str(legend))}")
    if index:
        lines.append(f"band_index = {{ {', '.join(f'{k} = {v}' for k, v in index.items())} }}")
    if roots:
        lines.append(f"roots = [{', '.join(_quote(r) for r in roots)}]")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

"""Items → lazy arrays on one grid, as stored: no scaling, no masks, gaps marked by nodata."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pystac
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox, GeoboxTiles
from odc.loader import chunked_load, resolve_load_cfg
from odc.loader.types import RasterBandMetadata, RasterGroupMetadata, RasterSource, norm_key

from minetrace.catalog import Source
from minetrace.cubes.claims import Claim, Claims, claim, joint_dtypes
from minetrace.cubes.gaps import current_list
from minetrace.cubes.lattice import grid_coords
from minetrace.cubes.read import ReadDriver, lay_down
from minetrace.cubes.remote import Access, Patience
from minetrace.cubes.steps import GroupBy, reached_chunks, time_steps
from minetrace.errors import InputError, SourceError
from minetrace.grid import same_lattice

CHUNK = 1024
"""Default side of a spatial chunk in pixels: a whole number of the blocks that COGs come in (256,
512, 1024). Kernels lose speed below 128."""

_ONLY = f"{lay_down.__module__}.{lay_down.__name__}"
Engine = Literal["odc", "stackstac"]


def load_layers(
    source: Source,
    items: Sequence[pystac.Item],
    keys: Sequence[str],
    geobox: GeoBox,
    *,
    groupby: GroupBy = "time",
    chunks: Mapping[str, int] | None = None,
    engine: Engine = "odc",
    resampling: Literal["nearest", "bilinear"] = "nearest",
    patience: Patience | None = None,
) -> xr.Dataset:
    """Load assets lazily, one variable per asset key.

    Pixels are not interpolated unless asked: a mask then hides exactly the values it was made
    for. Where the grid is a window of the source's own lattice nothing is resampled. Overviews
    are mixtures of pixels and never read. Every address is checked against the source's policy
    first, and every file against its item when it is read.

    Parameters
    ----------
    source
        Where the items come from.
    items
        Items to load; later ones of a group fill the gaps of earlier ones.
    keys
        Assets to load. ``"key.3"`` is the third band of an asset; otherwise it is the source's
        ``[band_index]``, the item's ``minetrace:band``, or the first.
    geobox
        Grid of the result.
    groupby
        Which items share a step of time: ``"time"``, ``"solar_day"``, ``"id"``, or what a
        function makes of an item and its number in ``items``. Steps are in the order of that.
    chunks
        Spatial chunk sizes ``{"y": …, "x": …}`` in pixels, counted from the grid's corner. By
        default a grid of up to 1024 pixels a side is one chunk, and a larger one is cut at
        multiples of 1024 pixels from the corner of the source's file, so that no block is decoded
        twice.
    engine
        Library that builds the graph. ``"stackstac"`` gives the same arrays for what it can do:
        sources without signing, one band an asset, grids of an EPSG code with north up.
    resampling
        ``"bilinear"`` for continuous quantities such as elevation; the result is then float.
    patience
        How faults of servers are waited for. The ``"odc"`` engine only.

    Returns
    -------
    Dataset
        Dask-backed ``(time, y, x)`` in the stored type, pixel-centre coordinates; one chunk a
        step of time. Tasks: at most two an asset, item and chunk. What items declare no type
        for is float32.

    Raises
    ------
    SourceError, HrefError
        An item lacks an asset or its address is not allowed.
    ReadError
        When computed: a file cannot be read, or is not what its item says. See `failures`.
    """
    if not items:
        raise InputError("no items to load")
    if engine not in get_args(Engine):
        raise InputError(f"engine {engine!r} is not one of {', '.join(get_args(Engine))}")
    groups: dict[tuple[tuple[str, int], ...], list[pystac.Item]] = {}
    for item in items:
        groups.setdefault(tuple(band_of(source, item, key) for key in keys), []).append(item)
    parts = []
    for bands, group in groups.items():
        claims = {(id(i), *band): claim(source, i, *band) for i in group for band in bands}
        if engine == "stackstac":
            from minetrace.cubes.stacked import stack_layers

            times, arrays = stack_layers(
                source, group, bands, claims, geobox,
                groupby=groupby, chunks=_sizes(chunks), resampling=resampling,
            )  # fmt: skip
        else:
            access = Access(source.signer(), source.config.hosts, patience or Patience())
            times, arrays = _load(
                source, group, bands, claims, geobox, access,
                groupby=groupby, chunks=chunks, resampling=resampling,
            )  # fmt: skip
        made = {key: (("time", "y", "x"), data) for key, data in zip(keys, arrays, strict=True)}
        parts.append((made, times))
    if len(parts) == 1:
        # all at once: each merge of coordinates takes as long as a block to decode
        made, times = parts[0]
        return xr.Dataset(made, coords={"time": times, **grid_coords(geobox)})
    joined = xr.concat([xr.Dataset(m, coords={"time": t}) for m, t in parts], "time")
    return joined.sortby("time").assign_coords(grid_coords(geobox))


def _load(
    source: Source,
    items: Sequence[pystac.Item],
    bands: Sequence[tuple[str, int]],
    claims: Claims,
    geobox: GeoBox,
    access: Access,
    *,
    groupby: GroupBy,
    chunks: Mapping[str, int] | None,
    resampling: str,
) -> tuple[NDArray[np.datetime64], list[Any]]:
    """Times and arrays through odc-loader, which odc-stac loads with.

    What odc-stac does before is done here, since the claims have it all: it parses every item once
    more and projects every footprint, which takes longer than to decode a band.
    """
    top, left = (0, 0) if chunks else _into_chunk(claims.values(), geobox)
    ny, nx = geobox.shape
    # chunks are counted from the corner of the grid that the loader gets
    wide = GeoBox((ny + top, nx + left), geobox.translate_pix(-left, -top).affine, geobox.crs)
    sizes = _sizes(chunks)
    tiles = GeoboxTiles(wide, (sizes["y"], sizes["x"]))
    times, steps = time_steps(items, groupby, geobox)
    of_items = [{band: claims[id(item), *band] for band in bands} for item in items]
    names = {band: band[0] if band[1] == 1 else f"{band[0]}.{band[1]}" for band in bands}
    dtypes = joint_dtypes(source, bands, claims, resampling)
    metas = {
        names[band]: RasterBandMetadata(str(dtypes[band]), of_items[0][band].nodata)
        for band in bands
    }
    sources = [
        {
            names[band]: RasterSource(code.href, band[1], meta=metas[names[band]], driver_data=code)
            for band, code in own.items()
        }
        for own in of_items
    ]
    gaps = current_list()
    told = repr((list(claims.values()), str(geobox.crs), geobox.affine[:6], geobox.shape, gaps))
    driver = ReadDriver(
        access, window=geobox, gaps=gaps, token=hashlib.sha256(told.encode()).hexdigest()
    )
    bins = reached_chunks(items, [own.values() for own in of_items], steps, tiles)
    alone = all(len(found) == 1 for found in bins.values())
    loaded = chunked_load(
        resolve_load_cfg(metas, resampling, fuse_func=_ONLY if alone else None),
        RasterGroupMetadata({norm_key(name): meta for name, meta in metas.items()}),
        sources,
        bins,
        tiles,
        times.astype("datetime64[us]").tolist(),
        driver.capture_env(),
        driver,
        chunks={"y": sizes["y"], "x": sizes["x"]},
    )
    return times, [loaded[names[band]].data[:, top:, left:] for band in bands]


def _into_chunk(claims: Iterable[Claim], geobox: GeoBox) -> tuple[int, int]:
    """Rows and columns from the last boundary of the source's chunks to the grid's corner."""
    ny, nx = geobox.shape
    if max(ny, nx) <= CHUNK:
        return 0, 0
    known = [(c.transform, c.crs) for c in claims if c.transform is not None]
    for transform, crs in sorted(known, key=lambda c: c[0]):
        file = GeoBox((1, 1), Affine(*transform), crs)
        if same_lattice(file, geobox):
            col, row = (round(v) for v in file.wld2pix(geobox.affine.c, geobox.affine.f))
            return row % CHUNK if ny > CHUNK else 0, col % CHUNK if nx > CHUNK else 0
    return 0, 0


def band_of(source: Source, item: pystac.Item, key: str) -> tuple[str, int]:
    """Asset and band of a key."""
    base, _, number = key.rpartition(".")
    if key not in item.assets and base in item.assets and number.isdigit():
        return base, int(number)
    config = source.config
    told = {n for name, n in config.band_index.items() if source.asset_key(name) == key}
    if len(told) > 1:
        raise SourceError(
            f"asset {key!r} of source {source.name!r} holds several variables; ask for one band, "
            f"e.g. '{key}.{min(told)}'"
        )
    return key, told.pop() if told else int(item.properties.get("minetrace:band", 1))


def _sizes(chunks: Mapping[str, int] | None) -> dict[str, int]:
    sizes = {"y": CHUNK, "x": CHUNK, **(chunks or {})}
    return {dim: sizes[dim] for dim in ("y", "x")}

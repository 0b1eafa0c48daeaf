"""Items → lazy arrays on one grid, as stored: no scaling, no masks, gaps marked by nodata."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import dask.array as da
import numpy as np
import odc.stac
import pystac
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from shapely.geometry.base import BaseGeometry

from minetrace.catalog import Source
from minetrace.errors import GridError, SourceError
from minetrace.grid import crop_native, same_lattice, site_geobox

CHUNK = 1024
"""Default side of a spatial chunk in pixels; kernels lose speed below 128."""


@dataclass(frozen=True)
class Encoding:
    """How an asset stores its values: physical = stored × scale + offset."""

    dtype: str
    nodata: float | None
    scale: float = 1.0
    offset: float = 0.0


def encoding(item: pystac.Item, key: str) -> Encoding:
    """Read an asset's encoding from ``raster:bands`` or STAC 1.1 ``bands``."""
    band = _band_fields(item, key)
    nodata = None if band.get("nodata") is None else float(band["nodata"])
    return Encoding(
        str(band.get("data_type", "")),
        # NaN is always a gap, and unequal to itself: it must not tell encodings apart
        None if nodata is None or math.isnan(nodata) else nodata,
        float(band.get("scale", 1.0)),
        float(band.get("offset", 0.0)),
    )


def _band_fields(item: pystac.Item, key: str) -> dict[str, str | float]:
    asset = item.assets[key]
    bands = asset.extra_fields.get("raster:bands") or asset.extra_fields.get("bands") or [{}]
    index = int(item.properties.get("minetrace:band", 1)) - 1
    if index >= len(bands):
        raise SourceError(
            f"item {item.id!r} points to band {index + 1} of asset {key!r}, which "
            f"describes {len(bands)}"
        )
    own = bands[index]
    return {
        name: own.get(name, own.get(f"raster:{name}", asset.extra_fields.get(f"raster:{name}", d)))
        for name, d in (("scale", 1.0), ("offset", 0.0))
    } | {
        name: own.get(name, asset.extra_fields.get(name))
        for name in ("data_type", "nodata")
        if own.get(name, asset.extra_fields.get(name)) is not None
    }


def native_grid(items: Sequence[pystac.Item], key: str) -> GeoBox:
    """Pixel lattice that the items share.

    Raises
    ------
    GridError
        An item carries no projection metadata, or the items lie on several lattices.
    """
    first: GeoBox | None = None
    for item in items:
        band = int(item.properties.get("minetrace:band", 1))
        parsed = odc.stac.parse_item(item)
        raster = parsed.bands.get((key, band)) or parsed.bands.get((key, 1))
        if raster is None or not isinstance(raster.geobox, GeoBox):
            raise GridError(
                f"item {item.id!r}, asset {key!r}, has no proj:shape, proj:transform "
                "and proj:code, so its grid is unknown; give the recipe crs and "
                "resolution"
            )
        if raster.geobox.crs is None:
            raise GridError(f"item {item.id!r} has no CRS (proj:code)")
        if first is None:
            first = raster.geobox
        elif not same_lattice(first, raster.geobox):
            raise GridError(
                f"item {item.id!r} lies on another pixel lattice than {items[0].id!r}; give "
                "imagery a crs and resolution, and land cover or lights one collection a lattice"
            )
    if first is None:
        raise GridError("no items, so no grid")
    return first


def site_grid(
    items: Sequence[pystac.Item],
    key: str,
    geometry: BaseGeometry,
    *,
    crs: str = "native",
    resolution: float | None = None,
    buffer_m: float = 0.0,
) -> GeoBox:
    """Grid of a cube: a window of the source's lattice, or a pixel-snapped grid of one's own."""
    if crs == "native":
        return crop_native(native_grid(items, key), geometry, buffer_m=buffer_m)
    if resolution is None:
        raise GridError(f"the recipe asks for crs {crs!r}: give it a resolution too")
    return site_geobox(geometry, crs=crs, resolution=resolution, buffer_m=buffer_m)


def load_layers(
    source: Source,
    items: Sequence[pystac.Item],
    keys: Sequence[str],
    geobox: GeoBox,
    *,
    groupby: str | Callable[..., int] = "time",
    chunks: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """Load assets lazily through odc-stac, one variable per asset key.

    Pixels are never interpolated: a mask then hides exactly the values it was made for. Every
    address is checked against the source's policy first. Items that share an asset with
    several bands (``minetrace:band``) are loaded band by band and put back in order of time.

    Returns
    -------
    Dataset
        Dask-backed ``(time, y, x)`` in the stored dtype, pixel-centre coordinates.
    """
    for item in items:
        for key in keys:
            source.check_href(item, key)
    by_band: dict[int, list[pystac.Item]] = {}
    for item in items:
        by_band.setdefault(int(item.properties.get("minetrace:band", 1)), []).append(item)
    spatial = {"y": CHUNK, "x": CHUNK, **(chunks or {})}
    spatial = {dim: size for dim, size in spatial.items() if dim in ("y", "x")}
    parts = []
    for band, group in by_band.items():
        names = {key: key if band == 1 else f"{key}.{band}" for key in keys}
        loaded = odc.stac.load(
            group,
            bands=list(names.values()),
            geobox=geobox,
            groupby=groupby,
            resampling="nearest",
            chunks=_dask_chunks(geobox, spatial),
        )  # fmt: skip
        parts.append(
            xr.Dataset(
                {k: (("time", "y", "x"), loaded[n].data) for k, n in names.items()},
                coords={"time": loaded.time.values.astype("datetime64[ns]")},
            )
        )
    joined = parts[0] if len(parts) == 1 else xr.concat(parts, "time").sortby("time")
    return joined.assign_coords(grid_coords(geobox))


def _dask_chunks(geobox: GeoBox, spatial: Mapping[str, int]) -> dict[str, int]:
    names = geobox.dimensions
    return {names[0]: spatial["y"], names[1]: spatial["x"]}


def grid_coords(geobox: GeoBox) -> dict[str, xr.DataArray]:
    """Pixel-centre ``y`` and ``x`` and the CF ``spatial_ref`` of a grid."""
    return {str(k): v for k, v in xr_coords(geobox, dims=("y", "x")).items()}


def node_grid(node: xr.Dataset | xr.DataArray) -> GeoBox:
    """Exact grid of a cube's node.

    The coordinates give it to rounding only; the transform kept with ``spatial_ref`` is exact.
    """
    crs = node.odc.geobox.crs
    transform = Affine.from_gdal(*map(float, node.spatial_ref.attrs["GeoTransform"].split()))
    return GeoBox((node.sizes["y"], node.sizes["x"]), transform, crs)


def crop_node(layer: xr.DataArray, geobox: GeoBox) -> xr.DataArray:
    """Part of a layer on a window of its own lattice, as if it had been opened there.

    Raises
    ------
    GridError
        The window is on another lattice, or reaches outside the layer.
    """
    grid = node_grid(layer)
    col, row = (round(v) for v in grid.wld2pix(geobox.affine.c, geobox.affine.f))
    ny, nx = geobox.shape
    inside = row >= 0 and col >= 0 and row + ny <= grid.shape[0] and col + nx <= grid.shape[1]
    if not inside or not same_lattice(grid, geobox):
        raise GridError("the window is no part of this layer's grid")
    part = layer.isel(y=slice(row, row + ny), x=slice(col, col + nx))
    return part.assign_coords(grid_coords(geobox))


def physical(block: da.Array, code: Encoding) -> da.Array:
    """Stored values → float32 physical values, NaN where nodata."""
    return block.map_blocks(_physical, code, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))


def _physical(block: np.ndarray, code: Encoding) -> np.ndarray:
    # float64 inside: a uint16 count times a decimal scale is not exact in float32
    out = (block * np.float64(code.scale) + np.float64(code.offset)).astype(np.float32)
    if code.nodata is not None:
        out[block == code.nodata] = np.nan
    return out

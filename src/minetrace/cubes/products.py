"""The nodes of a cube: land cover, annual imagery composites, annual night lights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import dask.array as da
import numpy as np
import pystac
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from minetrace.catalog import Source, item_time
from minetrace.catalog.search import footprint
from minetrace.cubes.layers import (
    Encoding,
    encoding,
    grid_coords,
    load_layers,
    physical,
    site_grid,
)
from minetrace.errors import ReadError, SourceError
from minetrace.kernels.composite import median_composite
from minetrace.kernels.stacks import gaps
from minetrace.schema import (
    NODES,
    ImageryRecipe,
    Legend,
    LightsRecipe,
    Recipe,
    Variable,
)

SCL_OUT: tuple[int, ...] = (0, 1, 3, 8, 9, 10, 11)
"""Sentinel-2 scene classes that are no clear view of the ground: no data, defective, cloud
shadow, cloud (medium, high), cirrus, snow. Dark (2) and unclassified (7) pixels stay: coal and
tailings fall there."""


def landcover_node(
    source: Source,
    items: Sequence[pystac.Item],
    geometry: BaseGeometry,
    recipe: Recipe,
    legend: Legend,
    *,
    chunks: Mapping[str, int] | None,
) -> xr.Dataset:
    """Class codes on the source's own pixels; no data is 0, whatever the product uses."""
    key = source.asset_key("landcover")
    geobox = site_grid(items, key, geometry, buffer_m=recipe.buffer_m)
    _refuse_rivals(items)
    raw = load_layers(source, items, [key], geobox, groupby=_item_year, chunks=chunks)[key]
    gaps = {encoding(item, key).nodata for item in items} - {None}
    gaps |= set(map(float, legend.nodata_codes))
    codes = raw.chunk(time=-1).data.map_blocks(
        _class_codes, tuple(sorted(g for g in gaps if g is not None)), dtype=np.uint8,
        meta=np.empty((0, 0, 0), np.uint8),
    )  # fmt: skip
    var = NODES["landcover"]["landcover"]
    attrs = {
        **var.attrs,
        "legend": legend.name,
        "flag_values": np.array(legend.codes, np.uint8),
        "flag_meanings": " ".join(_flag(c.name) for c in legend.classes),
        "grid_mapping": "spatial_ref",
    }
    time = _january(raw.time.dt.year.values)
    return xr.Dataset(
        {var.name: (var.dims, codes, attrs)}, coords={"time": time, **grid_coords(geobox)}
    )


def _item_year(item: pystac.Item, parsed: object, index: int) -> int:
    return item_time(item).year


def _refuse_rivals(items: Sequence[pystac.Item]) -> None:
    """Tiles of a year may differ in date; two dates of one place cannot both be its land cover."""
    by_year: dict[int, list[pystac.Item]] = {}
    for item in items:
        by_year.setdefault(item_time(item).year, []).append(item)
    for year, group in by_year.items():
        for a, b in combinations(group, 2):
            if item_time(a) != item_time(b) and footprint(a).intersection(footprint(b)).area > 0:
                raise SourceError(
                    f"items {a.id!r} and {b.id!r} both give the land cover of {year} for one "
                    "place; keep one, or name a collection with one layer a year"
                )


def _class_codes(block: NDArray[np.generic], gaps: tuple[float, ...]) -> NDArray[np.uint8]:
    if block.dtype == np.uint8:
        table = np.arange(256, dtype=np.uint8)
        table[[int(g) for g in gaps if 0 <= g <= 255 and g == int(g)]] = 0
        coded: NDArray[np.uint8] = table[block]
        return coded
    gap = np.isin(block, gaps)
    seen = block[~gap].astype(np.float64)
    if seen.size and not (0 <= seen.min() <= seen.max() <= 254):
        worst = seen[np.argmax(np.abs(seen - 127))]
        raise ReadError(
            f"land cover holds the value {worst:g}; class codes are 0 to 254. Declare it as "
            "nodata in the item, or map the product to codes first"
        )
    out: NDArray[np.uint8] = np.where(gap, 0, block).astype(np.uint8)
    return out


def _flag(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def imagery_node(
    source: Source,
    items: Sequence[pystac.Item],
    geometry: BaseGeometry,
    recipe: Recipe,
    part: ImageryRecipe,
    *,
    chunks: Mapping[str, int] | None,
) -> xr.Dataset:
    """Annual median of clear surface reflectance, and how many clear views entered it."""
    keys = {band: source.asset_key(band) for band in part.bands}
    geobox = site_grid(
        items, keys[part.bands[0]], geometry, crs=part.crs, resolution=part.resolution,
        buffer_m=recipe.buffer_m,
    )  # fmt: skip
    scl = source.asset_key("scl") if part.mask == "scl" else None
    scenes = xr.concat(
        [
            _clear_scenes(source, group, keys, scl, geobox, chunks)
            for group in _same_encoding(items, list(keys.values()))
        ],
        "time",
    ).sortby("time")
    years = np.unique(scenes.time.dt.year.values)
    return _annual(
        [_median_year(scenes.isel(time=scenes.time.dt.year.values == y)) for y in years],
        years,
        {band: NODES["imagery"].get(band) or _extra_band(band) for band in part.bands}
        | {"n_obs": NODES["imagery"]["n_obs"]},
        grid_coords(geobox),
    )


def _same_encoding(items: Sequence[pystac.Item], keys: Sequence[str]) -> list[list[pystac.Item]]:
    groups: dict[tuple[Encoding, ...], list[pystac.Item]] = {}
    for item in items:
        codes = tuple(encoding(item, k) for k in keys if k in item.assets)
        for key, code in zip(keys, codes, strict=False):
            if code.nodata is None and not code.dtype.startswith("float"):
                raise SourceError(
                    f"item {item.id!r}, asset {key!r}, declares no nodata value, so "
                    "gaps cannot be told from dark ground; declare it in raster:bands"
                )
        groups.setdefault(codes, []).append(item)
    return list(groups.values())


def _clear_scenes(
    source: Source,
    items: Sequence[pystac.Item],
    keys: Mapping[str, str],
    scl: str | None,
    geobox: GeoBox,
    chunks: Mapping[str, int] | None,
) -> xr.Dataset:
    wanted = [*keys.values(), *([scl] if scl else [])]
    raw = load_layers(source, items, wanted, geobox, groupby="solar_day", chunks=chunks)
    bands = {b: physical(raw[k].data, encoding(items[0], k)) for b, k in keys.items()}
    if scl is not None:
        clear = ~da.isin(raw[scl].data, SCL_OUT)
        bands = {b: da.where(clear, block, np.float32(np.nan)) for b, block in bands.items()}
    return xr.Dataset(
        {b: (("time", "y", "x"), block) for b, block in bands.items()}, coords={"time": raw.time}
    )


def _median_year(scenes: xr.Dataset) -> dict[str, da.Array]:
    """One band's composite and count share a task, so a year's scenes are read once."""
    stack = da.stack([scenes[b].data for b in scenes.data_vars]).rechunk({0: -1, 1: -1})
    made = stack.map_blocks(
        _median_block, dtype=np.float32, drop_axis=1, meta=np.empty((0, 0, 0), np.float32),
        chunks=((stack.shape[0] + 1,), *stack.chunks[2:]),
    )  # fmt: skip
    out = {str(b): made[i] for i, b in enumerate(scenes.data_vars)}
    return out | {"n_obs": made[-1].astype(np.uint16)}


def _median_block(stack: NDArray[np.float32]) -> NDArray[np.float32]:
    """(band, time, y, x) → (band + 1, y, x): medians over clear views, then their number."""
    hidden = gaps(stack)
    out = np.empty((stack.shape[0] + 1, *stack.shape[2:]), np.float32)
    for i, band in enumerate(stack):
        out[i], out[-1] = median_composite(band, hidden=hidden)
    return out


def _extra_band(name: str) -> Variable:
    return Variable(name, "float32", "1", f"surface reflectance, {name}")


def lights_node(
    source: Source,
    items: Sequence[pystac.Item],
    geometry: BaseGeometry,
    recipe: Recipe,
    part: LightsRecipe,
    *,
    chunks: Mapping[str, int] | None,
) -> xr.Dataset:
    """Annual mean of the months with a cloud-free view, and their number; negatives stay."""
    key = source.asset_key(part.band)
    geobox = site_grid(items, key, geometry, buffer_m=recipe.buffer_m)
    parts = []
    for group in _same_encoding(items, [key]):
        raw = load_layers(source, group, [key], geobox, chunks=chunks)[key]
        parts.append(raw.copy(data=physical(raw.data, encoding(group[0], key))))
    months = xr.concat(parts, "time").sortby("time")
    years, layers = np.unique(months.time.dt.year.values, return_counts=True)
    if layers.max() > 12:
        raise SourceError(
            f"source {source.name!r} has {layers.max()} layers of lights in "
            f"{years[layers.argmax()]}; annual means are taken over months"
        )
    return _annual(
        [_mean_year(months.isel(time=months.time.dt.year.values == y).data) for y in years],
        years,
        dict(NODES["lights"]),
        grid_coords(geobox),
    )


def _mean_year(months: da.Array) -> dict[str, da.Array]:
    made = months.rechunk({0: -1}).map_blocks(
        _mean_block, dtype=np.float32, drop_axis=0, new_axis=0,
        chunks=((2,), *months.chunks[1:]), meta=np.empty((0, 0, 0), np.float32),
    )  # fmt: skip
    return {"ntl": made[0], "n_months": made[1].astype(np.uint8)}


def _mean_block(months: NDArray[np.float32]) -> NDArray[np.float32]:
    """(month, y, x) → mean over observed months, and their number."""
    seen = ~np.isnan(months)
    count = seen.sum(axis=0)
    total = np.where(seen, months, 0).sum(axis=0, dtype=np.float64)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return np.stack([mean, count]).astype(np.float32)


def _annual(
    parts: Sequence[Mapping[str, da.Array]],
    years: NDArray[np.integer],
    variables: Mapping[str, Variable],
    coords: Mapping[str, xr.DataArray],
) -> xr.Dataset:
    made = {
        name: (
            var.dims,
            da.stack([p[name] for p in parts]).rechunk({0: -1}),
            {**var.attrs, "grid_mapping": "spatial_ref"},
        )
        for name, var in variables.items()
    }
    return xr.Dataset(made, coords={"time": _january(years), **coords})


def _january(years: NDArray[np.integer]) -> NDArray[np.datetime64]:
    return np.array([f"{y}-01-01" for y in years], "datetime64[ns]")

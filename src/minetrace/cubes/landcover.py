"""Land cover: class codes of each year on the source's own pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pystac
import xarray as xr
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from minetrace.catalog import Source, item_time
from minetrace.catalog.search import footprint
from minetrace.cubes.lattice import grid_coords, site_grid
from minetrace.cubes.layers import Engine, load_layers
from minetrace.cubes.radiometry import encoding
from minetrace.cubes.years import january
from minetrace.errors import ReadError, SourceError
from minetrace.schema import NODES, Legend, Recipe


def landcover_node(
    source: Source,
    items: Sequence[pystac.Item],
    geometry: BaseGeometry,
    recipe: Recipe,
    legend: Legend,
    *,
    chunks: Mapping[str, int] | None,
    engine: Engine = "odc",
) -> xr.Dataset:
    """Class codes on the source's own pixels; no data is 0, whatever the product uses."""
    key = source.asset_key("landcover")
    geobox = site_grid(items, key, geometry, buffer_m=recipe.buffer_m)
    refuse_rivals(items)
    raw = load_layers(
        source, items, [key], geobox, groupby=_item_year, chunks=chunks, engine=engine
    )[key]
    codes = raw.chunk(time=-1).data.map_blocks(
        class_codes, code_gaps(source, items, legend), dtype=np.uint8,
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
    time = january(raw.time.dt.year.values)
    return xr.Dataset(
        {var.name: (var.dims, codes, attrs)}, coords={"time": time, **grid_coords(geobox)}
    )


def _item_year(item: pystac.Item, index: int) -> int:
    return item_time(item).year


def refuse_rivals(items: Sequence[pystac.Item]) -> None:
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


def code_gaps(source: Source, items: Sequence[pystac.Item], legend: Legend) -> tuple[float, ...]:
    """Stored values that are no data: what the items and what the legend say."""
    key = source.asset_key("landcover")
    marked = {encoding(source, item, key).nodata for item in items}
    return tuple(
        sorted({g for g in marked if g is not None} | set(map(float, legend.nodata_codes)))
    )


def class_codes(block: NDArray[np.generic], gaps: tuple[float, ...]) -> NDArray[np.uint8]:
    """Stored values as class codes, gaps as 0."""
    if block.dtype == np.uint8:
        # comparing is 10 times faster than looking up, and most layers have no gap
        coded: NDArray[np.uint8] = block.astype(np.uint8, copy=False)
        for code in (int(g) for g in gaps if 0 < g <= 255 and g == int(g)):
            gap = block == code
            if gap.any():
                coded = np.where(gap, np.uint8(0), coded)
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

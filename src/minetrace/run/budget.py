"""What a plan costs before anything is read: blocks, bytes, and memory at the peak."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np

from minetrace.catalog import Source
from minetrace.cubes.claims import claim, load_dtype
from minetrace.cubes.layers import band_of
from minetrace.cubes.windows import block_shape
from minetrace.errors import RunError, SourceError
from minetrace.run.blocks import Tile, site_rects, tiles_of
from minetrace.run.landcover import BATCH_BYTES
from minetrace.run.plan import CUBES, TRENDS, Unit
from minetrace.run.windows import count_blocks
from minetrace.schema import COVERS, ImageryRecipe, Kind, Recipe

PROCESS_BYTES = 700 * 2**20
"""A worker with its libraries, compiled kernels and GDAL's cache of blocks."""
_SCENES = 60
"""Scenes of a year, where they are known only when a unit asks for them."""
_METRES = 111_320.0
_TREND_BYTES = 160
"""Statistics of a pixel's trend, as computed and as written."""


@dataclass(frozen=True)
class Budget:
    """Cost of a plan."""

    n_sites: int
    n_units: Mapping[str, int]
    """Units by product; each is one task."""
    n_blocks: int
    """Blocks of files to decode, one layer each; 0 where the files are not known yet."""
    decoded_bytes: int
    stored_bytes: int
    """Bytes of these blocks in the files, of local files only."""
    product_bytes: Mapping[str, int]
    """Memory of the largest unit by product, beside that of its process."""
    units_at_once: int
    """Units that a process does at a time."""

    @property
    def unit_bytes(self) -> int:
        """Memory of the largest unit, beside that of its process."""
        return max(self.product_bytes.values(), default=0)

    @property
    def peak_bytes(self) -> int:
        """Memory of one process at the peak."""
        return PROCESS_BYTES + self.units_at_once * self.unit_bytes

    def require(self, memory: int | None) -> None:
        """Refuse a plan that needs more than ``memory`` bytes a process, or `RunError`."""
        if memory is None or self.peak_bytes <= memory:
            return
        room = (memory - PROCESS_BYTES) // max(self.unit_bytes, 1)
        mend = f"do {room} units at a time (workers={room})" if room >= 1 else "give more memory"
        raise RunError(
            f"the plan takes up to {size_text(self.peak_bytes)} in a process that does "
            f"{self.units_at_once} units at a time ({size_text(self.unit_bytes)} each); "
            f"{size_text(memory)} are allowed: {mend}"
        )


def budget(
    sites: gpd.GeoDataFrame,
    units: Sequence[Unit],
    recipe: Recipe,
    sources: Mapping[str, Source],
    *,
    units_at_once: int = 1,
) -> Budget:
    """Count what the units read, and how much memory the largest of them takes.

    Memory is an upper bound for land cover, whose windows are known. For imagery it follows from
    the window and the number of scenes of a year, at most 60 where the source is not at hand.
    """
    counts: dict[str, int] = {}
    for unit in units:
        counts[unit.product] = counts.get(unit.product, 0) + 1
    blocks = decoded = stored = 0
    largest: dict[str, int] = {}
    if "landcover" in counts and sources["landcover"].items:
        source = sources["landcover"]
        for tile in tiles_of(recipe, source):
            n, size, on_disk = _blocks_in(tile, sites, source)
            blocks, decoded, stored = blocks + n, decoded + size, stored + on_disk
    layers = _layers(recipe, sources)
    for unit in units:
        size = _unit_bytes(unit, recipe, layers)
        largest[unit.product] = max(largest.get(unit.product, 0), size)
    return Budget(len(sites), counts, blocks, decoded, stored, largest, units_at_once)


def size_text(size: float) -> str:
    """Bytes in words.

    Examples
    --------
    >>> size_text(1536), size_text(3 * 2**30)
    ('1.5 KiB', '3.0 GiB')
    """
    power = 0 if size < 1024 else min(int(math.log(size, 1024)), 4)
    return f"{size / 1024**power:,.1f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _blocks_in(tile: Tile, sites: gpd.GeoDataFrame, source: Source) -> tuple[int, int, int]:
    """Blocks of all layers of a tile that sites touch, their pixels' bytes, bytes in the files."""
    shape = block_shape(source, tile.items[0])
    west, south, east, north = tile.grid.geographic_extent.boundingbox.bbox
    near = sites.cx[west:east, south:north].geometry.to_numpy()
    rects, _ = site_rects(tile.grid, near)
    height, width = tile.grid.shape
    inside = (rects[:, 1] > 0) & (rects[:, 0] < height) & (rects[:, 3] > 0) & (rects[:, 2] < width)
    rects = np.clip(rects[inside], 0, [height, height, width, width])
    n = count_blocks(rects, shape)
    of_file = math.ceil(height / shape[0]) * math.ceil(width / shape[1])
    key, pixels, files = source.asset_key("landcover"), 0, set()
    for item in tile.items:
        try:
            code = claim(source, item, *band_of(source, item, key))
        except SourceError:
            continue
        pixels += n * shape[0] * shape[1] * load_dtype(source, code).itemsize
        files.add(code.href)
    on_disk = sum(os.path.getsize(f) for f in files if Path(f).is_file())
    return n * len(tile.items), pixels, round(on_disk * n / of_file)


def _layers(recipe: Recipe, sources: Mapping[str, Source]) -> dict[str, int]:
    """Layers of land cover at one place, and years of the others, at most."""
    span = recipe.years[1] - recipe.years[0] + 1
    layers = {"imagery": span, "landcover": span, "lights": span, "terrain": 1}
    source = sources.get("landcover")
    if source is not None and source.items:
        layers["landcover"] = max((len(t.items) for t in tiles_of(recipe, source)), default=span)
    return layers


def _unit_bytes(unit: Unit, recipe: Recipe, layers: Mapping[str, int]) -> int:
    west, south, east, north = unit.window.bounds
    across = (east - west) * math.cos(math.radians((south + north) / 2)) * _METRES
    sides = across, (north - south) * _METRES
    ground = math.prod(max(side + 2 * recipe.buffer_m, 1.0) for side in sides)
    if unit.product == "landcover":
        sums = 3 * 8 * len(unit.rows) * layers["landcover"] * (2 * len(Kind) + 4 * len(COVERS))
        # codes of a batch, the bands of a file that are read into it, and cells of the sites
        return 2 * BATCH_BYTES + sums + 64 * 2**20
    # a cube is written node by node
    read = [unit.source] if unit.source else [p for p in layers if getattr(recipe, p) is not None]
    return max(_layer_bytes(unit, recipe, source, layers[source], ground) for source in read)


def _layer_bytes(unit: Unit, recipe: Recipe, source: str, n_time: int, ground: float) -> int:
    """Memory that the layers of a product take on so many square metres."""
    part = getattr(recipe, source)
    resolution = getattr(part, "resolution", None) or _NATIVE_M[source]
    pixels = ground / resolution**2
    chunk = min(pixels, 1024.0**2)
    # what is written or tested block by block is never in memory as a whole
    held = chunk if unit.product in (CUBES, TRENDS) else pixels
    results = _TREND_BYTES * pixels if unit.product == TRENDS else 0
    if isinstance(part, ImageryRecipe):
        scenes = chunk * _SCENES * 3 * (len(part.bands) + 1)
        return int(scenes + held * n_time * 4 * (2 * len(part.bands) + 3) + results)
    return int(held * (n_time * 4 + 32) + results)


_NATIVE_M = {"landcover": 30.0, "imagery": 10.0, "lights": 460.0}
"""Pixel sides of the finest common products, for recipes that take them as they are."""

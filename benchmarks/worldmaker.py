"""A seeded world of mines with the statistics of the real one, over tiles like GLC_FCS30D's.

The real world is 74,726 polygons of 82,552 km² (mean 1.105 km²); their file is not at hand. What
was measured instead, on public polygons and points: areas and vertices on 100 polygons spread over
the tropics (Maus 2022 with Tang and Werner 2023), clumping on 227 polygons of Chile (Maus 2020),
5,444 of the Amazon (Amazon Mining Watch 2018) and 685 of Ghana (Earth Genome 2024), spread over
the tiles on 16,508 mines of four registers (ICMM, GEM coal, GEM iron, Jasansky). `REAL` holds the
figures, `describe` those of a made world. Areas are log-normal with a standard deviation of 1.87 of
the logarithm, which with the mean fixes the median at 0.19 km². Sites come in districts whose sizes
are heavy-tailed, and a tenth of the tiles holds two thirds of them. Half of the real sites have a
neighbour within 2 km, in regions known for their mines; half of the made ones within 3 km. Chile
has 0.69 blocks of 512 pixels per site, the Amazon and Ghana, where outlines were traced on patches,
0.26 and 0.17; the made world has 0.45.

Land cover comes in patches whose size varies from block to block. Deflated, 512 × 512 pixels took
1.5 kB on average in a real 30 m product over a mining district (MapBiomas 8, Lourenço, nearly all
of it forest) and would take 65 kB at the rate of a fragmented 100 m product (CGLS LC100,
Hispaniola); made blocks take 10 to 38 kB, 18 on average. In the former product 0.12 % of all pixels
and 2.9 % of those ever mined change class each year; here 0.2 % do outside the sites and 1 %
within.

Only blocks that the window of a site touches are written: others are absent and read as 0.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.windows import Window
from scipy.spatial import cKDTree
from scipy.special import ndtri

import minetrace
from minetrace.panel import read_geoparquet, write_geoparquet
from minetrace.sites.outline import geodesic_area_km2

WORLD = 74_726
"""Polygons of the real world."""
MEAN_KM2 = 82_552 / WORLD
SD_LOG_AREA = 1.87
_MAKER = 1
"""To be raised with any change of what is made, for kept worlds to be made anew."""
LARGEST_KM2 = 1500.0
LAYERS = (1985, 1990, 1995, *range(2000, 2023))
FILES = {"GLC_FCS30D_19851995_{}_5years_V1.1.tif": 3, "GLC_FCS30D_20002022_{}_Annual_V1.1.tif": 23}
"""Bands of each file of a tile."""

REAL: dict[str, dict[str, float]] = {
    "tropics": {"sites": 100, "mean_km2": 1.42, "median_km2": 0.227, "sd_log_area": 1.87,
                "median_vertices": 26, "p95_vertices": 161, "median_fill": 0.59},
    "Chile": {"sites": 227, "mean_km2": 16.57, "median_km2": 0.362, "sd_log_area": 2.49,
              "median_vertices": 27, "p95_vertices": 109, "median_fill": 0.55,
              "median_nearest_km": 1.89, "neighbours_5_km": 3.0, "neighbours_20_km": 6.7,
              "blocks_touched_per_site": 1.48, "sites_per_block": 2.15, "blocks_per_site": 0.69},
    "Amazon": {"sites": 5444, "mean_km2": 1.77, "median_km2": 0.640, "sd_log_area": 0.98,
               "median_vertices": 7, "p95_vertices": 39, "median_fill": 0.89,
               "median_nearest_km": 2.10, "neighbours_5_km": 3.5, "neighbours_20_km": 30.5,
               "blocks_touched_per_site": 1.19, "sites_per_block": 4.65, "blocks_per_site": 0.26},
    "Ghana": {"sites": 685, "mean_km2": 1.78, "median_km2": 0.541, "sd_log_area": 0.91,
              "median_vertices": 13, "p95_vertices": 66, "median_fill": 0.92,
              "median_nearest_km": 1.88, "neighbours_5_km": 4.2, "neighbours_20_km": 40.6,
              "blocks_touched_per_site": 1.17, "sites_per_block": 6.72, "blocks_per_site": 0.17},
    "registers": {"sites": 16_508, "tiles": 528, "share_in_top_tenth": 0.65},
    "published": {"sites": WORLD, "mean_km2": 1.105, "area_km2": 82_552},
}  # fmt: skip
"""Measured on real polygons and mines; the last entry is what the literature states."""

_ROW_TILES = (4, 7, 7, 14, 17, 20, 19, 16, 22, 19, 14, 19, 19, 17, 25, 25, 27, 39, 41, 40, 35, 28,
              29, 17)  # fmt: skip
_ROW_MINES = (2, 6, 6, 30, 54, 43, 39, 26, 21, 49, 17, 18, 15, 19, 50, 41, 55, 257, 113, 61, 48, 14,
              9, 6)  # fmt: skip
"""Rows of 5° from 50° S: tiles with mines, and mines among a thousand (ICMM)."""
_SD_LOG_TILE = 1.3
_DISTRICT_TAIL, _DISTRICT_MOST = 1.1, 60
_SPREAD_KM, _SD_LOG_SPREAD = 4.0, 0.8
_KM_PER_DEGREE = 111.2
_HOLED, _SPLIT = 0.02, 0.01


def make_sites(n: int = WORLD, seed: int = 0) -> gpd.GeoDataFrame:
    """Sites of a world of ``n`` mines: fewer mines are fewer districts, each as dense as ever.

    Areas are the quantiles of their distribution in random order, so the mean does not hang on
    the few giants that a seed happens to draw.
    """
    rng = np.random.default_rng([seed, 0])
    area = _areas(n, rng)
    outlines = _outlines(area, rng)
    lon, lat = _places(area, shapely.bounds(outlines), rng)
    east = _KM_PER_DEGREE * np.cos(np.radians(lat))
    counts = shapely.get_num_coordinates(outlines)
    origin = np.repeat(np.column_stack([lon, lat]), counts, axis=0)
    scale = np.repeat(np.column_stack([east, np.full(n, _KM_PER_DEGREE)]), counts, axis=0)
    placed = shapely.set_coordinates(outlines, shapely.get_coordinates(outlines) / scale + origin)
    geometry = gpd.GeoSeries(placed, crs="EPSG:4326")
    return gpd.GeoDataFrame(
        {
            "site_id": [f"w{i:05d}" for i in range(n)],
            "area_km2": geodesic_area_km2(geometry).astype("float64"),
            "source": "world",
            "country": pd.array([None] * n, dtype="str"),
        },
        geometry=geometry,
    )


def _areas(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    score = ndtri((np.arange(n) + 0.5) / n)
    area = np.exp(SD_LOG_AREA * score - SD_LOG_AREA**2 / 2).clip(0.0015, LARGEST_KM2)
    return rng.permutation(area * MEAN_KM2 / area.mean())


def _outlines(area: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.object_]:
    """Star-shaped outlines of these areas in km around the origin, some with a hole or two parts.

    Vertices grow with the area as they do in the tropics, by a power of 0.17.
    """
    n = len(area)
    count = np.exp(rng.normal(3.55 + 0.17 * np.log(area), 0.79)).clip(6, 700).astype(int)
    site = np.repeat(np.arange(n), count)
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    angle = 2 * np.pi * (step + rng.uniform(-0.35, 0.35, site.size)) / count[site]
    swell = rng.normal(0, 0.06, site.size)
    for wave in range(1, 7):
        height, phase = rng.normal(0, 0.3 / wave**0.7, n), rng.uniform(0, 2 * np.pi, n)
        swell += height[site] * np.cos(wave * angle + phase[site])
    stretch = np.exp(rng.normal(0, 0.35, n))[site]
    x, y = np.exp(swell) * np.cos(angle) * stretch, np.exp(swell) * np.sin(angle) / stretch
    turn = rng.uniform(0, np.pi, n)[site]
    ring = np.column_stack(
        [x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)]
    )
    whole = shapely.polygons(shapely.linearrings(ring, indices=site))
    kind = rng.random(n)
    for i in np.flatnonzero((kind < _HOLED) & (area > 0.05)):
        inner = shapely.transform(whole[i].exterior, lambda p: p * 0.4)
        whole[i] = shapely.polygons(whole[i].exterior, [inner])
    for i in np.flatnonzero(kind > 1 - _SPLIT):
        reach = 2 * np.abs(shapely.bounds(whole[i])).max()
        part = shapely.transform(whole[i], lambda p, away=reach: p * 0.5 + (away, 0))
        whole[i] = shapely.multipolygons([whole[i], part])
    factor = np.repeat(np.sqrt(area / shapely.area(whole)), shapely.get_num_coordinates(whole))
    return shapely.set_coordinates(whole, shapely.get_coordinates(whole) * factor[:, None])


def _places(
    area: NDArray[np.float64], extent: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitude and latitude: districts in tiles, sites around the middle of their district.

    Of two sites whose boxes meet the smaller one moves, for real polygons do not overlap.
    """
    n = len(area)
    district = _districts(n, rng)
    middle = _middles(district.max() + 1, rng)[district]
    lon, lat = np.empty(n), np.empty(n)
    moving = np.arange(n)
    for widening in 1.25 ** np.arange(12):
        away = _SPREAD_KM * widening * np.exp(rng.normal(0, _SD_LOG_SPREAD, moving.size))
        course = rng.uniform(0, 2 * np.pi, moving.size)
        lat[moving] = middle[moving, 1] + away * np.sin(course) / _KM_PER_DEGREE
        east = _KM_PER_DEGREE * np.cos(np.radians(lat[moving]))
        lon[moving] = middle[moving, 0] + away * np.cos(course) / east
        scale = np.column_stack([_KM_PER_DEGREE * np.cos(np.radians(lat)), [_KM_PER_DEGREE] * n])
        place = np.column_stack([lon, lat])
        boxes = shapely.box(*(extent[:, :2] / scale + place).T, *(extent[:, 2:] / scale + place).T)
        a, b = shapely.STRtree(boxes).query(boxes)
        moving = np.unique(a[(area[a] < area[b]) | ((area[a] == area[b]) & (a > b))])
        if not moving.size:
            break
    return lon, lat


def _districts(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """District of every site; the number of sites in one is heavy-tailed, most often one."""
    size = np.minimum((1 - rng.random(n)) ** (-1 / _DISTRICT_TAIL), _DISTRICT_MOST).astype(int)
    return np.repeat(np.arange(n), size)[:n]


def _middles(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Middles of districts, at random within tiles of uneven weight."""
    row = np.repeat(np.arange(len(_ROW_TILES)), _ROW_TILES)
    west = np.concatenate([rng.permutation(np.arange(-175, 175, 5))[:k] for k in _ROW_TILES])
    mines = np.array(_ROW_MINES) / np.array(_ROW_TILES)
    weight = mines[row] * np.exp(rng.normal(0, _SD_LOG_TILE, row.size))
    tile = rng.choice(row.size, n, p=weight / weight.sum())
    south = -50 + 5 * row
    return np.column_stack([west[tile], south[tile]]) + rng.uniform(0, 5, (n, 2))


@dataclass(frozen=True)
class Lattice:
    """Pixels, blocks and tiles of the product; smaller ones make a test quick."""

    degrees: int = 5
    pixel: float = 0.00026949458523585647
    block: int = 512

    @property
    def side(self) -> int:
        """Pixels along a tile: 18,554, a pixel more than 5° so that neighbours leave no gap."""
        return math.ceil(self.degrees / self.pixel)


@dataclass(frozen=True, order=True)
class Tile:
    """A tile by the degrees of its north-west corner."""

    west: int
    north: int

    @property
    def name(self) -> str:
        """As in the product's file names, E110N25."""
        return (
            f"{'W' if self.west < 0 else 'E'}{abs(self.west)}"
            f"{'S' if self.north < 0 else 'N'}{abs(self.north)}"
        )

    def corner(self, lattice: Lattice) -> tuple[int, int]:
        """Row and column of the first pixel in the lattice of all tiles, which share one."""
        return math.floor(-self.north / lattice.pixel), math.floor(self.west / lattice.pixel)

    def transform(self, lattice: Lattice, row: int = 0, col: int = 0) -> Affine:
        """From pixels of the tile, or of a part that starts at a pixel, to degrees."""
        top, left = self.corner(lattice)
        size = lattice.pixel
        return Affine(size, 0, (left + col) * size, 0, -size, -(top + row) * size)


Blocks = dict[Tile, dict[tuple[int, int], list[int]]]


def touched_blocks(sites: gpd.GeoDataFrame, lattice: Lattice) -> Blocks:
    """Blocks under the windows of the sites, with the positions of those sites in the frame."""
    blocks: Blocks = {}
    for i, bounds in enumerate(shapely.bounds(sites.geometry.values)):
        for tile, row, col in _blocks_of(bounds, lattice):
            blocks.setdefault(tile, {}).setdefault((row, col), []).append(i)
    return blocks


def _blocks_of(bounds: Sequence[float], lattice: Lattice) -> Iterator[tuple[Tile, int, int]]:
    left, bottom, right, top = (v / lattice.pixel for v in bounds)
    step = lattice.degrees
    for x in range(math.floor(bounds[0] / step), math.floor(bounds[2] / step) + 1):
        for y in range(math.floor(bounds[1] / step), math.floor(bounds[3] / step) + 1):
            tile = Tile(x * step, (y + 1) * step)
            row, col = tile.corner(lattice)
            rows = _block_span(math.floor(-top) - row, math.ceil(-bottom) - row, lattice)
            cols = _block_span(math.floor(left) - col, math.ceil(right) - col, lattice)
            yield from ((tile, r, c) for r in rows for c in cols)


def _block_span(first: int, stop: int, lattice: Lattice) -> range:
    last = min(stop, lattice.side) - 1
    return range(max(first, 0) // lattice.block, last // lattice.block + 1)


def sample_tiles(
    sites: gpd.GeoDataFrame, n: int, seed: int, lattice: Lattice | None = None
) -> gpd.GeoDataFrame:
    """``n`` sites of whole tiles, a simple random sample of the tiles that hold any.

    The last tile is cut along rows of blocks, so that districts stay whole.
    """
    cells = _cells(sites, lattice or Lattice())
    names, number = np.unique(cells[:, :2], axis=0, return_inverse=True)
    place = np.random.default_rng([seed, 1]).permutation(len(names))[number.ravel()]
    order = np.lexsort([cells[:, 3], cells[:, 2], place])
    return sites.iloc[order[:n]].reset_index(drop=True)


def nested_tiles(
    sites: gpd.GeoDataFrame, n: int, seed: int = 0, lattice: Lattice | None = None
) -> gpd.GeoDataFrame:
    """About ``n`` sites of whole tiles, as many to a tile and to a block as there are in all.

    Tiles differ so much that few of them are seldom like the whole: of many random choices the
    nearest one is taken.
    """
    lattice = lattice or Lattice()
    cells = _cells(sites, lattice)
    names, tile = np.unique(cells[:, :2], axis=0, return_inverse=True)
    tile = tile.ravel()
    per_tile = np.bincount(tile)
    # a block on the edge of a tile counts for the tile of its site
    pairs = {
        (tile[i], *place)
        for places in touched_blocks(sites, lattice).values()
        for place, rows in places.items()
        for i in rows
    }
    blocks = np.bincount([k for k, *_ in pairs], minlength=len(names))
    k = max(1, round(len(names) * n / len(sites)))
    rng = np.random.default_rng([seed, 6])

    def distance(chosen: NDArray[np.int64]) -> float:
        held = per_tile[chosen].sum()
        crowding = blocks[chosen].sum() / held * len(sites) / blocks.sum()
        return float(abs(np.log(held / n)) + 3 * abs(np.log(crowding)))

    choices = (rng.permutation(len(names))[:k] for _ in range(4000))
    return sites[np.isin(tile, min(choices, key=distance))].reset_index(drop=True)


def _cells(sites: gpd.GeoDataFrame, lattice: Lattice) -> NDArray[np.int64]:
    """Tile, and row and column of the 4 × 4 blocks in it, that hold the middle of each site."""
    west, south, east, north = shapely.bounds(sites.geometry.values).T
    x, y = (west + east) / 2, (south + north) / 2
    left = np.floor(x / lattice.degrees) * lattice.degrees
    top = np.floor(y / lattice.degrees + 1) * lattice.degrees
    size = 4 * lattice.block * lattice.pixel
    return np.column_stack([left, top, (top - y) // size, (x - left) // size]).astype(int)


def describe(sites: gpd.GeoDataFrame, lattice: Lattice | None = None) -> dict[str, float]:
    """The statistics of `REAL` for made sites."""
    lattice = lattice or Lattice()
    area, shapes = sites["area_km2"].to_numpy(), sites.geometry.values
    west, south, east, north = shapely.bounds(shapes).T
    x, y = np.radians((west + east) / 2), np.radians((south + north) / 2)
    ball = 6371 * np.column_stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)])
    tree = cKDTree(ball)
    vertices = shapely.get_num_coordinates(shapes)
    blocks = touched_blocks(sites, lattice)
    n_block = sum(map(len, blocks.values()))
    touches = sum(len(rows) for tile in blocks.values() for rows in tile.values())
    tile = np.floor(np.degrees(np.column_stack([x, y])) / lattice.degrees)
    per_tile = np.sort(np.unique(tile, axis=0, return_counts=True)[1])[::-1]
    n = len(sites)
    return {
        "sites": n, "area_km2": area.sum(), "mean_km2": area.mean(),
        "median_km2": float(np.median(area)), "sd_log_area": np.log(area).std(),
        "over_100_km2": int((area > 100).sum()), "largest_km2": area.max(),
        "median_vertices": float(np.median(vertices)),
        "p95_vertices": float(np.quantile(vertices, 0.95)),
        "median_fill": float(np.median(shapely.area(shapes) / ((east - west) * (north - south)))),
        "median_nearest_km": float(np.median(tree.query(ball, k=2)[0][:, 1])),
        "neighbours_5_km": tree.count_neighbors(tree, 5) / n - 1,
        "neighbours_20_km": tree.count_neighbors(tree, 20) / n - 1,
        "blocks": n_block, "blocks_touched_per_site": touches / n,
        "sites_per_block": touches / n_block, "blocks_per_site": n_block / n,
        "tiles": len(per_tile),
        "share_in_top_tenth": per_tile[: max(1, len(per_tile) // 10)].sum() / n,
    }  # fmt: skip


_BIOMES = (
    (52, 51, 62, 130, 10, 122),
    (10, 20, 130, 11, 62, 190),
    (150, 152, 201, 130, 153, 200),
    (72, 71, 92, 122, 130, 140),
    (62, 61, 10, 121, 130, 12),
)
_PITS, _GREENS = (200, 202, 201, 190, 210), (130, 122, 150, 62)
_NEVER = len(LAYERS)


def make_tiles(
    folder: Path, sites: gpd.GeoDataFrame, seed: int = 0, *, lattice: Lattice | None = None,
    interleave: str = "band", workers: int = 2,
) -> list[Path]:  # fmt: skip
    """Write the blocks that the sites touch, two files a tile; the paths of all files."""
    lattice = lattice or Lattice()
    blocks = touched_blocks(sites, lattice)
    # the fullest tiles first, for the last ones to fill both processes
    order = sorted(blocks, key=lambda tile: (-len(blocks[tile]), tile))
    folder.mkdir(parents=True, exist_ok=True)
    work = []
    for tile in order:
        rows = sorted({i for found in blocks[tile].values() for i in found})
        part = [sorted(blocks[tile]), sites.iloc[rows][["site_id", "area_km2", "geometry"]]]
        work.append((folder, tile, *part, seed, lattice, interleave))
    if workers == 1:
        written = [_write_tile(job) for job in work]
    else:
        # a fork would copy the threads of whatever runs beside
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            written = list(pool.map(_write_tile, work))
    return sorted(path for paths in written for path in paths)


Job = tuple[Path, Tile, list[tuple[int, int]], gpd.GeoDataFrame, int, Lattice, str]


def _write_tile(job: Job) -> list[Path]:
    folder, tile, blocks, sites, seed, lattice, interleave = job
    profile = {
        "driver": "GTiff", "width": lattice.side, "height": lattice.side, "dtype": "uint8",
        "crs": "EPSG:4326", "transform": tile.transform(lattice), "tiled": True,
        "blockxsize": lattice.block, "blockysize": lattice.block, "compress": "deflate",
        "interleave": interleave, "sparse_ok": True,
    }  # fmt: skip
    paths = [folder / pattern.format(tile.name) for pattern in FILES]
    with rasterio.Env(GDAL_CACHEMAX=64):
        outs = [
            rasterio.open(path, "w", count=count, **profile)
            for path, count in zip(paths, FILES.values(), strict=True)
        ]
        for row, col in blocks:
            window = block_window(row, col, lattice)
            codes = block_codes(tile, window, sites, seed, lattice)
            first = 0
            for out in outs:
                out.write(codes[first : first + out.count], window=window)
                first += out.count
        for out in outs:
            out.close()
    return paths


def block_window(row: int, col: int, lattice: Lattice) -> Window:
    top, left = row * lattice.block, col * lattice.block
    height, width = (min(lattice.block, lattice.side - start) for start in (top, left))
    return Window(left, top, width, height)


def block_codes(
    tile: Tile, window: Window, sites: gpd.GeoDataFrame, seed: int, lattice: Lattice
) -> NDArray[np.uint8]:
    """Class codes ``(layer, y, x)`` of one block."""
    # the lattice starts beyond the north-west of the world, for seeds are not negative
    place = [tile.west + 360, 180 - tile.north, window.row_off, window.col_off]
    rng = np.random.default_rng([seed, 2, *place])
    home = np.random.default_rng([seed, 3, *place[:2]])
    palette = np.array(_BIOMES[home.integers(len(_BIOMES))], np.uint8)
    shape = window.height, window.width
    codes, other, turned = _background(palette, shape, rng)
    transform = tile.transform(lattice, window.row_off, window.col_off)
    dug, green, pit, planted = _mines(sites, transform, shape, seed, rng)
    layers = np.repeat(codes[None], len(LAYERS), axis=0)
    busy = np.flatnonzero((turned < _NEVER) | (dug < _NEVER))
    number = np.arange(len(LAYERS), dtype=np.int8)[:, None]
    turned, dug, green, other, codes, pit, planted = (
        a.ravel()[busy] for a in (turned, dug, green, other, codes, pit, planted)
    )
    now = np.where(number >= turned, other, codes)
    now = np.where(number >= dug, pit, now)
    layers.reshape(len(LAYERS), -1)[:, busy] = np.where(number >= green, planted, now)
    return layers


def _background(
    palette: NDArray[np.uint8], shape: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int8]]:
    """Classes in patches, the classes that follow, and the layer from which they do."""
    fine = rng.lognormal(-1.4, 1.0)
    relief = _noise(shape, 150, rng) + 0.6 * _noise(shape, 40, rng)
    relief += fine * (_noise(shape, 12, rng) + 0.5 * _noise(shape, 5, rng))
    levels = np.array([-1.3, -0.5, 0.5, 1.2, 1.9]) * math.sqrt(1.36 + 1.25 * fine**2) / 1.3
    kind = np.searchsorted(levels.astype(np.float32), relief)
    patch = _noise(shape, 14, rng)
    moment = (_NEVER / 2 + _NEVER / 3 * _noise(shape, 60, rng)).clip(1, _NEVER - 1)
    turned = np.where(patch > 1.7, moment, _NEVER).astype(np.int8)
    return palette[kind], palette[(kind + 1) % len(palette)], turned


def _mines(
    sites: gpd.GeoDataFrame, transform: Affine, shape: tuple[int, int], seed: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.uint8], NDArray[np.uint8]]:  # fmt: skip
    """Layer in which ground is dug, that of its greening, and the classes that these bring.

    Pits grow outwards from the middle of their site and green again in the same order; what a
    site does hangs on its own number, so that blocks agree.
    """
    west, north = transform.c, transform.f
    bounds = shapely.bounds(sites.geometry.values)
    east, south = west + shape[1] * transform.a, north + shape[0] * transform.e
    near = (bounds[:, 0] < east) & (bounds[:, 2] > west)
    near &= (bounds[:, 1] < north) & (bounds[:, 3] > south)
    found, bounds = sites[near], bounds[near]
    label = rasterize(
        zip(found.geometry, range(1, len(found) + 1), strict=True), shape, transform=transform,
        dtype="int16",
    )  # fmt: skip
    rough = 0.3 * _noise(shape, 18, rng)
    dug, green = np.full(shape, _NEVER, np.int8), np.full(shape, _NEVER, np.int8)
    pit, planted = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    years = np.array(LAYERS)
    for i, site_id in enumerate(found["site_id"]):
        y, x = np.nonzero(label == i + 1)
        own = np.random.default_rng([seed, 4, int(site_id[1:])])
        start, span = own.uniform(1930, 2015), own.uniform(80, 320)
        lag = own.uniform(8, 30) if own.random() < 0.35 else 200
        dx = west + (x + 0.5) * transform.a - bounds[i, [0, 2]].mean()
        dy = north + (y + 0.5) * transform.e - bounds[i, [1, 3]].mean()
        reach = np.hypot(*(bounds[i, 2:] - bounds[i, :2])) / 2
        moment = start + span * (np.hypot(dx, dy) / reach + rough[y, x]).clip(0)
        dug[y, x] = np.searchsorted(years, moment)
        green[y, x] = np.searchsorted(years, moment + lag)
        pit[y, x], planted[y, x] = own.choice(_PITS), own.choice(_GREENS)
    return dug, green, pit, planted


def _noise(shape: tuple[int, int], period: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth field of about unit variance that varies over ``period`` pixels."""
    (top, down), (left, right) = _knots(shape[0], period), _knots(shape[1], period)
    knots = rng.standard_normal((top[-1] + 2, left[-1] + 2), np.float32)
    # not by matrices: the threads of their library fight over the cores with those of the pool
    rows = knots[top] * down[0][:, None] + knots[top + 1] * down[1][:, None]
    columns = rows.T
    return np.ascontiguousarray(
        (columns[left] * right[0][:, None] + columns[left + 1] * right[1][:, None]).T
    )


@cache
def _knots(n: int, period: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Knot before each pixel, and the weights of that and the next, which keep the variance."""
    at = np.arange(n) / period
    low = at.astype(int)
    weights = np.stack([1 - at + low, at - low])
    return low, (weights / np.hypot(*weights)).astype(np.float32)


@dataclass(frozen=True)
class World:
    """A sample of a world on disk."""

    folder: Path
    sites: gpd.GeoDataFrame
    lattice: Lattice
    whole: dict[str, float]
    """Statistics of the world that the sites are a sample of."""

    @property
    def recipe(self) -> Path:
        """Recipe of the land cover."""
        return self.folder / "recipe.toml"

    @property
    def sites_file(self) -> Path:
        """The sites as GeoParquet."""
        return self.folder / "sites.parquet"

    def file(self, tile: Tile, pattern: str) -> Path:
        """One of the files of a tile, by a key of `FILES`."""
        return self.folder / "tiles" / pattern.format(tile.name)


def make_world(
    folder: str | Path, n: int, seed: int = 0, *, lattice: Lattice | None = None,
    interleave: str = "band", world: int = WORLD, workers: int = 2, check_codes: bool = False,
) -> World:  # fmt: skip
    """Tiles, catalogue and recipe of ``n`` sites; an equal world that is there already is kept.

    ``check_codes`` reads every pixel of every tile to compare it with the legend, as a build does
    by default: minutes a tile, absent blocks included.
    """
    lattice, folder = lattice or Lattice(), Path(folder).resolve()
    chosen = {"maker": _MAKER, "sites": n, "world": world, "seed": seed, "interleave": interleave}
    settings = json.dumps({**chosen, **asdict(lattice)})
    marker = folder / "world.json"
    if not marker.is_file() or marker.read_text() != settings:
        _clear(folder, marker)
        mines = make_sites(world, seed)
        sites = sample_tiles(mines, n, seed, lattice)
        files = make_tiles(
            folder / "tiles", sites, seed, lattice=lattice, interleave=interleave, workers=workers
        )
        profile = "glc_fcs30d" if check_codes else _unchecked_profile(folder / "profile.toml")
        _write_inputs(folder, sites, files, profile)
        folder.joinpath("whole.json").write_text(json.dumps(describe(mines, lattice)))
        # last, for a world half made to be made again
        marker.write_text(settings)
    sites = read_geoparquet(folder / "sites.parquet")
    return World(folder, sites, lattice, json.loads(folder.joinpath("whole.json").read_text()))


def part_of(world: World, n: int, seed: int = 0) -> World:
    """About ``n`` sites of a world with a catalogue of their tiles alone, as a user has it."""
    sites = nested_tiles(world.sites, n, seed, world.lattice)
    folder = world.folder / f"part-{n}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    folder.joinpath("tiles").symlink_to(world.folder / "tiles")
    tiles = touched_blocks(sites, world.lattice)
    files = [world.file(tile, pattern) for tile in tiles for pattern in FILES]
    _write_inputs(folder, sites, files, _unchecked_profile(folder / "profile.toml"))
    return World(folder, sites, world.lattice, world.whole)


def _write_inputs(
    folder: Path, sites: gpd.GeoDataFrame, files: Sequence[Path], profile: str | Path
) -> None:
    minetrace.build_catalog(files, folder / "catalog", profile=profile, link=True)
    write_geoparquet(sites, folder / "sites.parquet")
    folder.joinpath("recipe.toml").write_text(_RECIPE)


_RECIPE = """\
name = "world"
years = [1985, 2022]

[landcover]
source = "catalog/source.toml"
legend = "glc_fcs30d"

[status]
years = [2000, 2022]
"""


def _clear(folder: Path, marker: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not marker.is_file():
        known = {"tiles", "catalog", "profile.toml"}
        if {path.name for path in folder.iterdir()} - known:
            raise SystemExit(f"{folder} holds other files; give a new or an empty folder")
    shutil.rmtree(folder, ignore_errors=True)


def _unchecked_profile(path: Path) -> Path:
    """The shipped profile without its legend: names, bands and times stay checked."""
    shipped = Path(__file__).parents[1] / "catalogs" / "glc_fcs30d.toml"
    lines = [k for k in shipped.read_text().splitlines() if not k.startswith("legend")]
    path.write_text("\n".join(lines) + "\n")
    return path

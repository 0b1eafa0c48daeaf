"""The three simulated products as arrays: land cover, optical scenes, monthly night lights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy.ndimage import gaussian_filter

from minetrace.simulate.ground import Ground, paint, relief
from minetrace.simulate.plane import Field, pixel_centres
from minetrace.simulate.scenario import BARE_NDVI, LAKE_NDVI, Mine, green_ndvi

LAYERS: tuple[int, ...] = (1985, 1990, 1995, *range(2000, 2023))
"""Layers of GLC_FCS30D."""
IMAGERY_YEARS = range(2018, 2023)
LIGHTS_YEARS = range(2013, 2023)

BANDS = ("blue", "green", "red", "nir")
SCALE = 0.0001
BASELINE_0400 = datetime(2022, 1, 25, tzinfo=UTC)
"""From here on reflectance is stored with 1000 added, as Sentinel-2 does."""

Flags = NDArray[np.bool_]

_TWIN = {51: 52, 52: 51, 121: 122, 122: 121, 200: 202, 201: 200, 202: 200}
_NDVI = {
    10: 0.45, 51: 0.76, 52: 0.82, 122: 0.68, 130: 0.52, 150: 0.2, 200: BARE_NDVI, 202: BARE_NDVI,
    210: LAKE_NDVI,
}  # fmt: skip
_DATES = ((1, 12), (6, 20), (7, 18), (8, 14), (9, 12), (10, 15))
_CLOUDINESS = (0.01, 0.04, 0.1, 0.18, 0.28, 0.4)
_DN_STEP = 8
"""Reflectance is rounded to this many counts, which halves the files."""
_LAMP_REACH_M = 450.0
_SHRUBS_UNTIL = 2016
"""Benches greened later carry grass."""
_SKY_GLOW = 0.2


def landcover_layers(
    mines: Sequence[Mine], grid: GeoBox, ground: Ground, layers: Sequence[int], seed: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Class codes of each layer year, 0 in the scan gap of the middle layer.

    Two in a hundred pixels carry a sister class of the same group, differing from layer to
    layer: noise that must not count as change.
    """
    pit_code = np.zeros(len(mines) + 1, np.uint8)
    pit_code[1:] = [m.script.pit_code for m in mines]
    twin = np.arange(256, dtype=np.uint8)
    twin[list(_TWIN)] = list(_TWIN.values())
    for year in layers:
        codes = ground.background.copy()
        green, bare = ground.green(year), ground.bare(year)
        codes[green] = np.where(ground.greened[green] <= _SHRUBS_UNTIL, 122, 130)
        codes[bare] = pit_code[ground.site[bare]]
        codes[ground.flooded(year)] = 210
        rng = np.random.default_rng([seed, 3, year])
        codes = np.where(rng.random(codes.shape) < 0.02, twin[codes], codes)
        if year == layers[len(layers) // 2]:
            codes[_scan_gap(mines, grid)] = 0
        yield year, codes


def _scan_gap(mines: Sequence[Mine], grid: GeoBox) -> Flags:
    row, column = np.indices(grid.shape)
    near_site = paint([(m.outline.buffer(120), 1) for m in mines], grid) > 0
    return np.asarray(((row + column // 4) % 90 < 2) & ~near_site)


@dataclass(frozen=True)
class Scene:
    """One optical acquisition as stored."""

    time: datetime
    bands: dict[str, NDArray[np.uint16]]
    scl: NDArray[np.uint8]
    offset: float
    """Reflectance of a stored 0; differs with the processing baseline."""
    cloud_percent: float


def scenes(
    mines: Sequence[Mine], grid: GeoBox, ground: Ground, years: Sequence[int], seed: int
) -> Iterator[Scene]:
    """Acquisitions of every year, six a year: reflectance counts, 0 off the swath."""
    x, y = pixel_centres(grid)
    texture = 0.015 * relief(x, y, [seed, 4], wavelength_m=300)
    texture += np.random.default_rng([seed, 5]).normal(0, 0.012, grid.shape)
    for year in years:
        rng = np.random.default_rng([seed, 6, year])
        ndvi, light = _surface(mines, ground, year)
        for (month, day), share in zip(_DATES, rng.permutation(_CLOUDINESS), strict=True):
            time = datetime(year, month, day, 10, 30, tzinfo=UTC)
            time += timedelta(days=int(rng.integers(0, 7)))
            yield _scene(time, ndvi + texture, light * (1 + 2 * texture), float(share), rng)


def _surface(mines: Sequence[Mine], ground: Ground, year: int) -> tuple[Field, Field]:
    """NDVI, and the sum of red and near-infrared reflectance."""
    of_class = np.zeros(256)
    of_class[list(_NDVI)] = list(_NDVI.values())
    bare_ndvi, swing = np.zeros(len(mines) + 1), np.zeros(len(mines) + 1)
    bare_ndvi[1:] = [m.bare_ndvi(year) for m in mines]
    swing[1:] = [m.ndvi_swing(year) for m in mines]
    green, bare, lake = ground.green(year), ground.bare(year), ground.flooded(year)
    ndvi = of_class[ground.background]
    ndvi[bare] = bare_ndvi[ground.site[bare]]
    ndvi[green] = green_ndvi(year - ground.greened[green])
    ndvi[lake] = LAKE_NDVI
    water = lake | ((ground.background == 210) & ~bare & ~green)
    light = np.where(water, 0.06, 0.54 - 0.24 * ndvi)
    light[(ground.background == 200) | (ground.background == 202)] += 0.12
    # terraces differ in tone
    light[bare] *= 0.9 + 0.12 * (ground.dug[bare] // 2 % 2)
    return ndvi + swing[ground.site], light


def _scene(
    time: datetime, ndvi: Field, light: Field, cloud_share: float, rng: np.random.Generator
) -> Scene:
    ndvi = ndvi + rng.normal(0, 0.012, ndvi.shape)
    light = light * rng.uniform(0.95, 1.05)
    red, nir = light * (1 - ndvi) / 2, light * (1 + ndvi) / 2
    green, blue = 0.6 * red + 0.07 * nir, 0.42 * red + 0.01
    seen = dict(zip(BANDS, (blue, green, red, nir), strict=True))
    scl = np.where(ndvi > 0.3, 4, np.where(ndvi < 0, 6, 5)).astype(np.uint8)
    thickness, cloud = _clouds(cloud_share, ndvi.shape, rng)
    shadow = np.roll(cloud, (-14, 18), (0, 1)) & ~cloud
    scl[shadow] = 3
    scl[cloud] = np.where(thickness[cloud] > 0.3, 9, 8)
    scl[:, : int(rng.integers(0, 12))] = 0
    added = 1000 if time >= BASELINE_0400 else 0
    bands = {}
    for name, reflectance in seen.items():
        reflectance = np.where(shadow, 0.35 * reflectance, reflectance)
        reflectance = np.where(cloud, np.minimum(0.45 + 0.4 * thickness, 0.9), reflectance)
        counts = np.round(reflectance / SCALE / _DN_STEP) * _DN_STEP + added
        bands[name] = np.where(scl == 0, 0, np.clip(counts, 1, 20_000)).astype(np.uint16)
    share = float(cloud.mean())
    return Scene(time, bands, scl, -added * SCALE, round(100 * share, 2))


def _clouds(share: float, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Field, Flags]:
    """Optical thickness, positive inside clouds, and the clouds that cover this share."""
    field = gaussian_filter(rng.normal(size=shape), 14) * 25
    field += gaussian_filter(rng.normal(size=shape), 4) * 2
    thickness = field - np.quantile(field, 1 - share)
    return thickness, np.asarray(thickness > 0)


def light_months(
    mines: Sequence[Mine], grid: GeoBox, years: Sequence[int], seed: int
) -> Iterator[tuple[datetime, NDArray[np.float32]]]:
    """Radiance of every month; one month a year, in the rains, has no cloud-free view at all."""
    x, y = pixel_centres(grid)
    halos = []
    for mine in mines:
        east, north = mine.pit_centre
        halos.append(np.exp(-((x - east) ** 2 + (y - north) ** 2) / (2 * _LAMP_REACH_M**2)))
    for year in years:
        rng = np.random.default_rng([seed, 7, year])
        mean = _SKY_GLOW + sum(m.radiance(year) * h for m, h in zip(mines, halos, strict=True))
        clouded = int(rng.integers(1, 5))
        for month in range(1, 13):
            ntl = (mean + rng.normal(0, 0.1, grid.shape)).astype(np.float32)
            if month == clouded:
                ntl[:] = np.nan
            yield datetime(year, month, 1, tzinfo=UTC), ntl

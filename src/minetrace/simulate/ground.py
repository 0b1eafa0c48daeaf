"""The simulated landscape on a pixel grid: background classes and the dates of change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from minetrace.simulate.plane import UTM, Field, pixel_centres, reproject
from minetrace.simulate.scenario import Mine, river_northing

_RIVER_HALF_WIDTH_M = 45.0
Shape = tuple[BaseGeometry, int]


@dataclass(frozen=True)
class Ground:
    """What each pixel of a grid is, and when it changes. All arrays are ``(y, x)``."""

    background: NDArray[np.uint8]
    """GLC_FCS30D class without mines."""
    site: NDArray[np.int16]
    """Number of the mine whose site holds the pixel centre, 0 outside."""
    dug: NDArray[np.int16]
    """Year in which the ground was laid bare, 0 never."""
    greened: NDArray[np.int16]
    """Year in which it was planted again, 0 never."""
    lake: NDArray[np.int16]
    """Year from which a pit lake stands there, 0 never."""

    def bare(self, year: int) -> NDArray[np.bool_]:
        """Dug and not yet green again, lakes included."""
        green = (self.greened > 0) & (self.greened <= year)
        return np.asarray((self.dug > 0) & (self.dug <= year) & ~green)

    def green(self, year: int) -> NDArray[np.bool_]:
        """On a greened bench."""
        return np.asarray((self.greened > 0) & (self.greened <= year))

    def flooded(self, year: int) -> NDArray[np.bool_]:
        """Under a pit lake."""
        return np.asarray((self.lake > 0) & (self.lake <= year))


def make_ground(mines: Sequence[Mine], grid: GeoBox, seed: int) -> Ground:
    """Draw the landscape on a grid in any CRS."""
    dug = [(p, y) for m in mines for y, p in sorted(m.pits.items(), reverse=True)]
    lakes = [(m.lake, m.greening) for m in mines if m.greening and m.script.lake_share]
    return Ground(
        background=_background(mines, grid, seed),
        site=paint([(m.outline, m.number) for m in mines], grid),
        dug=paint(dug, grid),
        greened=paint([shape for m in mines for shape in _benches(m)], grid),
        lake=paint(lakes, grid),
    )


def _benches(mine: Mine) -> Iterable[Shape]:
    """Each core is painted over the one before with the year in which its rim turns green."""
    for year, following in pairwise([*sorted(mine.cores), 0]):
        yield mine.cores[year], following


def paint(shapes: Iterable[Shape], grid: GeoBox) -> NDArray[np.int16]:
    """Burn UTM polygons where they hold the pixel centre; later ones win, 0 elsewhere."""
    local = [(reproject(s, UTM, str(grid.crs)), value) for s, value in shapes]
    if not local:
        return np.zeros(grid.shape, np.int16)
    burnt = rasterize(local, out_shape=grid.shape, transform=grid.affine, dtype="int16")
    return np.asarray(burnt, np.int16)


def relief(x: Field, y: Field, key: Sequence[int], *, wavelength_m: float) -> Field:
    """Smooth random field of unit variance: the same at a place on every grid.

    ``key`` seeds it; the wavelengths lie within a factor of two of the given one.
    """
    rng = np.random.default_rng(key)
    total = np.zeros(x.shape)
    for _ in range(24):
        course, phase = rng.uniform(0, 2 * np.pi, 2)
        wavenumber = 2 * np.pi / (wavelength_m * 2 ** rng.uniform(-1, 1))
        along = x * np.cos(course) + y * np.sin(course)
        total += np.cos(wavenumber * along + phase)
    return np.asarray(total / np.sqrt(12))


def _background(mines: Sequence[Mine], grid: GeoBox, seed: int) -> NDArray[np.uint8]:
    x, y = pixel_centres(grid)
    hills = relief(x, y, [seed, 1], wavelength_m=2500)
    patches = relief(x, y, [seed, 2], wavelength_m=900)
    codes = np.full(grid.shape, 52, np.uint8)
    codes[patches > 1.0] = 51
    codes[hills + 0.3 * patches > 1.3] = 122
    codes[hills + 0.3 * patches < -1.5] = 130
    river = river_northing(len(mines)) + 80 * np.sin(x / 700) + 25 * np.sin(x / 230)
    distance = np.abs(y - river)
    near_site = paint([(m.outline.buffer(120), 1) for m in mines], grid) > 0
    codes[(distance < 420) & (patches > 0.1) & ~near_site] = 10
    codes[distance < _RIVER_HALF_WIDTH_M] = 210
    deserts = [m.outline for m in mines if m.script.desert]
    dry = paint(
        [(o.buffer(220), 150) for o in deserts] + [(o.buffer(90), 202) for o in deserts], grid
    )
    codes[dry == 150] = 150
    codes[dry == 202] = np.where(patches[dry == 202] > 0.8, 200, 202)
    return codes

"""The scripts of simulated mines, and the polygons in which they play.

A script says which share of its site is dug up, greened and lit in every year. The polygons are
star-shaped and scaled about one point, so that a pit's outlines are nested; every truth is the
plane area of such polygons, never a count of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from shapely import Polygon, affinity
from shapely.geometry.base import BaseGeometry

Knots = tuple[tuple[int, float], ...]
"""(year, value) pairs, linear between and constant beyond them."""

CELL_M = 3200.0
"""Every mine has a square of this side to itself."""
MARGIN_M = 400.0
_CORNER = (428_000.0, 250_000.0)
_OPENING_SHARE = 0.03
_FENCE_M = 40.0
"""Ground between a pit and its site's boundary."""
_UNSTEADY = (0.0, 2.0, -2.0, 1.0, -1.0)

BARE_NDVI = 0.08
FOREST_NDVI = 0.8
LAKE_NDVI = -0.1
LAST_YEAR = 2022


@dataclass(frozen=True)
class Script:
    """What happens to one kind of mine."""

    kind: str
    opens: tuple[int, int] | None = None
    """Earliest and latest possible opening year; None: nothing is ever dug."""
    pit: Knots = ()
    """Share of the site that has been dug, after the opening."""
    core: Knots = ()
    """Share of the site that is still bare while benches are greened from the rim inwards."""
    pit_code: int = 201
    """Land-cover class of dug ground."""
    lake_share: float = 0.0
    """Share of the site under the pit lake, from the first greened bench on."""
    desert: bool = False
    """The whole site is naturally bare."""
    moss: float = 0.0
    """NDVI that bare ground gains a year after 2015."""
    steady_ndvi: bool = False
    """NDVI only goes up and down from year to year."""
    lamp: Knots = ()
    """Radiance in nW cm⁻² sr⁻¹ at the centre; none: a village that goes up and down."""


SCRIPTS: tuple[Script, ...] = (
    Script("growing_pit", (2001, 2007), ((2022, 0.5),), lamp=((2012, 2.0), (2022, 24.0))),
    Script(
        "reclaimed", (2001, 2001), ((2012, 0.5),), core=((2012, 0.5), (2022, 0.12)),
        lake_share=0.08, lamp=((2012, 25.0), (2017, 15.0), (2022, 3.0)),
    ),
    Script("forest", steady_ndvi=True),
    Script("desert", desert=True, steady_ndvi=True),
    Script(
        "lit_plant", (2003, 2005), ((2007, 0.12),), pit_code=190, steady_ndvi=True,
        lamp=((2012, 4.0), (2022, 34.0)),
    ),
    Script("abandoned", (1991, 1994), ((1995, 0.35),), moss=0.05),
    Script(
        "old_pit", (1972, 1980), ((2015, 0.22), (2022, 0.5)), lamp=((2012, 5.0), (2022, 20.0)),
    ),
    Script(
        "five_year_start", (1992, 1992), ((2008, 0.35),), steady_ndvi=True,
        lamp=((2012, 20.0), (2022, 2.0)),
    ),
)  # fmt: skip
"""In the order in which sites take them."""


@dataclass(frozen=True)
class Mine:
    """One simulated site in the UTM plane."""

    number: int
    """1 for the first site."""
    script: Script
    opening: int | None
    outline: Polygon
    shape: Polygon
    """Outline of a pit as large as the site; smaller pits are its scaled copies."""
    pit_centre: tuple[float, float]

    def pit_of_share(self, share: float) -> BaseGeometry:
        """The pit that holds about this share of the site, kept inside the fence."""
        factor = math.sqrt(share)
        pit = affinity.scale(self.shape, factor, factor, origin=self.pit_centre)
        return pit.intersection(self.outline.buffer(-_FENCE_M))

    @cached_property
    def pits(self) -> dict[int, BaseGeometry]:
        """First year → ground dug by then; one entry for each year in which the pit grew."""
        if self.opening is None:
            return {}
        knots = ((self.opening, _OPENING_SHARE), *self.script.pit)
        return self._growth(knots, range(self.opening, LAST_YEAR + 1))

    @cached_property
    def cores(self) -> dict[int, BaseGeometry]:
        """Year → ground still bare after that year's bench was greened."""
        knots = self.script.core
        return self._growth(knots, range(knots[0][0], LAST_YEAR + 1)) if knots else {}

    def _growth(self, knots: Knots, years: range) -> dict[int, BaseGeometry]:
        shares = {y: at(knots, y) for y in years}
        return {y: self.pit_of_share(s) for y, s in shares.items() if s != shares.get(y - 1)}

    @cached_property
    def greening(self) -> int | None:
        """First year in which a bench was greened."""
        return min(self.cores) + 1 if self.cores else None

    @cached_property
    def lake(self) -> BaseGeometry:
        """The pit lake; empty for most."""
        share = self.script.lake_share
        return self.pit_of_share(share) if share else Polygon()

    def bsp(self, year: int) -> float:
        """Bare share of the site."""
        return 1.0 if self.script.desert else self._share(self._bare(year))

    def _bare(self, year: int) -> BaseGeometry | None:
        states = self.cores if self.greening and year >= self.greening else self.pits
        past = [y for y in states if y <= year]
        return states[max(past)] if past else None

    def _share(self, part: BaseGeometry | None) -> float:
        return 0.0 if part is None else float(part.area / self.outline.area)

    def ndvi(self, year: int) -> float:
        """Mean NDVI of the site, as if its vegetation were all closed forest."""
        bare = self.bsp(year)
        total = bare * self.bare_ndvi(year)
        if self.greening and year >= self.greening:
            total += self._share(self.lake) * (LAKE_NDVI - BARE_NDVI)
        green = 0.0
        for before, after in pairwise(sorted(y for y in self.cores if y <= year)):
            bench = self._share(self.cores[before]) - self._share(self.cores[after])
            total += bench * float(green_ndvi(np.array(year - after)))
            green += bench
        return total + (1 - bare - green) * FOREST_NDVI + self.ndvi_swing(year)

    def bare_ndvi(self, year: int) -> float:
        """NDVI of the site's bare ground."""
        return BARE_NDVI + self.script.moss * max(0, year - 2015)

    def ndvi_swing(self, year: int) -> float:
        """What a wet or dry year adds to the NDVI of a steady site."""
        return 0.01 * unsteady(year) if self.script.steady_ndvi else 0.0

    def radiance(self, year: int) -> float:
        """Night-time radiance at the centre, above the background."""
        return at(self.script.lamp, year) if self.script.lamp else 0.3 + 0.15 * unsteady(year)


def at(knots: Knots, year: int) -> float:
    """Value of a curve in a year.

    Examples
    --------
    >>> at(((2000, 0.0), (2010, 1.0)), 2005)
    0.5
    """
    years, values = zip(*knots, strict=True)
    return float(np.interp(year, years, values))


def unsteady(year: int) -> float:
    """A swing of -2 to 2 whose Mann-Kendall score over any five years in a row is small.

    Examples
    --------
    >>> [unsteady(year) for year in range(2018, 2023)]
    [0.0, 2.0, -2.0, 1.0, -1.0]
    """
    return _UNSTEADY[(year - 2018) % 5]


def green_ndvi(age: NDArray[np.integer]) -> NDArray[np.float64]:
    """NDVI of a bench so many years after it was greened."""
    return np.asarray(np.minimum(0.2 + 0.07 * age, 0.62))


def layout(sites: int) -> tuple[int, int]:
    """Columns and rows of cells.

    Examples
    --------
    >>> layout(5)
    (3, 2)
    """
    columns = math.ceil(math.sqrt(sites))
    return columns, math.ceil(sites / columns)


def scene_bounds(sites: int) -> tuple[float, float, float, float]:
    """West, south, east and north of the scene in the UTM plane."""
    columns, rows = layout(sites)
    west, south = _CORNER
    return (
        west - MARGIN_M,
        south - MARGIN_M,
        west + columns * CELL_M + MARGIN_M,
        south + rows * CELL_M + MARGIN_M,
    )


def river_northing(sites: int) -> float:
    """Mean northing of the river, which runs below the first row of mines."""
    return _CORNER[1] + (layout(sites)[1] - 1) * CELL_M


def make_mines(sites: int, seed: int) -> list[Mine]:
    """Place and shape the mines; the scripts repeat when there are more sites than scripts."""
    return [_make_mine(i, layout(sites), seed) for i in range(sites)]


def _make_mine(index: int, cells: tuple[int, int], seed: int) -> Mine:
    rng = np.random.default_rng([seed, 0, index])
    script = SCRIPTS[index % len(SCRIPTS)]
    columns, rows = cells
    x = _CORNER[0] + (index % columns + 0.5) * CELL_M + rng.uniform(-100, 100)
    y = _CORNER[1] + (rows - index // columns - 0.5) * CELL_M + rng.uniform(-100, 100)
    area = rng.uniform(1.2e6, 3.2e6)
    outline = _blob(rng, (x, y), area, vertices=int(rng.integers(22, 34)))
    shift = 0.12 * math.sqrt(area / math.pi)
    centre = (x + rng.uniform(-shift, shift), y + rng.uniform(-shift, shift))
    shape = _blob(rng, centre, area, vertices=5 if script.pit_code == 190 else 72)
    opening = None if script.opens is None else int(rng.integers(*script.opens, endpoint=True))
    return Mine(index + 1, script, opening, outline, shape, centre)


def _blob(
    rng: np.random.Generator, centre: tuple[float, float], area: float, *, vertices: int
) -> Polygon:
    """Irregular star-shaped polygon of exactly this area."""
    angle = (np.arange(vertices) + rng.uniform(-0.3, 0.3, vertices)) * (2 * np.pi / vertices)
    angle += rng.uniform(0, 2 * np.pi)
    order = np.arange(2, 8)
    height = rng.normal(0, 0.36, order.size) / order**1.3
    phase = rng.uniform(0, 2 * np.pi, order.size)
    radius = 1 + (height * np.cos(np.outer(angle, order) + phase)).sum(axis=1)
    radius = np.clip(radius, 0.75, 1.25)
    ring = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    ring *= math.sqrt(area / Polygon(ring).area)
    return Polygon(ring + centre)

"""Group sites into units that read one window once."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import geopandas as gpd
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

CELL_DEGREES = 0.25
"""Side of the lattice that groups sites: about 28 km, 900 Landsat pixels."""


@dataclass(frozen=True)
class Unit:
    """Sites that share a window, and the window (EPSG:4326)."""

    id: str
    rows: tuple[int, ...]
    """Positions in the sites frame."""
    window: BaseGeometry


def plan_units(sites: gpd.GeoDataFrame, *, cell_degrees: float = CELL_DEGREES) -> list[Unit]:
    """Group sites by the lattice cell of their centre.

    Every site belongs to exactly one unit and its numbers depend on its own pixels only, so any
    grouping gives the same results. A site wider than a cell, or across 180°, is a unit alone.

    Examples
    --------
    >>> import geopandas as gpd
    >>> from shapely.geometry import Point
    >>> pits = gpd.GeoSeries([Point(x, 2.1).buffer(0.01) for x in (10.01, 10.05, 12)])
    >>> [u.rows for u in plan_units(gpd.GeoDataFrame(geometry=pits, crs="EPSG:4326"))]
    [(0, 1), (2,)]
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, geometry in enumerate(sites.geometry):
        west, south, east, north = geometry.bounds
        alone = max(east - west, north - south) > cell_degrees
        cell = (
            math.floor((west + east) / 2 / cell_degrees),
            math.floor((south + north) / 2 / cell_degrees),
        )
        groups.setdefault((*cell, row) if alone else cell, []).append(row)
    return [_unit(sites, cell, rows) for cell, rows in sorted(groups.items())]


def _unit(sites: gpd.GeoDataFrame, cell: tuple[int, ...], rows: list[int]) -> Unit:
    shapes = sites.geometry.iloc[rows]
    window = shapes.iloc[0] if len(rows) == 1 else box(*shapes.total_bounds)
    name = "_".join(f"{'m' if v < 0 else 'p'}{abs(v)}" for v in cell)
    return Unit(name, tuple(rows), window)


def single_units(sites: gpd.GeoDataFrame, unit: Unit) -> list[Unit]:
    """The same sites, one a unit: how a fault in a shared window is narrowed down."""
    return [_unit(sites, (row,), [row]) for row in unit.rows]


def unit_key(sites: gpd.GeoDataFrame, unit: Unit, *settings: str) -> str:
    """Key of everything a unit's tables depend on: its sites and the given settings."""
    digest = hashlib.sha256("\n".join(settings).encode())
    rows = sites.iloc[list(unit.rows)]
    for row in rows[["site_id", "area_km2", "country"]].itertuples(index=False):
        digest.update(repr(tuple(row)).encode())
    for geometry in rows.geometry:
        digest.update(geometry.wkb)
    return digest.hexdigest()[:16]

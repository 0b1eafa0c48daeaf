"""Which items share a step of time, and which chunks of a grid each of them reaches."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pystac
import shapely
from affine import Affine
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox, GeoboxTiles

from minetrace.catalog import item_time
from minetrace.catalog.search import footprint
from minetrace.cubes.claims import Claim, crs_of
from minetrace.cubes.lattice import grid_outline
from minetrace.errors import InputError
from minetrace.grid import transformer

GroupBy = str | Callable[[pystac.Item, int], Any]
"""``"time"``, ``"solar_day"``, ``"id"``, or a function of an item and its number."""

_PARTS = 4
"""Parts of a chunk's side, at whose ends its place in a file of another CRS is looked up."""


def time_steps(
    items: Sequence[pystac.Item], groupby: GroupBy, geobox: GeoBox
) -> tuple[NDArray[np.datetime64], list[list[int]]]:
    """Moment of each step's first item in UTC, and the numbers of its items by time and id.

    Steps follow each other by what groups them.

    Raises
    ------
    InputError
        ``groupby`` is unknown.
    """
    shift = solar_shift(geobox)
    times = [item_time(item).replace(tzinfo=None) for item in items]
    named: dict[str, Callable[[int], Any]] = {
        "time": lambda i: times[i],
        "solar_day": lambda i: (times[i] + shift).date(),
        "id": lambda i: i,
    }
    if isinstance(groupby, str):
        if groupby not in named:
            raise InputError(f"items are grouped by {', '.join(named)}, not by {groupby!r}")
        keys = [named[groupby](i) for i in range(len(items))]
    else:
        keys = [groupby(item, i) for i, item in enumerate(items)]
    steps: dict[Hashable, list[int]] = {}
    for i in sorted(range(len(items)), key=lambda i: (keys[i], times[i], items[i].id)):
        steps.setdefault(keys[i], []).append(i)
    groups = list(steps.values())
    return np.array([times[group[0]] for group in groups], "datetime64[ns]"), groups


def solar_shift(geobox: GeoBox) -> dt.timedelta:
    """How far the sun's time at the centre of a grid is ahead of UTC."""
    (lon, _), *_ = geobox.extent.centroid.to_crs("EPSG:4326").coords
    return dt.timedelta(hours=lon / 15)


def reached_chunks(
    items: Sequence[pystac.Item],
    claims: Sequence[Iterable[Claim]],
    steps: Sequence[Sequence[int]],
    tiles: GeoboxTiles,
) -> dict[tuple[int, int, int], list[int]]:
    """Step and chunk → numbers of the items that may have pixels there.

    ``claims`` has those of each item. An item that does not say where its pixels lie reaches as
    far as its footprint.
    """
    outlines = cache(lambda: _outlines(tiles))
    known: dict[Hashable, list[tuple[int, int]]] = {}
    out: dict[tuple[int, int, int], list[int]] = {}
    for step, group in enumerate(steps):
        for i in group:
            # the items of a series mostly lie on few tiles
            places = frozenset((c.crs, c.transform, c.shape) for c in claims[i])
            stated = all(None not in place for place in places)
            key = places if stated else i
            if key not in known:
                reached = np.zeros(tiles.shape, np.bool_)
                for place in places:
                    reached |= _overlap(tiles, *place)
                if not stated:
                    reached.flat[outlines().query(footprint(items[i]), "intersects")] = True
                known[key] = [(y, x) for y, x in np.argwhere(reached).tolist()]
            for y, x in known[key]:
                out.setdefault((step, y, x), []).append(i)
    return out


def _outlines(tiles: GeoboxTiles) -> shapely.STRtree:
    return shapely.STRtree([grid_outline(tiles[y, x]) for y, x in np.ndindex(*tiles.shape)])


def _overlap(
    tiles: GeoboxTiles,
    crs: str | None,
    transform: tuple[float, ...] | None,
    shape: tuple[int, int] | None,
) -> NDArray[np.bool_]:
    """Which chunks may have pixels of a file; in another CRS they are looked up at some places."""
    if crs is None or transform is None or shape is None:
        return np.zeros(tiles.shape, np.bool_)
    whole = tiles.base
    cols, rows = np.meshgrid(_places(tiles.chunks[1]), _places(tiles.chunks[0]))
    x, y = whole.pix2wld(cols, rows)
    margin = 0.0
    if str(whole.crs) != crs and whole.crs != crs_of(crs):
        x, y = transformer(str(whole.crs), crs).transform(x, y)
        margin = 1 / _PARTS
    t = ~Affine(*transform)
    within = np.ones(tiles.shape, np.bool_)
    for at, size in (
        (t.a * x + t.b * y + t.c, shape[1]),
        (t.d * x + t.e * y + t.f, shape[0]),
    ):
        found = sliding_window_view(at, (_PARTS + 1, _PARTS + 1))[::_PARTS, ::_PARTS]
        least, most = found.min(axis=(2, 3)), found.max(axis=(2, 3))
        with np.errstate(invalid="ignore"):
            beyond = margin * (most - least)
            near = (least - beyond < size) & (most + beyond > 0)
        # what has no place in the file's CRS says nothing of its neighbours
        within &= near | ~np.isfinite(found).all(axis=(2, 3))
    return within


def _places(sizes: Sequence[int]) -> NDArray[np.float64]:
    """Edges of chunks, and places between them."""
    edges = np.cumsum([0, *sizes])
    places: NDArray[np.float64] = np.interp(
        np.arange(_PARTS * len(sizes) + 1) / _PARTS, np.arange(edges.size), edges
    )
    return places

"""Land cover of many sites at once: windows that they share, runs over them, sums.

Sites are placed on the pixel lattice of their files together. Those that share a block of a file
share a window, so that the block is decoded once. The windows of a batch lie one behind the other
in one flat array, and so do the runs of all their sites: one call of the kernels counts them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pystac
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from minetrace.catalog import Source
from minetrace.catalog.search import footprint
from minetrace.change import LandSums, code_kinds, refuse_unknown, sum_land
from minetrace.cubes.lattice import native_grid
from minetrace.cubes.windows import block_shape, read_codes
from minetrace.errors import GridError, LegendError, ReadError, SourceError
from minetrace.grid import lattice_window
from minetrace.kernels.runs import Runs
from minetrace.run.blocks import site_rects
from minetrace.run.rows import SiteRows, land_rows
from minetrace.run.windows import Rects, share_windows, strips
from minetrace.schema import Legend, Recipe
from minetrace.zones import Zones, cell_km2, cell_shares, cover

BATCH_BYTES = 2**26
"""Class codes that are in memory at once; a larger window is taken strip by strip."""


def account_sites(
    sites: gpd.GeoDataFrame,
    items: Sequence[pystac.Item],
    source: Source,
    recipe: Recipe,
    legend: Legend,
) -> tuple[list[SiteRows], list[int]]:
    """Land cover of sites, and the positions of those that have to be looked at one by one.

    These are all sites that a fault of a file, a class code or a place may concern. Every site
    has the layers of the items whose footprint it touches; one that touches none has no row.
    """
    out, troubled = [], []
    for rows, found in _by_items(sites.geometry.to_numpy(), items):
        try:
            done, left = _account(sites.iloc[rows], found, source, recipe, legend)
        except (GridError, LegendError, ReadError, SourceError):
            troubled += rows.tolist()
        else:
            out += [done] if len(done.site_ids) else []
            troubled += rows[left].tolist()
    return out, sorted(troubled)


def _by_items(
    geometries: NDArray[np.object_], items: Sequence[pystac.Item]
) -> Iterator[tuple[NDArray[np.int64], list[pystac.Item]]]:
    """Positions of sites that touch the same items, and these items."""
    if not items:
        return
    # as text: numpy cuts zeros off the end of bytes, and a place on the equator ends with eight
    outlines, which = np.unique(
        [shapely.to_wkb(footprint(item), hex=True) for item in items], return_inverse=True
    )
    touched = np.stack([shapely.intersects(shapely.from_wkb(o), geometries) for o in outlines])
    patterns, group = np.unique(touched, axis=1, return_inverse=True)
    for k, pattern in enumerate(patterns.T):
        if pattern.any():
            found = [item for item, at in zip(items, which, strict=True) if pattern[at]]
            yield np.flatnonzero(group.ravel() == k), found


def _account(
    sites: gpd.GeoDataFrame,
    items: Sequence[pystac.Item],
    source: Source,
    recipe: Recipe,
    legend: Legend,
) -> tuple[SiteRows, NDArray[np.int64]]:
    """Rows of sites that touch the same items, and positions of those left out."""
    native = native_grid(items, source.asset_key("landcover"))
    rects, placed = site_rects(native, sites.geometry.to_numpy())
    ids = sites["site_id"].astype(str).to_numpy()
    if not placed.size:
        return land_rows([], np.empty(0, np.int64), LandSums.empty(0, 0)), np.arange(len(sites))
    owner, windows = share_windows(rects, block_shape(source, items[0]))
    layout = _lay_out(sites.iloc[placed], native, rects, recipe)
    years: NDArray[np.int64] = np.empty(0, np.int64)
    total: LandSums | None = None
    lost = np.zeros(len(windows), np.bool_)
    lut = code_kinds(legend, 0)
    for pieces in strips(windows, max(1, BATCH_BYTES // max(len(items), 1))):
        grids = [lattice_window(native, (r[0], r[1]), (r[2], r[3])) for r in pieces.rects.tolist()]
        read = read_codes(source, items, legend, grids, into=_room())
        lost[pieces.window[list(read.lost)]] = True
        refuse_unknown(read.codes, legend)
        years = read.years
        zones, runs = layout.within(pieces.rects, pieces.window, owner)
        part = sum_land(
            read.codes[:, None], lut, recipe.change.min_persistence, runs, layout.km2, layout.share
        )
        if total is None:
            total = LandSums.empty(placed.size, years.size)
        total.kinds[zones] += part.kinds
        total.flows[zones] += part.flows
    assert total is not None
    good = ~lost[owner]
    done = land_rows(
        ids[placed[good]].tolist(), years, LandSums(total.kinds[good], total.flows[good])
    )
    return done, np.setdiff1d(np.arange(len(sites)), placed[good])


class _Kept(threading.local):
    room: NDArray[np.uint8] | None = None


_kept = _Kept()


def _room() -> NDArray[np.uint8]:
    """Memory for the codes of a batch, the same in all units of a thread.

    Fresh pages would be cleared by the system before the codes are written to them.
    """
    if _kept.room is None:
        _kept.room = np.empty(BATCH_BYTES, np.uint8)
    return _kept.room


@dataclass(frozen=True, eq=False)
class _Layout:
    """Sites on the part of the lattice that holds them all."""

    top: int
    left: int
    zones: Zones
    km2: NDArray[np.float64]
    share: NDArray[np.float64]

    def within(
        self, pieces: Rects, window: NDArray[np.int64], owner: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], Runs]:
        """Sites with cells in pieces of windows, and their runs in the flat array of the pieces.

        ``window`` is that of each piece, ``owner`` that of each site. The pieces of a window
        follow one another from the top.
        """
        runs = self.zones.runs
        zone = np.repeat(np.arange(len(self.zones)), np.diff(runs.offsets))
        row = runs.row.astype(np.int64) + self.top
        # the last piece of the run's window that begins at or above its row
        depth = np.int64(1) << 40
        at = np.searchsorted(window * depth + pieces[:, 0], owner[zone] * depth + row, "right") - 1
        inside = (at >= 0) & (window[at] == owner[zone]) & (row < pieces[at, 1])
        width = pieces[:, 3] - pieces[:, 2]
        base = np.cumsum([0, *(width * (pieces[:, 1] - pieces[:, 0]))])[:-1]
        shift = base[at] + (row - pieces[at, 0]) * width[at] + self.left - pieces[at, 2]
        some, n_runs = np.unique(zone[inside], return_counts=True)
        start, stop = ((x + shift)[inside].astype(np.int32) for x in (runs.start, runs.stop))
        offsets = np.concatenate([[0], np.cumsum(n_runs)])
        return some, Runs(offsets, np.zeros_like(start), start, stop, runs.cell[inside])


def _lay_out(sites: gpd.GeoDataFrame, native: GeoBox, rects: Rects, recipe: Recipe) -> _Layout:
    top, left = int(rects[:, 0].min()), int(rects[:, 2].min())
    whole = lattice_window(native, (top, int(rects[:, 1].max())), (left, int(rects[:, 3].max())))
    zones = cover(sites, whole, coverage=recipe.change.coverage)
    return _Layout(top, left, zones, cell_km2(zones, whole), cell_shares(zones))

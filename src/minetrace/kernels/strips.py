"""Cells of zones cut into strips: pieces whose weights fit the processor's cache.

The weights of a strip are written out once for all layers; of every layer its cells are gathered
side by side, since loops over single runs of some twenty cells are 3 times slower.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit, jit_inline
from minetrace.kernels.runs import Runs

Window = tuple[int, int, int, int]
"""Part of a grid: its first row and column, its height and width."""


class Cells(NamedTuple):
    """Cells of zones with their weights, and the areas of the grid's pixels."""

    runs: Runs
    edge: NDArray[np.int64]
    """int64 ``(run,)``: place of the run's first share in ``partial``, -1 for whole cells."""
    partial: NDArray[np.float64]
    columns: NDArray[np.float64]
    """Pixel areas, with ``first`` and ``factor``: `minetrace.grid.AreaSpline`."""
    first: NDArray[np.int64]
    factor: NDArray[np.float64]


class Strip(NamedTuple):
    """Some cells of one zone: spans of a flat layer, and every cell's weights."""

    base: NDArray[np.int64]
    length: NDArray[np.int64]
    share: NDArray[np.float64]
    area: NDArray[np.float64]


def cell_areas(cells: Cells) -> NDArray[np.float64]:
    """Area of the part of every cell that lies inside its zone, in the order of the cells."""
    runs = cells.runs
    area = np.empty(int((runs.stop - runs.start).sum(dtype=np.int64)))
    _write_cell_areas(cells, area)
    return area


@jit
def _write_cell_areas(cells: Cells, area: NDArray[np.float64]) -> None:
    runs = cells.runs
    for k in range(runs.row.size):
        cell, n, row = runs.cell[k], runs.stop[k] - runs.start[k], runs.row[k]
        along = area[cell : cell + n]
        start = np.int64(runs.start[k])
        _pixel_areas(cells.columns, cells.first[row], cells.factor[row], start, along)
        if cells.edge[k] >= 0:
            for c in range(n):
                along[c] *= cells.partial[cells.edge[k] + c]


def zones_within(runs: Runs, window: Window) -> NDArray[np.int64]:
    """Zones that have cells in a window of the grid."""
    top, left, height, width = window
    inside = (top <= runs.row) & (runs.row < top + height)
    inside &= (runs.start < left + width) & (runs.stop > left)
    zone = np.repeat(np.arange(runs.offsets.size - 1), np.diff(runs.offsets))
    return np.unique(zone[inside])


def new_strip(size: int) -> Strip:
    """Room for a strip of so many cells."""
    return Strip(np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size), np.empty(size))


def largest_zone(runs: Runs) -> int:
    """Cells of the zone that has the most."""
    ends = np.append(0, np.cumsum(runs.stop - runs.start, dtype=np.int64))
    return int(np.diff(ends[runs.offsets]).max(initial=0))


@jit
def next_strip(
    cells: Cells,
    zone: int,
    k: int,
    column: int,
    window: Window,
    strip: Strip,
) -> tuple[int, int, int, int]:
    """Fill the strip with the cells of the zone from run ``k``, window column ``column`` on.

    Returns the run and column to go on from, and the number of spans and cells in the strip.
    """
    runs = cells.runs
    top, left, height, width = window
    n_span, n = 0, 0
    while k < runs.offsets[zone + 1] and n < strip.area.size:
        row = runs.row[k] - top
        start, stop = max(runs.start[k] - left, column), min(runs.stop[k] - left, width)
        if not 0 <= row < height or start >= stop:
            k, column = k + 1, 0
            continue
        taken = min(stop - start, strip.area.size - n)
        edge = cells.edge[k]
        if edge >= 0:
            edge += start + left - runs.start[k]
        _write_share(cells.partial, edge, strip.share[n : n + taken])
        base = row * width + start
        # not across the ends of rows, as a span has the areas of one row
        if start > 0 and n_span > 0 and base == strip.base[n_span - 1] + strip.length[n_span - 1]:
            strip.length[n_span - 1] += taken
        else:
            strip.base[n_span], strip.length[n_span] = base, taken
            n_span += 1
        n += taken
        if start + taken < stop:
            column = start + taken
        else:
            k, column = k + 1, 0
    _write_areas(cells, window, strip, n_span, n)
    return k, column, n_span, n


@jit_inline
def _write_share(partial: NDArray[np.float64], edge: int, share: NDArray[np.float64]) -> None:
    """Shares of cells of a run: those from ``edge`` on, or 1 where it is -1."""
    for c in range(share.size):
        share[c] = 1.0 if edge < 0 else partial[edge + c]


@jit_inline
def _write_areas(cells: Cells, window: Window, strip: Strip, n_span: int, n: int) -> None:
    """Covered areas of all cells of the strip."""
    top, left, _, width = window
    columns, area, share = cells.columns, strip.area, strip.share
    at = 0
    for i in range(n_span):
        row, column = strip.base[i] // width + top, strip.base[i] % width + left
        length = strip.length[i]
        _pixel_areas(columns, cells.first[row], cells.factor[row], column, area[at : at + length])
        at += length
    for c in range(n):
        area[c] *= share[c]


@jit
def _pixel_areas(
    columns: NDArray[np.float64],
    first: int,
    factor: NDArray[np.float64],
    start: int,
    area: NDArray[np.float64],
) -> None:
    """Areas of pixels of one row from column ``start`` on."""
    f0, f1, f2, f3 = factor[0], factor[1], factor[2], factor[3]
    stop = start + area.size
    c0, c1 = columns[first, start:stop], columns[first + 1, start:stop]
    c2, c3 = columns[first + 2, start:stop], columns[first + 3, start:stop]
    for c in range(area.size):
        area[c] = f0 * c0[c] + f1 * c1[c] + f2 * c2[c] + f3 * c3[c]


@jit
def gather(layer: NDArray[Any], strip: Strip, n_span: int, out: NDArray[Any]) -> None:
    """Copy the strip's spans of a flat layer one behind the other."""
    n = 0
    for i in range(n_span):
        span = layer[strip.base[i] : strip.base[i] + strip.length[i]]
        to = out[n : n + span.size]
        for c in range(span.size):
            to[c] = span[c]
        n += span.size

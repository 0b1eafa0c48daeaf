"""Which pixels a polygon covers, and how much of each, to float64 precision.

Rings are given in pixel units: column to the right, row downwards, whole numbers on pixel edges.
Shells and holes must wind opposite ways. Every edge adds its signed share to the cells it passes
and to all cells on its right; a running sum along the row then leaves each cell with the area
inside. Two polygons that share an edge add the same numbers with opposite signs, so a partition
of a polygon adds up to it.

What covers a cell to less than 1e-10, or all of it but as little, is taken for rounding: the cell
is left out, or is whole. Of two polygons that share an edge both happen in the same cell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit, jit_inline

_SLIVER = 1e-10
_RUNS = 2**12
"""Runs that there is room for at first."""


def cover_runs(
    xy: NDArray[np.float64],
    rings: NDArray[np.int64],
    zones: NDArray[np.int64],
    n_rows: int,
    n_cols: int,
    centres: bool,
    max_cells: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Cells of every zone as runs, whole cells apart from partial ones.

    Parameters
    ----------
    xy
        float64 ``(vertex, 2)`` column and row of the closed rings.
    rings
        int64: ring i has the vertices ``xy[rings[i]:rings[i + 1]]``.
    zones
        int64: zone i has the rings ``zones[i]`` to ``zones[i + 1] - 1``. A zone with a vertex
        that is not finite gets no cells.
    n_rows, n_cols
        Shape of the grid.
    centres
        Give a cell whose centre lies inside a zone to it as a whole, others not at all. A centre
        on a left or upper edge is inside, on a right or lower edge outside, so that of two
        polygons that touch exactly one has it.
    max_cells
        Largest dense buffer; a zone beyond it is covered by bands of rows.

    Returns
    -------
    offsets
        int64 ``(zone + 1,)``: runs of each zone.
    runs
        int64 ``(run, 4)``: row, first column, column after the last, and the place of the first
        cell's share in ``partial``, -1 where all cells are whole.
    partial
        float64: shares of the partial cells, above 0 and below 1.
    """
    offsets = np.zeros(zones.size, np.int64)
    runs, partial = np.empty((_RUNS, 4), np.int64), np.empty(4 * _RUNS)
    # a band of a zone's window has at most so many cells, with one more column
    steps = np.empty(min(2 * max_cells, n_rows * (n_cols + 1)) + n_cols + 1)
    windows = _windows(xy, rings, zones, n_rows, n_cols)
    place = (0, 0, 0, 0)
    while True:
        zone, row, n_run, n_partial = _cover_zones(
            xy, rings, zones, windows, centres, max_cells, place, steps, offsets, runs, partial,
        )  # fmt: skip
        if zone == zones.size - 1:
            return offsets, runs[:n_run], partial[:n_partial]
        place = (zone, row, n_run, n_partial)
        runs = np.concatenate([runs, np.empty_like(runs)])
        partial = np.concatenate([partial, np.empty_like(partial)])


@jit
def _cover_zones(
    xy: NDArray[np.float64],
    rings: NDArray[np.int64],
    zones: NDArray[np.int64],
    windows: NDArray[np.int64],
    centres: bool,
    max_cells: int,
    place: tuple[int, int, int, int],
    steps: NDArray[np.float64],
    offsets: NDArray[np.int64],
    runs: NDArray[np.int64],
    partial: NDArray[np.float64],
) -> tuple[int, int, int, int]:
    """Fill the tables from a place on, as far as they have room.

    A place is a zone, the rows of its window that are done, the runs and the partial cells. Bands
    are never cut: their first row decides how coordinates are rounded.
    """
    zone, done, n_run, n_partial = place
    while zone < zones.size - 1:
        ring = rings[zones[zone] : zones[zone + 1] + 1]
        top, left = windows[zone, 0], windows[zone, 1]
        bottom, right = windows[zone, 2], windows[zone, 3]
        width = right - left
        band = max(1, max_cells // max(1, width))
        while top + done < bottom:
            height = min(band, bottom - top - done)
            share = steps[: height * (width + 1)].reshape(height, width + 1)
            _cover(xy, ring, top + done, left, centres, share)
            new_run, new_partial = n_run, n_partial
            for r in range(height):
                if new_run + width > runs.shape[0] or new_partial + width > partial.size:
                    return zone, done, n_run, n_partial
                new_run, new_partial = _split_row(
                    share[r, :width], top + done + r, left, runs, new_run, partial, new_partial
                )
            done, n_run, n_partial = done + height, new_run, new_partial
        zone, done = zone + 1, 0
        offsets[zone] = n_run
    return zone, done, n_run, n_partial


def _windows(
    xy: NDArray[np.float64],
    rings: NDArray[np.int64],
    zones: NDArray[np.int64],
    n_rows: int,
    n_cols: int,
) -> NDArray[np.int64]:
    """Rows and columns ``(zone, 4)`` that zones touch: top, left, bottom, right.

    All 0 for a zone that misses the grid, is not finite or has no rings.
    """
    windows = np.zeros((zones.size - 1, 4), np.int64)
    begin, end = rings[zones[:-1]], rings[zones[1:]]
    some = np.flatnonzero(end > begin)
    if not some.size:
        return windows
    # zones lie one behind the other, so each ends where the next begins
    left, top = np.minimum.reduceat(xy[: end[-1]], begin[some]).T
    right, bottom = np.maximum.reduceat(xy[: end[-1]], begin[some]).T
    with np.errstate(invalid="ignore"):
        inside = (left < n_cols) & (right > 0) & (top < n_rows) & (bottom > 0)
        inside &= np.isfinite(left + right + top + bottom)
    found = [
        np.floor(np.maximum(top, 0.0)),
        np.floor(np.maximum(left, 0.0)),
        np.ceil(np.minimum(bottom, float(n_rows))),
        np.ceil(np.minimum(right, float(n_cols))),
    ]
    windows[some[inside]] = np.stack(found, axis=1)[inside]
    return windows


@jit_inline
def _split_row(
    share: NDArray[np.float64],
    row: int,
    left: int,
    runs: NDArray[np.int64],
    n_run: int,
    partial: NDArray[np.float64],
    n_partial: int,
) -> tuple[int, int]:
    """Append the runs of one row, which begins at column ``left``; return how many there are."""
    column = 0
    while column < share.size:
        if share[column] <= _SLIVER:
            column += 1
            continue
        start = column
        if share[column] >= 1.0 - _SLIVER:
            while column < share.size and share[column] >= 1.0 - _SLIVER:
                column += 1
            runs[n_run, 3] = -1
        else:
            runs[n_run, 3] = n_partial
            while column < share.size and _SLIVER < share[column] < 1.0 - _SLIVER:
                partial[n_partial] = share[column]
                n_partial += 1
                column += 1
        runs[n_run, 0] = row
        runs[n_run, 1], runs[n_run, 2] = left + start, left + column
        n_run += 1
    return n_run, n_partial


@jit
def _cover(
    xy: NDArray[np.float64],
    rings: NDArray[np.int64],
    row0: int,
    col0: int,
    centres: bool,
    steps: NDArray[np.float64],
) -> None:
    """Fill all columns of ``steps`` but the last with the shares of a window's cells.

    The last column takes what falls off the right edge. Parts of the polygon outside the window
    are cut off.
    """
    for r in range(steps.shape[0]):
        for c in range(steps.shape[1]):
            steps[r, c] = 0.0
    for ring in range(rings.size - 1):
        for i in range(rings[ring], rings[ring + 1] - 1):
            # downwards always, so that an edge gives the same numbers from both of its sides
            down = xy[i, 1] < xy[i + 1, 1]
            upper, lower = (i, i + 1) if down else (i + 1, i)
            u0, v0 = xy[upper, 0] - col0, xy[upper, 1] - row0
            u1, v1 = xy[lower, 0] - col0, xy[lower, 1] - row0
            sign = 1.0 if down else -1.0
            if v0 < v1 and centres:
                _add_crossings(steps, u0, v0, u1, v1, sign)
            elif v0 < v1:
                _add_edge(steps, u0, v0, u1, v1, sign)
    _sum_rows(steps)


@jit_inline
def _sum_rows(steps: NDArray[np.float64]) -> None:
    """Replace every row by the size of its running sum: the way of winding gives its sign."""
    n_rows, n_cols = steps.shape[0], steps.shape[1] - 1
    for r in range(n_rows):
        total = 0.0
        for c in range(n_cols):
            total += steps[r, c]
            steps[r, c] = abs(total)


@jit_inline
def _add_crossings(
    steps: NDArray[np.float64], u0: float, v0: float, u1: float, v1: float, sign: float
) -> None:
    """Step at the first centre right of the edge, in each row whose centre line it crosses."""
    n_rows, n_cols = steps.shape[0], steps.shape[1] - 1
    first = max(int(np.ceil(v0 - 0.5)), 0)
    last = min(int(np.ceil(v1 - 0.5)), n_rows)
    for r in range(first, last):
        u = u0 + (r + 0.5 - v0) / (v1 - v0) * (u1 - u0)
        steps[r, min(max(int(np.ceil(u - 0.5)), 0), n_cols)] += sign


@jit_inline
def _add_edge(
    steps: NDArray[np.float64], u0: float, v0: float, u1: float, v1: float, sign: float
) -> None:
    """Add an edge that runs down from (u0, v0) to (u1, v1)."""
    n_rows = steps.shape[0]
    for r in range(max(int(np.floor(v0)), 0), min(int(np.ceil(v1)), n_rows)):
        top, bottom = max(v0, float(r)), min(v1, r + 1.0)
        a = u0 + (top - v0) / (v1 - v0) * (u1 - u0)
        b = u0 + (bottom - v0) / (v1 - v0) * (u1 - u0)
        _add_row(steps[r], min(a, b), max(a, b), sign * (bottom - top))


@jit_inline
def _add_row(steps: NDArray[np.float64], left: float, right: float, height: float) -> None:
    """Add the part of an edge inside one row: ``height`` of it between two columns."""
    n_cols = steps.size - 1
    if left >= n_cols:
        return
    if right <= 0.0:
        steps[0] += height
        return
    column = int(np.floor(left))
    if column >= 0 and right <= column + 1:
        _add_piece(steps, column, (left + right) / 2 - column, height)
        return
    density = height / (right - left)
    if left < 0.0:
        steps[0] -= density * left
        left = 0.0
    for c in range(int(left), min(int(np.ceil(right)), n_cols)):
        a, b = max(left, float(c)), min(right, c + 1.0)
        _add_piece(steps, c, (a + b) / 2 - c, density * (b - a))


@jit_inline
def _add_piece(steps: NDArray[np.float64], column: int, middle: float, height: float) -> None:
    """Cell ``column`` gets the area right of the piece's middle, the cells beyond all of it."""
    steps[column] += height * (1.0 - middle)
    steps[column + 1] += height * middle

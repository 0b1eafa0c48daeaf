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

from minetrace.kernels.grow import room
from minetrace.kernels.jit import jit

_SLIVER = 1e-10


@jit
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
    xy, rings
        As for `cover_fractions`.
    zones
        int64: zone i has the rings ``zones[i]`` to ``zones[i + 1] - 1``. A zone with a vertex
        that is not finite gets no cells.
    n_rows, n_cols
        Shape of the grid.
    centres
        Cover cells by their centre, as `cover_centres`.
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
    runs = np.empty((256, 4), np.int64)
    partial = np.empty((1024, 1))
    n_run, n_partial = 0, 0
    for zone in range(zones.size - 1):
        ring = rings[zones[zone] : zones[zone + 1] + 1]
        top, left, bottom, right = _window(xy[ring[0] : ring[-1]], n_rows, n_cols)
        band = max(1, max_cells // max(1, right - left))
        for row in range(top, bottom, band):
            height = min(band, bottom - row)
            if centres:
                share = cover_centres(xy, ring, row, left, height, right - left)
            else:
                share = cover_fractions(xy, ring, row, left, height, right - left)
            for r in range(height):
                runs = room(runs, n_run + right - left)
                partial = room(partial, n_partial + right - left)
                n_run, n_partial = _split_row(
                    share[r], row + r, left, runs, n_run, partial, n_partial
                )
        offsets[zone + 1] = n_run
    return offsets, runs[:n_run], partial[:n_partial, 0]


@jit
def _window(xy: NDArray[np.float64], n_rows: int, n_cols: int) -> tuple[int, int, int, int]:
    """Rows and columns that a zone touches; none if it misses the grid or is not finite."""
    left, top, right, bottom = np.inf, np.inf, -np.inf, -np.inf
    for i in range(xy.shape[0]):
        u, v = xy[i, 0], xy[i, 1]
        if not (np.isfinite(u) and np.isfinite(v)):
            return 0, 0, 0, 0
        left, right = min(left, u), max(right, u)
        top, bottom = min(top, v), max(bottom, v)
    if not (left < n_cols and right > 0.0 and top < n_rows and bottom > 0.0):
        return 0, 0, 0, 0
    return (
        int(np.floor(max(top, 0.0))),
        int(np.floor(max(left, 0.0))),
        int(np.ceil(min(bottom, float(n_rows)))),
        int(np.ceil(min(right, float(n_cols)))),
    )


@jit
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
                partial[n_partial, 0] = share[column]
                n_partial += 1
                column += 1
        runs[n_run, 0] = row
        runs[n_run, 1], runs[n_run, 2] = left + start, left + column
        n_run += 1
    return n_run, n_partial


@jit
def cover_fractions(
    xy: NDArray[np.float64],
    rings: NDArray[np.int64],
    row0: int,
    col0: int,
    n_rows: int,
    n_cols: int,
) -> NDArray[np.float64]:
    """Area of the polygon inside every cell of a window.

    Parameters
    ----------
    xy
        float64 ``(vertex, 2)`` column and row of the closed rings.
    rings
        int64: ring i has the vertices ``xy[rings[i]:rings[i + 1]]``.
    row0, col0, n_rows, n_cols
        The window; parts of the polygon outside it are cut off.

    Returns
    -------
    ndarray
        float64 ``(n_rows, n_cols)``, 0 to 1.
    """
    # the last column takes what falls off the right edge
    steps = np.zeros((n_rows, n_cols + 1))
    for ring in range(rings.size - 1):
        for i in range(rings[ring], rings[ring + 1] - 1):
            u0, v0 = xy[i, 0] - col0, xy[i, 1] - row0
            u1, v1 = xy[i + 1, 0] - col0, xy[i + 1, 1] - row0
            # downwards always, so that an edge gives the same numbers from both of its sides
            if v0 < v1:
                _add_edge(steps, u0, v0, u1, v1, 1.0)
            elif v1 < v0:
                _add_edge(steps, u1, v1, u0, v0, -1.0)
    _sum_rows(steps)
    return steps[:, :n_cols]


@jit
def cover_centres(
    xy: NDArray[np.float64],
    rings: NDArray[np.int64],
    row0: int,
    col0: int,
    n_rows: int,
    n_cols: int,
) -> NDArray[np.float64]:
    """Cells of a window whose centre lies inside the polygon: 1, others 0.

    A centre on a left or upper edge is inside, on a right or lower edge outside, so that of two
    polygons that touch exactly one has it. Parameters as for `cover_fractions`.
    """
    steps = np.zeros((n_rows, n_cols + 1))
    for ring in range(rings.size - 1):
        for i in range(rings[ring], rings[ring + 1] - 1):
            u0, v0 = xy[i, 0] - col0, xy[i, 1] - row0
            u1, v1 = xy[i + 1, 0] - col0, xy[i + 1, 1] - row0
            if v0 < v1:
                _add_crossings(steps, u0, v0, u1, v1, 1.0)
            elif v1 < v0:
                _add_crossings(steps, u1, v1, u0, v0, -1.0)
    _sum_rows(steps)
    return steps[:, :n_cols]


@jit
def _sum_rows(steps: NDArray[np.float64]) -> None:
    """Replace every row by the size of its running sum: the way of winding gives its sign."""
    n_rows, n_cols = steps.shape[0], steps.shape[1] - 1
    for r in range(n_rows):
        total = 0.0
        for c in range(n_cols):
            total += steps[r, c]
            steps[r, c] = abs(total)


@jit
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


@jit
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


@jit
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


@jit
def _add_piece(steps: NDArray[np.float64], column: int, middle: float, height: float) -> None:
    """Cell ``column`` gets the area right of the piece's middle, the cells beyond all of it."""
    steps[column] += height * (1.0 - middle)
    steps[column + 1] += height * middle

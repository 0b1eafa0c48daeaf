"""Which pixels a polygon covers, and how much of each, to float64 precision.

Rings are given in pixel units: column to the right, row downwards, whole numbers on pixel edges.
Shells and holes must wind opposite ways. Every edge adds its signed share to the cells it passes
and to all cells on its right; a running sum along the row then leaves each cell with the area
inside. Two polygons that share an edge add the same numbers with opposite signs, so a partition
of a polygon adds up to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit


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

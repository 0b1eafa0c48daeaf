"""Windows of a pixel lattice that sites share, so that no block of a file is decoded twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Rects: TypeAlias = "NDArray[np.int64]"
"""int64 ``(rect, 4)``: first row, row after the last, first column, column after the last."""

_WASTE = 2
"""Most blocks that a shared window may have for each that its sites need."""


class Pieces(NamedTuple):
    """Parts of windows that are read together."""

    rects: Rects
    window: NDArray[np.int64]
    """int64 ``(piece,)``: the window that each is of; its pieces follow one another."""


def share_windows(rects: Rects, block: tuple[int, int]) -> tuple[NDArray[np.int64], Rects]:
    """Window of every site, and the windows.

    Sites that need a block in common share a window. Where that would hold more than twice the
    blocks that they need, the sites are parted along its longer side, and blocks on the seam are
    read for both.

    Examples
    --------
    >>> sites = np.array([[0, 9, 0, 9], [500, 530, 20, 40], [2000, 2010, 0, 9]])
    >>> owner, windows = share_windows(sites, (512, 512))
    >>> owner.tolist(), windows.tolist()
    ([0, 0, 1], [[0, 530, 0, 40], [2000, 2010, 0, 9]])
    """
    site, place = blocks_of(rects, block)
    number = number_blocks(place)
    n = len(rects)
    links = coo_array(
        (np.ones(site.size, np.int8), (site, n + number)),
        shape=(n + int(number.max(initial=-1)) + 1,) * 2,
    )
    _, group = connected_components(links, directed=False)
    owner = np.empty(n, np.int64)
    windows: list[Rects] = []
    order = np.argsort(group[:n], kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(group[:n][order])) + 1):
        for part in _parted(members, rects, block):
            owner[part] = len(windows)
            windows.append(_around(rects[part]))
    return owner, np.array(windows, np.int64).reshape(-1, 4)


def strips(windows: Rects, most_pixels: int) -> Iterator[Pieces]:
    """Cut windows into strips of rows, and put them together to batches of so many pixels.

    A batch holds more only where a single row does.
    """
    rects: list[list[int]] = []
    owner: list[int] = []
    held = 0
    for window, (top, bottom, left, right) in enumerate(windows.tolist()):
        high = max(1, most_pixels // (right - left))
        for row in range(top, bottom, high):
            rect = [row, min(row + high, bottom), left, right]
            size = (rect[1] - rect[0]) * (right - left)
            if rects and held + size > most_pixels:
                yield Pieces(np.array(rects, np.int64), np.array(owner, np.int64))
                rects, owner, held = [], [], 0
            rects.append(rect)
            owner.append(window)
            held += size
    if rects:
        yield Pieces(np.array(rects, np.int64), np.array(owner, np.int64))


def count_blocks(rects: Rects, block: tuple[int, int]) -> int:
    """Blocks that rectangles touch, each once."""
    return int(number_blocks(blocks_of(rects, block)[1]).max(initial=-1)) + 1


def number_blocks(place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers from 0 of blocks by row and column, equal ones for equal blocks."""
    # np.unique of rows compares them byte by byte
    key = (place[:, 0] << 32) + place[:, 1]
    number: NDArray[np.int64] = np.unique(key, return_inverse=True)[1].astype(np.int64)
    return number


def blocks_of(rects: Rects, block: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rectangle, and row and column of the block, of every pair of them that overlaps."""
    first_row, last_row = rects[:, 0] // block[0], (rects[:, 1] - 1) // block[0]
    first_col, last_col = rects[:, 2] // block[1], (rects[:, 3] - 1) // block[1]
    wide = last_col - first_col + 1
    count = (last_row - first_row + 1) * wide
    which = np.repeat(np.arange(len(rects)), count)
    nth = np.arange(which.size) - np.repeat(np.cumsum(count) - count, count)
    place = np.stack([first_row[which] + nth // wide[which], first_col[which] + nth % wide[which]])
    return which, place.T


def _parted(
    members: NDArray[np.int64], rects: Rects, block: tuple[int, int]
) -> Iterator[NDArray[np.int64]]:
    stack = [members]
    while stack:
        part = stack.pop()
        mine = rects[part]
        around = _around(mine)
        if part.size == 1 or count_blocks(around[None], block) <= _WASTE * count_blocks(
            mine, block
        ):
            yield part
            continue
        axis = 0 if around[1] - around[0] >= around[3] - around[2] else 2
        centre = (mine[:, axis] + mine[:, axis + 1]) // 2
        # at the edge of a block, so that a seam is no dearer than it must be
        middle = np.median(centre) // block[axis // 2] * block[axis // 2]
        low = centre < middle
        if not low.any() or low.all():
            low = np.arange(part.size) < part.size // 2
        stack += [part[~low], part[low]]


def _around(rects: Rects) -> NDArray[np.int64]:
    return np.array(
        [rects[:, 0].min(), rects[:, 1].max(), rects[:, 2].min(), rects[:, 3].max()], np.int64
    )

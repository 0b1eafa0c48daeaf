"""The least cloudy month of a season: its composite stands for the year."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import dask.array as da
import numpy as np
from numpy.typing import NDArray


class Candidate(NamedTuple):
    """Composite of one month, as good as any other until the pixels are counted."""

    layers: da.Array
    """float32 ``(band + 1, y, x)``, the number of clear observations last."""
    n_scenes: int
    month: int
    fallback: bool


def least_cloudy(months: Sequence[Candidate], *, min_clear: float) -> da.Array:
    """Composite of the month in which most views of the grid's pixels are clear.

    A month qualifies if it shows ``min_clear`` of the pixels at least once. If none does, the
    fallback months join; if none of those does either, all count. Of equals the first is taken.
    The choice is made for the whole grid when pixels are computed.

    Returns
    -------
    Array
        float32 ``(band + 2, y, x)``: the bands, the number of observations, and the month's
        number, 0 where nothing was observed.
    """
    tables = [
        da.stack([(c.layers[-1] > 0).sum(), c.layers[-1].sum(dtype=np.float64)]) for c in months
    ]
    n_pixel = int(np.prod(months[0].layers.shape[1:]))
    choice = da.stack(tables).rechunk(-1).map_blocks(
        _best, n_pixel, tuple(c.n_scenes for c in months), tuple(c.fallback for c in months),
        min_clear, drop_axis=(0, 1), dtype=np.int64, meta=np.array(0),
    )  # fmt: skip
    made: da.Array = da.blockwise(
        _take, "kyx", choice, "", tuple(c.month for c in months), None,
        *chain.from_iterable((c.layers, "lyx") for c in months),
        new_axes={"k": months[0].layers.shape[0] + 1}, concatenate=False, dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )  # fmt: skip
    return made


def _best(
    counts: NDArray[np.float64],
    n_pixel: int,
    n_scenes: tuple[int, ...],
    fallback: tuple[bool, ...],
    min_clear: float,
) -> NDArray[np.int64]:
    """Position of the chosen month; ``counts`` are pixels shown and clear views of each.

    Examples
    --------
    >>> may, june = [80, 90], [100, 150]
    >>> int(_best(np.array([may, june]), 100, (1, 2), (False, False), 0.5))
    0
    """
    shown, clear = counts[:, 0] / n_pixel, counts[:, 1] / (n_pixel * np.array(n_scenes))
    enough, spare = shown >= min_clear, np.array(fallback)
    for usable in (enough & ~spare, enough, np.ones_like(enough)):
        if usable.any():
            break
    return np.array(np.argmax(np.where(usable, clear, -1)))


def _take(
    choice: NDArray[np.int64], numbers: tuple[int, ...], *months: list[NDArray[np.float32]]
) -> NDArray[np.float32]:
    (layers,) = months[int(choice)]
    month = np.where(layers[-1] > 0, np.float32(numbers[int(choice)]), np.float32(0))
    return np.concatenate([layers, month[None]])

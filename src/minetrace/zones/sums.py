"""Sums over zones that tiles of a grid can be merged from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.zonal import AREA, AREA_VALUE, LEAST, MOST, SHARE, SHARE_VALUE


@dataclass(frozen=True, eq=False)
class ZoneSums:
    """Sums over the observed cells of zones in a block of layers, or in one tile of it."""

    zone: NDArray[np.int64]
    """int64 ``(k,)``: the zones of the table; others have no cells in the tile."""
    layer: int
    """First layer of the block."""
    table: NDArray[np.float64]
    """float64 ``(k, time, 6)``, the table of `minetrace.kernels.zonal.zone_sums`."""


def merge(parts: Iterable[ZoneSums], n_zone: int, n_layer: int) -> ZoneSums:
    """Sums of all zones and layers from those of blocks and tiles, in any order.

    Least and greatest values are those of an undivided grid. Sums differ from them by rounding,
    1e-12 of the sum of the values' sizes at most.
    """
    table = np.zeros((n_zone, n_layer, 6))
    table[..., LEAST], table[..., MOST] = np.inf, -np.inf
    for part in parts:
        at = part.zone, slice(part.layer, part.layer + part.table.shape[1])
        table[*at, :LEAST] += part.table[..., :LEAST]
        table[*at, LEAST] = np.minimum(table[*at, LEAST], part.table[..., LEAST])
        table[*at, MOST] = np.maximum(table[*at, MOST], part.table[..., MOST])
    return ZoneSums(np.arange(n_zone), 0, table)


def finish(sums: ZoneSums, statistic: str) -> NDArray[np.float64]:
    """``sum``, ``mean``, ``count``, ``min`` or ``max`` from the sums, ``(zone, time)``.

    Where nothing was observed the count is 0 and all else NaN.
    """
    table = sums.table
    seen = table[..., AREA] > 0
    if statistic == "mean":
        mean = np.full(seen.shape, np.nan)
        np.divide(table[..., AREA_VALUE], table[..., AREA], out=mean, where=seen)
        return mean
    if statistic == "count":
        return np.where(seen, table[..., SHARE], 0.0)
    column = {"sum": SHARE_VALUE, "min": LEAST, "max": MOST}[statistic]
    return np.where(seen, table[..., column], np.nan)

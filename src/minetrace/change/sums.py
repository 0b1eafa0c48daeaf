"""Areas by site and layer of land cover, and the tables made of them.

Cells have areas of few enough digits (`minetrace.zones.cell_km2`) for sums of them to be exact:
however the cells of a site are divided, its parts add up to the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from minetrace.kernels.runs import Runs
from minetrace.kernels.transitions import zone_composition, zone_transitions
from minetrace.schema import COVERS, Kind

FLOWS = (
    "development_km2", "reclamation_km2", "development_unique_km2", "reclamation_unique_km2",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LandAccount:
    """Land cover of sites by year."""

    composition: pd.DataFrame
    """``site_id, year, bsp, mine_km2, vegetated_km2, other_km2, observed_km2, n_pixels``."""
    transitions: pd.DataFrame
    """As `minetrace.transition_areas`."""


@dataclass(frozen=True, eq=False)
class LandSums:
    """Sums over the cells of sites."""

    kinds: NDArray[np.float64]
    """float64 ``(site, time, kind, 2)``: km² and pixel shares by `minetrace.schema.Kind`."""
    flows: NDArray[np.float64]
    """float64 ``(site, time, cover, 4)``: km² disturbed and reclaimed by cover type, and of both
    the ground that was counted for the first time."""

    @classmethod
    def empty(cls, n_site: int, n_time: int) -> LandSums:
        """Sums of no pixels."""
        return cls(
            np.zeros((n_site, n_time, len(Kind), 2)),
            np.zeros((n_site, n_time, len(COVERS), len(FLOWS))),
        )

    def add(self, part: LandSums) -> None:
        """Take in the sums of other pixels of the same sites and layers."""
        self.kinds[...] += part.kinds
        self.flows[...] += part.flows

    def account(self, site_ids: Collection[str], years: NDArray[np.int64]) -> LandAccount:
        """Tables of the sites, one row a layer, and from the second layer on one a cover type."""
        return LandAccount(
            composition_table(site_ids, years, self.kinds), self._transitions(site_ids, years)
        )

    def moves(self, site_ids: Collection[str], years: NDArray[np.int64]) -> pd.DataFrame:
        """Transitions of all cover types together, one row a site and layer from the second on."""
        keys = {"site_id": site_ids, "year": years[1:]}
        areas = self.flows[:, 1:].sum(axis=2)
        table = keyed_table(keys, {name: areas[..., k] for k, name in enumerate(FLOWS)})
        table["interval_years"] = _intervals(years, self.kinds[..., Kind.CROPLAND :, 0]).ravel()
        return table

    def _transitions(self, site_ids: Collection[str], years: NDArray[np.int64]) -> pd.DataFrame:
        keys = {"site_id": site_ids, "year": years[1:], "cover": COVERS}
        table = keyed_table(keys, {name: self.flows[:, 1:, :, k] for k, name in enumerate(FLOWS)})
        intervals = _intervals(years, self.kinds[..., Kind.CROPLAND :, 0])
        table.insert(2, "interval_years", np.repeat(intervals, len(COVERS)))
        return table


def sum_land(
    codes: NDArray[np.uint8],
    lut: NDArray[np.uint8],
    min_persistence: int,
    runs: Runs,
    km2: NDArray[np.float64],
    share: NDArray[np.float64],
) -> LandSums:
    """Sum up class codes ``(time, y, x)`` under the runs of sites.

    ``km2`` and ``share`` are the area and the share of every cell inside its site, ``lut`` gives
    the kind of every code.
    """
    return LandSums(
        zone_composition(codes, lut, len(Kind), runs, km2, share),
        zone_transitions(codes, lut, min_persistence, runs, km2),
    )


def composition_table(
    site_ids: Collection[str], years: NDArray[np.int64], kinds: NDArray[np.float64]
) -> pd.DataFrame:
    """Composition of `LandAccount` from the sums by kind."""
    km2, pixels = kinds[..., 0], kinds[..., 1]
    mine, observed = km2[..., Kind.MINE], km2[..., Kind.CROPLAND :].sum(axis=-1)
    values = {
        "bsp": np.divide(mine, observed, out=np.full(mine.shape, np.nan), where=observed > 0),
        "mine_km2": mine,
        "vegetated_km2": km2[..., Kind.CROPLAND : Kind.SPARSE + 1].sum(axis=-1),
        "other_km2": km2[..., Kind.OTHER],
        "observed_km2": observed,
        "n_pixels": pixels[..., Kind.CROPLAND :].sum(axis=-1),
    }
    return keyed_table({"site_id": site_ids, "year": years}, values)


def keyed_table(
    keys: Mapping[str, Collection[Any]], values: Mapping[str, NDArray[np.float64]]
) -> pd.DataFrame:
    """One row for each combination of the keys, in their order."""
    sizes = [len(part) for part in keys.values()]
    total, outer = math.prod(sizes), 1
    table: dict[str, Any] = {}
    for (name, part), size in zip(keys.items(), sizes, strict=True):
        kind = "int64" if name in ("year", "code") else "str"
        inner = total // max(outer * size, 1)
        place = np.tile(np.repeat(np.arange(size), inner), outer)
        table[name] = pd.Series(list(part), dtype=kind).array.take(place)
        outer *= size
    return pd.DataFrame(table | {name: a.ravel() for name, a in values.items()})


def _intervals(years: NDArray[np.int64], seen: NDArray[np.float64]) -> NDArray[np.int64]:
    """Years since each site's last layer with data, or else since the layer before.

    ``seen`` has areas ``(site, time, kind)``; the result is ``(site, time)`` from layer two on.
    """
    layer = np.arange(years.size)
    last = np.maximum.accumulate(np.where((seen > 0).any(axis=-1), layer, -1), axis=1)[:, :-1]
    return years[1:] - years[np.where(last < 0, layer[:-1], last)]

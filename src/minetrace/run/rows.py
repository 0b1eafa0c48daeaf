"""What a unit measured: one row a site, its series as lists, so that any site is found at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from minetrace.change import LandSums
from minetrace.schema import COVERS, Kind

LAND, MEANS = ("kinds", "flows"), ("value", "n_pixels")
"""Series of land cover, and of the means of imagery and lights."""


@dataclass(frozen=True, eq=False)
class SiteRows:
    """Series of sites that have layers in the same years."""

    site_ids: Sequence[str]
    years: NDArray[np.int64]
    """int64 ``(time,)``."""
    series: Mapping[str, NDArray[np.float64]]
    """float64 ``(site, time, ...)`` by name."""

    def table(self) -> pa.Table:
        """One row a site; lists hold the series with time first."""
        n = len(self.site_ids)
        years = _lists(np.broadcast_to(self.years, (n, self.years.size)))
        series = {name: _lists(values.reshape(n, -1)) for name, values in self.series.items()}
        return pa.table({"site_id": pa.array(self.site_ids, pa.string()), "years": years, **series})


def land_rows(site_ids: Sequence[str], years: NDArray[np.int64], sums: LandSums) -> SiteRows:
    """Rows of land cover."""
    return SiteRows(site_ids, years, {"kinds": sums.kinds, "flows": sums.flows})


def land_sums_of(rows: SiteRows) -> LandSums:
    """Sums that `land_rows` took."""
    n, n_time = len(rows.site_ids), rows.years.size
    return LandSums(
        rows.series["kinds"].reshape(n, n_time, len(Kind), 2),
        rows.series["flows"].reshape(n, n_time, len(COVERS), 4),
    )


def empty_table(names: Iterable[str]) -> pa.Table:
    """Table of no site."""
    return SiteRows([], np.empty(0, np.int64), {n: np.empty((0, 0)) for n in names}).table()


def write_rows(table: pa.Table, path: Path) -> None:
    """Write an Arrow file; equal tables give equal bytes."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def map_rows(path: Path) -> pa.Table:
    """Table of an Arrow file; its values stay on disk until they are used."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def same_years(table: pa.Table) -> list[SiteRows]:
    """Rows of a table, those with the same years together, in the order of the first of each.

    Where all have the same years, the series are a view of the table.
    """
    groups: dict[bytes, list[int]] = {}
    for i, years in enumerate(table["years"]):
        groups.setdefault(np.asarray(years.values, np.int64).tobytes(), []).append(i)
    names = [n for n in table.column_names if n not in ("site_id", "years")]
    out = []
    for key, at in groups.items():
        part = (table if len(groups) == 1 else table.take(at)).combine_chunks()
        series = {n: _flat(part[n]).reshape(len(at), -1) for n in names}
        out.append(SiteRows(part["site_id"].to_pylist(), np.frombuffer(key, np.int64), series))
    return out


def join_rows(parts: Sequence[tuple[SiteRows, Sequence[int]]]) -> SiteRows:
    """Some rows of each of several parts that have the same years, in the order of site ids."""
    first, ids = parts[0][0], [part.site_ids[i] for part, at in parts for i in at]
    order = np.argsort(np.array(ids), kind="stable")
    series = {}
    for name in first.series:
        series[name] = np.concatenate([part.series[name][at] for part, at in parts])[order]
    return SiteRows([ids[i] for i in order], first.years, series)


def _lists(values: NDArray[np.generic]) -> pa.ListArray:
    n, length = values.shape
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * length)
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).ravel()))


def _flat(column: pa.ChunkedArray) -> NDArray[np.float64]:
    if column.num_chunks == 0:
        return np.empty(0)
    values: NDArray[np.float64] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values

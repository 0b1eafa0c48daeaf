"""From the rows of all units to the tables of a run, some sites at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from minetrace.errors import RunError
from minetrace.panel import site_panel, site_table, written_whole
from minetrace.run.failures import Failure, failure
from minetrace.run.rows import land_sums_of, map_rows, same_years
from minetrace.schema import TRANSITION_AREAS, Recipe, check_table

BATCH = 2000
"""Sites whose tables are in memory at once."""
PARTIAL = 0.99
"""A site of which less than this share was ever observed is recorded as a gap."""


def write_tables(
    sites: gpd.GeoDataFrame,
    recipe: Recipe,
    files: Mapping[str, Sequence[Path]],
    out: Path,
    *,
    known: Sequence[Failure],
) -> tuple[set[str], list[Failure]]:
    """Write ``site_panel``, ``site_table`` and ``transition_areas``, in the order of site ids.

    Parameters
    ----------
    files
        Files of rows by product.
    known
        What failed before: it is not said again that such a site has gaps.

    Returns
    -------
    sites, failures
        Ids of the sites in the tables, and what their layers lack.
    """
    index = {product: _Index(paths) for product, paths in files.items()}
    ordered = sites.iloc[np.argsort(sites["site_id"].to_numpy(), kind="stable")]
    failures: list[Failure] = []
    traced: set[str] = set()
    with (
        written_whole(out / "site_panel.parquet") as panel_file,
        written_whole(out / "site_table.parquet") as table_file,
        written_whole(out / "transition_areas.parquet") as moves_file,
    ):
        panels, tables = _Geo(panel_file, sites), _Geo(table_file, sites)
        moves = _Plain(moves_file)
        for start in range(0, len(ordered), BATCH):
            part = ordered.iloc[start : start + BATCH]
            made = _batch(part, recipe, index)
            failures += made.failures
            if made.table is not None:
                traced |= set(made.table["site_id"])
                panels.add(made.panel)
                tables.add(made.table)
                moves.add(made.transitions)
        for writer in (panels, tables, moves):
            writer.close()
        if not traced:
            reasons = dict.fromkeys(str(row["reason"]) for row in [*known, *failures][:3])
            raise RunError(f"none of {len(sites)} sites gave a result: {'; '.join(reasons)}")
    said = {(row["site_id"], row["asset"]) for row in known}
    ever = {site_id for site_id, _ in said}
    new = [
        row for row in failures
        if (row["site_id"], row["asset"]) not in said
        and not (row["asset"] is None and row["site_id"] in ever)
    ]  # fmt: skip
    return traced, new


@dataclass(frozen=True, eq=False)
class _Batch:
    failures: list[Failure]
    panel: gpd.GeoDataFrame | None = None
    table: gpd.GeoDataFrame | None = None
    transitions: pd.DataFrame | None = None


class _Index:
    """Rows of a product in all files, by site."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.tables = [map_rows(path) for path in paths]
        self.at = {
            site_id: (k, i)
            for k, table in enumerate(self.tables)
            for i, site_id in enumerate(table["site_id"].to_pylist())
        }

    def rows(self, site_ids: Sequence[str]) -> pa.Table | None:
        """Rows of the sites that there are, in their order."""
        found: dict[int, list[int]] = {}
        for site_id in site_ids:
            if site_id in self.at:
                k, i = self.at[site_id]
                found.setdefault(k, []).append(i)
        if not found:
            return None
        return pa.concat_tables([self.tables[k].take(rows) for k, rows in found.items()])


def _batch(sites: gpd.GeoDataFrame, recipe: Recipe, index: Mapping[str, _Index]) -> _Batch:
    ids = sites["site_id"].tolist()
    frames: dict[str, pd.DataFrame | None] = {}
    moves = None
    for product, known in index.items():
        rows = known.rows(ids)
        if rows is None:
            frames[product] = None
        elif product == "landcover":
            accounts = [land_sums_of(r).account(r.site_ids, r.years) for r in same_years(rows)]
            frames[product] = pd.concat([a.composition for a in accounts], ignore_index=True)
            moves = pd.concat([a.transitions for a in accounts], ignore_index=True)
        else:
            frames[product] = _means(rows)
    seen = _observed(sites, frames)
    where = dict(zip(ids, (_where(g) for g in sites.geometry), strict=True))
    failures = [f for p, frame in frames.items() for f in _site_gaps(p, frame, seen, where)]
    failures += [failure(s, _OUTSIDE, where[s]) for s in ids if s not in seen]
    kept = sites[sites["site_id"].isin(seen)]
    if kept.empty:
        return _Batch(failures)
    composition, green, lights = (
        _only(frames.get(name), seen) for name in ("landcover", "imagery", "lights")
    )
    moves = _only(moves, seen)
    panel = site_panel(kept, composition=composition, transitions=moves, ndvi=green, ntl=lights)
    table = site_table(
        panel, kept, composition=composition, transitions=moves,
        status=recipe.status, change=recipe.change,
    )  # fmt: skip
    part = table[table["observed_share"] < PARTIAL]
    for site_id, share in zip(part["site_id"], part["observed_share"], strict=True):
        reason = f"only {share:.1%} of the site is covered by land cover"
        failures.append(failure(site_id, reason, where[site_id], asset="landcover"))
    if moves is None:
        moves = pd.DataFrame(
            {name: pd.Series(dtype=str(c.dtype)) for name, c in TRANSITION_AREAS.columns.items()}
        )
    moves = moves.sort_values(["site_id", "year"], kind="stable", ignore_index=True)
    return _Batch(failures, panel, table, check_table(moves, TRANSITION_AREAS))


_OUTSIDE = (
    "no layer of any product has a valid pixel in the site: it lies outside the data, or, with "
    "coverage = 'centre', holds no pixel centre"
)


def _means(rows: pa.Table) -> pd.DataFrame:
    parts = []
    for group in same_years(rows):
        key = {
            "site_id": np.repeat(np.array(group.site_ids, object), group.years.size),
            "year": np.tile(group.years, len(group.site_ids)),
        }
        parts.append(pd.DataFrame(key | {n: v.ravel() for n, v in group.series.items()}))
    return pd.concat(parts, ignore_index=True).astype({"site_id": "str"})


def _site_gaps(
    product: str, frame: pd.DataFrame | None, seen: set[str], where: Mapping[str, str]
) -> Iterator[Failure]:
    """Sites that are traced, but not in every layer of a product, or by no layer of it."""
    if frame is None:
        frame = pd.DataFrame({"site_id": [], "year": [], "n_pixels": []})
    layers = frame.groupby("site_id")["n_pixels"].agg(["size", "min", "max"])
    for site_id in sorted(seen - set(layers.index)):
        reason = f"no {product} item covers the site"
        yield failure(site_id, reason, where[site_id], asset=product)
    gappy = layers[layers["min"] <= 0]
    for site_id, most in gappy["max"].items():
        if site_id not in seen:
            continue
        reason = f"no layer of {product} has a valid pixel in the site"
        if most > 0:
            rows = frame[(frame["site_id"] == site_id) & (frame["n_pixels"] <= 0)]
            reason = f"no valid pixel in {', '.join(map(str, sorted(rows['year'])))}"
        yield failure(str(site_id), reason, where[str(site_id)], asset=product)


def _observed(sites: gpd.GeoDataFrame, frames: Mapping[str, pd.DataFrame | None]) -> set[str]:
    seen: set[str] = set()
    for frame in frames.values():
        if frame is not None:
            seen |= set(frame.loc[frame["n_pixels"] > 0, "site_id"].unique())
    return seen & set(sites["site_id"])


def _only(frame: pd.DataFrame | None, seen: set[str]) -> pd.DataFrame | None:
    return None if frame is None else frame[frame["site_id"].isin(seen)]


def _where(geometry: Any) -> str:
    return ",".join(f"{v:.5f}" for v in geometry.bounds)


class _Plain:
    """Parquet written batch by batch."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._writer: pq.ParquetWriter | None = None

    def add(self, frame: pd.DataFrame) -> None:
        self._write(pa.Table.from_pandas(frame, preserve_index=False))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _write(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema, compression="zstd")
        self._writer.write_table(table.cast(self._writer.schema))


class _Geo(_Plain):
    """GeoParquet 1.1 with a bbox covering, written batch by batch."""

    def __init__(self, file: Any, sites: gpd.GeoDataFrame) -> None:
        super().__init__(file)
        self._bounds = [float(v) for v in sites.total_bounds]
        self._types = sorted(set(sites.geom_type))

    def add(self, frame: gpd.GeoDataFrame) -> None:
        whole = io.BytesIO()
        frame.to_parquet(
            whole, index=False, compression=None, schema_version="1.1.0", write_covering_bbox=True
        )
        table = pq.read_table(whole)
        metadata = dict(table.schema.metadata)
        geo = json.loads(metadata[b"geo"])
        column = geo["columns"][geo["primary_column"]]
        # those of all batches: the first one's are in the file's head
        column["bbox"] = self._bounds
        column["geometry_types"] = self._types
        metadata[b"geo"] = json.dumps(geo).encode()
        self._write(table.replace_schema_metadata(metadata))

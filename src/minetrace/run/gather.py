"""From the rows of all units to the tables of a run, some sites at a time."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from minetrace.change.sums import keyed_table
from minetrace.errors import RunError
from minetrace.panel import join_panel, sum_up, written_whole
from minetrace.run.failures import Failure, failure
from minetrace.run.rows import SiteRows, join_rows, land_sums_of, map_rows, same_years
from minetrace.schema import SITE_PANEL, SITE_TABLE, TRANSITION_AREAS, Recipe, check_table

_P = TypeVar("_P")
_R = TypeVar("_R")

BATCH = 1000
"""Sites whose tables are made at once; those of three such batches are in memory."""
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
        parts = (ordered.iloc[i : i + BATCH] for i in range(0, len(ordered), BATCH))
        for made in _ahead(lambda part: _batch(part, recipe, index), parts):
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


def _ahead(make: Callable[[_P], _R], parts: Iterable[_P]) -> Iterator[_R]:
    """Call a function with each part, the next one's call going on beside what takes the result."""
    with ThreadPoolExecutor(2) as pool:
        hand: deque[Future[_R]] = deque()
        for part in parts:
            hand.append(pool.submit(make, part))
            if len(hand) > 1:
                yield hand.popleft().result()
        while hand:
            yield hand.popleft().result()


@dataclass(frozen=True, eq=False)
class _Batch:
    failures: list[Failure]
    panel: gpd.GeoDataFrame | None = None
    table: gpd.GeoDataFrame | None = None
    transitions: pd.DataFrame | None = None


class _Index:
    """Rows of a product in all files, by site."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.parts = [part for path in paths for part in same_years(map_rows(path))]
        self.at = {
            site_id: (k, i)
            for k, part in enumerate(self.parts)
            for i, site_id in enumerate(part.site_ids)
        }

    def rows(self, site_ids: Sequence[str]) -> list[SiteRows]:
        """Rows of the sites that there are, those with the same years together."""
        found: dict[int, list[int]] = {}
        for site_id in site_ids:
            if site_id in self.at:
                k, i = self.at[site_id]
                found.setdefault(k, []).append(i)
        alike: dict[bytes, list[tuple[SiteRows, list[int]]]] = {}
        for k, rows in found.items():
            part = self.parts[k]
            alike.setdefault(part.years.tobytes(), []).append((part, rows))
        return [join_rows(parts) for parts in alike.values()]


def _batch(sites: gpd.GeoDataFrame, recipe: Recipe, index: Mapping[str, _Index]) -> _Batch:
    ids = sites["site_id"].tolist()
    rows = {product: known.rows(ids) for product, known in index.items()}
    land = [(r, land_sums_of(r)) for r in rows.pop("landcover", [])]
    accounts = [sums.account(r.site_ids, r.years) for r, sums in land]
    frames = {product: _means(found) for product, found in rows.items()}
    composition = _joined(a.composition for a in accounts)
    if "landcover" in index:
        frames["landcover"] = composition
    seen = _observed(sites, frames)
    where = dict(zip(ids, (_where(g) for g in sites.geometry), strict=True))
    failures = [f for p in index for f in _site_gaps(p, frames[p], seen, where)]
    failures += [failure(s, _OUTSIDE, where[s]) for s in ids if s not in seen]
    kept = sites[sites["site_id"].isin(seen)]
    if kept.empty:
        return _Batch(failures)
    composition, green, lights, moves = (
        _only(frame, seen)
        for frame in (
            composition, frames.get("imagery"), frames.get("lights"),
            _joined(sums.moves(r.site_ids, r.years) for r, sums in land),
        )
    )  # fmt: skip
    panel = join_panel(kept, composition=composition, moves=moves, ndvi=green, ntl=lights)
    panel = check_table(panel, SITE_PANEL)
    table = sum_up(
        panel, kept, composition=composition, moves=moves,
        status=recipe.status, change=recipe.change,
    )  # fmt: skip
    part = table[table["observed_share"] < PARTIAL]
    for site_id, share in zip(part["site_id"], part["observed_share"], strict=True):
        reason = f"only {share:.1%} of the site is covered by land cover"
        failures.append(failure(site_id, reason, where[site_id], asset="landcover"))
    transitions = _only(_joined(a.transitions for a in accounts), seen)
    if transitions is None:
        transitions = pd.DataFrame(
            {name: pd.Series(dtype=str(c.dtype)) for name, c in TRANSITION_AREAS.columns.items()}
        )
    return _Batch(failures, panel, check_table(table, SITE_TABLE), transitions)


def _joined(frames: Iterable[pd.DataFrame]) -> pd.DataFrame | None:
    """One table of several, by site and year; each is in that order."""
    parts = list(frames)
    if len(parts) < 2:
        return parts[0] if parts else None
    both = pd.concat(parts, ignore_index=True)
    return both.sort_values(["site_id", "year"], kind="stable", ignore_index=True)


_OUTSIDE = (
    "no layer of any product has a valid pixel in the site: it lies outside the data, or, with "
    "coverage = 'centre', holds no pixel centre"
)


def _means(rows: Sequence[SiteRows]) -> pd.DataFrame | None:
    return _joined(keyed_table({"site_id": r.site_ids, "year": r.years}, r.series) for r in rows)


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
    if frame is None or seen.issuperset(frame["site_id"].unique()):
        return frame
    return frame[frame["site_id"].isin(seen)]


def _where(geometry: Any) -> str:
    return ",".join(f"{v:.5f}" for v in geometry.bounds)


_BBOX = ("xmin", "ymin", "xmax", "ymax")


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
        self._sites = sites
        self._schema: pa.Schema | None = None

    def add(self, frame: gpd.GeoDataFrame) -> None:
        if self._schema is None:
            self._schema = self._schema_of(frame.iloc[:1])
        # a site's outline is written once a year, but made into bytes once
        row, _ = pd.factorize(frame["site_id"])
        first = np.unique(row, return_index=True)[1]
        outlines = frame.geometry.to_numpy()[first]
        sides = (pa.array(side) for side in shapely.bounds(outlines).T)
        geometry = pa.array(shapely.to_wkb(outlines), pa.binary())
        table = pa.Table.from_pandas(
            pd.DataFrame(frame.drop(columns="geometry")), preserve_index=False
        )
        table = table.append_column("geometry", geometry.take(row))
        table = table.append_column("bbox", pa.StructArray.from_arrays(sides, _BBOX).take(row))
        self._write(table.cast(self._schema))

    def _schema_of(self, frame: gpd.GeoDataFrame) -> pa.Schema:
        whole = io.BytesIO()
        frame.to_parquet(whole, index=False, schema_version="1.1.0", write_covering_bbox=True)
        schema = pq.read_schema(whole)
        metadata = dict(schema.metadata)
        geo = json.loads(metadata[b"geo"])
        column = geo["columns"][geo["primary_column"]]
        # those of all batches
        column["bbox"] = [float(v) for v in self._sites.total_bounds]
        column["geometry_types"] = sorted(set(self._sites.geom_type))
        return schema.with_metadata(metadata | {b"geo": json.dumps(geo).encode()})

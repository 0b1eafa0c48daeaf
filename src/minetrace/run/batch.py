"""Run every unit: threads, failures as rows, resume, one set of tables."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dask
import geopandas as gpd
import pandas as pd

from minetrace._version import __version__
from minetrace.catalog import Source, items_hash
from minetrace.cubes import Sources, open_legend, open_sources
from minetrace.errors import RecipeError, RunError, SiteError
from minetrace.panel import write_geoparquet, write_table
from minetrace.run.attempt import attempt
from minetrace.run.commit import Entry, Manifest, failure_frame, gather, write_unit
from minetrace.run.plan import Unit, plan_units, single_units, unit_key
from minetrace.run.unit import failure
from minetrace.schema import (
    FAILURES,
    SITE_PANEL,
    SITE_TABLE,
    SITES,
    TRANSITION_AREAS,
    Recipe,
    check_table,
    load_recipe,
)

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class RunResult:
    """What a run left in its folder."""

    folder: Path
    n_sites: int
    """Sites in the tables."""
    n_units: int
    n_reused: int
    """Units that an earlier run had committed."""
    failures: pd.DataFrame

    @property
    def complete(self) -> bool:
        """Whether nothing was recorded as failed or missing."""
        return len(self.failures) == 0


def run_sites(
    sites: gpd.GeoDataFrame,
    recipe: str | Path | Recipe,
    out: str | Path,
    *,
    sources: Sources | None = None,
    workers: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> RunResult:
    """Trace every site: panel, table, transitions and change maps.

    Sites are grouped into units that share a window; each unit opens one lazy cube, reads every
    pixel once and is committed on its own. A fault in one place becomes a row of
    ``failures.parquet`` while the others finish.

    Parameters
    ----------
    sites
        From `minetrace.read_sites`.
    recipe
        A shipped recipe's name, a TOML file, or a `Recipe`.
    out
        Output folder. It gets ``site_panel.parquet``, ``site_table.parquet`` (GeoParquet),
        ``transition_areas.parquet``, ``failures.parquet``, ``maps/*.tif`` and ``run.json``.
    sources
        Sources that replace the recipe's, see `minetrace.open_cube`.
    workers
        Units at a time, default the number of cores.
    resume
        Units that an earlier run committed with equal settings, sites, items and version are not
        done again, unless a fault (an unreadable file, say) left out some of their sites. False
        does all anew.
    progress
        Called with (done, total, unit id) after each unit.

    Raises
    ------
    RecipeError, SiteError, SourceError
        Faults of the whole run: nothing useful can follow. Units committed before stay.
    RunError
        No site at all gave a result, as with a legend of another product; the message quotes the
        first reasons.
    """
    # terrain and rings enter no table
    plan = load_recipe(recipe).annual
    if sites.empty:
        raise SiteError("there are no sites to run")
    if plan.imagery is not None and not {"red", "nir"} <= set(plan.imagery.bands):
        raise RecipeError(
            f"recipe {plan.name!r}: imagery.bands are {plan.imagery.bands}; NDVI needs red and nir"
        )
    # of a part of a file's sites, the file's rejects say nothing
    whole = len(sites) == sites.attrs.get("read")
    rejected = sites.attrs.get("rejected", []) if whole else []
    sites = check_table(sites, SITES)
    opened = open_sources(plan, sources)
    units = plan_units(sites)
    if plan.imagery is not None and plan.imagery.composite == "least_cloudy_month":
        # the month is chosen for a whole window, so neighbours would have a say
        units = [single for unit in units for single in single_units(sites, unit)]
    manifest = Manifest(Path(out))
    settings = (plan.fingerprint, _legend_text(plan), *_source_texts(opened), __version__)
    keys = {unit.id: unit_key(sites, unit, *settings) for unit in units}
    entries: dict[str, Entry] = {}
    for unit in units:
        found = manifest.find(unit.id, keys[unit.id]) if resume else None
        if found is not None and not found.faults:
            entries[unit.id] = found
        else:
            manifest.forget(unit.id, keys[unit.id])
    reused = len(entries)
    todo = [unit for unit in units if unit.id not in entries]
    _report(progress, reused, len(units), "")
    # units are the parallelism: a scheduler inside each would fight over the same cores
    with (
        dask.config.set(scheduler="synchronous"),
        ThreadPoolExecutor(workers or os.cpu_count()) as pool,
    ):
        jobs = {
            pool.submit(_do_unit, sites, unit, keys[unit.id], plan, opened, manifest): unit
            for unit in todo
        }
        try:
            for job in as_completed(jobs):
                unit = jobs[job]
                entries[unit.id] = job.result()
                _report(progress, len(entries), len(units), unit.id)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    ordered = [entries[unit.id] for unit in units]
    return _finish(len(sites), rejected, plan, manifest, ordered, reused)


def _do_unit(
    sites: gpd.GeoDataFrame, unit: Unit, key: str, recipe: Recipe,
    sources: Mapping[str, Source], manifest: Manifest,
) -> Entry:  # fmt: skip
    done = attempt(sites, unit, recipe, sources)
    results = done.results
    folder = manifest.start(unit.id, key)
    write_unit(
        folder,
        panel=_joined([r.panel for r in results]),
        table=_joined([r.table for r in results]),
        transitions=_joined([r.transitions for r in results if r.transitions is not None]),
        failures=[*done.failures, *(f for r in results for f in r.failures)],
        change_maps=[r.change_map for r in results if r.change_map is not None],
    )
    layers: dict[str, set[int]] = {}
    for result in results:
        for name, years in result.layers.items():
            layers.setdefault(name, set()).update(years)
    entry = Entry(
        unit.id, key, sites.site_id.iloc[list(unit.rows)].tolist(),
        {n: sorted(y) for n, y in sorted(layers.items())},
        sorted({i for r in results for i in r.items}), done.faults,
    )  # fmt: skip
    manifest.publish(entry)
    return entry


def _finish(
    n_sites: int,
    rejected: list[dict[str, Any]],
    recipe: Recipe,
    manifest: Manifest,
    entries: list[Entry],
    reused: int,
) -> RunResult:
    out = manifest.out
    folders = [manifest.unit_folder(e.unit, e.key) for e in entries]
    failures = gather(folders, "failures.parquet", geo=False)
    unread = [
        failure(row.get("site_id"), str(row["reason"]), f"row {row.get('row')}") for row in rejected
    ]
    known: list[Any] = [] if failures is None else failures.astype(object).to_dict("records")
    problems = failure_frame([*unread, *known])
    write_table(check_table(problems, FAILURES), out / "failures.parquet")
    panel = gather(folders, "panel.parquet", geo=True)
    table = gather(folders, "table.parquet", geo=True)
    moves = gather(folders, "transitions.parquet", geo=False)
    if panel is None or table is None or table.empty:
        reasons = "; ".join(dict.fromkeys(str(row["reason"]) for row in known[:3]))
        raise RunError(f"none of {n_sites} sites gave a result: {reasons}")
    write_geoparquet(check_table(panel, SITE_PANEL), out / "site_panel.parquet")
    write_geoparquet(check_table(table, SITE_TABLE), out / "site_table.parquet")
    if moves is None:
        moves = pd.DataFrame(
            {name: pd.Series(dtype=str(c.dtype)) for name, c in TRANSITION_AREAS.columns.items()}
        )
    write_table(check_table(moves, TRANSITION_AREAS), out / "transition_areas.parquet")
    _collect_maps(out, entries, folders)
    _write_summary(out, recipe, entries)
    return RunResult(out, len(table), len(entries), reused, problems)


def _collect_maps(out: Path, entries: list[Entry], folders: list[Path]) -> None:
    maps = out / "maps"
    shutil.rmtree(maps, ignore_errors=True)
    maps.mkdir()
    for entry, folder in zip(entries, folders, strict=True):
        for file in sorted(folder.glob("map*.tif")):
            shutil.copyfile(file, maps / f"{entry.unit}-{file.name}")


def _write_summary(out: Path, recipe: Recipe, entries: list[Entry]) -> None:
    layers: dict[str, set[int]] = {p: set() for p in recipe.products}
    for entry in entries:
        for name, years in entry.layers.items():
            layers[name].update(years)
    legend = open_legend(recipe)
    summary: dict[str, Any] = {
        "recipe": recipe.name,
        "recipe_hash": recipe.fingerprint,
        "legend": None if legend is None else asdict(legend),
        "years": list(recipe.years),
        "layers": {n: sorted(y) for n, y in layers.items()},
        "missing": [n for n, y in layers.items() if not y],
        "items": len({item for e in entries for item in e.items}),
        "units": len(entries),
        "status": recipe.status.model_dump(mode="json"),
        "coverage": recipe.change.coverage,
        "min_persistence": recipe.change.min_persistence,
        "first_disturbance_share": recipe.change.first_disturbance_share,
        "version": __version__,
    }
    path = out / "run.json"
    whole = path.with_suffix(".tmp")
    whole.write_text(json.dumps(summary, indent=1, sort_keys=True))
    whole.replace(path)


def _joined(frames: list[Any]) -> Any:
    return pd.concat(frames, ignore_index=True) if frames else None


def _legend_text(recipe: Recipe) -> str:
    legend = open_legend(recipe)
    return "" if legend is None else legend.fingerprint


def _source_texts(sources: Mapping[str, Source]) -> list[str]:
    """Items of static sources; an API's are found per unit, so only its settings are known."""
    hashes = {id(source): items_hash(source.items) for source in sources.values()}
    return [
        f"{product} {source.config.model_dump_json()} {hashes[id(source)]}"
        for product, source in sources.items()
    ]


def _report(progress: Progress | None, done: int, total: int, unit: str) -> None:
    if progress is not None:
        progress(done, total, unit)

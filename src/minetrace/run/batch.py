"""Run every unit: threads, failures as rows, resume, one set of tables."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd
from shapely.geometry import box

from minetrace._version import __version__
from minetrace.catalog import Source, redact
from minetrace.cubes import Sources, open_legend, open_sources
from minetrace.errors import (
    MinetraceError,
    RunError,
    SiteError,
    causes,
)
from minetrace.panel import read_table, write_table
from minetrace.run.budget import budget
from minetrace.run.commit import Entry, Manifest
from minetrace.run.export import is_kept
from minetrace.run.failures import Failure, failure, failure_frame, window_text
from minetrace.run.gather import write_tables
from minetrace.run.keys import unit_keys
from minetrace.run.outputs import collect, not_shown
from minetrace.run.plan import CUBES, MAPS, Unit, check_products, plan_units
from minetrace.run.schedule import each_done
from minetrace.run.work import Jobs, Work
from minetrace.schema import FAILURES, SITES, Recipe, check_table, load_recipe

if TYPE_CHECKING:
    from distributed import Client

_log = logging.getLogger(__name__)
_TOLD = ("GDAL_", "CPL_", "VSI_", "PROJ_")
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class RunResult:
    """What a run left in its folder."""

    folder: Path
    n_sites: int
    """Sites in the tables; of a run without tables, sites that have a map, a trend or a cube."""
    n_units: int
    n_reused: int
    """Units that an earlier run had committed."""
    n_elsewhere: int
    """Units that another run on the same folder, or a worker that died, committed meanwhile."""
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
    products: Sequence[str] = ("panel", MAPS),
    scheduler: str | Client | None = None,
    workers: int | None = None,
    memory: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> RunResult:
    """Trace every site: tables, maps of change, rasters of trends, cubes.

    Sites are grouped into units, each of one product and place; every unit reads what its sites
    need once and is committed on its own. A fault in one place becomes a row of
    ``failures.parquet`` while the others finish.

    Parameters
    ----------
    sites
        From `minetrace.read_sites`.
    recipe
        A shipped recipe's name, a TOML file, or a `Recipe`.
    out
        Output folder. It gets ``failures.parquet``, ``run.json`` and the products.
    sources
        Sources that replace the recipe's, see `minetrace.open_cube`.
    products
        What is made, any of:

        - ``"panel"``: ``site_panel.parquet``, ``site_table.parquet`` (GeoParquet) and
          ``transition_areas.parquet``;
        - ``"maps"``: ``maps/*.tif``, first years of change and land cover by pixel;
        - ``"trends"``: ``trends/*.tif``, `minetrace.mann_kendall` of annual NDVI and of night
          lights by pixel, with its defaults, in float32;
        - ``"cubes"``: ``cubes/<site id>.zarr``, what `minetrace.open_cube` opens for each site, as
          `minetrace.save_cube` stores it, and a STAC catalogue of them.

        What the folder has of others stays, but for maps and trends beside new tables.
    scheduler
        What does the units: threads of this process (the default), ``"processes"``, the address of
        a dask scheduler, or a `distributed.Client`. Workers elsewhere need minetrace of this
        version, the rasters, and ``out`` under the same path.
    workers
        Units at a time, default the number of cores; a cluster has its own.
    memory
        Bytes that a process may take. A plan that needs more is refused before anything is read.
    resume
        Units that an earlier run committed with equal settings, sites, items and version are not
        done again, unless a fault (an unreadable file, say) left out some of their sites. A cube
        that is there gains the years it lacks. False does all anew.
    progress
        Called with (done, total, unit id) after each unit.
    stop
        Once set, units in hand are finished and committed, then `RunError` tells how many were.

    Raises
    ------
    InputError
        Unknown ``products``.
    RecipeError, SiteError, SourceError
        Faults of the whole run: nothing useful can follow. Units committed before stay.
    RunError
        No site at all gave a result, as with a legend of another product; the message quotes the
        first reasons. The plan does not fit ``memory``, the disk is full, the cluster is lost.
    """
    loaded = load_recipe(recipe)
    # terrain and rings enter cubes only
    plan = loaded.annual
    check_products(products, loaded)
    if sites.empty:
        raise SiteError("there are no sites to run")
    # of a part of a file's sites, the file's rejects say nothing
    whole = len(sites) == sites.attrs.get("read")
    rejected = sites.attrs.get("rejected", []) if whole else []
    sites = check_table(sites, SITES)
    opened = open_sources(loaded if CUBES in products else plan, sources)
    units = plan_units(sites, plan, opened, products=products)
    if memory is not None:
        at_once = units_at_once(scheduler, workers)
        budget(sites, units, loaded, opened, units_at_once=at_once).require(memory)
    manifest = Manifest(Path(out))
    manifest.sweep()
    keys = unit_keys(sites, units, loaded, opened)
    entries: dict[str, Entry] = {}
    for unit in units:
        found = manifest.find(unit.id, keys[unit.id]) if resume else None
        kept = found is not None and is_kept(manifest.files(found), manifest.out / CUBES)
        if found is not None and kept and not found.faults:
            entries[unit.id] = found
        else:
            manifest.forget(unit.id, keys[unit.id])
    reused = len(entries)
    # the largest first: towards the end small ones are left, and all workers have some
    todo = sorted((u for u in units if u.id not in entries), key=lambda u: -len(u.rows))
    _report(progress, reused, len(units), "")
    work = Work(loaded, Path(out).resolve(), resume)
    jobs = Jobs(todo, keys, sites, plan, opened)
    lost: list[tuple[Unit, str]] = []
    elsewhere = 0
    # closed here: left to the garbage collector, a worker's thread might wait for itself
    with closing(
        each_done(
            work, jobs, scheduler=scheduler, workers=workers, memory=memory,
            environment=_environment(opened), stop=stop,
        )
    ) as done:  # fmt: skip
        for index, result in done:
            unit = todo[index]
            if isinstance(result, MinetraceError | OSError):
                raise result
            if isinstance(result, Exception):
                lost.append((unit, _reason(unit, result)))
                continue
            entries[unit.id] = result.entry
            elsewhere += not result.mine
            _report(progress, len(entries), len(units), unit.id)
    if len(entries) + len(lost) < len(units):
        raise RunError(
            f"stopped after {len(entries)} of {len(units)} units; these are committed, and the "
            "same call goes on from there"
        )
    ended = [(unit, entries[unit.id]) for unit in units if unit.id in entries]
    known = [failure(r.get("site_id"), str(r["reason"]), f"row {r.get('row')}") for r in rejected]
    return _finish(sites, products, known, plan, manifest, ended, lost, reused, elsewhere)


def units_at_once(scheduler: object, workers: int | None) -> int:
    """Units that one process does at a time; a cluster's threads are its own affair."""
    in_threads = scheduler in (None, "threads", "local")
    return (workers or os.cpu_count() or 1) if in_threads else 1


def _reason(unit: Unit, err: Exception) -> str:
    """Why a unit has no result, though no file or place is known to be at fault."""
    if type(err).__name__ == "KilledWorker":
        _log.warning("unit %s: workers died over it", unit.id)
        return (
            "workers died over its unit, most likely for want of memory: give them more, or fewer "
            "units at a time"
        )
    _log.error("unit %s: failed", unit.id, exc_info=err)
    return f"its unit failed: {redact(causes(err))}"


def _lost(sites: gpd.GeoDataFrame, unit: Unit, reason: str) -> list[Failure]:
    asset, where = unit.source or None, window_text(unit.window)
    return [
        failure(str(sites["site_id"].iloc[row]), reason, where, asset=asset) for row in unit.rows
    ]


def _environment(sources: Mapping[str, Source]) -> dict[str, str]:
    """Keys of the sources and settings of GDAL, for workers that are other processes."""
    keys = {s.config.sign.env for s in sources.values() if s.config.sign is not None}
    return {
        name: value for name, value in os.environ.items() if name in keys or name.startswith(_TOLD)
    }


def _finish(
    sites: gpd.GeoDataFrame,
    products: Sequence[str],
    known: list[Failure],
    recipe: Recipe,
    manifest: Manifest,
    ended: list[tuple[Unit, Entry]],
    lost: list[tuple[Unit, str]],
    reused: int,
    elsewhere: int,
) -> RunResult:
    files: dict[str, list[Path]] = {product: [] for product in recipe.products}
    beside: list[Failure] = []
    for unit, reason in lost:
        (known if unit.product in files else beside).extend(_lost(sites, unit, reason))
    for unit, entry in ended:
        folder = manifest.files(entry)
        if (folder / "rows.arrow").is_file():
            files[unit.product].append(folder / "rows.arrow")
        if (folder / "failures.parquet").is_file():
            table = read_table(folder / "failures.parquet").astype(object)
            rows = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
            (known if unit.product in files else beside).extend(rows)
    with manifest.folder_for("tables") as folder:
        if "panel" in products:
            traced, gaps = _tables(sites, known, recipe, files, ended, folder)
        else:
            traced = {site_id for _, entry in ended for site_id in entry.shown}
            gaps = not_shown(sites, ended, beside)
            if not traced:
                reasons = dict.fromkeys(str(row["reason"]) for row in [*known, *beside, *gaps][:3])
                raise RunError(f"none of {len(sites)} sites gave a result: {'; '.join(reasons)}")
        problems = failure_frame([*known, *beside, *gaps])
        write_table(check_table(problems, FAILURES), folder / "failures.parquet")
        collect(manifest, ended, products, folder)
        read = {unit.source for unit, _ in [*ended, *lost]}
        _write_summary(folder / "run.json", recipe, ended, read)
        manifest.deliver(folder)
    return RunResult(manifest.out, len(traced), len(ended), reused, elsewhere, problems)


def _tables(
    sites: gpd.GeoDataFrame,
    known: Sequence[Failure],
    recipe: Recipe,
    files: Mapping[str, Sequence[Path]],
    ended: Sequence[tuple[Unit, Entry]],
    out: Path,
) -> tuple[set[str], list[Failure]]:
    """Write the tables; ids of their sites, and what these lack."""
    for product in (p for p in recipe.products if not files[p]):
        failed = [row for row in known if row["asset"] == product and row["site_id"] is not None]
        if len({row["site_id"] for row in failed}) == len(sites):
            reasons = dict.fromkeys(str(row["reason"]) for row in failed[:3])
            raise RunError(
                f"none of {len(sites)} sites gave a result for {product}: {'; '.join(reasons)}"
            )
    empty = [entry for unit, entry in ended if not entry.items and unit.product in files]
    absent = _without_items(sites, recipe, empty)
    traced, gaps = write_tables(sites, recipe, files, out, known=[*known, *absent])
    gaps += [row for e, row in zip(empty, absent, strict=True) if traced & set(e.sites)]
    return traced, gaps


def _without_items(
    sites: gpd.GeoDataFrame, recipe: Recipe, entries: Sequence[Entry]
) -> list[Failure]:
    """Places where a product has no item at all, one for each entry."""
    shapes, (first, last) = sites.set_index("site_id").geometry, recipe.years
    return [
        failure(
            None, f"no {e.product} item covers this window in {first}-{last}",
            window_text(box(*shapes[e.sites].total_bounds)), asset=e.product,
        )
        for e in entries
    ]  # fmt: skip


def _write_summary(
    path: Path, recipe: Recipe, ended: Sequence[tuple[Unit, Entry]], read: set[str]
) -> None:
    layers: dict[str, set[int]] = {p: set() for p in recipe.products if p in read}
    for unit, entry in ended:
        if unit.source:
            layers[unit.source].update(entry.years)
    entries = [entry for _, entry in ended]
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
    path.write_text(json.dumps(summary, indent=1, sort_keys=True))


def _report(progress: Progress | None, done: int, total: int, unit: str) -> None:
    if progress is not None:
        progress(done, total, unit)

"""The work of one task: measure a unit, write its files, commit it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd

from minetrace.catalog import Source
from minetrace.run.attempt import Attempt, attempt
from minetrace.run.commit import Entry, Manifest, write_unit
from minetrace.run.export import save_site
from minetrace.run.logs import in_unit
from minetrace.run.plan import CUBES, Unit, place_of
from minetrace.schema import Recipe

_log = logging.getLogger(__name__)


class Job(NamedTuple):
    """A unit to be done, with all that is needed for it, and no more."""

    unit: Unit
    """Its rows are all of ``sites``."""
    key: str
    """Hash of all that its results depend on."""
    sites: gpd.GeoDataFrame
    sources: Mapping[str, Source]
    """Of the products that the unit reads, each with the items near it."""


class Jobs(Sequence[Job]):
    """Jobs of units, made when they are asked for: together they hold every site and item."""

    def __init__(
        self, units: Sequence[Unit], keys: Mapping[str, str], sites: gpd.GeoDataFrame,
        recipe: Recipe, sources: Mapping[str, Source],
    ) -> None:  # fmt: skip
        self.units, self.keys, self.sites = units, keys, sites
        self.recipe, self.sources = recipe, sources

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        unit = self.units[index]
        place = place_of(unit, self.recipe)
        return Job(
            replace(unit, rows=tuple(range(len(unit.rows)))),
            self.keys[unit.id],
            self.sites.iloc[list(unit.rows)].reset_index(drop=True),
            {name: self.sources[name].near(place) for name in unit.reads(self.sources)},
        )


class Done(NamedTuple):
    """A committed unit."""

    entry: Entry
    mine: bool
    """Whether this call committed it; False if another did, of this run or not."""


@dataclass(frozen=True)
class Work:
    """Does a unit, in whichever worker; every worker sees the output folder."""

    recipe: Recipe
    out: Path
    resume: bool = True
    """Whether stores of cubes keep the years that they have."""

    def __call__(self, job: Job) -> Done:
        """Measure and commit a unit, unless it has been committed in the meantime."""
        with in_unit(job.unit.id):
            start = time.monotonic()
            _log.info("begins, %d sites", len(job.sites))
            done = self._do(job)
            _log.info("ends after %.2f s", time.monotonic() - start)
        return done

    def _do(self, job: Job) -> Done:
        manifest = Manifest(self.out)
        unit = job.unit
        found = manifest.find(unit.id, job.key)
        if found is not None:
            return Done(found, mine=False)
        with manifest.folder_for(f"{unit.id}-{job.key}") as folder:
            made = self._made(job)
            write_unit(
                folder, rows=made.rows, failures=made.failures, maps=made.maps, cubes=made.cubes
            )
            entry = Entry(
                unit.id, job.key, unit.product, folder.name,
                job.sites["site_id"].tolist(),
                sorted(made.years), sorted(made.items), sorted(made.shown), made.faults,
            )  # fmt: skip
            mine = manifest.publish(entry)
        if not mine:
            _log.warning("was committed by another run in the meantime")
            found = manifest.find(unit.id, job.key)
            assert found is not None
            entry = found
        return Done(entry, mine)

    def _made(self, job: Job) -> Attempt:
        unit, recipe = job.unit, self.recipe
        if unit.product != CUBES:
            return attempt(job.sites, unit, recipe, job.sources[unit.source])
        cubes = self.out / CUBES
        return save_site(job.sites, unit, recipe, job.sources, cubes, anew=not self.resume)

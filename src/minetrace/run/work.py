"""The work of one task: measure a unit, write its files, commit it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import geopandas as gpd

from minetrace.catalog import Source
from minetrace.errors import RunError
from minetrace.run.attempt import attempt
from minetrace.run.commit import Entry, Manifest, write_unit
from minetrace.run.plan import Unit
from minetrace.schema import Recipe

_log = logging.getLogger(__name__)


class Job(NamedTuple):
    """A unit to be done, with the key of all that its results depend on."""

    unit: Unit
    key: str


class Done(NamedTuple):
    """A committed unit."""

    entry: Entry
    mine: bool
    """Whether this run committed it; False if another was faster."""


@dataclass(frozen=True, eq=False)
class Work:
    """Does a unit, in whichever worker; every worker sees the output folder."""

    sites: gpd.GeoDataFrame
    recipe: Recipe
    sources: Mapping[str, Source]
    out: Path

    def __call__(self, job: Job) -> Done:
        """Measure and commit a unit, unless it has been committed in the meantime."""
        manifest = Manifest(self.out)
        unit = job.unit
        found = manifest.find(unit.id, job.key)
        if found is not None:
            return Done(found, mine=False)
        made = attempt(self.sites, unit, self.recipe, self.sources)
        try:
            folder = manifest.start(unit.id, job.key)
            write_unit(folder, rows=made.rows, failures=made.failures, maps=made.maps)
            entry = Entry(
                unit.id, job.key, unit.product, folder.name,
                self.sites["site_id"].iloc[list(unit.rows)].tolist(),
                sorted(made.years), sorted(made.items), made.faults,
            )  # fmt: skip
            mine = manifest.publish(entry)
        except OSError as err:
            if err.errno in (errno.ENOSPC, errno.EDQUOT):
                raise RunError(
                    f"no space is left in {self.out} for unit {unit.id}; free some and run again: "
                    "what is committed is not done twice"
                ) from err
            raise
        if not mine:
            _log.warning("unit %s was committed by another run in the meantime", unit.id)
            found = manifest.find(unit.id, job.key)
            assert found is not None
            entry = found
        return Done(entry, mine)

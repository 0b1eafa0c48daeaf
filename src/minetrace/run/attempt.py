"""Do a unit whatever happens to its files: a fault takes only the site and item that it hits."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import geopandas as gpd

from minetrace.catalog import Source, item_time, redact
from minetrace.cubes import find_items
from minetrace.errors import (
    GridError,
    LegendError,
    ReadError,
    SourceError,
    UnavailableError,
    causes,
)
from minetrace.run.plan import Unit, single_units
from minetrace.run.unit import Failure, Items, UnitResult, analyse, failure, unreadable, window_text
from minetrace.schema import Recipe

_log = logging.getLogger(__name__)

# faults that may be gone at the next try
_PASSING_FAULTS = (ReadError, UnavailableError)
# faults of one place; everything else is a fault of the whole run
_LOCAL_FAULTS = (*_PASSING_FAULTS, GridError, LegendError, SourceError)


@dataclass
class Attempt:
    """What came of a unit."""

    results: list[UnitResult] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    faults: int = 0
    """Failures that may pass: a later run tries the unit again."""

    def add(self, other: Attempt) -> None:
        """Take up what came of a part of the unit."""
        self.results += other.results
        self.failures += other.failures
        self.faults += other.faults


def attempt(
    sites: gpd.GeoDataFrame, unit: Unit, recipe: Recipe, sources: Mapping[str, Source]
) -> Attempt:
    """Analyse a unit; after a fault site by site, and then without the items at fault."""
    rows = sites.iloc[list(unit.rows)]
    items: Items = {}
    try:
        items = find_items(recipe, sources, unit.window, recipe.years)
        return Attempt([analyse(rows, unit.window, recipe, sources=sources, items=items)])
    except _LOCAL_FAULTS as err:
        if len(unit.rows) == 1:
            if isinstance(err, ReadError):
                return _without_unreadable(rows, unit, recipe, sources, items, err)
            return _failed(rows, unit, err)
    whole = Attempt()
    for single in single_units(sites, unit):
        whole.add(attempt(sites, single, recipe, sources))
    return whole


def _without_unreadable(
    rows: gpd.GeoDataFrame,
    unit: Unit,
    recipe: Recipe,
    sources: Mapping[str, Source],
    items: Items,
    err: ReadError,
) -> Attempt:
    """One site without the items that cannot be read: each is recorded, none is made up."""
    bad = unreadable(unit.window, recipe, sources, items)
    if not bad:
        return _failed(rows, unit, err)
    lost = {(product, item.id) for product, item, _ in bad}
    left = {p: [i for i in found if (p, i.id) not in lost] for p, found in items.items()}
    site_id, where = str(rows.site_id.iloc[0]), window_text(unit.window)
    rest = Attempt(faults=len(bad))
    for product, item, reason in bad:
        text = f"left out the {product} item of {item_time(item):%Y-%m-%d}: {redact(reason)}"
        rest.failures.append(failure(site_id, text, where, item=item.id, asset=product))
        _log.warning("site %s: %s", site_id, text)
    try:
        rest.results.append(analyse(rows, unit.window, recipe, sources=sources, items=left))
    except _LOCAL_FAULTS as again:
        rest.add(_failed(rows, unit, again))
    return rest


def _failed(rows: gpd.GeoDataFrame, unit: Unit, err: Exception) -> Attempt:
    site_id = str(rows.site_id.iloc[0])
    _log.warning("site %s failed: %s", site_id, err)
    row = failure(site_id, redact(causes(err)), window_text(unit.window))
    return Attempt(failures=[row], faults=int(isinstance(err, _PASSING_FAULTS)))

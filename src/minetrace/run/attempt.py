"""Do a unit whatever happens to its files: a fault takes only the site and item that it hits."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import geopandas as gpd
import pystac
import xarray as xr

from minetrace.catalog import Source, covers, item_time, redact
from minetrace.cubes import layer_years, open_legend, product_items
from minetrace.errors import (
    GridError,
    LegendError,
    ReadError,
    SourceError,
    StoreError,
    UnavailableError,
    causes,
)
from minetrace.run.failures import Failure, failure, window_text
from minetrace.run.landcover import account_sites
from minetrace.run.measure import change_map, measure, trend_map, unreadable
from minetrace.run.plan import MAPS, TRENDS, Unit, single_units
from minetrace.run.rows import SiteRows
from minetrace.schema import Recipe

_log = logging.getLogger(__name__)

# faults that may be gone at the next try
_PASSING_FAULTS = (ReadError, StoreError, UnavailableError)
# faults of one place; everything else is a fault of the whole run
LOCAL_FAULTS = (*_PASSING_FAULTS, GridError, LegendError, SourceError)


@dataclass
class Attempt:
    """What came of a unit."""

    rows: list[SiteRows] = field(default_factory=list)
    maps: list[xr.Dataset] = field(default_factory=list)
    cubes: dict[str, str] = field(default_factory=dict)
    """Store → its seal."""
    shown: set[str] = field(default_factory=set)
    """Sites that have a map or a cube."""
    failures: list[Failure] = field(default_factory=list)
    years: set[int] = field(default_factory=set)
    """Years with a layer."""
    items: set[str] = field(default_factory=set)
    faults: int = 0
    """Failures that may pass: a later run tries the unit again."""

    def add(self, other: Attempt) -> None:
        """Take up what came of a part of the unit."""
        self.rows += other.rows
        self.maps += other.maps
        self.cubes |= other.cubes
        self.shown |= other.shown
        self.failures += other.failures
        self.years |= other.years
        self.items |= other.items
        self.faults += other.faults


def attempt(sites: gpd.GeoDataFrame, unit: Unit, recipe: Recipe, source: Source) -> Attempt:
    """Do a unit; after a fault site by site, and then without the items at fault."""
    product = unit.source
    part = recipe.only(product)
    items: list[pystac.Item] = []
    try:
        items = product_items(product, part, source, unit.window, part.years)
        if not items:
            return Attempt()
        whole = _done(sites, unit, product, part, source, items)
        axes = {tuple(r.years.tolist()) for r in whole.rows}
        if unit.product == TRENDS:
            axes.add(tuple(sorted(whole.years)))
        whole.failures += _missing_years(unit, axes)
        return whole
    except LOCAL_FAULTS as err:
        if unit.careful:
            if isinstance(err, ReadError) and items:
                return _without_unreadable(sites, unit, product, part, source, items, err)
            return failed(sites, unit, err)
    parts = Attempt()
    for single in single_units(sites, unit):
        parts.add(attempt(sites, single, recipe, source))
    return parts


def _done(
    sites: gpd.GeoDataFrame,
    unit: Unit,
    product: str,
    recipe: Recipe,
    source: Source,
    items: Sequence[pystac.Item],
) -> Attempt:
    rows, legend = sites.iloc[list(unit.rows)], open_legend(recipe)
    made = Attempt(
        years=set(layer_years(product, recipe, items, unit.window)),
        items={item.id for item in items},
    )
    if unit.product in (MAPS, TRENDS):
        if unit.product == TRENDS:
            made.maps.append(trend_map(product, unit.window, recipe, source, items))
        else:
            assert legend is not None
            made.maps.append(change_map(unit.window, recipe, source, items, legend))
        places = zip(rows["site_id"].astype(str), rows.geometry, strict=True)
        made.shown = {s for s, place in places if any(covers(item, place) for item in items)}
        return made
    if product != "landcover" or unit.careful:
        made.rows = measure(product, rows, unit.window, recipe, source, items)
        return made
    assert legend is not None
    made.rows, troubled = account_sites(rows, items, source, recipe, legend)
    for single in single_units(sites, unit, [unit.rows[i] for i in troubled]):
        alone = attempt(sites, single, recipe, source)
        # gaps of its place are those of the unit
        alone.failures = [f for f in alone.failures if f["site_id"] is not None]
        made.add(alone)
    return made


def _missing_years(unit: Unit, axes: Iterable[tuple[int, ...]]) -> list[Failure]:
    """Years without a layer amid annual ones."""
    where, missing = window_text(unit.window), set()
    for years in axes:
        annual = {y for y in years if y + 1 in years}
        missing |= {
            y for y in range(min(years), max(years))
            if y not in years and min(annual, default=y) < y < max(annual, default=y)
        }  # fmt: skip
    return [
        failure(None, f"no {unit.source} item in {y}", where, asset=unit.source)
        for y in sorted(missing)
    ]


def _without_unreadable(
    sites: gpd.GeoDataFrame,
    unit: Unit,
    product: str,
    recipe: Recipe,
    source: Source,
    items: Sequence[pystac.Item],
    err: ReadError,
) -> Attempt:
    """One site without the items that cannot be read: each is recorded, none is made up."""
    bad = list(unreadable(product, unit.window, recipe, source, items))
    if not bad:
        return failed(sites, unit, err)
    lost = {item.id for item, _ in bad}
    left = [item for item in items if item.id not in lost]
    rest = left_out(sites, unit, product, bad)
    try:
        if left:
            rest.add(_done(sites, unit, product, recipe, source, left))
    except LOCAL_FAULTS as again:
        rest.add(failed(sites, unit, again))
    return rest


def left_out(
    sites: gpd.GeoDataFrame, unit: Unit, product: str, bad: Iterable[tuple[pystac.Item, str]]
) -> Attempt:
    """Record items that cannot be read, each with the reason, for the one site of a unit."""
    site_id, where = str(sites["site_id"].iloc[unit.rows[0]]), window_text(unit.window)
    made = Attempt()
    for item, reason in bad:
        text = f"left out the {product} item of {item_time(item):%Y-%m-%d}: {redact(reason)}"
        made.failures.append(failure(site_id, text, where, item=item.id, asset=product))
        made.faults += 1
        _log.warning("site %s: %s", site_id, text)
    return made


def failed(sites: gpd.GeoDataFrame, unit: Unit, err: Exception) -> Attempt:
    """Record that the one site of a unit has no result."""
    site_id = str(sites["site_id"].iloc[unit.rows[0]])
    _log.warning("site %s, %s failed: %s", site_id, unit.product, err)
    asset = unit.source or None
    row = failure(site_id, redact(causes(err)), window_text(unit.window), asset=asset)
    return Attempt(failures=[row], faults=int(isinstance(err, _PASSING_FAULTS)))

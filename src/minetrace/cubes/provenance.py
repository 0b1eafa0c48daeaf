"""What each year of a node comes from, so that a store can tell which years are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pystac
from shapely.geometry.base import BaseGeometry

from minetrace.catalog import Source, item_time, items_hash
from minetrace.cubes.years import season_items, site_months
from minetrace.schema import Recipe


def series_hash(recipe: Recipe, node: str, source: Source | None = None) -> str:
    """Hash of the settings of one node, whatever its years: equal ones may be joined along time."""
    part = getattr(recipe, node).model_dump(mode="json")
    read = {"bands", "band_index", "radiometry"}
    how = source.config.model_dump(mode="json", include=read) if source is not None else {}
    text = json.dumps([recipe.buffer_m, part, how], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def year_attrs(
    recipe: Recipe, node: str, items: Sequence[pystac.Item], geometry: BaseGeometry
) -> dict[str, Any]:
    """Attributes ``items_by_year``, hash of the items of each year, and ``item_years``.

    The second is the year of each item, in their order; 0 for one that no year uses.
    """
    years = _items_of_years(recipe, node, items, geometry)
    where = {id(item): year for year, found in years.items() for item in found}
    return {
        "items_by_year": {f"{year:04d}": items_hash(found) for year, found in years.items()},
        "item_years": [where.get(id(item), 0) for item in items],
    }


def _items_of_years(
    recipe: Recipe, node: str, items: Sequence[pystac.Item], geometry: BaseGeometry
) -> Mapping[int, list[pystac.Item]]:
    found: dict[int, list[pystac.Item]] = {}
    if node == "imagery" and recipe.imagery is not None:
        for later in (False, True):
            months = site_months(recipe.imagery, geometry, fallback=later)
            for year, group in season_items(items, geometry, months).items():
                seen = {id(item) for item in found.get(year, [])}
                found.setdefault(year, []).extend(i for i in group if id(i) not in seen)
    else:
        for item in items:
            found.setdefault(item_time(item).year, []).append(item)
    return dict(sorted(found.items()))

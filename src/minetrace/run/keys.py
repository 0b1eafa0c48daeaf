"""Keys of units: what their results depend on, so that a later run knows what it may take over."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import geopandas as gpd

from minetrace._version import __version__
from minetrace.catalog import Source, item_hashes
from minetrace.cubes import open_legend
from minetrace.run.plan import Unit, place_of
from minetrace.schema import Recipe


def unit_keys(
    sites: gpd.GeoDataFrame,
    units: Sequence[Unit],
    recipe: Recipe,
    sources: Mapping[str, Source],
) -> dict[str, str]:
    """Key of each unit, by its id.

    It stands for the unit's sites, the recipe and the source of its product, the items at its place
    and this version. A change elsewhere (another product, sites or items of another place)
    leaves it as it is. Of a source that is asked over the net only the settings are known.
    """
    products = {unit.source for unit in units}
    settings = {p: _settings(recipe.only(p), p, sources[p]) for p in products}
    hashes = {id(s): item_hashes(s.items) for s in {id(s): s for s in sources.values()}.values()}
    ids, outlines = sites["site_id"].to_numpy(), sites.geometry.to_wkb().to_numpy()
    keys = {}
    for unit in units:
        source = sources[unit.source]
        digest = hashlib.sha256(f"{unit.product} {settings[unit.source]}".encode())
        known = hashes[id(source)]
        if known:
            near = source.outlines.query(place_of(unit, recipe), predicate="intersects")
            digest.update(b"".join(sorted(known[i] for i in near)))
        for row in unit.rows:
            digest.update(repr(ids[row]).encode())
            digest.update(outlines[row])
        keys[unit.id] = digest.hexdigest()[:16]
    return keys


def _settings(recipe: Recipe, product: str, source: Source) -> str:
    legend = open_legend(recipe)
    read_as = "" if legend is None else legend.fingerprint
    return f"{recipe.fingerprint} {read_as} {source.config.model_dump_json()} {__version__}"

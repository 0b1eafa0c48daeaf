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

    It stands for the unit's sites, the recipe and the sources of what it reads, the items at its
    place and this version. A change elsewhere (another product, sites or items of another place)
    leaves it as it is. Of a source that is asked over the net only the settings are known.
    """
    distinct = {id(source): source for source in sources.values()}
    hashes = {key: item_hashes(source.items) for key, source in distinct.items()}
    readers = {unit.source: unit for unit in units}
    settings = {source: _settings(unit, recipe, sources) for source, unit in readers.items()}
    ids, outlines = sites["site_id"].to_numpy(), sites.geometry.to_wkb().to_numpy()
    keys = {}
    for unit in units:
        digest = hashlib.sha256(f"{unit.product} {settings[unit.source]}".encode())
        place = place_of(unit, recipe)
        for name in unit.reads(sources):
            source = sources[name]
            if source.items:
                known = hashes[id(source)]
                near = source.outlines.query(place, predicate="intersects")
                digest.update(b"".join(sorted(known[i] for i in near)))
        for row in unit.rows:
            digest.update(repr(ids[row]).encode())
            digest.update(outlines[row])
        keys[unit.id] = digest.hexdigest()[:16]
    return keys


def _settings(unit: Unit, recipe: Recipe, sources: Mapping[str, Source]) -> str:
    part = recipe.only(unit.source) if unit.source else recipe
    legend = open_legend(part)
    texts = [f"{name} {sources[name].config.model_dump_json()}" for name in unit.reads(sources)]
    read_as = "" if legend is None else legend.fingerprint
    return "\n".join([part.fingerprint, read_as, __version__, *texts])

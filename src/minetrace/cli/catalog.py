"""What the catalogue verbs show: sources, their state, and what a search finds."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import pandas as pd
import pystac
from shapely.geometry.base import BaseGeometry

from minetrace.catalog import Source, item_time, open_source, sample, search
from minetrace.catalog.source import saved_cube
from minetrace.cli import console
from minetrace.errors import SourceError
from minetrace.schema import BANDS
from minetrace.schema.shipped import shipped_names

_EXPECTED = {
    "imagery": BANDS, "landcover": ("landcover",), "lights": ("ntl",), "terrain": ("elevation",),
}  # fmt: skip


def list_sources() -> None:
    """Print the shipped sources."""
    configs = [open_source(name).config for name in shipped_names("catalogs")]
    rows = [(c.name, c.product, c.kind, c.title) for c in configs]
    console.table(pd.DataFrame(rows, columns=["name", "product", "kind", "what"]), "sources")


def check_source(name: str, collection: str | None) -> bool:
    """Print what a source is and what one of its items holds; False where something is missing."""
    source = open_source(name)
    config = source.config
    if config.title:
        console.out.print(config.title, markup=False, soft_wrap=True)
    if config.kind == "files":
        kinds = [(f.variable or ", ".join(f.variables or f.fields), f.match) for f in config.files]
        console.table(pd.DataFrame(kinds, columns=["variable", "files named"]), config.name)
        console.out.print(
            f"download them from {config.href}, then: minetrace catalog build --source "
            f"{config.name} FILES... --out DIR",
            markup=False, soft_wrap=True,
        )  # fmt: skip
        return True
    if config.kind == "static":
        _print_items(source)
    else:
        wanted = collection or config.collection or "all collections"
        place = config.href if config.kind == "api" else source.path
        console.out.print(f"{config.kind} {place}, {wanted}", markup=False, soft_wrap=True)
    item = sample(source, collection=collection)
    if item is None:
        console.out.print("it answers, and holds no item", markup=False)
        return False
    console.out.print(
        f"sample: {item.id}, {item_time(item):%Y-%m-%d}, of {item.collection_id}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    store = saved_cube(item)
    if store is not None:
        console.out.print(
            f"its items are saved cubes; open one with mt.load_cube({str(store)!r})",
            markup=False, soft_wrap=True,
        )  # fmt: skip
        return True
    expected = dict.fromkeys((*_EXPECTED.get(config.product or "", ()), *config.bands))
    # a catalogue of single bands holds what its items hold
    held = list(item.assets) if config.kind == "static" or not expected else list(expected)
    rows = [(v, source.asset_key(v), *_find(source, item, source.asset_key(v))) for v in held]
    console.table(pd.DataFrame(rows, columns=["variable", "asset", "host", "state"]), config.name)
    return all(state == "ok" for *_, state in rows) and _check_key(source)


def search_source(
    name: str, geometry: BaseGeometry, years: tuple[int, int], collection: str | None
) -> bool:
    """Print the items of a source for a place and years; False where there are none."""
    found = search(open_source(name), geometry, years, collection=collection)
    rows = [
        (f"{item_time(i):%Y-%m-%d}", i.id, i.properties.get("eo:cloud_cover", float("nan")))
        for i in found
    ]
    if rows:
        frame = pd.DataFrame(rows, columns=["time", "item", "cloud %"])
        console.table(frame, f"{len(found)} items")
    return bool(rows)


def _print_items(source: Source) -> None:
    for item in source.items:
        for key in item.assets:
            if saved_cube(item) is None:
                source.check_href(item, key)
    rows = pd.DataFrame(
        [(i.collection_id, item_time(i).year, ", ".join(i.assets)) for i in source.items],
        columns=["collection", "year", "assets"],
    )
    summary = rows.groupby(["collection", "assets"], as_index=False, dropna=False).agg(
        items=("year", "size"), first=("year", "min"), last=("year", "max")
    )
    console.table(summary, source.name)


def _find(source: Source, item: pystac.Item, key: str) -> tuple[str, str]:
    """Host of an asset, and what is wrong with it."""
    try:
        href = source.check_href(item, key)
    except SourceError as err:
        asset = item.assets.get(key)
        return (urlsplit(asset.href).hostname or "local" if asset else "–", str(err))
    return urlsplit(href).hostname or "local", "ok"


def _check_key(source: Source) -> bool:
    sign = source.config.sign
    if sign is None or sign.kind == "planetary_computer":
        return True
    here = bool(os.environ.get(sign.env or ""))
    console.out.print(
        f"key: {sign.env} is {'set' if here else 'not set'} in the environment", markup=False
    )
    return here

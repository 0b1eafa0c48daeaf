"""One acquisition, processed or published more than once: which items are used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pystac
import shapely

from minetrace.catalog import item_time
from minetrace.catalog.search import footprint

_SENTINEL2 = re.compile(
    r"(S2[A-D])_MSIL2A_(\d{8}T\d{6})_(?:N(\d{4})_)?R\d{3}_T(\d{2}[A-Z]{3})_(\d{8}T\d{6})"
)
_NAMED = ("s2:product_uri", "s2:product_id", "sentinel:product_id")
_RANKS = {
    "landsat:collection_category": ("RT", "T2", "T1"),
    "dea:dataset_maturity": ("interim", "nrt", "final"),
}
"""Values of a property from the first to the last state of a product."""
_VERSIONS = ("s2:processing_baseline", "sentinel:processing_baseline", "odc:dataset_version")
_PROCESSED = ("s2:generation_time", "odc:processing_datetime", "updated", "created")
_SLIVER = 0.01


def latest_items(items: Iterable[pystac.Item]) -> list[pystac.Item]:
    """Items without those that a later processing of the same acquisition replaces.

    An acquisition is a satellite's pass over one tile of its grid: the Sentinel-2 datatake or the
    Landsat day, with the tile. Of its items the latest processing stays: baseline, Landsat
    category (T1 before T2 before real time), maturity, then time of processing. An earlier one
    stays too where the later ones leave more than 1 % of it uncovered: one pass over a tile may
    be published in two parts. An id given twice counts once.

    Returns
    -------
    list of Item
        In order of time, then of `standing`; the order of the input does not matter.
    """
    passes: dict[tuple[str, ...], list[pystac.Item]] = {}
    for item in _by_id(items):
        passes.setdefault(acquisition(item), []).append(item)
    kept = [item for rivals in passes.values() for item in _not_replaced(rivals)]
    return sorted(kept, key=lambda item: (item_time(item), item.collection_id or "", item.id))


def acquisition(item: pystac.Item) -> tuple[str, ...]:
    """Satellite, time and tile of an item; its id alone where it does not tell them.

    Examples
    --------
    >>> import datetime as dt
    >>> name = "S2B_MSIL2A_20240825T173909_R098_T13TDE_20240825T215747"
    >>> acquisition(pystac.Item(name, None, None, dt.datetime(2024, 8, 25), {}))
    ('S2B', '20240825T173909', '13TDE')
    """
    said = item.properties
    for name in (*(str(said.get(n, "")) for n in _NAMED), item.id):
        if found := _SENTINEL2.search(name):
            return found.group(1), found.group(2), found.group(4)
    platform = str(said.get("platform", "")).upper().replace("_", "-")
    if "landsat:wrs_path" in said and "landsat:wrs_row" in said:
        path, row = (int(said[f"landsat:wrs_{axis}"]) for axis in ("path", "row"))
        return platform, f"{item_time(item):%Y%m%d}", f"{path:03d}{row:03d}"
    tile = said.get("grid:code") or said.get("odc:region_code")
    if platform and tile:
        return platform, f"{item_time(item):%Y%m%dT%H%M%S}", str(tile)
    return (item.collection_id or "", item.id)


def standing(item: pystac.Item) -> tuple[float, ...]:
    """How far an item's processing has come, greater is later; its time apart."""
    ranks = [
        float(order.index(value)) if (value := str(item.properties.get(name))) in order else -1.0
        for name, order in _RANKS.items()
    ]
    return (*ranks, *_version(item))


def _version(item: pystac.Item) -> tuple[float, ...]:
    texts = [str(item.properties[name]) for name in _VERSIONS if name in item.properties]
    for name in _NAMED:
        found = _SENTINEL2.search(str(item.properties.get(name, "")))
        if found and found.group(3):
            texts.append(f"{found.group(3)[:2]}.{found.group(3)[2:]}")
    numbers = [int(n) for n in re.findall(r"\d+", texts[0])] if texts else []
    return tuple(float(n) for n in (*numbers, 0, 0, 0)[:3])


def _age(item: pystac.Item) -> tuple[tuple[float, ...], str, str]:
    said = item.properties
    moment = next((str(said[name]) for name in _PROCESSED if said.get(name)), "")
    return standing(item), moment, item.id


def _by_id(items: Iterable[pystac.Item]) -> list[pystac.Item]:
    found: dict[tuple[str, str], pystac.Item] = {}
    for item in items:
        name = (item.collection_id or "", item.id)
        if name not in found or _age(item) > _age(found[name]):
            found[name] = item
    return list(found.values())


def _not_replaced(rivals: Sequence[pystac.Item]) -> list[pystac.Item]:
    kept: list[pystac.Item] = []
    for item in sorted(rivals, key=_age, reverse=True):
        if kept:
            outline = footprint(item)
            covered = shapely.union_all([footprint(k) for k in kept])
            if outline.difference(covered).area <= _SLIVER * outline.area:
                continue
        kept.append(item)
    return kept

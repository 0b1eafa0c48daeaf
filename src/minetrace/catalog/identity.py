"""What an item was when it was read: the key of everything computed from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pystac


def items_hash(items: Iterable[pystac.Item]) -> str:
    """Hash of items in their order, see `item_hashes`."""
    return hashlib.sha256(b"".join(item_hashes(items))).hexdigest()[:16]


def item_hashes(items: Iterable[pystac.Item]) -> list[bytes]:
    """Hash of each item: id, time, grid, encoding, addresses and what its files are.

    A local asset without ``file:checksum``, or outside its catalogue where nobody keeps that up
    to date, is known by its size and time of change. Links and the catalogue's own place do not
    count: a catalogue may be moved.
    """
    # the bands of a file are items of their own
    stat = cache(_stat)
    return [hashlib.sha256(_text(item, stat).encode()).digest() for item in items]


def _text(item: pystac.Item, stat: Callable[[str], str]) -> str:
    # Item.to_dict copies every field and resolves links: four fifths of the time
    assets: dict[str, Any] = {}
    for key, asset in item.assets.items():
        outside = asset.href.startswith(("../../../", "/", "file:"))
        unknown = outside or "file:checksum" not in asset.extra_fields
        state = stat(asset.get_absolute_href() or asset.href) if unknown else ""
        kind = asset.title, asset.description, asset.media_type, asset.roles
        assets[key] = asset.href, kind, asset.extra_fields, state
    fields = (
        item.id, item.collection_id, item.datetime, item.geometry, item.bbox, item.properties,
        item.stac_extensions, item.extra_fields, assets,
    )  # fmt: skip
    return json.dumps(fields, sort_keys=True, default=str)


def _stat(href: str) -> str:
    parts = urlsplit(href)
    path = Path(unquote(parts.path))
    if parts.scheme not in ("", "file") or not path.is_file():
        return ""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"

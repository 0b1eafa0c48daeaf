"""What an item was when it was read: the key of everything computed from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pystac


def items_hash(items: Iterable[pystac.Item]) -> str:
    """Hash of items: ids, times, grids, encodings, addresses and what their files are.

    A local asset without ``file:checksum``, or outside its catalogue where nobody keeps that up
    to date, is known by its size and time of change. Links and the catalogue's own place do not
    count: a catalogue may be moved.
    """
    digest = hashlib.sha256()
    # the bands of a file are items of their own
    stat = cache(_stat)
    for item in items:
        fields = item.to_dict(include_self_link=False, transform_hrefs=False)
        fields.pop("links", None)
        text = json.dumps(fields, sort_keys=True, default=str)
        digest.update(text.encode())
        for asset in item.assets.values():
            outside = asset.href.startswith(("../../../", "/", "file:"))
            if outside or "file:checksum" not in asset.extra_fields:
                digest.update(stat(asset.get_absolute_href() or asset.href).encode())
    return digest.hexdigest()[:16]


def _stat(href: str) -> str:
    parts = urlsplit(href)
    path = Path(unquote(parts.path))
    if parts.scheme not in ("", "file") or not path.is_file():
        return ""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"

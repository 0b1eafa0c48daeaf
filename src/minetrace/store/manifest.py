"""What a committed unit consists of: every file by size and hash, sealed into its root metadata.

A store is a unit: a folder whose ``zarr.json`` was written last and lists all other files. Years
that are added later are units below it, ``years/2023``. Until its ``zarr.json`` appears, a unit is
no part of the store.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from minetrace.errors import StoreError
from minetrace.store.foreign import check_metadata, chunk_names

MANIFEST = "minetrace:manifest"
"""Attribute of a unit's root group. A file of its own would be no part of a zarr hierarchy, of
which zarr warns readers that list it."""
ROOT = "zarr.json"
YEARS_GROUP = json.dumps({"attributes": {}, "zarr_format": 3, "node_type": "group"}).encode()
"""Content of ``years/zarr.json``, the group of all units that were added."""
MEND = "save the cube again, with resume=False if that is refused"
"""What to do about damage."""
PIECE = 2**18
"""Bytes that are hashed, and so read, as one. Whole files would make a small read a large one."""
_NAME = re.compile(r"(?!.*(^|/)\.{1,2}(/|$))[\w.-]+(/[\w.-]+)*")
_UNIT = re.compile(r"years/(\d{4})/")


@dataclass(frozen=True)
class Stored:
    """One file of a unit."""

    size: int
    sha256: str
    pieces: list[str]
    """First half of the SHA-256 of each `PIECE` of the file."""


@dataclass(frozen=True)
class Manifest:
    """One committed unit."""

    unit: str
    """Empty for the store itself, else ``years/2023``."""
    version: str
    series: dict[str, str]
    """Node → key of all but the years: grid, variables, settings."""
    years: dict[str, dict[str, str]]
    """Node → year → key of what it was made from. A node without time has the year ""."""
    files: dict[str, Stored]
    units: dict[str, str] = field(default_factory=dict)
    """Of the store itself: unit below it → its seal."""
    seal: str = ""


_MANIFEST = TypeAdapter(Manifest)


def stored(data: bytes) -> Stored:
    """Size and hashes of a file's content."""
    return Stored(len(data), hashlib.sha256(data).hexdigest(), piece_hashes(data))


def piece_hashes(data: bytes | memoryview) -> list[str]:
    """Hash of each piece of a file, or of a part of it that begins with a piece.

    Examples
    --------
    >>> piece_hashes(bytes(PIECE + 1))[1] == piece_hashes(bytes(1))[0]
    True
    """
    view = memoryview(data)
    pieces = (view[i : i + PIECE] for i in range(0, len(data), PIECE))
    return [hashlib.sha256(piece).hexdigest()[:32] for piece in pieces]


def seal(meta: dict[str, Any], manifest: Manifest) -> bytes:
    """Root metadata with the manifest in them, as they are written."""
    listed = {k: v for k, v in asdict(manifest).items() if k != "seal"}
    whole = meta | {"attributes": {**meta.get("attributes", {}), MANIFEST: listed}}
    listed["seal"] = _digest(whole)
    return json.dumps(whole, indent=1, sort_keys=True).encode()


def unseal(text: bytes, *, unit: str, where: str) -> tuple[dict[str, Any], Manifest]:
    """Root metadata without the manifest, and the manifest.

    Raises
    ------
    StoreError
        They are damaged, are those of another unit or another program, or ask for a codec or a
        file that no cube needs.
    """
    try:
        meta = json.loads(text)
        listed = meta["attributes"].pop(MANIFEST, None)
        own = listed.pop("seal", None) if isinstance(listed, dict) else None
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as err:
        raise StoreError(f"{where}/{ROOT} is damaged ({err}); {MEND}") from err
    if own is None:
        raise StoreError(
            f"{where} is no finished cube: its root has no {MANIFEST}. It was written by another "
            f"program or an older version; {MEND}"
        )
    if own != _digest(meta | {"attributes": {**meta["attributes"], MANIFEST: listed}}):
        raise StoreError(f"{where}/{ROOT} is damaged: its hash differs; {MEND}")
    try:
        manifest = _MANIFEST.validate_json(json.dumps({**listed, "seal": own}), strict=True)
    except ValidationError as err:
        raise StoreError(
            f"{where} has a manifest of another form ({err.error_count()} faults, first "
            f"{err.errors()[0]['loc']}): it was written by another version; {MEND}"
        ) from err
    if manifest.unit != unit:
        raise StoreError(
            f"{where}/{ROOT} belongs to {manifest.unit or 'a whole store'!r}, not here; {MEND}"
        )
    _check_files(meta, manifest, where)
    return meta, manifest


def unit_names(names: list[str]) -> set[str]:
    """Units below a store that the names of its files speak of, finished or not.

    Examples
    --------
    >>> sorted(unit_names(["zarr.json", "years/zarr.json", "years/2023/zarr.json"]))
    ['years/2023']
    """
    return {f"years/{found[1]}" for name in names if (found := _UNIT.match(name))}


def _check_files(meta: dict[str, Any], manifest: Manifest, where: str) -> None:
    strange = sorted(
        n for n in [*manifest.files, *manifest.units] if not _NAME.fullmatch(n) or n == ROOT
    )
    if strange:
        raise StoreError(f"{where} lists {strange[0]!r}, which is no name of a file in a store")
    nodes = check_metadata(meta, where)
    # a chunk that is nowhere would be read as fill values
    chunks = chunk_names(own_nodes(nodes), most=len(manifest.files))
    absent = next((name for name in chunks if name not in manifest.files), None)
    if absent:
        raise StoreError(f"{where} lists no file for the chunk {absent}; {MEND}")


def own_nodes(nodes: dict[str, Any]) -> dict[str, Any]:
    """Metadata of a store's own nodes, without those of the units below it."""
    return {k: v for k, v in nodes.items() if k != "years" and not k.startswith("years/")}


def _digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()

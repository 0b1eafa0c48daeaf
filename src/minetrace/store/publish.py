"""Make a written unit visible: at once, and only if nobody else was first."""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Any

from minetrace.errors import StoreError
from minetrace.store.load import Held, read_held
from minetrace.store.manifest import ROOT, YEARS_GROUP, Manifest, seal, stored, unit_names, unseal
from minetrace.store.place import Bucket, Folder, part_prefix

_UPLOADS = 8


def publish(work: Path, place: Folder | Bucket, unit: str, *, anew: bool) -> bool:
    """Move or copy a unit to where readers look; False where another writer was first.

    Parameters
    ----------
    work
        Folder of the written unit.
    anew
        Replace the cube of a folder. In an object store: delete what an unfinished write left.
    """
    if unit:
        # before the unit, so that no committed one stands outside a group
        place.create(f"years/{ROOT}", YEARS_GROUP)
    if isinstance(place, Folder):
        first = _rename(work, place.path / unit, anew=anew)
    else:
        first = _upload(work, place, unit, anew=anew)
    if unit:
        show_units(place)
    return first


def show_units(place: Folder | Bucket) -> None:
    """Bring the root's metadata up to date with the committed years.

    Plain zarr readers see the years there, and `load_cube` which of them must not be missing.
    """
    while True:
        text = place.read(ROOT)
        meta, manifest = unseal(text or b"", unit="", where=place.address)
        nodes = dict(meta["consolidated_metadata"]["metadata"])
        units = {}
        for unit in sorted(unit_names(list(place.sizes("years")))):
            root = place.read(f"{unit}/{ROOT}")
            if root is None:
                continue
            inner, listed = unseal(root, unit=unit, where=f"{place.address}/{unit}")
            units[unit] = listed.seal
            nodes |= _below(unit, inner)
        if units == manifest.units:
            return
        nodes["years"] = json.loads(YEARS_GROUP)
        meta["consolidated_metadata"]["metadata"] = nodes
        # another writer may do the same at once; whoever is last looks again and adds what is new
        place.replace(ROOT, seal(meta, replace(manifest, units=units)))


def _below(unit: str, meta: dict[str, Any]) -> dict[str, Any]:
    group = {"attributes": meta["attributes"], "zarr_format": 3, "node_type": "group"}
    nodes = meta["consolidated_metadata"]["metadata"]
    return {unit: group, **{f"{unit}/{name}": node for name, node in nodes.items()}}


def _rename(work: Path, path: Path, *, anew: bool) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    if anew and path.exists():
        aside = work.with_name(work.name + "-old")
        path.rename(aside)
        try:
            work.rename(path)
        except OSError:
            aside.rename(path)
            raise
        adopt(aside, Folder(path))
        return True
    try:
        # fails where the name is taken by a folder that holds anything
        work.rename(path)
    except OSError:
        if (path / ROOT).is_file():
            return False
        raise
    return True


def adopt(aside: Path, place: Folder) -> None:
    """Delete a replaced cube, but first rescue years that were committed to it meanwhile."""
    held = read_held(place)
    for unit in sorted(aside.glob(f"years/*/{ROOT}")):
        name = unit.parent.relative_to(aside).as_posix()
        # a damaged one is no loss
        with suppress(StoreError):
            _, manifest = unseal(unit.read_bytes(), unit=name, where=str(unit.parent))
            if _is_lost(manifest, held):
                place.create("years/" + ROOT, YEARS_GROUP)
                unit.parent.rename(place.path / name)
    shutil.rmtree(aside)
    show_units(place)


def _is_lost(manifest: Manifest, held: Held) -> bool:
    """Whether years of a unit belong to the series of a store and are not in it."""
    return all(held.series.get(node) == key for node, key in manifest.series.items()) and any(
        years.keys() - held.years[node].keys() for node, years in manifest.years.items()
    )


def _upload(work: Path, place: Bucket, unit: str, *, anew: bool) -> bool:
    stem = f"{unit}/" if unit else ""
    manifest = unseal((work / ROOT).read_bytes(), unit=unit, where=str(work))[1]
    if anew and place.read(stem + ROOT) is None:
        place.remove([n for n in place.sizes(unit) if unit or not n.startswith("years/")])
    with ThreadPoolExecutor(_UPLOADS) as pool:
        list(pool.map(lambda name: _put(work, place, stem, name, manifest), manifest.files))
    return place.create(stem + ROOT, (work / ROOT).read_bytes())


def _put(work: Path, place: Bucket, stem: str, name: str, manifest: Manifest) -> None:
    """Write one file unless it is there, and read back what is there now."""
    place.create(stem + name, (work / name).read_bytes())
    there = place.read(stem + name)
    if there is None or stored(there) != manifest.files[name]:
        raise StoreError(
            f"{place.address} holds another {stem}{name}: another cube is being written there, or "
            "such a write was cut off. Choose another address; or, when no other writer is at "
            "work, pass resume=False to clear what is unfinished"
        )


def clear_leftovers(place: Folder) -> None:
    """Delete what writers that died left beside a store; put back a cube that stood aside."""
    host = f".{place.path.name}.{platform.node()}."
    for left in sorted(place.path.parent.glob(f"{escape(host)}*")):
        pid = left.name.removeprefix(host).partition(".")[0]
        if pid.isdigit() and not _alive(int(pid)):
            if not left.name.endswith("-old"):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            elif place.path.exists():
                # beside a damaged cube it stays: it may be all that is left
                with suppress(StoreError):
                    adopt(left, place)
            else:
                left.rename(place.path)


def _alive(pid: int) -> bool:
    if os.name != "posix":
        # elsewhere the signal 0 ends the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def part_folder(place: Folder | Bucket) -> Iterator[Path]:
    """An empty folder to write a unit in before it is published, gone afterwards."""
    if isinstance(place, Bucket):
        work = Path(tempfile.mkdtemp(prefix="minetrace-"))
    else:
        # on the file system of the store, so that it can be renamed into place
        work = place.path.with_name(part_prefix(place.path) + secrets.token_hex(4))
        work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)

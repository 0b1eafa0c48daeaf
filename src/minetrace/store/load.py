"""Read saved cubes: what was committed, all of it, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from glob import escape
from typing import Any

import numpy as np
import xarray as xr

from minetrace.errors import StoreError
from minetrace.store.checked import CheckedUnit
from minetrace.store.decode import open_unit
from minetrace.store.manifest import MEND, ROOT, YEARS_GROUP, Manifest, stored, unit_names, unseal
from minetrace.store.place import Bucket, Folder, Store, open_place


@dataclass(frozen=True)
class Held:
    """What a place holds."""

    units: dict[str, tuple[dict[str, Any], Manifest]]
    """Committed units by name, the store itself first."""
    unfinished: list[str]
    """Years, and folders beside a local store, that a write was cut off in or is going on in."""
    sizes: dict[str, int]
    """Name → bytes of every file below the place."""

    @property
    def absent(self) -> list[str]:
        """Listed files that are gone, or longer or shorter than they were."""
        return sorted(
            stem + name
            for unit, (_, manifest) in self.units.items()
            for stem in (f"{unit}/" if unit else "",)
            for name, entry in manifest.files.items()
            if self.sizes.get(stem + name) != entry.size
        )

    @property
    def years(self) -> dict[str, dict[str, str]]:
        """Node → year → key, over all units."""
        out: dict[str, dict[str, str]] = {}
        for _, manifest in self.units.values():
            for node, years in manifest.years.items():
                out.setdefault(node, {}).update(years)
        return out

    @property
    def series(self) -> dict[str, str]:
        """Node → key of all but its years."""
        return {n: key for _, m in reversed(self.units.values()) for n, key in m.series.items()}


def load_cube(store: Store, *, verify: bool = False) -> xr.DataTree:
    """Open a saved cube lazily.

    Every byte is compared with the manifest when it is read, in pieces of 256 KiB. Damage, loss
    and exchange of files raise `StoreError`, there or when opening; they never change a value.

    Parameters
    ----------
    store
        Folder, address or obstore store that `save_cube` wrote.
    verify
        Hash every file before opening. Without it only what is read is hashed.

    Returns
    -------
    DataTree
        As it was saved, years that were added later in their place along time. Where writes of
        further years were cut off, or are under way, the root's attribute ``unfinished`` names
        them; they are no part of the cube.

    Raises
    ------
    StoreError
        The place holds no finished cube; or a file is damaged, missing or (``verify``) foreign;
        or the metadata ask for a codec that no cube has.
    """
    place = open_place(store)
    held = read_held(place)
    _refuse_absent(place, held)
    if verify:
        wrong = damaged(place, held)
        if wrong:
            raise StoreError(
                f"{place.address}: {len(wrong)} files differ from the manifest, first {wrong[0]}; "
                f"{MEND}"
            )
    cube = open_held(place, held)
    if held.unfinished:
        cube.attrs["unfinished"] = held.unfinished
    return cube


def seal_of(store: Store) -> str:
    """Seal of a saved cube, which another file, item or year of the store would change.

    Raises
    ------
    StoreError
        The place holds no finished cube, or misses files of it.
    """
    place = open_place(store)
    held = read_held(place)
    _refuse_absent(place, held)
    return held.units[""][1].seal


def _refuse_absent(place: Folder | Bucket, held: Held) -> None:
    if held.absent:
        raise StoreError(
            f"{place.address} misses {len(held.absent)} of its files or parts of them, first "
            f"{held.absent[0]}; {MEND}"
        )


def read_held(place: Folder | Bucket) -> Held:
    """The committed units of a place.

    Raises
    ------
    StoreError
        There is none, or the metadata of one are damaged or lost.
    """
    text = place.read(ROOT)
    if text is None:
        raise StoreError(_no_cube(place))
    units = {"": unseal(text, unit="", where=place.address)}
    # after the root: what the root lists was committed before
    sizes = place.sizes()
    listed = units[""][1].units
    unfinished = _parts(place)
    for unit in sorted(unit_names(list(sizes)) | listed.keys()):
        where = f"{place.address}/{unit}"
        text = place.read(f"{unit}/{ROOT}")
        if text is not None:
            units[unit] = unseal(text, unit=unit, where=where)
        elif unit not in listed:
            unfinished.append(unit)
        if unit in listed and (text is None or units[unit][1].seal != listed[unit]):
            raise StoreError(
                f"{where} is not what was committed: its {ROOT} is lost or another; {MEND}"
            )
    return Held(units, unfinished, sizes)


def damaged(place: Folder | Bucket, held: Held) -> list[str]:
    """Files of the committed units that are not what the manifest says, and foreign ones."""
    group = f"years/{ROOT}"
    wrong, known = [], {group}
    if (len(held.units) > 1 or group in held.sizes) and place.read(group) != YEARS_GROUP:
        wrong.append(group)
    for unit, (_, manifest) in held.units.items():
        stem = f"{unit}/" if unit else ""
        known |= {stem + ROOT, *(stem + name for name in manifest.files)}
        for name, entry in manifest.files.items():
            data = place.read(stem + name)
            if data is None or stored(data) != entry:
                wrong.append(stem + name)
    partial = tuple(f"{unit}/" for unit in held.unfinished)
    foreign = {n for n in held.sizes if n not in known and not n.startswith(partial)}
    return sorted({*wrong, *foreign})


def open_held(place: Folder | Bucket, held: Held) -> xr.DataTree:
    """One lazy tree of all units."""
    trees = [open_unit(CheckedUnit(place, *unit)) for unit in held.units.values()]
    if len(trees) == 1:
        return trees[0]
    nodes = {"/": trees[0].to_dataset()}
    for name in dict.fromkeys(name for tree in trees for name in tree.children):
        parts = [t.children[name].to_dataset() for t in trees if name in t.children]
        nodes[name] = join_years(parts)
    return xr.DataTree.from_dict(nodes)


def join_years(parts: list[xr.Dataset]) -> xr.Dataset:
    """One node of several that differ in their years only, in the order of time."""
    if len(parts) == 1:
        return parts[0]
    joined = xr.concat(
        parts, dim="time", data_vars="minimal", coords="minimal", compat="override",
        join="exact", combine_attrs="override",
    )  # fmt: skip
    order = np.argsort(joined["time"].values, kind="stable")
    if (np.diff(order) < 0).any():
        joined = joined.isel(time=order)
    joined.attrs |= _joined_attrs([part.attrs for part in parts])
    # the hash of all items cannot be told from those of the parts
    joined.attrs.pop("items_hash", None)
    return joined.chunk(time=-1)


def _joined_attrs(parts: list[dict[Any, Any]]) -> dict[Any, Any]:
    """What the parts say of items and versions, each once."""
    out: dict[Any, Any] = {}
    for key in ("collection", "recipe_hash", "minetrace_version"):
        values = dict.fromkeys(str(attrs[key]) for attrs in parts if key in attrs)
        if values:
            out[key] = ",".join(values)
    for key in ("item_ids", "item_years"):
        if all(key in attrs for attrs in parts):
            out[key] = [value for attrs in parts for value in attrs[key]]
    if all("items_by_year" in attrs for attrs in parts):
        out["items_by_year"] = {k: v for a in parts for k, v in a["items_by_year"].items()}
    return out


def _parts(place: Folder | Bucket) -> list[str]:
    """Folders beside a local store that a write was cut off in, or is going on in."""
    if not isinstance(place, Folder):
        return []
    name = escape(place.path.name)
    return sorted(p.name for p in place.path.parent.glob(f".{name}.*") if p.is_dir())


def _no_cube(place: Folder | Bucket) -> str:
    begun = _parts(place)
    aside = [name for name in begun if name.endswith("-old")]
    if aside:
        return (
            f"{place.address} is no finished cube: its replacement was cut off. The old one is "
            f"{aside[0]} beside it; saving again, or renaming that folder, puts it back"
        )
    if begun:
        return (
            f"{place.address} is no finished cube: {', '.join(begun)} beside it is unfinished. "
            "Wait for the write to end, or save the cube again if it was cut off"
        )
    return (
        f"{place.address} is no finished cube: it has no {ROOT}. If a write was cut off there, "
        "save the cube again"
    )

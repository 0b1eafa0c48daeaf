"""Save a cube: a store of its own, or further years of a store."""

from __future__ import annotations

import rasterio.errors
import xarray as xr

from minetrace.errors import MinetraceError, ReadError, StoreError, causes
from minetrace.schema import validate
from minetrace.store.identity import Identity, identify
from minetrace.store.load import Held, damaged, join_years, open_held, read_held
from minetrace.store.manifest import ROOT
from minetrace.store.place import Bucket, Folder, Store, open_place
from minetrace.store.publish import clear_leftovers, part_folder, publish, show_units
from minetrace.store.write import pick_years, write_unit


def save_cube(cube: xr.DataTree, store: Store, *, resume: bool = True) -> Store:
    """Write a cube as zarr v3, atomically; or add its new years to a store that has the others.

    A cube is written out of sight, read back, hashed, and then published in one step. Where the
    store holds the same series (site, settings, grid), only years that it lacks are computed;
    each becomes a unit below the store, ``years/2023``, published in the same way. Of two writers
    of one year one wins and the other is told.

    Parameters
    ----------
    cube
        From `minetrace.open_cube`; lazy arrays are computed block by block.
    store
        Folder to make, an address such as ``s3://bucket/prefix``, or an obstore store. Object
        stores need the extra ``minetrace[cloud]``; credentials come from the environment or the
        store given. Plain ``xr.open_datatree(store, engine="zarr")`` reads the result.
    resume
        Years that the store holds, from the same items and version, are left as they are unless
        a file is damaged. False writes all years of the cube anew, in one piece with the years
        that only the store holds; the old cube stays readable until the new one is complete. A
        cube of another series then replaces the old one. Objects cannot be
        swapped as a whole, so what is committed to an object store stays; there, False clears
        what a cut-off write left.

    Returns
    -------
    Path or str or ObjectStore
        The store; a local folder as a path.

    Raises
    ------
    StoreError
        The store holds another series, the same years from other items, or something that is no
        cube; another writer was first; the disk is full; or what was read back differs from what
        was written.
    ReadError
        A raster behind the cube cannot be read. Nothing half-written is left behind.
    """
    place = open_place(store)
    new = identify(validate(cube))
    try:
        if isinstance(place, Folder):
            clear_leftovers(place)
        _save(cube, new, place, resume=resume)
    except rasterio.errors.RasterioError as err:
        raise ReadError(f"a raster of the cube could not be read: {causes(err)}") from err
    except MinetraceError:
        raise
    except OSError as err:
        raise StoreError(
            f"{place.address} could not be written: {causes(err)}. What was committed stays; make "
            "room or see to the cause, and save again"
        ) from err
    return place.path if isinstance(place, Folder) else store


def _save(cube: xr.DataTree, new: Identity, place: Folder | Bucket, *, resume: bool) -> None:
    if _is_free(place):
        _commit(pick_years(cube, new.all_years), new, place, "", anew=not resume)
        return
    if not resume and isinstance(place, Folder):
        _replace(cube, new, place)
        return
    held = read_held(place)
    if not resume and any(years.keys() & held.years.get(n, {}) for n, years in new.years.items()):
        raise StoreError(
            f"{place.address} holds years of this cube, and objects cannot be swapped as a whole; "
            "save to another address"
        )
    _refuse_others(new, held, place)
    wrong = damaged(place, held)
    if wrong:
        missing = _only_held(new, held)
        if isinstance(place, Bucket) or missing:
            raise StoreError(
                f"{place.address}: {len(wrong)} files are damaged, first {wrong[0]}. "
                + (
                    f"Save a cube that has {', '.join(missing)} too"
                    if missing
                    else "Save the cube to another address"
                )
            )
        _commit(pick_years(cube, new.all_years), new, place, "", anew=True)
        return
    if held.units.keys() - {"", *held.units[""][1].units}:
        # a writer died after it committed a year and before it showed it
        show_units(place)
    for year in new.all_years:
        if any(year in years and year not in held.years[n] for n, years in new.years.items()):
            unit = f"years/{year}"
            # a second unit of the year would repeat the nodes that have it
            if unit in held.units or any(year in years for years in held.years.values()):
                raise StoreError(
                    f"{place.address}: {year} is committed without some of the cube's nodes; pass "
                    "resume=False to write it anew with them"
                )
            _commit(pick_years(cube, [year]), new.only(year), place, unit, anew=not resume)


def _is_free(place: Folder | Bucket) -> bool:
    """Whether nothing is committed at a place, and nothing lies there that is no store's."""
    if isinstance(place, Bucket):
        return place.read(ROOT) is None
    if place.path.exists() and not place.path.is_dir():
        raise StoreError(f"{place.address} is a file; a store is a folder")
    if not place.path.exists() or not any(place.path.iterdir()):
        return True
    if not (place.path / ROOT).is_file():
        raise StoreError(
            f"{place.address} is no finished cube and holds files; choose another folder"
        )
    return False


def _refuse_others(new: Identity, held: Held, place: Folder | Bucket) -> None:
    for node, series in new.series.items():
        old = held.series.get(node)
        if old != series:
            raise StoreError(
                f"{place.address} holds another cube: its {node} has the key {old or 'none'}, "
                f"this one {series} (site, settings, grid and variables); choose another store, or "
                "pass resume=False to replace it"
            )
        for year, key in new.years[node].items():
            other, what = held.years[node].get(year, key), f"{node} {year}".strip()
            if other != key:
                raise StoreError(
                    f"{place.address} holds another cube: its {what} has the key {other}, this "
                    f"one {key} (items, dates and version of minetrace); choose another store, "
                    "or pass resume=False to replace it"
                )


def _only_held(new: Identity, held: Held) -> list[str]:
    """Nodes and years that the store has and the cube has not."""
    return [
        f"{node} {year}".strip()
        for node, years in held.years.items()
        for year in sorted(years.keys() - new.years.get(node, {}).keys())
    ]


def _replace(cube: xr.DataTree, new: Identity, place: Folder) -> None:
    try:
        held = read_held(place)
    except StoreError:
        # nothing of a damaged store is worth keeping by default: the caller asked for a new one
        held = None
    if held is not None and all(held.series.get(n, key) == key for n, key in new.series.items()):
        cube = _with_other_years(cube, new, open_held(place, held), held)
        new = Identity(
            {**held.series, **new.series},
            {
                n: {**held.years.get(n, {}), **new.years.get(n, {})}
                for n in {**held.years, **new.years}
            },
        )
    _commit(pick_years(cube, new.all_years), new, place, "", anew=True)


def _with_other_years(
    cube: xr.DataTree, new: Identity, old: xr.DataTree, held: Held
) -> xr.DataTree:
    """A cube with what only the store holds, nodes and years."""
    nodes = {n: c.to_dataset(inherit=False) for n, c in cube.children.items()}
    for node, years in held.years.items():
        kept = years.keys() - new.years.get(node, {}).keys()
        if kept and node in nodes:
            part = pick_years(xr.DataTree.from_dict({node: old.children[node].to_dataset()}), kept)
            nodes[node] = join_years([nodes[node], part.children[node].to_dataset()])
        elif kept:
            nodes[node] = old.children[node].to_dataset()
    return xr.DataTree.from_dict({"/": cube.to_dataset(), **nodes})


def _commit(
    cube: xr.DataTree, keys: Identity, place: Folder | Bucket, unit: str, *, anew: bool
) -> None:
    """Write one unit and publish it."""
    with part_folder(place) as work:
        write_unit(cube, keys, work, unit=unit)
        first = publish(work, place, unit, anew=anew)
    if not first:
        there = read_held(place).units.get(unit)
        if there is None or (there[1].series, there[1].years) != (keys.series, keys.years):
            raise StoreError(
                f"{place.address}: {unit.removeprefix('years/') or 'the cube'} was committed by "
                "another writer in the meantime, from other items or settings; look at it with "
                "load_cube before saving again"
            )

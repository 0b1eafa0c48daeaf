"""The cube of one site as a store, whatever happens to its files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import geopandas as gpd
import pystac

from minetrace.catalog import Source
from minetrace.cubes import build_cube, find_items, layer_years
from minetrace.errors import ReadError, StoreError
from minetrace.run.attempt import LOCAL_FAULTS, Attempt, failed, left_out
from minetrace.run.commit import CUBES_FILE, is_full
from minetrace.run.failures import failure, window_text
from minetrace.run.measure import unreadable
from minetrace.run.plan import Unit
from minetrace.schema import Recipe
from minetrace.store import save_cube
from minetrace.store.load import seal_of

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def save_site(
    sites: gpd.GeoDataFrame,
    unit: Unit,
    recipe: Recipe,
    sources: Mapping[str, Source],
    folder: Path,
    *,
    anew: bool,
) -> Attempt:
    """Save the cube that `open_cube` opens for the one site of a unit, below a folder.

    A store of the same settings gains the years that it lacks; any other is replaced. Items that
    cannot be read are left out.

    Raises
    ------
    StoreError
        The disk is full.
    """
    site_id, where = str(sites["site_id"].iloc[unit.rows[0]]), window_text(unit.window)
    path = folder / store_name(site_id)
    made = Attempt()
    try:
        items = find_items(recipe, sources, unit.window, recipe.years)
        made.failures += [
            failure(site_id, f"no {product} item covers the site", where, asset=product)
            for product, found in items.items()
            if not found
        ]
        try:
            made.add(_saved(site_id, unit, recipe, sources, items, path, anew=anew))
        except ReadError:
            left = {}
            for product, found in items.items():
                part, source = recipe.only(product), sources[product]
                bad = list(unreadable(product, unit.window, part, source, found))
                made.add(left_out(sites, unit, product, bad))
                lost = {item.id for item, _ in bad}
                left[product] = [item for item in found if item.id not in lost]
            if not made.faults:
                raise
            made.add(_saved(site_id, unit, recipe, sources, left, path, anew=anew))
    except LOCAL_FAULTS as err:
        if is_full(err):
            raise
        made.add(failed(sites, unit, err))
    return made


def store_name(site_id: str) -> str:
    """Folder of a site's cube: its id, or a hash where that is no plain name of a file.

    Examples
    --------
    >>> store_name("sim-001"), store_name("../pit 7")
    ('sim-001.zarr', 'pit_7-f94868fe.zarr')
    """
    if _PLAIN_NAME.fullmatch(site_id):
        return f"{site_id}.zarr"
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", site_id).strip("_-")[:40]
    digest = hashlib.sha256(site_id.encode()).hexdigest()[:8]
    return f"{plain}-{digest}.zarr" if plain else f"{digest}.zarr"


def is_kept(files: Path, folder: Path) -> bool:
    """Whether the stores that a committed unit made are still what it made."""
    seals = files / CUBES_FILE
    if not seals.is_file():
        return True
    with suppress(StoreError):
        return all(seal_of(folder / n) == s for n, s in json.loads(seals.read_bytes()).items())
    return False


def _saved(
    site_id: str,
    unit: Unit,
    recipe: Recipe,
    sources: Mapping[str, Source],
    items: Mapping[str, Sequence[pystac.Item]],
    path: Path,
    *,
    anew: bool,
) -> Attempt:
    found = {product: list(some) for product, some in items.items()}
    cube = build_cube(site_id, unit.window, recipe, sources, found)
    try:
        save_cube(cube, path, resume=not anew)
    except StoreError as err:
        if anew or is_full(err):
            raise
        # other settings or items, or damage
        save_cube(cube, path, resume=False)
    years = (layer_years(p, recipe, some, unit.window) for p, some in found.items())
    return Attempt(
        cubes={path.name: seal_of(path)},
        shown={site_id},
        years={year for some in years for year in some},
        items={item.id for some in found.values() for item in some},
    )

"""What a run leaves beside its tables: maps, rasters of trends, the catalogue of its cubes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd

from minetrace.run.commit import Entry, Manifest
from minetrace.run.failures import Failure, failure, window_text
from minetrace.run.plan import CUBES, MAPS, TRENDS, Unit
from minetrace.store import write_catalog

Ended = Sequence[tuple[Unit, Entry]]
"""Units with what was committed for them."""


def collect(manifest: Manifest, ended: Ended, products: Sequence[str], folder: Path) -> None:
    """Copy rasters out of the units into a folder to be delivered, and list the stores of cubes."""
    for product in (MAPS, TRENDS):
        if product in products:
            (folder / product).mkdir()
            for entry in (e for unit, e in ended if unit.product == product):
                for file in sorted(manifest.files(entry).glob("map*.tif")):
                    shutil.copyfile(file, folder / product / f"{entry.unit}-{file.name}")
        elif "panel" in products:
            # beside new tables those of an earlier run would be taken for theirs
            shutil.rmtree(manifest.out / product, ignore_errors=True)
    if any(entry.shown for unit, entry in ended if unit.product == CUBES):
        write_catalog(manifest.out / CUBES)


def not_shown(sites: gpd.GeoDataFrame, ended: Ended, told: Sequence[Failure]) -> list[Failure]:
    """Sites that lie outside a map or a raster of trends, unless a failure says why."""
    said = {(row["site_id"], row["asset"]) for row in told}
    shapes = sites.set_index("site_id").geometry
    return [
        failure(
            site_id, f"no {unit.source} item covers the site", window_text(shapes[site_id]),
            asset=unit.source,
        )
        for unit, entry in ended
        if unit.source
        for site_id in sorted({*entry.sites} - {*entry.shown})
        if (site_id, unit.source) not in said
    ]  # fmt: skip

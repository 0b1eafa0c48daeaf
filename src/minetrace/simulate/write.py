"""Write a simulation: products with their catalogue, tables, recipe."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
from odc.geo.geobox import GeoBox

from minetrace.simulate.ground import make_ground
from minetrace.simulate.plane import UTM, lonlat_grid
from minetrace.simulate.products import SCALE, landcover_layers, light_months, scenes
from minetrace.simulate.scenario import Mine, scene_bounds
from minetrace.simulate.stac import Layer, save_catalog, write_item

_LANDCOVER_DEGREES = 0.00026949
_LIGHTS_DEGREES = 15 / 3600
_SITE_COLUMNS = ["site_id", "name", "kind", "geometry"]
_SECTIONS = {
    "landcover": 'legend = "glc_fcs30d"',
    "imagery": 'bands = ["blue", "green", "red", "nir"]\nmask = "scl"\ncrs = "native"',
    "lights": 'band = "ntl"',
}

Writer = Callable[[Path, GeoBox, Sequence[Mine], Sequence[int], int], list[pystac.Item]]


def write_products(
    folder: Path, mines: Sequence[Mine], products: Mapping[str, Sequence[int]], seed: int
) -> None:
    """Write every product that has years, and the catalogue that leads to them."""
    plane = GeoBox.from_bbox(scene_bounds(len(mines)), UTM, resolution=20)
    writers: dict[str, Writer] = {"landcover": _landcover, "imagery": _imagery, "lights": _lights}
    items = {}
    for name, years in products.items():
        if years:
            folder.joinpath(name).mkdir()
            items[name] = writers[name](folder / name, plane, mines, years, seed)
    save_catalog(folder, items)


def _landcover(
    folder: Path, plane: GeoBox, mines: Sequence[Mine], years: Sequence[int], seed: int
) -> list[pystac.Item]:
    grid = lonlat_grid(plane, _LANDCOVER_DEGREES)
    ground = make_ground(mines, grid, seed)
    return [
        write_item(
            folder, grid, datetime(year, 1, 1, tzinfo=UTC),
            {"landcover": Layer(codes, nodata=0, categories=True)}, name=f"landcover_{year}",
        )
        for year, codes in landcover_layers(mines, grid, ground, years, seed)
    ]  # fmt: skip


def _imagery(
    folder: Path, grid: GeoBox, mines: Sequence[Mine], years: Sequence[int], seed: int
) -> list[pystac.Item]:
    ground = make_ground(mines, grid, seed)
    items = []
    for scene in scenes(mines, grid, ground, years, seed):
        layers = {
            band: Layer(counts, nodata=0, scale=SCALE, offset=scene.offset)
            for band, counts in scene.bands.items()
        }
        layers["scl"] = Layer(scene.scl, nodata=0, categories=True)
        properties = {"eo:cloud_cover": scene.cloud_percent, "gsd": 20}
        name = f"imagery_{scene.time:%Y%m%d}"
        items.append(write_item(folder, grid, scene.time, layers, name=name, properties=properties))
    return items


def _lights(
    folder: Path, plane: GeoBox, mines: Sequence[Mine], years: Sequence[int], seed: int
) -> list[pystac.Item]:
    grid = lonlat_grid(plane, _LIGHTS_DEGREES)
    return [
        write_item(
            folder, grid, month, {"ntl": Layer(ntl, nodata=np.nan, unit="nW cm-2 sr-1")},
            name=f"lights_{month:%Y%m}",
        )
        for month, ntl in light_months(mines, grid, years, seed)
    ]  # fmt: skip


def write_tables(folder: Path, truth: gpd.GeoDataFrame) -> None:
    """Write the sites and the truth about them."""
    _write_gpkg(folder / "sites.gpkg", truth[_SITE_COLUMNS], "sites")
    _write_gpkg(folder / "truth.gpkg", truth, "truth")
    truth.drop(columns="geometry").to_csv(folder / "truth.csv", index=False, lineterminator="\n")


def _write_gpkg(path: Path, table: gpd.GeoDataFrame, layer: str) -> None:
    table.to_file(path, layer=layer, driver="GPKG", engine="pyogrio")
    # the driver notes the time of writing, which would make equal simulations differ
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE gpkg_contents SET last_change = '2000-01-01T00:00:00.000Z'")


def write_recipe(
    path: Path, years: range, window: range, products: Mapping[str, Sequence[int]]
) -> None:
    """Write the recipe that analyses the simulation."""
    # the margin is for the maps; no number depends on it
    parts = ['name = "demo"', f"years = [{years[0]}, {years[-1]}]", "buffer_m = 300"]
    for name in (n for n, having in products.items() if having):
        parts += ["", f"[{name}]", 'source = "catalog.json"', f'collection = "{name}"']
        parts.append(_SECTIONS[name])
    parts += ["", "[status]", f"years = [{window[0]}, {window[-1]}]", ""]
    path.write_text("\n".join(parts), encoding="utf-8")

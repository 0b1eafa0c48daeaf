"""Rasters of trends and saved cubes of a run: numbers by hand, faults, what is done twice."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from shapely.affinity import translate

import minetrace as mt
from minetrace.cubes import node_grid, open_sources
from minetrace.errors import InputError, RecipeError, RunError, StoreError
from minetrace.run import plan_units, run_sites
from minetrace.run.export import store_name
from minetrace.run.plan import check_products
from minetrace.schema import LightsRecipe, Recipe, RingsRecipe, load_recipe
from minetrace.simulate.stac import Layer
from worlds import catalog, imagery_recipe, item

BOTH = ("trends", "cubes")
YEARS = range(2018, 2023)
LAND = GeoBox.from_bbox((500000, 300000, 502400, 301200), "EPSG:32622", resolution=30)
SKY = GeoBox.from_bbox((-51.01, 2.7, -50.97, 2.73), "EPSG:4326", resolution=1 / 240)


def scenes(folder: Path, name: str, bands: Sequence[str], grid: GeoBox, years: Sequence[int]):
    """One scene a year of numbers at random, with gaps."""
    rng, made = np.random.default_rng(len(years)), []
    for year in years:
        pixels = {band: rng.random(grid.shape, np.float32) for band in bands}
        gaps = rng.random(grid.shape) < 0.2
        layers = {
            b: Layer(np.where(gaps, np.float32(np.nan), v), np.nan) for b, v in pixels.items()
        }
        made.append(item(folder / "files", f"{name}_{year}", f"{year}-01-01", grid, layers))
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Recipe:
    """Two sites in one window; the western one has an image more, of an earlier year."""
    folder = tmp_path_factory.mktemp("world")
    images = scenes(folder, "image", ("red", "nir"), LAND, YEARS)
    images += scenes(folder, "west", ("red", "nir"), LAND[:, :40], [2015])
    lights = scenes(folder, "lights", ("ntl",), SKY, YEARS)
    recipe = imagery_recipe(catalog(folder / "images", images), (2015, 2022), buffer_m=60.0)
    part = LightsRecipe(source=str(catalog(folder / "nights", lights)))
    return recipe.model_copy(update={"lights": part})


@pytest.fixture(scope="module")
def sites() -> gpd.GeoDataFrame:
    places = [LAND[8:30, 8:30], LAND[10:28, 50:72]]
    shapes = [place.geographic_extent.geom for place in places]
    frame = gpd.GeoDataFrame({"site_id": ["west", "east"]}, geometry=shapes, crs=4326)
    return frame.assign(area_km2=0.4, source="test", country=None)


@pytest.fixture(scope="module")
def quiet(world, sites, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("quiet") / "out"
    result = run_sites(sites, world, out, products=BOTH, workers=2)
    assert (result.complete, result.n_sites, result.n_units) == (True, 2, 4)
    return out


@pytest.fixture
def lights(world) -> Recipe:
    """The fastest recipe: night lights alone."""
    return world.only("lights")


def series_of(cube: xr.DataTree) -> dict[str, xr.DataArray]:
    series = {"lights": cube["lights/ntl"]}
    return (
        series | {"imagery": mt.ndvi(cube["imagery"].to_dataset())} if "imagery" in cube else series
    )


def require_trends(out: Path, cube: xr.DataTree) -> None:
    """Every band of the pixels of a cube is what `mann_kendall` says of them, in float32."""
    for product, layer in series_of(cube).items():
        (path,) = (out / "trends").glob(f"trends-{product}-*.tif")
        trend, grid = mt.mann_kendall(layer).compute(), node_grid(layer)
        with rasterio.open(path) as raster:
            assert raster.crs == grid.crs
            col, row = (round(v) for v in ~raster.transform @ (grid.affine.c, grid.affine.f))
            window = (row, row + grid.shape[0]), (col, col + grid.shape[1])
            for name, band in zip(raster.descriptions, raster.read(window=window), strict=True):
                np.testing.assert_array_equal(band, trend[name].to_numpy().astype("f4"), name)


def saved(out: Path, site_id: str) -> xr.DataTree:
    return mt.load_cube(out / "cubes" / f"{site_id}.zarr", verify=True)


def written(out: Path) -> dict[Path, int]:
    """Files of units and cubes, and when each was written."""
    files = (p for part in ("units", "cubes") for p in (out / part).rglob("*"))
    return {p: p.stat().st_mtime_ns for p in files if p.is_file() and p.name != "catalog.json"}


def test_trends_and_cubes_are_those_by_hand(world, sites, quiet):
    for i in range(len(sites)):
        cube = mt.open_cube(sites.iloc[[i]], world)
        require_trends(quiet, cube)
        again = saved(quiet, sites.site_id[i])
        xr.testing.assert_equal(again.compute(), cube.compute())
        assert again.attrs == cube.attrs
        assert all(again[n].attrs["item_ids"] == cube[n].attrs["item_ids"] for n in cube.children)


def test_rasters_say_what_they_hold(quiet):
    (path,) = (quiet / "trends").glob("trends-lights-*.tif")
    with rasterio.open(path) as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.descriptions == ("slope", "p", "z", "s", "trend", "n")
        assert raster.units == ("nW cm-2 sr-1 year-1", *5 * ["1"])
        assert set(raster.dtypes) == {"float32"}
        assert np.isnan(raster.nodata)
        assert raster.tags()["last_year"] == "2022"


def test_a_run_without_a_panel_leaves_no_tables(quiet, sites):
    assert not list(quiet.glob("site_*"))
    summary = json.loads((quiet / "run.json").read_text())
    assert set(summary["layers"]) == {"imagery", "lights"}
    listed = pystac.Catalog.from_file(quiet / "cubes" / "catalog.json").get_items()
    assert sorted(item.id for item in listed) == sorted(sites.site_id)


def test_a_rerun_does_only_what_is_gone(world, sites, quiet, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(quiet, out)
    before = written(out)
    for products, n_units in ((BOTH, 4), (["trends"], 2)):
        result = run_sites(sites, world, out, products=products)
        assert (result.n_reused, result.n_units) == (n_units, n_units)
        assert written(out) == before
    shutil.rmtree(out / "cubes" / "west.zarr")
    (out / "cubes" / "east.zarr" / "item.json").write_text("{}")
    result = run_sites(sites, world, out, products=BOTH)
    assert (result.n_reused, result.n_units) == (2, 4)
    for site_id in sites.site_id:
        xr.testing.assert_equal(saved(out, site_id).compute(), saved(quiet, site_id).compute())


def test_an_unreadable_scene_costs_that_scene(world, sites, tmp_path, request):
    """Trends and cube are those of the other scenes, until it can be read again."""
    out, site = tmp_path / "out", sites.iloc[[0]]
    source = open_sources(world)["imagery"]
    (lost,) = (i for i in source.items if i.id == "image_2020")
    path = Path(lost.assets["red"].get_absolute_href())
    data = path.read_bytes()
    request.addfinalizer(lambda: path.write_bytes(data))
    path.write_bytes(data[: len(data) // 2])
    result = run_sites(site, world, out, products=BOTH)
    assert result.n_sites == 1
    (row,) = result.failures.to_dict("records")
    assert (row["site_id"], row["item"], row["asset"]) == ("west", "image_2020", "imagery")
    others = replace(source, items=tuple(i for i in source.items if i is not lost))
    cube = mt.open_cube(site, world, sources={"imagery": others})
    xr.testing.assert_equal(saved(out, "west").compute(), cube.compute())
    require_trends(out, cube)
    path.write_bytes(data)
    assert run_sites(site, world, out, products=BOTH).complete
    xr.testing.assert_equal(saved(out, "west").compute(), mt.open_cube(site, world).compute())


def test_sites_outside_the_data_and_stores_in_the_way_are_rows(lights, sites, tmp_path):
    far = sites.iloc[[1]].assign(site_id="far", geometry=lambda f: translate(f.geometry[1], 10))
    every = gpd.GeoDataFrame(pd.concat([sites, far], ignore_index=True), crs=4326)
    taken = tmp_path / "cubes" / "east.zarr"
    taken.mkdir(parents=True)
    (taken / "precious.txt").write_text("mine")
    result = run_sites(every, lights, tmp_path, products=BOTH)
    reasons = result.failures.set_index("site_id")["reason"]
    assert set(reasons.index) == {"far", "east"}
    assert "is no finished cube and holds files" in reasons["east"]
    assert "no lights item covers the site" in set(reasons["far"])
    assert (taken / "precious.txt").read_text() == "mine"
    assert (tmp_path / "cubes" / "west.zarr").is_dir()
    shutil.rmtree(taken)
    again = run_sites(every, lights, tmp_path, products=BOTH)
    assert (again.n_sites, set(again.failures.site_id)) == (2, {"far"})
    for products in (["trends"], ["cubes"]):
        with pytest.raises(RunError, match="none of 1 sites gave a result: no"):
            run_sites(far, lights, tmp_path / "none", products=products)


def test_a_cube_gains_years_and_is_replaced_by_other_settings(lights, sites, tmp_path):
    site, files = sites.iloc[[0]], tmp_path / "cubes" / "west.zarr" / "lights"
    for years in ((2018, 2020), (2018, 2022)):
        recipe = lights.model_copy(update={"years": years})
        before = {p: p.stat().st_mtime_ns for p in files.rglob("c/*/*/*") if p.is_file()}
        run_sites(site, recipe, tmp_path, products=["cubes"])
        xr.testing.assert_equal(
            saved(tmp_path, "west").compute(), mt.open_cube(site, recipe).compute()
        )
    assert before
    assert {p: p.stat().st_mtime_ns for p in before} == before
    wide = lights.model_copy(update={"buffer_m": 900.0})
    run_sites(site, wide, tmp_path, products=["cubes"])
    xr.testing.assert_equal(saved(tmp_path, "west").compute(), mt.open_cube(site, wide).compute())
    # its unit is committed, but what it made has been replaced
    assert run_sites(site, recipe, tmp_path, products=["cubes"]).n_reused == 0
    xr.testing.assert_equal(saved(tmp_path, "west").compute(), mt.open_cube(site, recipe).compute())


def test_what_holds_for_all_years_is_in_cubes_and_concerns_nothing_else(lights, sites, tmp_path):
    ringed = lights.model_copy(update={"rings": RingsRecipe(distances_m=(60.0,))})
    run_sites(sites, lights, tmp_path, products=BOTH)
    result = run_sites(sites, ringed, tmp_path, products=BOTH)
    assert result.n_reused == 1, "the trends are the same"
    cube = saved(tmp_path, "west")
    assert "rings" in cube.children
    xr.testing.assert_equal(cube.compute(), mt.open_cube(sites.iloc[[0]], ringed).compute())


def test_a_full_disk_ends_the_run(lights, sites, tmp_path, monkeypatch):
    import minetrace.run.export as export

    def full(*args, **options):
        raise StoreError("could not be written") from OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(export, "save_cube", full)
    with pytest.raises(RunError, match="no space is left"):
        run_sites(sites, lights, tmp_path, products=["cubes"])
    assert not list((tmp_path / "manifest").iterdir())


def test_products_that_a_recipe_has_nothing_for_are_refused(world, lights):
    land = load_recipe("landcover_only")
    for wrong in ([], ["soup"], "panel"):
        with pytest.raises(InputError, match="give 'panel', 'maps', 'trends', 'cubes'"):
            check_products(wrong, world)
    with pytest.raises(RecipeError, match="has none of imagery, lights, which 'trends'"):
        check_products(["panel", "trends"], land)
    with pytest.raises(RecipeError, match="has none of landcover, which 'maps'"):
        check_products(["maps"], lights)
    check_products(["panel", "maps"], lights)
    bands = world.imagery.model_copy(update={"bands": ("red", "green")})
    no_nir = world.model_copy(update={"imagery": bands})
    check_products(["cubes", "maps"], no_nir)
    with pytest.raises(RecipeError, match="NDVI needs red and nir"):
        check_products(["trends"], no_nir)


def test_a_month_is_chosen_for_each_site_alone(world, sites):
    part = world.imagery.model_copy(update={"composite": "least_cloudy_month"})
    chosen = world.model_copy(update={"imagery": part})
    units = plan_units(sites, chosen, open_sources(chosen), products=["trends"])
    assert [(u.source, u.rows) for u in units] == [
        ("imagery", (0,)), ("imagery", (1,)), ("lights", (0, 1)),
    ]  # fmt: skip


@pytest.mark.parametrize("site_id", ["../up", "a/b", ".hidden", "", "..", "ü", "x" * 300, "a\0b"])
def test_names_of_stores_stay_in_their_folder(site_id):
    name = store_name(site_id)
    assert Path(name).name == name
    assert name.isascii()
    assert len(name) < 120
    assert name.endswith(".zarr")
    assert not name.startswith(".")

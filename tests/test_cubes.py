"""Lazy cubes of simulated sites: laziness, exact pixels, radiometry, missing layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
from shapely.geometry import MultiPolygon, Point, box

import minetrace as mt
from minetrace.cubes import native_grid, open_sources, site_grid
from minetrace.cubes.masks import SCL_OUT
from minetrace.errors import (
    GridError,
    HrefError,
    InputError,
    RecipeError,
    SiteError,
    SourceError,
)
from minetrace.schema import LandcoverRecipe, Recipe, load_recipe, validate

YEARS = range(2017, 2023)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "sim"
    mt.simulate_mines(folder, sites=2, years=YEARS, seed=3)
    return folder


@pytest.fixture(scope="module")
def site(world: Path):
    return mt.read_sites(world / "sites.gpkg", id_column="site_id").iloc[0]


def test_opening_reads_no_pixel(world, site, no_compute):
    cube = mt.open_cube(site, world / "recipe.toml")
    assert set(cube.children) == {"landcover", "imagery", "lights"}
    for node in cube.children.values():
        for name, var in node.to_dataset().data_vars.items():
            assert var.chunks is not None, name
            assert len(var.chunks[0]) == 1, f"{name}: time must be one chunk"


def test_the_cube_keeps_its_contract(world, site):
    cube = validate(mt.open_cube(site, world / "recipe.toml"))
    for node in cube.children.values():
        lazy = node.to_dataset()
        real = lazy.compute()
        for name, var in lazy.data_vars.items():
            assert real[name].dtype == var.dtype
            assert real[name].shape == var.shape
        assert lazy.odc.geobox.crs is not None
        assert lazy.attrs["item_ids"]
        assert not any("?" in str(v) for v in lazy.attrs.values())
    assert cube["landcover/landcover"].attrs["flag_values"].dtype == np.uint8
    meanings = cube["landcover/landcover"].attrs["flag_meanings"].split()
    assert len(meanings) == len(cube["landcover/landcover"].attrs["flag_values"])


def test_equal_requests_have_equal_tokens(world, site):
    a, b = (mt.open_cube(site, world / "recipe.toml") for _ in range(2))
    c = mt.open_cube(site, world / "recipe.toml", years=(2019, 2022))
    for path in ("landcover/landcover", "imagery/red", "lights/ntl"):
        assert a[path].data.name == b[path].data.name
        assert a[path].data.name != c[path].data.name


def test_landcover_pixels_are_the_files_own(world, site):
    layer = mt.open_cube(site, world / "recipe.toml")["landcover/landcover"].compute()
    for year in YEARS:
        path = next((world / "landcover").rglob(f"*{year}*.tif"))
        with rasterio.open(path) as src:
            row, col = src.index(float(layer.x[0]), float(layer.y[0]))
            ny, nx = layer.shape[1:]
            window = rasterio.windows.Window(col, row, nx, ny)
            expected = src.read(1, window=window)
            x, y = src.xy(row, col)
        assert abs(x - float(layer.x[0])) < 1e-9
        assert abs(y - float(layer.y[0])) < 1e-9
        np.testing.assert_array_equal(layer.sel(time=f"{year}-01-01"), expected)


@pytest.mark.parametrize("chunks", [{"y": 31, "x": 53}, {"y": 64}, None])
def test_any_chunking_gives_the_same_values(world, site, chunks):
    recipe, years = world / "recipe.toml", (2021, 2022)
    whole = mt.open_cube(site, recipe, years=years, chunks={"y": 4096, "x": 4096})
    tiled = mt.open_cube(site, recipe, years=years, chunks=chunks)
    for path in ("landcover/landcover", "imagery/nir", "imagery/n_obs", "lights/ntl"):
        xr.testing.assert_identical(tiled[path].compute(), whole[path].compute())


def test_pixels_know_where_they_are(tmp_path: Path):
    """A raster whose values are its own column and row comes back unshifted."""
    from test_catalog import write_raster

    rows, cols = np.mgrid[0:90, 0:110].astype("u1")
    catalog = mt.build_catalog(
        [write_raster(tmp_path / "r" / "rows_2000.tif", {"2000": rows + 1, "2001": cols + 1})],
        tmp_path / "cat",
    )
    legend = tmp_path / "any.toml"
    classes = "".join(
        f'[[class]]\ncode = {i}\nname = "c{i}"\ngroup = "other"\n' for i in range(1, 120)
    )
    legend.write_text(f'name = "any"\n{classes}')
    recipe = Recipe(
        name="t",
        years=(2000, 2001),
        landcover=LandcoverRecipe(source=str(catalog), legend=str(legend)),
    )
    where = box(10.0051, 49.982, 10.0149, 49.99)
    got = mt.open_cube(where, recipe)["landcover/landcover"].compute()
    step = 0.0003
    expected_rows = np.round((50.0 - got.y.values) / step - 0.5) + 1
    expected_cols = np.round((got.x.values - 10.0) / step - 0.5) + 1
    assert (got[0].values == expected_rows[:, None]).all()
    assert (got[1].values == expected_cols[None, :]).all()


def test_reflectance_honours_each_items_offset(world, site):
    """From 2022 the simulated items carry offset -0.1; plain numpy is the oracle."""
    imagery = mt.open_cube(site, world / "recipe.toml")["imagery"].to_dataset().compute()
    source = mt.open_source(world / "catalog.json")
    scenes = [i for i in source.items if i.collection_id == "imagery"]
    assert {i.assets["red"].extra_fields["raster:bands"][0]["offset"] for i in scenes} == {
        0.0,
        -0.1,
    }
    for year in (2021, 2022):
        stack = []
        for item in (i for i in scenes if i.datetime.year == year):
            bands = {}
            for key in ("blue", "green", "red", "nir", "scl"):
                with rasterio.open(item.assets[key].get_absolute_href()) as src:
                    row, col = src.index(float(imagery.x[0]), float(imagery.y[0]))
                    ny, nx = imagery.red.shape[1:]
                    bands[key] = src.read(1, window=rasterio.windows.Window(col, row, nx, ny),
                                          boundless=True, fill_value=0)  # fmt: skip
            meta = item.assets["red"].extra_fields["raster:bands"][0]
            clear = ~np.isin(bands["scl"], SCL_OUT)
            for key in ("blue", "green", "red", "nir"):
                clear &= bands[key] != 0
            red = bands["red"] * meta["scale"] + meta["offset"]
            stack.append(np.where(clear, red, np.nan))
        count = np.isfinite(stack).sum(axis=0)
        np.testing.assert_array_equal(imagery.n_obs.sel(time=f"{year}-01-01"), count)
        seen = count > 0
        expected = np.nanmedian(np.array(stack)[:, seen], axis=0)
        got = imagery.red.sel(time=f"{year}-01-01").values
        np.testing.assert_allclose(got[seen], expected, atol=1e-7)
        assert np.isnan(got[~seen]).all()


def test_masked_pixels_do_not_matter(world, site, tmp_path: Path):
    """Changing what the mask hides changes no composite."""
    import shutil

    changed = tmp_path / "changed"
    shutil.copytree(world, changed)
    for path in (changed / "imagery").rglob("*_scl.tif"):
        red = path.with_name(path.name.replace("_scl", "_red"))
        with rasterio.open(path) as src:
            hidden = np.isin(src.read(1), [8, 9, 3])
        with rasterio.open(red) as src:
            values, profile = src.read(1), src.profile
        values[hidden & (values > 0)] = 9999
        with rasterio.open(red, "w", **{**profile, "driver": "GTiff"}) as dst:
            dst.write(values, 1)
    a = mt.open_cube(site, world / "recipe.toml")["imagery/red"].compute()
    b = mt.open_cube(site, changed / "recipe.toml")["imagery/red"].compute()
    np.testing.assert_array_equal(a, b)


def test_missing_layers_are_named_not_faked(world, site):
    cube = mt.open_cube(site, world / "recipe.toml", years=(2017, 2017))
    assert "imagery" not in cube.children
    assert "imagery" in cube.attrs["missing"].split(",")


def test_nothing_at_all_is_an_error(world):
    with pytest.raises(SourceError, match="no product has any item"):
        mt.open_cube(Point(100, 10).buffer(0.01), world / "recipe.toml")


def test_sources_can_be_replaced(world, site, tmp_path: Path):
    recipe = load_recipe(world / "recipe.toml")
    elsewhere = recipe.model_copy(update={"folder": tmp_path})
    cube = mt.open_cube(site, elsewhere, sources=world / "catalog.json")
    assert set(cube.children) == {"landcover", "imagery", "lights"}
    with pytest.raises(RecipeError, match=r"\['radar'\]"):
        open_sources(recipe, {"radar": world / "catalog.json"})


def test_a_source_of_another_product_is_refused(world, site, tmp_path: Path):
    source = tmp_path / "lights.toml"
    source.write_text(
        f'name = "night"\nkind = "static"\nhref = "{world}/catalog.json"\nproduct = "lights"\n'
    )
    with pytest.raises(SourceError, match=r"'night' holds lights.*for imagery"):
        mt.open_cube(site, world / "recipe.toml", sources={"imagery": source})


@pytest.mark.parametrize(
    ("years", "layers"), [((2018, 2020), 3), (range(2018, 2021), 3), ([2018, 2020], 3)]
)
def test_years_are_a_first_and_a_last(world, site, years, layers):
    cube = mt.open_cube(site, world / "recipe.toml", years=years)
    assert cube["landcover/landcover"].sizes["time"] == layers


@pytest.mark.parametrize("years", [(2020, 2018), (2018, 2019, 2020), (2018,), range(2018, 2022, 2)])
def test_odd_years_are_refused(world, site, years):
    with pytest.raises(InputError, match="give the first and the last year"):
        mt.open_cube(site, world / "recipe.toml", years=years)


def test_cloud_does_not_bleed_into_clear_pixels_on_another_grid(world, site):
    """On a grid of one's own no value is a mixture of masked and clear ground."""
    recipe = load_recipe(world / "recipe.toml")
    part = recipe.imagery.model_copy(update={"crs": "EPSG:32622", "resolution": 15.0})
    fine = mt.open_cube(site, recipe.model_copy(update={"imagery": part}), years=(2018, 2018))
    native = mt.open_cube(site, recipe, years=(2018, 2018))
    values = np.unique(native["imagery/red"].compute().values)
    got = fine["imagery/red"].compute()
    inside = got.isel(y=slice(3, -3), x=slice(3, -3)).values
    assert np.isin(inside[np.isfinite(inside)], values).all()


def test_a_site_must_be_one_polygon_in_degrees(world):
    recipe = world / "recipe.toml"
    frame = mt.read_sites(world / "sites.gpkg", id_column="site_id")
    with pytest.raises(SiteError, match="2 rows"):
        mt.open_cube(frame, recipe)
    with pytest.raises(SiteError, match=r"to_crs\('EPSG:4326'\)"):
        mt.open_cube(frame.iloc[[0]].to_crs(32622), recipe)
    with pytest.raises(SiteError, match="not longitude and latitude"):
        mt.open_cube(Point(430000, 250000).buffer(100), recipe)
    with pytest.raises(SiteError, match="no geometry"):
        mt.open_cube(Point(), recipe)


def test_a_utm_grid_is_made_on_request(world, site):
    recipe = load_recipe(world / "recipe.toml")
    part = recipe.imagery.model_copy(update={"crs": "utm", "resolution": 40.0})
    cube = mt.open_cube(site, recipe.model_copy(update={"imagery": part}))
    grid = cube["imagery"].to_dataset().odc.geobox
    assert grid.crs.to_epsg() == 32622
    assert grid.resolution.x == 40
    part = recipe.imagery.model_copy(update={"crs": "utm"})
    with pytest.raises(GridError, match="give it a resolution"):
        mt.open_cube(site, recipe.model_copy(update={"imagery": part}))


def test_a_degree_grid_cannot_cross_180(world):
    source = mt.open_source(world / "catalog.json")
    items = [i for i in source.items if i.collection_id == "landcover"]
    fiji = MultiPolygon([box(179.99, -17, 180, -16.9), box(-180, -17, -179.99, -16.9)])
    with pytest.raises(GridError, match="180°"):
        site_grid(items, "landcover", fiji)


def test_items_of_several_lattices_are_refused(world):
    source = mt.open_source(world / "catalog.json")
    items = [i for i in source.items if i.collection_id == "landcover"][:2]
    moved = pystac.Item.from_dict(items[1].to_dict())
    moved.properties["proj:transform"][2] += 0.4 * moved.properties["proj:transform"][0]
    for asset in moved.assets.values():
        asset.extra_fields.pop("proj:transform", None)
    with pytest.raises(GridError, match="another pixel lattice"):
        native_grid([items[0], moved], "landcover")


def test_an_asset_outside_the_catalogue_is_refused(world, site, tmp_path: Path):
    import json
    import shutil

    evil = tmp_path / "evil"
    shutil.copytree(world, evil)
    path = next((evil / "landcover").rglob("*2018*.json"))
    item = json.loads(path.read_text())
    item["assets"]["landcover"]["href"] = "/etc/passwd"
    path.write_text(json.dumps(item))
    with pytest.raises(HrefError, match="outside the folders"):
        mt.open_cube(site, evil / "recipe.toml")


def test_landcover_codes_above_254_are_named(tmp_path: Path):
    from test_catalog import write_raster

    raster = write_raster(tmp_path / "r" / "a_2000.tif", {"": np.full((20, 20), 300, "u2")})
    catalog = mt.build_catalog([raster], tmp_path / "cat")
    recipe = Recipe(
        name="t",
        years=(2000, 2000),
        landcover=LandcoverRecipe(source=str(catalog), legend="glc_fcs30d"),
    )
    cube = mt.open_cube(box(10.001, 49.995, 10.005, 49.999), recipe)
    with pytest.raises(mt.errors.ReadError, match="holds the value 300"):
        cube["landcover/landcover"].compute()


def test_a_source_nodata_value_becomes_zero(tmp_path: Path):
    from test_catalog import write_raster

    values = np.full((20, 20), 61, "u2")
    values[3, 4] = 65535
    raster = write_raster(tmp_path / "r" / "a_2000.tif", {"": values}, nodata=65535)
    catalog = mt.build_catalog([raster], tmp_path / "cat")
    recipe = Recipe(
        name="t",
        years=(2000, 2000),
        landcover=LandcoverRecipe(source=str(catalog), legend="glc_fcs30d"),
    )
    got = mt.open_cube(box(10.0001, 49.9941, 10.0059, 49.9999), recipe)["landcover/landcover"]
    assert (got.values[0] == np.where(values == 65535, 0, 61)).all()

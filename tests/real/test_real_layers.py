"""Real night lights and real imagery through the same cube, against plain numpy."""

from __future__ import annotations

import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pymannkendall
import pytest
import rasterio
import xarray as xr
from scenes import QUARRY, annual_ndvi, inside, read_stack, with_quarry, write_scenes
from shapely.geometry import box

import minetrace as mt
from minetrace.cubes import native_grid
from minetrace.cubes.masks import SCL_OUT
from minetrace.cubes.scenes import clear_scenes
from minetrace.panel import read_geoparquet
from minetrace.schema import (
    ChangeRecipe,
    ImageryRecipe,
    LightsRecipe,
    Recipe,
    StatusRecipe,
)

pytestmark = pytest.mark.real


def test_annual_lights_of_new_york_are_the_means_of_observed_months(
    real_data, tmp_path: Path, no_compute
):
    folder = "raster/usflite_blackmarble_nyc"
    raster = real_data(f"{folder}/nightlights.tif")
    dates = pd.read_csv(real_data(f"{folder}/dates.csv"))["date"].tolist()
    catalog = mt.build_catalog([raster], tmp_path / "ntl", product="lights", times=dates, scale=0.1)
    recipe = Recipe(name="nyc", years=(2012, 2021), lights=LightsRecipe(source=str(catalog)))
    with rasterio.open(raster) as src:
        stored, bounds = src.read().astype("f8") * 0.1, src.bounds
    inset = 1e-6  # the same pixels, without a sliver of the next
    cube = mt.open_cube(
        box(bounds.left + inset, bounds.bottom + inset, bounds.right - inset, bounds.top - inset),
        recipe,
    )
    lights = cube["lights"].to_dataset().compute(scheduler="synchronous")
    assert lights.ntl.shape == (10, 101, 133)
    years = np.array([d[:4] for d in dates]).astype(int)
    for i, year in enumerate(range(2012, 2022)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # pixels without any view
            expected = np.nanmean(stored[years == year], axis=0)
        np.testing.assert_allclose(lights.ntl[i], expected, rtol=3e-7)
        np.testing.assert_array_equal(lights.n_months[i], np.isfinite(stored[years == year]).sum(0))


NETCDF = "raster/nrt_sentinel2/sentinel2_cube_subset_romania_10m.nc"
BANDS = ("blue", "green", "red", "nir")


@pytest.fixture(scope="module")
def stack(real_data) -> xr.Dataset:
    """140 dates of a forest in Romania."""
    return read_stack(real_data(NETCDF))


@pytest.fixture(scope="module")
def romania(stack, tmp_path_factory) -> Path:
    """Catalogue of its scenes."""
    return write_scenes(stack, tmp_path_factory.mktemp("romania") / "scenes")


def imagery_of(catalog: Path, **options) -> ImageryRecipe:
    return ImageryRecipe(source=str(catalog), bands=BANDS, mask="scl", **options)


def scenes_of(catalog: Path, stack: xr.Dataset, year: int, **options) -> xr.Dataset:
    """The days of a year on the stack's own pixels."""
    source = mt.open_source(catalog)
    items = [item for item in source.items if item.datetime.year == year]
    found = clear_scenes(source, items, imagery_of(catalog, **options), native_grid(items, "red"))
    rows, cols = inside(found, stack)
    return found.isel(y=rows, x=cols).compute(scheduler="synchronous")


def test_annual_ndvi_of_romania_equals_plain_numpy(stack, romania: Path):
    recipe = Recipe(name="romania", years=(2015, 2021), imagery=imagery_of(romania))
    source = mt.open_source(romania)
    cube = mt.open_cube(box(*source.items[0].bbox), recipe)
    imagery = cube["imagery"].to_dataset()
    index = mt.ndvi(imagery).compute()
    rows, cols = inside(imagery, stack)
    for year, truth in annual_ndvi(stack, SCL_OUT).items():
        mine = index.sel(time=f"{year}-01-01").values[rows, cols]
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(truth))
        np.testing.assert_allclose(mine, truth, atol=1e-6)
    assert imagery.n_obs.dtype == np.uint16


def test_nothing_of_a_dark_forest_is_taken_for_bright_ground(stack, romania: Path):
    plain, kept = (scenes_of(romania, stack, 2018, keep_bright=keep) for keep in (False, True))
    xr.testing.assert_identical(plain, kept)


def test_a_quarry_under_real_clouds_is_given_back(stack, tmp_path: Path):
    """The mask leaves a fifth of its views; the option finds the rest, and clouds as grey as it."""
    quarry, seen = with_quarry(stack)
    year = stack.time.dt.year.values == 2018
    catalog = write_scenes(quarry.isel(time=year), tmp_path / "scenes")
    truth = seen[year]
    found = [scenes_of(catalog, stack, 2018, keep_bright=keep) for keep in (False, True)]
    plain, kept = (scenes.red.notnull().values for scenes in found)
    rows, cols = QUARRY
    clear, masked, back = (a[:, rows, cols] for a in (truth, plain, kept))
    assert (masked <= clear).all()
    assert masked.sum() < 0.3 * clear.sum()
    assert back[clear].mean() > 0.9
    cloud = ~clear & np.isin(quarry.SCL.values[year][:, rows, cols], (8, 9))
    assert back[cloud].mean() < 0.06
    ndvi = mt.ndvi(found[1].isel(y=rows, x=cols).median("time"))
    assert abs(float(ndvi.median()) - (0.38 - 0.33) / (0.38 + 0.33)) < 0.005
    outside = np.ones(plain.shape[1:], bool)
    outside[rows, cols] = False
    np.testing.assert_array_equal(kept[:, outside], plain[:, outside])


def block_of(raster_bounds, crs: str, step: float, rows: slice, cols: slice) -> gpd.GeoDataFrame:
    """A site that is a block of whole pixels, a hair inside their outline."""
    left, top = raster_bounds
    hair = step / 1000
    outline = box(left + cols.start * step + hair, top - rows.stop * step + hair,
                  left + cols.stop * step - hair, top - rows.start * step - hair)  # fmt: skip
    site = gpd.GeoDataFrame({"site_id": ["block"]}, geometry=[outline.segmentize(step)], crs=crs)
    site = site.to_crs(4326)
    return site.assign(area_km2=1.0, source="test", country=None)


def test_the_driver_traces_lights_alone(real_data, tmp_path: Path):
    """Only lights: the status rests on them, the other layers are marked missing."""
    folder = "raster/usflite_blackmarble_nyc"
    raster = real_data(f"{folder}/nightlights.tif")
    dates = pd.read_csv(real_data(f"{folder}/dates.csv"))["date"].tolist()
    catalog = mt.build_catalog([raster], tmp_path / "ntl", product="lights", times=dates, scale=0.1)
    recipe = Recipe(
        name="nyc", years=(2012, 2021), lights=LightsRecipe(source=str(catalog)),
        change=ChangeRecipe(coverage="centre"), status=StatusRecipe(years=(2012, 2021)),
    )  # fmt: skip
    with rasterio.open(raster) as src:
        stored, origin, step = src.read() * 0.1, (src.bounds.left, src.bounds.top), src.res[0]
    site = block_of(origin, "EPSG:4326", step, slice(40, 44), slice(40, 45))
    result = mt.run_sites(site, recipe, tmp_path / "out")
    assert result.complete
    panel = read_geoparquet(tmp_path / "out" / "site_panel.parquet").set_index("year")
    years = np.array([d[:4] for d in dates]).astype(int)
    for year in range(2012, 2022):
        block = np.nanmean(stored[years == year, 40:44, 40:45], axis=0)
        # cells shrink towards the pole: a mean over area differs from a plain one by little
        assert panel.ntl[year] == pytest.approx(block.mean(), rel=1e-4)
    assert panel[["bsp", "ndvi", "development_km2"]].isna().all().all()
    table = read_geoparquet(tmp_path / "out" / "site_table.parquet").iloc[0]
    oracle = pymannkendall.original_test(panel.ntl.to_numpy())
    assert table.ntl_trend == np.sign(oracle.slope) * oracle.h
    assert table.ntl_slope == pytest.approx(oracle.slope)
    assert pd.isna(table.bsp_trend)
    assert "no data" in mt.report.write_report(tmp_path / "out").read_text("utf-8")


def test_the_driver_traces_imagery_alone(stack, romania: Path, tmp_path: Path):
    recipe = Recipe(
        name="romania", years=(2015, 2021), change=ChangeRecipe(coverage="centre"),
        imagery=imagery_of(romania),
    )  # fmt: skip
    origin = (float(stack.x[0]) - 5, float(stack.y[0]) + 5)
    site = block_of(origin, "EPSG:3035", 10.0, slice(20, 60), slice(30, 80))
    mt.run_sites(site, recipe, tmp_path / "out")
    panel = read_geoparquet(tmp_path / "out" / "site_panel.parquet").set_index("year")
    for year, index in annual_ndvi(stack, SCL_OUT).items():
        assert panel.ndvi[year] == pytest.approx(np.nanmean(index[20:60, 30:80]), abs=1e-6)

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
from scenes import annual_ndvi, write_scenes
from shapely.geometry import box

import minetrace as mt
from minetrace.cubes.products import SCL_OUT
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


def test_annual_ndvi_of_romania_equals_plain_numpy(real_data, tmp_path: Path):
    netcdf = real_data("raster/nrt_sentinel2/sentinel2_cube_subset_romania_10m.nc")
    catalog = write_scenes(netcdf, tmp_path / "scenes")
    recipe = Recipe(
        name="romania", years=(2015, 2021),
        imagery=ImageryRecipe(source=str(catalog), bands=("blue", "green", "red", "nir"),
                              mask="scl"),
    )  # fmt: skip
    source = mt.open_source(catalog)
    cube = mt.open_cube(box(*source.items[0].bbox), recipe)
    imagery = cube["imagery"].to_dataset()
    index = mt.ndvi(imagery).compute()
    expected = annual_ndvi(netcdf, SCL_OUT)
    inside = _overlap(imagery, netcdf)
    for year, truth in expected.items():
        mine = index.sel(time=f"{year}-01-01").values[inside]
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(truth))
        np.testing.assert_allclose(mine, truth, atol=1e-6)
    assert imagery.n_obs.dtype == np.uint16


def _overlap(imagery, netcdf: Path) -> tuple[slice, slice]:
    """Rows and columns of the cube that are the stack's pixels (the box bends in LAEA)."""
    stack = xr.open_dataset(netcdf, engine="h5netcdf")
    row = int(np.argmin(np.abs(imagery.y.values - float(stack.y[0]))))
    col = int(np.argmin(np.abs(imagery.x.values - float(stack.x[0]))))
    assert abs(imagery.y.values[row] - float(stack.y[0])) < 1e-6
    return slice(row, row + stack.sizes["y"]), slice(col, col + stack.sizes["x"])


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


def test_the_driver_traces_imagery_alone(real_data, tmp_path: Path):
    netcdf = real_data("raster/nrt_sentinel2/sentinel2_cube_subset_romania_10m.nc")
    catalog = write_scenes(netcdf, tmp_path / "scenes")
    recipe = Recipe(
        name="romania", years=(2015, 2021), change=ChangeRecipe(coverage="centre"),
        imagery=ImageryRecipe(source=str(catalog), bands=("blue", "green", "red", "nir"),
                              mask="scl"),
    )  # fmt: skip
    stack = xr.open_dataset(netcdf, engine="h5netcdf")
    origin = (float(stack.x[0]) - 5, float(stack.y[0]) + 5)
    site = block_of(origin, "EPSG:3035", 10.0, slice(20, 60), slice(30, 80))
    mt.run_sites(site, recipe, tmp_path / "out")
    panel = read_geoparquet(tmp_path / "out" / "site_panel.parquet").set_index("year")
    for year, index in annual_ndvi(netcdf, SCL_OUT).items():
        assert panel.ndvi[year] == pytest.approx(np.nanmean(index[20:60, 30:80]), abs=1e-6)

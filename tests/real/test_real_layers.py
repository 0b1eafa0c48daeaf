"""Real night lights and real imagery through the same cube, against plain numpy."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from scenes import annual_ndvi, write_scenes
from shapely.geometry import box

import minetrace as mt
from minetrace.cubes.products import SCL_OUT
from minetrace.schema import ImageryRecipe, LightsRecipe, Recipe

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

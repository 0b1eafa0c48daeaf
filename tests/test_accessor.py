"""ds.mine is a door, not a second implementation."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import minetrace as mt
from minetrace.errors import InputError
from test_store import make_cube


def test_the_accessor_gives_what_the_functions_give():
    land = make_cube()["landcover"].to_dataset()
    land["landcover"].attrs["legend"] = "glc_fcs30d"
    xr.testing.assert_identical(
        land.mine.transitions(), mt.transitions(land.landcover, legend="glc_fcs30d")
    )
    image = make_cube()["imagery"].to_dataset()
    image["nir"] = image.red * 2
    xr.testing.assert_identical(image.mine.ndvi(), mt.ndvi(image))
    xr.testing.assert_identical(
        image.mine.trend("red", min_valid=3), mt.mann_kendall(image.red, min_valid=3)
    )
    with pytest.raises(InputError, match="no variable 'swir'; it has red, nir"):
        image.mine.trend("swir")


@pytest.mark.parametrize(
    "script",
    [
        "import xarray, minetrace; xarray.Dataset().mine",
        "import minetrace; minetrace.ndvi; import xarray; xarray.Dataset().mine",
    ],
)
def test_the_accessor_is_there_without_asking(script: str):
    subprocess.run([sys.executable, "-c", script], check=True)


def test_bsp_through_the_accessor():
    import geopandas as gpd
    from shapely.geometry import box

    land = make_cube()["landcover"].to_dataset()
    land["landcover"].attrs["legend"] = "glc_fcs30d"
    site = gpd.GeoDataFrame(
        {"site_id": ["a"]}, geometry=[box(501000, 201000, 505000, 204000)], crs=32622
    )
    found = land.mine.bsp(site)
    assert np.isfinite(found.bsp).all()
    assert found.equals(mt.bare_surface_percentage(land.landcover, site, legend="glc_fcs30d"))

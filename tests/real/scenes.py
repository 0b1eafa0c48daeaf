"""Sentinel-2 scenes from a netCDF stack, written as COGs with STAC items like Earth Search.

The cube is real but knows no bright ground, so that a quarry is laid into it where that is asked
for: real clouds on real dates over ground that is known.
"""

from __future__ import annotations

import datetime as dt
import warnings
from pathlib import Path

import numpy as np
import pystac
import rasterio
import xarray as xr
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from shapely.geometry import box, mapping

ASSETS = {"blue": "B2", "green": "B3", "red": "B4", "nir": "B8", "scl": "SCL"}


QUARRY = (slice(30, 60), slice(40, 75))
"""Rows and columns of the quarry."""
GROUND = {"B2": 0.24, "B3": 0.29, "B4": 0.33, "B8": 0.38}
"""Its reflectance, of pale limestone; the NDVI is 0.07."""
FALSE_CLOUD = 0.8
"""Share of its clear views that the scene classes call cloud."""


def read_stack(netcdf: Path) -> xr.Dataset:
    """Counts as they are stored."""
    return xr.open_dataset(netcdf, mask_and_scale=False, engine="h5netcdf")


def with_quarry(stack: xr.Dataset, *, seed: int = 0) -> tuple[xr.Dataset, np.ndarray]:
    """The stack with a quarry wherever no cloud, shadow or snow hides it.

    Light differs by 5 % from date to date, and each value by 3 %. `FALSE_CLOUD` of the dates call
    the quarry cloud of medium probability.

    Returns
    -------
    tuple
        The stack, and bool ``(time, y, x)``: clear views of the quarry.
    """
    rng = np.random.default_rng(seed)
    made = stack.load().copy(deep=True)
    rows, cols = QUARRY
    scl = made.SCL.values[:, rows, cols]
    clear = np.isin(scl, (2, 4, 5, 6, 7)) & (made.B4.values[:, rows, cols] > 0)
    light = rng.normal(1, 0.05, (stack.sizes["time"], 1, 1))
    for band, level in GROUND.items():
        counts = made[band].values[:, rows, cols]
        own = level * 1e4 * light * rng.normal(1, 0.03, clear.shape)
        counts[clear] = own[clear].astype(counts.dtype)
    called_cloud = rng.random((stack.sizes["time"], 1, 1)) < FALSE_CLOUD
    scl[clear] = np.where(called_cloud, 8, 5).repeat(scl.shape[1], 1).repeat(scl.shape[2], 2)[clear]
    seen = np.zeros(made.SCL.shape, bool)
    seen[:, rows, cols] = clear
    return made, seen


def write_scenes(stack: xr.Dataset, out: Path) -> Path:
    """One item per date: five COGs, raster:bands with nodata, scale and offset."""
    step = float(stack.x[1] - stack.x[0])
    transform = from_origin(float(stack.x[0]) - step / 2, float(stack.y[0]) + step / 2, step, step)
    ny, nx = stack.sizes["y"], stack.sizes["x"]
    left, top = transform.c, transform.f
    bounds = transform_bounds("EPSG:3035", "EPSG:4326", left, top - ny * step, left + nx * step,
                              top, densify_pts=21)  # fmt: skip
    collection = pystac.Collection(
        "sentinel-2-l2a", "Sentinel-2 over a forest in Romania",
        pystac.Extent(pystac.SpatialExtent([list(bounds)]),
                      pystac.TemporalExtent([[dt.datetime(2015, 1, 1, tzinfo=dt.UTC), None]])),
    )  # fmt: skip
    for i, moment in enumerate(stack.time.values):
        when = moment.astype("datetime64[s]").astype(dt.datetime).replace(hour=9, tzinfo=dt.UTC)
        folder = out / "sentinel-2-l2a" / f"S2_{when:%Y%m%d}"
        folder.mkdir(parents=True)
        item = pystac.Item(
            folder.name, mapping(box(*bounds)), list(bounds), when,
            {"proj:code": "EPSG:3035", "proj:shape": [ny, nx],
             "proj:transform": list(transform)[:6]},
            stac_extensions=["https://stac-extensions.github.io/projection/v2.0.0/schema.json",
                             "https://stac-extensions.github.io/raster/v1.1.0/schema.json"],
        )  # fmt: skip
        for asset, variable in ASSETS.items():
            values = stack[variable].values[i]
            path = folder / f"{asset}.tif"
            dtype = "uint8" if asset == "scl" else "uint16"
            with rasterio.open(path, "w", driver="COG", height=ny, width=nx, count=1, dtype=dtype,
                               crs="EPSG:3035", transform=transform, nodata=0) as dst:  # fmt: skip
                dst.write(values.astype(dtype), 1)
            bands = {"data_type": dtype, "nodata": 0}
            if asset != "scl":
                bands |= {"scale": 0.0001, "offset": 0.0}
            item.add_asset(
                asset,
                pystac.Asset(
                    str(path),
                    media_type=pystac.MediaType.COG,
                    extra_fields={"raster:bands": [bands]},
                ),
            )
        collection.add_item(item)
    catalog = pystac.Catalog("romania", "140 dates")
    catalog.add_child(collection)
    catalog.normalize_hrefs(str(out))
    catalog.make_all_asset_hrefs_relative()
    catalog.save(pystac.CatalogType.SELF_CONTAINED)
    return out / "catalog.json"


def inside(imagery: xr.Dataset, stack: xr.Dataset) -> tuple[slice, slice]:
    """Rows and columns of a cube that are the stack's pixels (the box bends in LAEA)."""
    row = int(np.argmin(np.abs(imagery.y.values - float(stack.y[0]))))
    col = int(np.argmin(np.abs(imagery.x.values - float(stack.x[0]))))
    assert abs(imagery.y.values[row] - float(stack.y[0])) < 1e-6
    return slice(row, row + stack.sizes["y"]), slice(col, col + stack.sizes["x"])


def annual_ndvi(stack: xr.Dataset, masked: tuple[int, ...]) -> dict[int, np.ndarray]:
    """Plain numpy: median of clear red and nir by year, then NDVI."""
    red, nir = (stack[b].values.astype("f8") for b in ("B4", "B8"))
    blue, green = stack["B2"].values, stack["B3"].values
    bad = np.isin(stack["SCL"].values, masked)
    for band in (red, nir, blue, green):
        bad |= band == 0
    red[bad], nir[bad] = np.nan, np.nan
    out = {}
    years = stack.time.dt.year.values
    for year in np.unique(years):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # pixels without a clear view
            r, n = (np.nanmedian(b[years == year], axis=0) / 1e4 for b in (red, nir))
        out[int(year)] = (n - r) / (n + r)
    return out

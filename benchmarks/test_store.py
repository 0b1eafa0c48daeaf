"""Reading a saved cube: a small series, and all of it against the rasters that it came from.

Peers: plain zarr and xarray, without the check against the manifest; zarr chunks of 256 × 256
without shards; and rasterio on local COGs in two threads, with the same composite.
"""

from concurrent.futures import ThreadPoolExecutor

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio.transform import Affine
from turns import seconds
from zarr.codecs import ZstdCodec

from minetrace.kernels.composite import median_composite
from minetrace.store import load_cube, save_cube

SIDE, YEARS, DATES = 512, 38, 4


def _reflectance(rng, dates):
    """Patches of ground with noise, as real scenes compress: to about two thirds."""
    ground = rng.random((SIDE // 16, SIDE // 16)).repeat(16, 0).repeat(16, 1) * 3000
    noise = rng.normal(300, 120, (dates, SIDE, SIDE))
    return np.clip(ground + noise, 1, 10000).astype("int16")


@pytest.fixture(scope="module")
def cube():
    """38 years of two bands and land cover."""
    rng = np.random.default_rng(0)
    box = GeoBox((SIDE, SIDE), Affine(30, 0, 500000, 0, -30, 200000), "EPSG:32622")
    time = np.arange("1985", str(1985 + YEARS), dtype="M8[Y]").astype("M8[ns]")
    dims, coords = ("time", "y", "x"), {"time": time, **xr_coords(box)}
    bands = {b: (dims, (_reflectance(rng, YEARS) * 1e-4).astype("f4")) for b in ("red", "nir")}
    codes = rng.choice([10, 61, 130, 200], (YEARS, SIDE // 8, SIDE // 8)).astype("u1")
    cover = {"landcover": (dims, codes.repeat(8, 1).repeat(8, 2))}
    return xr.DataTree.from_dict(
        {"imagery": xr.Dataset(bands, coords), "landcover": xr.Dataset(cover, coords)}
    )


@pytest.fixture(scope="module")
def store(cube, tmp_path_factory):
    return save_cube(cube, tmp_path_factory.mktemp("store") / "c.zarr")


def test_series_of_64_pixels(benchmark, cube, store, tmp_path):
    """All years of 64 × 64 pixels: one small mine, out of a store that is open."""
    red = cube["imagery/red"].values
    unsharded = zarr.create_array(
        tmp_path / "z", shape=red.shape, dtype="f4", chunks=(YEARS, 256, 256),
        compressors=[ZstdCodec(level=3, checksum=True)],
    )  # fmt: skip
    unsharded[:] = red
    where = (slice(None), slice(128, 192), slice(256, 320))
    opened = load_cube(store)["imagery/red"]
    plain = zarr.open_array(store / "imagery" / "red", mode="r")
    unchecked = xr.open_datatree(store, engine="zarr", chunks={"y": 512, "x": 512})["imagery/red"]

    def checked(lazy=opened):
        with dask.config.set(scheduler="sync"):
            return lazy[where].values

    np.testing.assert_array_equal(checked(), red[where])
    least = seconds(
        15,
        checked=checked,
        xarray=lambda: checked(unchecked),
        plain=lambda: plain[where],
        unsharded=lambda: unsharded[where],
    )
    benchmark.extra_info["milliseconds"] = least["checked"] * 1e3
    benchmark.extra_info["share_of_the_time_of_plain_zarr"] = least["checked"] / least["plain"]
    benchmark.extra_info["share_of_the_time_of_plain_xarray"] = least["checked"] / least["xarray"]
    benchmark.extra_info["times_faster_than_chunks_of_256"] = least["unsharded"] / least["checked"]
    benchmark.pedantic(checked, rounds=5)


def test_reanalysis(benchmark, tmp_path):
    """Annual NDVI from the store, and from the COGs that its composites were made of."""
    rng = np.random.default_rng(1)
    years = 10
    profile = {
        "driver": "COG", "dtype": "int16", "count": 1, "height": SIDE, "width": SIDE,
        "crs": "EPSG:32622", "transform": Affine(30, 0, 500000, 0, -30, 200000), "nodata": 0,
        "compress": "deflate", "blocksize": 256,
    }  # fmt: skip
    files = {}
    for band in ("red", "nir"):
        for i, scene in enumerate(_reflectance(rng, years * DATES)):
            files[band, i] = tmp_path / f"{band}{i}.tif"
            with rasterio.open(files[band, i], "w", **profile) as dst:
                dst.write(scene, 1)

    def read(path):
        with rasterio.open(path) as src:
            return src.read(1)

    def composites():
        with ThreadPoolExecutor(2) as pool:
            scenes = dict(zip(files, pool.map(read, files.values()), strict=True))
        stored = np.stack([[scenes[b, i] for i in range(years * DATES)] for b in ("red", "nir")])
        physical = np.where(stored == 0, np.nan, stored * np.float32(1e-4)).astype("f4")
        starts = range(0, years * DATES, DATES)
        return [
            np.stack([median_composite(band[i : i + DATES])[0] for i in starts])
            for band in physical
        ]

    red, nir = composites()
    box = GeoBox((SIDE, SIDE), profile["transform"], "EPSG:32622")
    time = np.arange("2010", "2020", dtype="M8[Y]").astype("M8[ns]")
    dims = ("time", "y", "x")
    image = xr.Dataset({"red": (dims, red), "nir": (dims, nir)}, {"time": time, **xr_coords(box)})
    path = save_cube(xr.DataTree.from_dict({"imagery": image}), tmp_path / "c.zarr")

    def from_store():
        with dask.config.set(scheduler="threads", num_workers=2):
            ds = load_cube(path)["imagery"].to_dataset()
            return ((ds.nir - ds.red) / (ds.nir + ds.red)).values

    def from_cogs():
        red, nir = composites()
        return (nir - red) / (nir + red)

    np.testing.assert_array_equal(from_store(), from_cogs())
    least = seconds(
        3, store=from_store, cogs=from_cogs, decode=lambda: [*map(read, files.values())]
    )
    benchmark.extra_info["store_ms"] = least["store"] * 1e3
    benchmark.extra_info["times_faster_than_the_cogs"] = least["cogs"] / least["store"]
    benchmark.extra_info["times_faster_than_decoding_them_in_one_thread"] = (
        least["decode"] / least["store"]
    )
    benchmark.pedantic(from_store, rounds=3)


def test_saving(benchmark, cube, tmp_path):
    """Write, hash, read back and publish; the peer is xarray's ``to_zarr`` alone."""
    count = iter(range(1000))
    least = seconds(
        2,
        save=lambda: save_cube(cube, tmp_path / f"s{next(count)}.zarr"),
        to_zarr=lambda: cube.to_zarr(tmp_path / f"z{next(count)}.zarr", consolidated=False),
    )
    benchmark.extra_info["seconds"] = least["save"]
    benchmark.extra_info["share_of_the_time_of_to_zarr"] = least["save"] / least["to_zarr"]
    benchmark.pedantic(lambda: save_cube(cube, tmp_path / f"s{next(count)}.zarr"), rounds=1)


def test_opening(benchmark, cube, store):
    """A store is opened: metadata verified, nothing computed; the peer is plain xarray."""
    least = seconds(
        10,
        load=lambda: load_cube(store),
        plain=lambda: xr.open_datatree(store, engine="zarr", chunks={}),
    )
    benchmark.extra_info["milliseconds"] = least["load"] * 1e3
    benchmark.extra_info["share_of_the_time_of_open_datatree"] = least["load"] / least["plain"]
    benchmark.pedantic(lambda: load_cube(store), rounds=5)

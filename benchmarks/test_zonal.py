"""Coverage and zonal means beside exactextract."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import dask
import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr

from minetrace.zones import cover, mean_in_zones, zonal_statistics

CRS = "EPSG:32622"


def grid(side):
    return GeoBox.from_bbox((0, 0, 30 * side, 30 * side), CRS, shape=(side, side))


def mines(n, side, vertices):
    """Ragged polygons of 0.5 to 3 km across, some over one another."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * np.arange(vertices) / vertices
    shapes = []
    for _ in range(n):
        waves = np.arange(1, 200)[:, None]
        ragged = np.sin(waves * angle + rng.uniform(0, 7, waves.shape)) / waves
        radius = rng.uniform(250, 1500) * (1 + 0.2 * ragged.sum(axis=0))
        x, y = rng.uniform(0, 30 * side, 2)
        shapes.append(shapely.Polygon(np.c_[x + radius * np.cos(angle),
                                            y + radius * np.sin(angle)]))  # fmt: skip
    ids = [f"m{i}" for i in range(n)]
    return gpd.GeoDataFrame({"site_id": ids}, geometry=shapes, crs=CRS)


def source(values, side, name=None):
    wkt = gpd.GeoSeries(crs=CRS).crs.to_wkt()
    return NumPyRasterSource(values, 0, 0, 30 * side, 30 * side, srs_wkt=wkt, name=name)


@pytest.mark.parametrize(
    ("n", "side", "vertices"),
    [(300, 3000, 60), (20, 1000, 20000)],
    ids=["basin_300_mines", "detailed_outlines"],
)
def test_cover(benchmark, n, side, vertices):
    sites = mines(n, side, vertices)
    zones = benchmark(cover, sites, grid(side))
    values = source(np.zeros((side, side), np.float32), side)
    start = perf_counter()
    rows = exact_extract(values, sites, ["cell_id", "coverage"], output="pandas")
    peer = perf_counter() - start
    assert zones.weight.sum() == pytest.approx(sum(c.sum() for c in rows.coverage), rel=1e-6)
    benchmark.extra_info["times_faster_than_exactextract"] = peer / benchmark.stats["median"]


def small_mines(n, side):
    """Polygons of 32 vertices and some 630 pixels."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * np.arange(32) / 32
    shapes = []
    for _ in range(n):
        radius = 30 * rng.uniform(7, 20) * (1 + 0.2 * rng.uniform(-1, 1, 32))
        x, y = rng.uniform(0, 30 * side, 2)
        shapes.append(shapely.Polygon(np.c_[x + radius * np.cos(angle),
                                            y + radius * np.sin(angle)]))  # fmt: skip
    ids = [f"m{i}" for i in range(n)]
    return gpd.GeoDataFrame({"site_id": ids}, geometry=shapes, crs=CRS)


SIDE = 4096


@pytest.fixture(scope="module")
def country():
    """5,000 sites, and layers of 64 MiB with gaps."""
    rng = np.random.default_rng(1)
    values = rng.random((10, SIDE, SIDE), dtype=np.float32)
    values[:, rng.random((SIDE, SIDE)) < 0.05] = np.nan
    times = [f"{y}" for y in range(2000, 2010)]
    return small_mines(5000, SIDE), wrap_xr(values, grid(SIDE), time=times)


def seconds(function, *args):
    start = perf_counter()
    function(*args)
    return perf_counter() - start


def test_cover_5000(benchmark, country):
    sites, _ = country
    cover(sites, grid(SIDE))
    zones = benchmark(cover, sites, grid(SIDE))
    arrays = (*zones.runs, zones.edge, zones.partial)
    benchmark.extra_info["pixels_a_site"] = zones.n_cells / len(zones)
    benchmark.extra_info["bytes_a_cell_of_16"] = sum(a.nbytes for a in arrays) / zones.n_cells


def test_one_more_layer(benchmark, country):
    """Slope of the time over the number of layers, the rounds of all beside one another."""
    sites, data = country
    zones = cover(sites, grid(SIDE))
    pool = ThreadPoolExecutor(2)

    def peer(n):
        bands = [source(layer, SIDE, f"b{i}") for i, layer in enumerate(data.values[:n])]
        return exact_extract(bands, sites, ["mean"], output="pandas")

    def one(n):
        return zonal_statistics(data[:n], zones)

    def two(n):
        return list(pool.map(lambda part: zonal_statistics(part, zones), (data[:n], data[-n:])))

    one(1)
    slopes = {"peer": [], "one": [], "two": []}
    for _ in range(5):
        slopes["peer"].append((seconds(peer, 9) - seconds(peer, 1)) / 8)
        slopes["one"].append((seconds(one, 9) - seconds(one, 1)) / 8)
        slopes["two"].append((seconds(two, 5) - seconds(two, 1)) / 8)
    benchmark(one, 10)
    median = {name: float(np.median(values)) for name, values in slopes.items()}
    benchmark.extra_info["ms_a_layer_of_exactextract"] = 1e3 * median["peer"]
    benchmark.extra_info["ms_a_layer_in_1_thread"] = 1e3 * median["one"]
    benchmark.extra_info["times_faster_than_exactextract_1_thread"] = median["peer"] / median["one"]
    benchmark.extra_info["times_faster_than_exactextract_2_threads"] = (
        median["peer"] / median["two"]
    )


def test_38_layers_of_5000_sites(benchmark, country):
    """Weights and means, layer by layer through dask in two threads."""
    sites, data = country
    # eight blocks of five layers, the last of three
    blocks = [data[5 * (k % 2) : 5 * (k % 2) + 5].chunk() for k in range(8)]
    cube = xr.concat(blocks, "time", coords="minimal", compat="override", join="override")[:38]
    cube = cube.assign_coords(time=np.arange(1985, 2023))

    def run():
        with dask.config.set(scheduler="threads", num_workers=2):
            return zonal_statistics(cube, sites)

    assert len(run()) == 38 * 5000
    benchmark(run)
    bands = source(data.values[0], SIDE)
    peer = min(seconds(exact_extract, bands, sites, ["mean"]) for _ in range(3))
    benchmark.extra_info["of_the_time_of_exactextract_for_one_layer"] = (
        benchmark.stats["min"] / peer
    )


@pytest.mark.parametrize(
    ("n_time", "statistics"),
    [(10, ["mean"]), (1, ["mean"]), (1, ["min", "median"])],
    ids=["10_layers", "1_layer", "1_layer_sorted"],
)
def test_memory(benchmark, country, n_time, statistics):
    """Most memory beyond the layers, in a process of its own: the kernels' is not traced."""
    code = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import numpy as np
from odc.geo.xr import wrap_xr
from test_zonal import SIDE, cover, grid, small_mines, zonal_statistics
def memory(key):
    return next(int(k.split()[1]) << 10 for k in open("/proc/self/status") if key in k)
sites = small_mines(5000, SIDE)
few = wrap_xr(np.ones((1, 64, 64), np.float32), grid(64), time=["2000"])
zonal_statistics(few, sites[:20], statistics={statistics})
zones = cover(sites, grid(SIDE))
times = [f"{{2000 + i}}" for i in range({n_time})]
data = wrap_xr(np.ones(({n_time}, SIDE, SIDE), np.float32), grid(SIDE), time=times)
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
zonal_statistics(data, zones, statistics={statistics})
print((memory("VmHWM") - before) / data.nbytes)
"""
    run = benchmark.pedantic(
        lambda: subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ),
        rounds=1,
    )
    benchmark.extra_info["memory_beyond_the_layers"] = float(run.stdout)


def test_means_of_38_layers(benchmark):
    side, n_time = 1000, 38
    sites, values = mines(300, side, 60), np.random.default_rng(1).random((n_time, side, side))
    stack = wrap_xr(values.astype("f4"), grid(side), time=[f"{y}" for y in range(1985, 2023)])
    table = benchmark(lambda: mean_in_zones(stack, cover(sites, grid(side))))
    start = perf_counter()
    layers = [
        exact_extract(source(layer, side), sites, ["mean"], output="pandas")["mean"]
        for layer in stack.values
    ]
    peer = perf_counter() - start
    found = table.value.to_numpy().reshape(300, n_time)
    # the peer weighs by coverage alone; pixels of one site differ little in area
    np.testing.assert_allclose(found, np.transpose(layers), rtol=1e-4)
    benchmark.extra_info["times_faster_than_exactextract"] = peer / benchmark.stats["median"]

"""Coverage and zonal means beside exactextract."""

from __future__ import annotations

from time import perf_counter

import geopandas as gpd
import numpy as np
import pytest
import shapely
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr

from minetrace.zones import cover, mean_in_zones

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


def source(values, side):
    wkt = gpd.GeoSeries(crs=CRS).crs.to_wkt()
    return NumPyRasterSource(values, 0, 0, 30 * side, 30 * side, srs_wkt=wkt)


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

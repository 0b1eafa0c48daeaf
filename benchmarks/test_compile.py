"""Seconds that the first call of each face takes beyond the second, in a fresh interpreter.

Compiling is Python and LLVM at work, so seconds say as much of the machine as of the kernels. The
series that pymannkendall, plain Python, tests in a second beside it tell machines apart.
"""

import json
import subprocess
import sys
from time import perf_counter

import numpy as np
import pymannkendall

CODE = """
import json
from time import perf_counter
import geopandas as gpd, numpy as np, xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr
import minetrace as mt
import minetrace.change, minetrace.composites, minetrace.trends, minetrace.zones

grid = GeoBox.from_bbox((500000, 0, 500960, 960), "EPSG:32631", shape=(32, 32))
rng = np.random.default_rng(0)
years = [f"{y}" for y in range(1990, 2020)]
image = wrap_xr(rng.random((30, 32, 32), np.float32), grid, time=years)
codes = wrap_xr(rng.choice(np.array([71, 201], np.uint8), (30, 32, 32)), grid, time=years)
box = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[grid.extent.geom.buffer(-50)], crs=grid.crs)
calls = {
    "mann_kendall": lambda: mt.mann_kendall(image),
    "hamed_rao": lambda: mt.mann_kendall(image, method="hamed_rao"),
    "pre_whitening": lambda: mt.mann_kendall(image, method="pre_whitening"),
    "seasonal": lambda: mt.mann_kendall(image, method="seasonal"),
    "transitions": lambda: mt.transitions(codes),
    "transition_areas": lambda: mt.transition_areas(codes, box),
    "class_areas": lambda: mt.class_areas(codes, box),
    "statistics": lambda: mt.zonal_statistics(image, box, statistics=["mean", "min", "median"]),
    "shares": lambda: mt.zonal_shares(codes, box),
    "median": lambda: mt.composite(image.to_dataset(name="red")),
    "medoid": lambda: mt.composite(image.to_dataset(name="red"), method="medoid"),
}
spent = {}
for name, call in calls.items():
    start = perf_counter()
    call()
    middle = perf_counter()
    call()
    spent[name] = middle - start - (perf_counter() - middle)
print(json.dumps(spent))
"""


def test_first_calls(benchmark):
    def run():
        done = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, check=True, text=True
        )
        return json.loads(done.stdout)

    spent = benchmark.pedantic(run, rounds=1)
    for name, seconds in spent.items():
        benchmark.extra_info[f"first_{name}_s"] = seconds
    together = sum(spent.values())
    benchmark.extra_info["first_calls_together_s"] = together
    rate = plain_series_per_second()
    benchmark.extra_info["pymannkendall_series_per_s"] = rate
    benchmark.extra_info["series_of_pymannkendall_meanwhile"] = rate * together


def plain_series_per_second():
    rng = np.random.default_rng(0)
    series = rng.random((100, 38)).round(2)
    series[rng.random(series.shape) < 0.05] = np.nan
    spent = []
    for _ in range(5):
        start = perf_counter()
        for y in series:
            pymannkendall.original_test(y)
        spent.append(perf_counter() - start)
    return len(series) / min(spent)

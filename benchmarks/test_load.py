"""One site, 40 dates, 512 × 512 pixels of local COGs beside a hand-written pool and its peers."""

from __future__ import annotations

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.windows import Window
from turns import processor_ratio, seconds

from minetrace.cubes import load_layers
from minetrace.cubes.imagery import imagery_node
from minetrace.schema import ImageryRecipe, Recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from cogs import grid, make_item, make_source, write_cog

DATES, SIDE = 40, 1024
WHERE = grid(SIDE)
BANDS = ("blue", "green", "red", "nir")
WINDOWS = {"one block": (512, 512), "across four blocks": (300, 200)}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Terrain-like counts that deflate to 70 %, as Sentinel-2's do; a scene class layer."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    slope = rng.normal(size=(SIDE, SIDE)).cumsum(0).cumsum(1)
    slope = (slope - slope.min()) / np.ptp(slope) * 3000 + 500
    items = []
    for date in range(DATES):
        hrefs = {}
        for band in BANDS:
            counts = (slope + rng.normal(0, 60, slope.shape)).clip(1).astype("u2")
            path = folder / f"{band}{date:02d}.tif"
            hrefs[band] = str(write_cog(path, counts, WHERE, block=512))
        classes = np.where(slope > 3400, 9, 5).astype("u1")
        classes[: date * 20] = 8
        hrefs["scl"] = str(write_cog(folder / f"scl{date:02d}.tif", classes, WHERE, block=512))
        item = make_item(f"s{date:02d}", hrefs, WHERE, day=9 * date)
        item.assets["scl"].extra_fields["raster:bands"][0]["data_type"] = "uint8"
        for band in BANDS:
            item.assets[band].extra_fields["raster:bands"][0]["scale"] = 1e-4
        items.append(item)
    return make_source(folder), items


@pytest.fixture(autouse=True)
def _two_threads():
    with dask.config.set(scheduler="threads", num_workers=2), warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        yield


def by_hand(items, bands, corner):
    """Windows straight into the result, on two threads: little can be faster."""
    window = Window(corner[1], corner[0], 512, 512)
    out = {b: np.empty((len(items), 512, 512), "u1" if b == "scl" else "u2") for b in bands}

    def read(job):
        band, date = job
        with rasterio.open(items[date].assets[band].href) as file:
            file.read(1, window=window, out=out[band][date])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(read, [(b, d) for b in bands for d in range(len(items))]))
    return out


def by_rioxarray(items, bands, corner):
    """Clip each file to the site, then join the dates."""
    import rioxarray

    bounds = part(corner).boundingbox.bbox
    return {
        band: xr.concat(
            [
                rioxarray.open_rasterio(i.assets[band].href, chunks={}).rio.clip_box(*bounds)
                for i in items
            ],
            "time",
        ).compute()
        for band in bands
    }


def part(corner):
    top, left = corner
    return WHERE[top : top + 512, left : left + 512]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("bands", [BANDS[2:3], BANDS], ids=["one band", "four bands"])
def test_load_of_a_site(benchmark, scenes, bands, window):
    pytest.importorskip("stackstac")
    source, items = scenes
    corner = WINDOWS[window]

    def load(engine="odc"):
        return load_layers(source, items, bands, part(corner), engine=engine)

    expected = by_hand(items, bands, corner)
    loaded, clipped = load().compute(), by_rioxarray(items, bands, corner)
    for band in bands:
        np.testing.assert_array_equal(loaded[band], expected[band])
        np.testing.assert_array_equal(clipped[band].squeeze("band"), expected[band])
    lazy = load()
    times = seconds(
        9,
        ours=lambda: load().compute(),
        computing=lazy.compute,
        opening=load,
        pool=lambda: by_hand(items, bands, corner),
        stackstac=lambda: load("stackstac").compute(),
        rioxarray=lambda: by_rioxarray(items, bands, corner),
    )
    benchmark.pedantic(lambda: load().compute(), rounds=3)
    info = benchmark.extra_info
    info["milliseconds"] = times["ours"] * 1e3
    info["of_which_to_build_the_graph"] = times["opening"] * 1e3
    info["times_the_pool"] = times["ours"] / times["pool"]
    info["times_the_pool_once_the_graph_is_built"] = times["computing"] / times["pool"]
    info["times_the_processor_time_of_the_pool"] = processor_ratio(
        15, lambda: load().compute(), lambda: by_hand(items, bands, corner)
    )
    info["times_faster_than_stackstac"] = times["stackstac"] / times["ours"]
    info["times_faster_than_rioxarray"] = times["rioxarray"] / times["ours"]
    info["tasks"] = len(dict(lazy.__dask_graph__()))


@pytest.mark.parametrize("n_year", [1, 4])
def test_read_and_median_composite(benchmark, scenes, n_year):
    """Masked annual medians of four bands, as a share of decoding alone.

    The composites of a year's block are one task: a single one leaves the second thread idle.
    """
    source, first = scenes
    items = [again(item, year) for year in range(n_year) for item in first]
    recipe = ImageryRecipe(source="cogs", bands=BANDS, mask="scl")
    whole = Recipe(name="site", years=(2020, 2019 + n_year), imagery=recipe)
    where = part((512, 512))
    site = where.extent.to_crs("EPSG:4326").geom

    def cube():
        return imagery_node(source, items, site, whole, recipe, chunks=None, grid=where)

    found = cube().compute()
    stored = by_hand(first, (*BANDS, "scl"), (512, 512))
    cloudy = np.isin(stored["scl"], (0, 1, 3, 8, 9, 10, 11))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = np.nanmedian(np.where(cloudy, np.nan, stored["red"] * 1e-4), axis=0)
    for red in found["red"]:
        np.testing.assert_allclose(red, expected, atol=1e-6)
    lazy = cube()
    times = seconds(
        7,
        computing=lazy.compute,
        opening=cube,
        pool=lambda: by_hand(items, (*BANDS, "scl"), (512, 512)),
    )
    benchmark.pedantic(lambda: cube().compute(), rounds=3)
    info = benchmark.extra_info
    info["milliseconds_to_build_the_graph"] = times["opening"] * 1e3
    info["milliseconds_to_compute"] = times["computing"] * 1e3
    info["share_of_the_throughput_of_decoding"] = times["pool"] / times["computing"]
    info["share_with_the_graph"] = times["pool"] / (times["computing"] + times["opening"])
    info["tasks"] = len(dict(lazy.__dask_graph__()))


def again(item, years):
    """The same scene some years later."""
    later = item.clone()
    later.id = f"{item.id}-{years}"
    later.datetime = item.datetime.replace(year=item.datetime.year + years)
    return later

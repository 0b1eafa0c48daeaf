"""Night lights: annual means against plain numpy, by hand-made months and by real ones."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from odc.geo.geobox import GeoBox

import minetrace as mt
from minetrace.cubes.lights import _mean_block
from minetrace.errors import SourceError
from minetrace.schema import LightsRecipe, Recipe
from minetrace.simulate.stac import Layer
from worlds import catalog, item

GRID = GeoBox.from_bbox((-52, 2, -51.9, 2.08), "EPSG:4326", resolution=15 / 3600)
SITE = GRID[3:-3, 3:-3].geographic_extent.geom


def month(folder, when, radiance, counts=None, *, name=None, nodata=np.nan, **properties):
    layers = {"ntl": Layer(np.broadcast_to(np.float32(radiance), GRID.shape).copy(), nodata)}
    if counts is not None:
        layers["cvg"] = Layer(np.broadcast_to(np.uint16(counts), GRID.shape).copy(), 65535)
    return item(folder / "s", name or f"l_{when}", when, GRID, layers, **properties)


def opened(folder, items, *, chunks=None, more="", weight=None, years=(2018, 2021)) -> xr.Dataset:
    source = catalog(folder, items, more)
    part = LightsRecipe(source=str(source), weight=weight)
    cube = mt.open_cube(SITE, Recipe(name="t", years=years, lights=part), chunks=chunks)
    return cube["lights"].to_dataset()


def window(node):
    row = round((GRID.affine.f - float(node.y[0])) * 240 - 0.5)
    col = round((float(node.x[0]) - GRID.affine.c) * 240 - 0.5)
    return np.s_[row : row + node.sizes["y"], col : col + node.sizes["x"]]


@pytest.mark.parametrize("weight", [None, "cvg"])
def test_the_annual_mean_is_the_one_of_plain_numpy(tmp_path, weight, no_compute):
    import dask

    rng = np.random.default_rng(5)
    months, stacks, views = [], {}, {}
    for year, numbers in ((2019, range(1, 13)), (2020, (2, 3, 7))):
        for m in numbers:
            radiance = rng.normal(0.5, 2, GRID.shape).astype("f4")
            radiance[rng.random(GRID.shape) < 0.2] = np.nan
            counts = rng.integers(0, 4, GRID.shape)
            counts[rng.random(GRID.shape) < 0.1] = 65535
            months.append(month(tmp_path, f"{year}-{m:02}-01", radiance, counts))
            stacks.setdefault(year, []).append(radiance.astype(float))
            views.setdefault(year, []).append(np.where(counts == 65535, 0.0, counts))
    lazy = opened(tmp_path, months, weight=weight)
    tiled = opened(tmp_path, months, weight=weight, chunks={"y": 5, "x": 8})
    assert lazy.ntl.data.name == opened(tmp_path, months, weight=weight).ntl.data.name
    with dask.config.set(scheduler="synchronous"):
        node = lazy.compute()
        xr.testing.assert_identical(node, tiled.compute())
    assert node.time.dt.year.values.tolist() == [2019, 2020]
    assert (node.ntl.dtype, node.n_months.dtype) == (np.float32, np.uint8)
    for i, year in enumerate((2019, 2020)):
        values = np.ma.masked_invalid(stacks[year])
        weights = np.ones(values.shape) if weight is None else np.array(views[year])
        values = np.ma.masked_where(weights == 0, values)
        expected = np.ma.average(values, axis=0, weights=weights)
        assert (expected < 0).any()
        np.testing.assert_allclose(
            node.ntl[i], expected.filled(np.nan)[window(node)], rtol=1e-6, atol=1e-7
        )
        np.testing.assert_array_equal(node.n_months[i], values.count(axis=0)[window(node)])
    assert np.isnan(node.ntl[1]).any()


def test_weights_decide_what_was_seen(tmp_path):
    """No view is no darkness: a count of 0 hides a radiance of 0, and a missing one hides all."""
    items = [
        month(tmp_path, "2019-01-01", 0.0, 0),
        month(tmp_path, "2019-02-01", -0.4, 6),
        month(tmp_path, "2019-03-01", 2.0, 2),
        month(tmp_path, "2019-04-01", 50.0, 65535),
        month(tmp_path, "2020-01-01", 0.0, 0),
    ]
    node = opened(tmp_path, items, weight="cvg").compute()
    np.testing.assert_allclose(node.ntl[0], (-0.4 * 6 + 2.0 * 2) / 8, atol=1e-7)
    assert (node.n_months[0] == 2).all()
    assert np.isnan(node.ntl[1]).all()
    assert (node.n_months[1] == 0).all()
    plain = opened(tmp_path, items).compute()
    np.testing.assert_allclose(plain.ntl[0], (0 - 0.4 + 2 + 50) / 4, atol=1e-6)


@given(
    npst.arrays(np.float32, (2, 7, 3), elements=st.floats(-100, 100, width=32) | st.just(np.nan)),
    st.floats(0.5, 40),
)  # fmt: skip
def test_laws_of_the_weighted_mean(values, factor):
    radiance, weight = values[:, :, None, :]
    weight = np.abs(weight)
    spans = np.ones(7, int)
    made = _mean_block(np.stack([radiance, weight]), spans)
    # only the ratio of weights counts, and equal weights are none
    scaled = _mean_block(np.stack([radiance, weight * np.float32(factor)]), spans)
    np.testing.assert_allclose(scaled, made, rtol=1e-4, atol=1e-5)
    seen = ~np.isnan(radiance) & (weight > 0)
    np.testing.assert_array_equal(made[1], seen.sum(axis=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = (f(np.where(seen, radiance, np.nan), axis=0) for f in (np.nanmin, np.nanmax))
    inside = (made[0] >= low - 1e-3) & (made[0] <= high + 1e-3)
    assert (inside | np.isnan(made[0]) & ~seen.any(axis=0)).all()
    equal = _mean_block(np.stack([radiance, np.ones_like(radiance)]), spans)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        plain = np.nanmean(radiance.astype(float), axis=0)
    np.testing.assert_allclose(equal[0], plain, rtol=1e-5, atol=1e-4)


def test_radiance_and_count_may_be_bands_of_one_asset(tmp_path):
    one = month(tmp_path, "2019-01-01", 1.0)
    path = one.assets["ntl"].href
    with rasterio.open(path) as src:
        profile = {**src.profile, "driver": "GTiff", "count": 2, "nodata": None}
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(np.full(GRID.shape, 7, "f4"), 1)
        dst.write(np.full(GRID.shape, 3, "f4"), 2)
    bands = [{"data_type": "float32"}, {"data_type": "float32"}]
    one.assets["ntl"].extra_fields["raster:bands"] = bands
    other = month(tmp_path, "2019-02-01", 1.0, name="b")
    with rasterio.open(other.assets["ntl"].href, "w", **profile) as dst:
        dst.write(np.full(GRID.shape, 1, "f4"), 1)
        dst.write(np.full(GRID.shape, 1, "f4"), 2)
    other.assets["ntl"].extra_fields["raster:bands"] = bands
    more = '[bands]\ncvg = "ntl"\n[band_index]\nntl = 1\ncvg = 2\n'
    node = opened(tmp_path, [one, other], weight="cvg", more=more).compute()
    np.testing.assert_allclose(node.ntl[0], (7 * 3 + 1) / 4)


# ---- layers of years, and rivals ----------------------------------------------------------------


def spanning(folder, start, end, radiance):
    one = month(folder, start, radiance)
    one.common_metadata.start_datetime = datetime.fromisoformat(start).replace(tzinfo=UTC)
    one.common_metadata.end_datetime = datetime.fromisoformat(end).replace(tzinfo=UTC)
    return one


def test_a_layer_of_a_year_passes_and_counts_as_its_months(tmp_path):
    items = [
        spanning(tmp_path, "2019-01-01", "2019-12-31", -0.25),
        spanning(tmp_path, "2020-01-01", "2020-12-31", np.nan),
        month(tmp_path, "2021-01-01", 3.0),
    ]
    node = opened(tmp_path, items).compute()
    assert (node.ntl[0] == -0.25).all()
    assert np.isnan(node.ntl[1]).all()
    assert node.n_months[:, 0, 0].values.tolist() == [12, 0, 1]


def test_two_layers_of_one_month_are_refused(tmp_path):
    rivals = [month(tmp_path, "2019-03-01", 1.0), month(tmp_path, "2019-03-02", 2.0)]
    with pytest.raises(SourceError, match=r"'test' has two layers of lights for 2019-03"):
        opened(tmp_path, rivals)
    rivals = [spanning(tmp_path, "2019-01-01", "2019-12-31", 1.0), rivals[0]]
    with pytest.raises(SourceError, match="two layers of lights for 2019-03"):
        opened(tmp_path, rivals)


def test_an_item_without_counts_is_named(tmp_path):
    items = [month(tmp_path, "2019-01-01", 1.0, 3), month(tmp_path, "2019-02-01", 1.0)]
    with pytest.raises(SourceError, match=r"'l_2019-02-01'.*has no asset 'cvg'"):
        opened(tmp_path, items, weight="cvg")


# ---- real months --------------------------------------------------------------------------------


def test_new_york_by_night(real_data, tmp_path):
    """Black Marble, 120 months: annual means and the published long-term mean of all months."""
    folder = real_data("raster/usflite_blackmarble_nyc")
    with rasterio.open(folder / "nightlights.tif") as src:
        stored = src.read().astype(float)
        grid = GeoBox(src.shape, src.transform, str(src.crs))
    lines = (folder / "dates.csv").read_text().split()
    dates = [line.split(",")[-1].strip('"') for line in lines if "20" in line.split(",")[-1]]
    assert len(dates) == len(stored) == 120
    kept = [i for i, d in enumerate(dates) if d[:4] in ("2014", "2015")][3:]
    items = [
        item(tmp_path / "s", f"m{i}", dates[i][:10], grid,
             {"ntl": Layer(stored[i].astype("f4"), np.nan, scale=0.1)})
        for i in kept
    ]  # fmt: skip
    source = catalog(tmp_path, items)
    part = LightsRecipe(source=str(source))
    where = grid[10:60, 20:90].geographic_extent.geom.buffer(-1e-6)
    cube = mt.open_cube(where, Recipe(name="t", years=(2014, 2015), lights=part))
    node = cube["lights"].to_dataset().compute()
    for k, year in enumerate(("2014", "2015")):
        block = stored[[i for i in kept if dates[i][:4] == year], 10:60, 20:90] * 0.1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            expected = np.nanmean(block, axis=0)
        np.testing.assert_allclose(node.ntl[k], expected, rtol=2e-6)
        np.testing.assert_array_equal(node.n_months[k], np.isfinite(block).sum(axis=0))
    assert node.n_months.max() == 12
    with rasterio.open(folder / "nightlights_mean.tif") as src:
        published = src.read(1)
    everything = _mean_block(
        np.stack([stored, np.ones_like(stored)]).astype("f4"), np.ones(120, int)
    )[0]
    np.testing.assert_allclose(everything, published, rtol=1e-4)

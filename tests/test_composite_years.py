"""Composites of a year: from which scenes, by which rule, read how often."""

from __future__ import annotations

import itertools
from pathlib import Path

import dask
import geopandas as gpd
import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox

import minetrace as mt
from minetrace.cubes.read import Reader
from minetrace.errors import InputError, RecipeError, SourceError
from minetrace.schema import ImageryRecipe, Recipe, load_recipe
from minetrace.simulate.stac import Layer
from worlds import catalog, imagery_recipe, item

GRID = GeoBox.from_bbox((500000, 250000, 500240, 250180), "EPSG:32622", resolution=10)
SOUTH = GeoBox.from_bbox((500000, 7000000, 500240, 7000180), "EPSG:32722", resolution=10)
FIJI = GeoBox.from_bbox((700000, 8100000, 700240, 8100180), "EPSG:32760", resolution=10)
METHODS = ("median", "medoid", "geomedian", "max_ndvi")


def scene(folder: Path, when: str, grid: GeoBox = GRID, *, clear=1.0, level=None, **properties):
    """Scene of random reflectances, of which a share of the pixels is clear."""
    rng = np.random.default_rng(abs(hash_of(when)))
    layers = {}
    for band in ("red", "nir", "swir16"):
        counts = rng.integers(200, 9000, grid.shape)
        if level is not None:
            counts = np.full(grid.shape, level)
        layers[band] = Layer(counts.astype("u2"), nodata=0, scale=1e-4)
    cloudy = rng.random(grid.shape) >= clear
    layers["scl"] = Layer(np.where(cloudy, 9, 4).astype("u1"), nodata=0, categories=True)
    return item(folder, f"s_{when[:16].replace(':', '')}", when, grid, layers, **properties)


def hash_of(text: str) -> int:
    return sum(ord(c) * 131**i for i, c in enumerate(text)) % 2**31


def place(grid: GeoBox = GRID):
    return grid[2:-2, 2:-2].geographic_extent.geom


def stored(scenes) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Reflectance ``(time, y, x)`` of each band by rasterio, and what is clear."""
    import rasterio

    def read(key):
        files = [s.assets[key].href for s in scenes]
        return np.stack([rasterio.open(f).read(1) for f in files])

    bands = {b: read(b) * 1e-4 for b in ("red", "nir", "swir16")}
    return bands, read("scl") == 4


@pytest.fixture(scope="module")
def two_years(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    dates = [f"{y}-{m:02}-11T14:00:00" for y in (2019, 2020) for m in (2, 5, 6, 8, 9, 11)]
    scenes = [scene(folder / "s", when, clear=0.45) for when in dates]
    return catalog(folder / "cat", scenes), scenes


def open_one(source, years, where=None, chunks=None, **options):
    options = {"bands": ("red", "nir", "swir16"), "mask": "scl", **options}
    recipe = imagery_recipe(source, years, **options)
    return mt.open_cube(place() if where is None else where, recipe, chunks=chunks)


def weiszfeld(points):
    """Geometric median by Weiszfeld's steps, until they no longer move."""
    here = points.mean(axis=0)
    for _ in range(5000):
        apart = np.maximum(np.linalg.norm(points - here, axis=1), 1e-15)
        there = (points / apart[:, None]).sum(axis=0) / (1 / apart).sum()
        if np.abs(there - here).max() < 1e-12:
            break
        here = there
    return here


def by_hand(method, bands, clear):
    """One pixel at a time, in plain Python."""
    n, ny, nx = clear.shape
    names = list(bands)
    out = {b: np.full((ny, nx), np.nan) for b in names}
    count = np.zeros((ny, nx), int)
    for y, x in itertools.product(range(ny), range(nx)):
        seen = [t for t in range(n) if clear[t, y, x]]
        count[y, x] = len(seen)
        if not seen:
            continue
        vectors = {t: [bands[b][t, y, x] for b in names] for t in seen}
        if method == "median":
            for b in names:
                out[b][y, x] = np.median([bands[b][t, y, x] for t in seen])
            continue
        if method == "geomedian":
            for b, value in zip(names, weiszfeld(np.array(list(vectors.values()))), strict=True):
                out[b][y, x] = value
            continue
        if method == "medoid":
            cost = {
                t: sum(np.linalg.norm(np.subtract(vectors[t], vectors[u])) for u in seen)
                for t in seen
            }
            best = min(seen, key=cost.get)
        else:
            red, nir = (names.index(b) for b in ("red", "nir"))
            best = max(
                seen, key=lambda t: (v := vectors[t], (v[nir] - v[red]) / (v[nir] + v[red]))[1]
            )
        for b, value in zip(names, vectors[best], strict=True):
            out[b][y, x] = value
    return out, count


@pytest.mark.parametrize("method", METHODS)
def test_each_composite_is_the_one_made_by_hand(two_years, method):
    source, scenes = two_years
    cube = open_one(source, (2019, 2020), composite=method)["imagery"].to_dataset().compute()
    assert cube.time.dt.year.values.tolist() == [2019, 2020]
    for i, year in enumerate((2019, 2020)):
        bands, clear = stored([s for s in scenes if s.datetime.year == year])
        row, col = (
            round(v) for v in ((250180 - float(cube.y[0])) // 10, (float(cube.x[0]) - 500000) // 10)
        )
        ny, nx = cube.red.shape[1:]
        window = np.s_[:, row : row + ny, col : col + nx]
        expected, count = by_hand(method, {b: v[window] for b, v in bands.items()}, clear[window])
        np.testing.assert_array_equal(cube.n_obs[i], count)
        assert 0 in count
        assert count.max() >= 5
        for band, values in expected.items():
            # an iteration in float32 stops short of the oracle's
            atol = 2e-4 if method == "geomedian" else 1e-7
            np.testing.assert_allclose(cube[band][i], values, atol=atol, err_msg=band)


@pytest.mark.parametrize("method", [*METHODS, "least_cloudy_month"])
def test_any_chunking_is_the_same_and_tokens_tell_requests_apart(
    two_years, method, no_compute, monkeypatch
):
    source, _ = two_years
    whole, again, tiled = (
        open_one(source, (2019, 2020), composite=method, chunks=c)["imagery"].to_dataset()
        for c in (None, None, {"y": 5, "x": 7})
    )
    other = open_one(source, (2019, 2020), composite=method, months=(5, 9))["imagery"].to_dataset()
    for name, layer in whole.data_vars.items():
        assert layer.chunks[0] == (2,)
        assert layer.data.name == again[name].data.name
        assert layer.data.name != other[name].data.name
    # a lone block by two tasks, as large ones are
    monkeypatch.setattr("minetrace.cubes.scenes._LARGE", 1)
    halved = open_one(source, (2019, 2020), composite=method)["imagery"].to_dataset()
    if method != "least_cloudy_month":
        assert len(dict(halved.red.__dask_graph__())) > len(dict(whole.red.__dask_graph__()))
    assert halved.red.chunks == whole.red.chunks
    with dask.config.set(scheduler="synchronous"):
        xr.testing.assert_identical(tiled.compute(), whole.compute())
        xr.testing.assert_identical(halved.compute(), whole.compute())


@pytest.mark.parametrize("large", [1, 2**30], ids=["two tasks", "one task"])
@pytest.mark.parametrize("method", [*METHODS, "least_cloudy_month"])
def test_every_scene_is_read_once(two_years, method, monkeypatch, large):
    monkeypatch.setattr("minetrace.cubes.scenes._LARGE", large)
    source, scenes = two_years
    reads = []
    plain = Reader.read

    def counted(self, *args, **kwargs):
        reads.append((self.claim.item, self.claim.asset))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Reader, "read", counted)
    cube = open_one(source, (2019, 2020), composite=method)
    assert not reads
    cube["imagery"].to_dataset().compute()
    assert sorted(reads) == sorted({(s.id, key) for s in scenes for key in s.assets})


def test_composite_offers_the_geometric_median_too(two_years, monkeypatch):
    _, scenes = two_years
    bands, clear = stored(scenes[:6])
    window = np.s_[:, 2:9, 3:12]
    expected, count = by_hand("geomedian", {b: v[window] for b, v in bands.items()}, clear[window])
    packed = xr.Dataset(
        {b: (("time", "y", "x"), np.round(v[window] * 1e4).astype("u2")) for b, v in bands.items()}
    )
    for band in packed.data_vars.values():
        band.attrs = {"nodata": 0, "scale_factor": 1e-4}
    hidden = xr.DataArray(~clear[window], dims=("time", "y", "x"))
    made = mt.composite(packed, method="geomedian", mask=hidden)
    tiled = mt.composite(packed.chunk(y=3, x=4), method="geomedian", mask=hidden.chunk(y=3, x=4))
    xr.testing.assert_identical(made, tiled.compute())
    np.testing.assert_array_equal(made.n_obs, count)
    for band, values in expected.items():
        np.testing.assert_allclose(made[band], values, atol=2e-4)
    monkeypatch.setattr("importlib.util.find_spec", lambda *a: None)
    with pytest.raises(InputError, match=r"pip install 'minetrace\[geomedian\]'"):
        mt.composite(packed, method="geomedian")


def test_a_reflectance_below_zero_does_not_win_the_ndvi(tmp_path):
    dates = [f"2020-0{m}-11" for m in (3, 4, 5)]
    # NDVI 0.2, then -0.01 and 0.03 (NDVI 2), then 0.5
    pairs = [(2000, 3000), (900, 1300), (1500, 2500)]
    scenes = []
    for when, (red, nir) in zip(dates, pairs, strict=True):
        layers = {
            band: Layer(np.full(GRID.shape, v, "u2"), nodata=0, scale=1e-4, offset=-0.1)
            for band, v in (("red", red), ("nir", nir))
        }
        scenes.append(item(tmp_path / "s", when, when, GRID, layers))
    source = catalog(tmp_path / "cat", scenes)
    cube = open_one(source, (2020, 2020), bands=("red", "nir"), mask=None, composite="max_ndvi")
    made = cube["imagery"].to_dataset().compute()
    np.testing.assert_allclose(made.red, 0.05, atol=1e-7)
    assert (made.n_obs == 2).all()


# ---- seasons ------------------------------------------------------------------------------------


def months_read(source, years, where=None, **options):
    cube = open_one(source, years, where, **options)
    ids = cube["imagery"].attrs["item_ids"]
    return [f"{name[2:9]}" for name in ids], cube["imagery"].to_dataset()


def test_scenes_out_of_season_are_not_even_looked_at(tmp_path):
    scenes = [scene(tmp_path / "s", f"2020-{m:02}-11", level=1000 * m) for m in range(1, 10)]
    source = catalog(tmp_path / "cat", scenes)
    for one in scenes:
        if one.datetime.month not in (5, 6, 7):
            Path(one.assets["red"].href).unlink()
    names, cube = months_read(source, (2020, 2020), months=(5, 7))
    assert names == ["2020-05", "2020-06", "2020-07"]
    np.testing.assert_allclose(cube.red, 0.6, atol=1e-7)
    assert (cube.n_obs == 3).all()


def test_a_season_across_new_year_belongs_to_the_year_of_its_last_month(tmp_path):
    dates = ["2018-12-05", "2019-02-05", "2019-06-05", "2019-11-05", "2020-03-05", "2020-11-05"]
    source = catalog(tmp_path / "cat", [scene(tmp_path / "s", d, level=1000) for d in dates])
    names, cube = months_read(source, (2019, 2020), months=(11, 3))
    assert names == ["2018-12", "2019-02", "2019-11", "2020-03"]
    assert cube.time.dt.year.values.tolist() == [2019, 2020]
    assert (cube.n_obs == 2).all()
    names, cube = months_read(source, (2020, 2020), months=(11, 3))
    assert names == ["2019-11", "2020-03"]


def test_southern_sites_have_their_seasons_six_months_later(tmp_path):
    dates = ["2019-06-05", "2019-11-05", "2020-01-05", "2020-06-05"]
    options = {"months": (5, 9), "shift_south": True}
    for name, grid, expected in (
        ("north", GRID, ["2020-06"]),
        ("south", SOUTH, ["2019-11", "2020-01"]),
    ):
        scenes = [scene(tmp_path / name, d, grid, level=1000) for d in dates]
        source = catalog(tmp_path / f"{name}_cat", scenes)
        names, _ = months_read(source, (2020, 2020), place(grid), **options)
        assert names == expected


def test_the_year_is_that_of_the_local_day(tmp_path):
    """At 179° E the morning of 1 January is still the old year's evening in Greenwich."""
    dates = ["2018-12-31T22:30", "2019-12-31T11:00", "2019-12-31T22:30"]
    source = catalog(tmp_path / "cat", [scene(tmp_path / "s", d, FIJI, level=1000) for d in dates])
    names, cube = months_read(source, (2019, 2019), place(FIJI))
    assert names == ["2018-12", "2019-12"]
    assert cube.time.dt.year.values.tolist() == [2019]
    assert (cube.n_obs == 2).all()


def test_cloudy_items_are_left_out_and_silent_ones_stay(tmp_path):
    covers = {"2020-03-01": 80, "2020-04-01": 20, "2020-05-01": 20.5, "2020-06-01": None}
    scenes = [
        scene(tmp_path / "s", d, level=1000, **({} if c is None else {"eo:cloud_cover": c}))
        for d, c in covers.items()
    ]
    source = catalog(tmp_path / "cat", scenes)
    names, _ = months_read(source, (2020, 2020), max_cloud_cover=20)
    assert names == ["2020-04", "2020-06"]
    scenes[0].properties["eo:cloud_cover"] = "much"
    source = catalog(tmp_path / "odd", scenes)
    with pytest.raises(SourceError, match=r"s_2020-03-01.*'much', which is no number"):
        months_read(source, (2020, 2020), max_cloud_cover=20)


# ---- the least cloudy month ---------------------------------------------------------------------


def least_cloudy(tmp_path, clears, **options):
    """Cube of scenes ``month → share that is clear``, the level of each telling the month."""
    scenes = [
        scene(tmp_path / "s", f"2020-{m:02}-{d:02}T14:00", clear=share, level=1000 * m - 100 * d)
        for m, shares in clears.items()
        for d, share in enumerate(shares, 1)
    ]
    source = catalog(tmp_path / "cat", scenes)
    cube = open_one(
        source, (2020, 2020), composite="least_cloudy_month", chunks={"y": 10}, **options
    )
    return cube["imagery"].to_dataset().isel(time=0).compute()


def test_the_least_cloudy_month_stands_for_the_year(tmp_path):
    clears = {4: [1.0], 5: [0.6], 6: [0.8, 0.9], 7: [0.2, 0.95]}
    made = least_cloudy(tmp_path, clears, months=(5, 9))
    seen = made.n_obs.values > 0
    assert 0.9 < seen.mean() < 1
    assert (made.month.values[seen] == 6).all()
    assert (made.month.values[~seen] == 0).all()
    assert np.isnan(made.red.values[~seen]).all()
    # both scenes of June, of it alone, and their median
    assert set(np.unique(made.red.values[seen]).round(4)) == {
        np.float32(v) for v in (0.58, 0.585, 0.59)
    }
    np.testing.assert_allclose(made.red.values[made.n_obs == 2], 0.585, atol=1e-7)


@pytest.mark.parametrize(
    ("clears", "options", "month"),
    [
        # the share of the views counts, not their number
        ({5: [0.9], 6: [0.6, 0.6]}, {}, 5),
        ({5: [0.3, 0.4], 6: [0.7, 0.3]}, {}, 6),
        # no month of the season shows half of the ground
        ({5: [0.4], 6: [0.3], 11: [0.9]}, {"fallback_months": (11, 11)}, 11),
        # a better fallback is not asked as long as a month qualifies
        ({5: [0.6], 11: [0.9]}, {"fallback_months": (11, 11)}, 5),
        ({5: [0.6], 11: [0.9]}, {"fallback_months": (11, 11), "min_clear": 0.8}, 11),
        # nothing qualifies: the best there is
        ({5: [0.1], 6: [0.3], 11: [0.2]}, {"fallback_months": (11, 11)}, 6),
        # the season has no scene at all
        ({11: [0.2]}, {"fallback_months": (11, 11)}, 11),
        # a month of one clear corner does not qualify, whatever its share of views
        ({5: [0.45], 6: [0.6, 0.0, 0.0]}, {}, 6),
    ],
)
def test_which_month_is_taken(tmp_path, clears, options, month):
    made = least_cloudy(tmp_path, clears, months=(5, 9), **options)
    assert set(np.unique(made.month)) - {0} == {month}


def test_of_equal_months_the_first_is_taken(tmp_path):
    made = least_cloudy(tmp_path, {6: [1.0], 5: [1.0], 7: [1.0]}, months=(5, 9))
    assert (made.month == 5).all()


def test_a_batch_chooses_the_month_for_each_site_alone(tmp_path):
    """West is clear in May, east in June, and both lie in one window of a batch."""
    west = np.arange(GRID.shape.x) < 12
    scenes = []
    for month, clear in ((5, west), (6, ~west)):
        layers = {
            band: Layer(np.full(GRID.shape, v, "u2"), nodata=0, scale=1e-4)
            for band, v in (("red", 1000), ("nir", 1000 * month))
        }
        scl = np.broadcast_to(np.where(clear, 4, 9), GRID.shape).astype("u1")
        layers["scl"] = Layer(scl, nodata=0, categories=True)
        when = f"2020-{month:02}-11T14:00"
        scenes.append(item(tmp_path / "s", f"s{month}", when, GRID, layers))
    source = catalog(tmp_path / "cat", scenes)
    halves = [GRID[2:-2, 2:9], GRID[2:-2, 14:21]]
    sites = gpd.GeoDataFrame(
        {"site_id": ["west", "east"], "area_km2": 0.01, "source": "t", "country": None},
        geometry=[half.geographic_extent.geom for half in halves], crs=4326,
    )  # fmt: skip
    recipe = imagery_recipe(
        source, (2020, 2020), mask="scl", composite="least_cloudy_month", months=(5, 6)
    )
    mt.run_sites(sites, recipe, tmp_path / "out")
    panel = gpd.read_parquet(tmp_path / "out" / "site_panel.parquet").set_index("site_id")
    assert panel.ndvi["west"] == pytest.approx(4 / 6)
    assert panel.ndvi["east"] == pytest.approx(5 / 7)


# ---- recipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('composite = "mean"', r"imagery\.composite: .*'median', 'medoid'"),
        ('bands = ["red"]\ncomposite = "max_ndvi"', "needs the bands red and nir"),
        ("months = [0, 5]", r"imagery\.months"),
        ("months = [5]", r"imagery\.months"),
        ("fallback_months = [11, 11]", "fallback_months belongs to composite"),
        ("min_clear = 0.5", "min_clear belongs to composite"),
        (
            'composite = "least_cloudy_month"\nmonths = [11, 3]\nfallback_months = [3, 4]',
            r"months \[3\] are in months and in fallback_months",
        ),
        ('composite = "least_cloudy_month"\nfallback_months = [6, 6]', "are in months"),
        ("max_cloud_cover = 101", r"imagery\.max_cloud_cover"),
        ("keep_bright = true", "name the mask"),
        ("resolution = 10", "has no use on the source's own grid"),
    ],
)
def test_faulty_options_name_the_key(tmp_path, text, fault):
    path = tmp_path / "mine.toml"
    path.write_text(f'years = [2019, 2020]\n[imagery]\nsource = "s"\n{text}\n')
    with pytest.raises(RecipeError, match=fault):
        load_recipe(path)


def test_every_option_changes_the_fingerprint():
    plain = Recipe(name="t", years=(2019, 2020), imagery=ImageryRecipe(source="s"))
    changes = (
        {"composite": "medoid"}, {"months": (5, 9)}, {"shift_south": True}, {"max_cloud_cover": 5},
        {"composite": "least_cloudy_month", "months": (5, 9), "fallback_months": (11, 11)},
        {"composite": "least_cloudy_month", "min_clear": 0.6}, {"mask": "scl"},
        {"mask": "scl", "keep_bright": True},
    )  # fmt: skip
    parts = [ImageryRecipe(source="s", **c) for c in changes]
    prints = {plain.model_copy(update={"imagery": p}).fingerprint for p in parts}
    assert len(prints | {plain.fingerprint}) == len(changes) + 1

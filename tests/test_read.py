"""Reading: pixels exact, files checked against their items, tasks counted, engines equal."""

from __future__ import annotations

import math
import pickle
import sys
from operator import itemgetter
from pathlib import Path

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
from distributed import Client, LocalCluster, futures_of
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

import minetrace.cubes.read as reading
from cogs import grid, make_item, make_source, write_cog
from minetrace.cubes import failures, load_layers, resample
from minetrace.cubes.layers import CHUNK
from minetrace.errors import InputError, ReadError, SourceError

SIDE = 300
HERE = grid(SIDE)
DAYS = 3


def pixels(day: int, side: int = SIDE, dtype: str = "u2") -> np.ndarray:
    """Values that tell their row, column and day apart; some are gaps."""
    rows, cols = np.mgrid[0:side, 0:side]
    values = (rows * side + cols + 7 * day) % 60_000 + 1
    values[(rows + cols + day) % 11 == 0] = 0
    return values.astype(dtype)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    items = []
    for day in range(DAYS):
        path = write_cog(folder / f"s{day}.tif", pixels(day), HERE)
        items.append(make_item(f"s{day}", {"red": str(path), "nir": str(path)}, HERE, day=day))
    return make_source(folder), items


@pytest.fixture
def one(tmp_path):
    """An item whose file a test may spoil."""
    path = write_cog(tmp_path / "one.tif", pixels(0), HERE)
    return make_source(tmp_path), make_item("one", {"red": str(path)}, HERE), path


def read(source, items, window=HERE, **options):
    return load_layers(source, items, ["red"], window, **options).red.values


def test_opening_computes_nothing(scene, no_compute):
    source, items = scene
    red = load_layers(source, items, ["red"], HERE).red
    assert red.dtype == np.uint16
    assert red.chunks == ((1,) * DAYS, (SIDE,), (SIDE,))


def test_anative_window_is_the_files_own_pixels(scene):
    source, items = scene
    got = load_layers(source, items, ["red"], HERE[37:190, 101:260])
    expected = np.stack([pixels(d)[37:190, 101:260] for d in range(DAYS)])
    np.testing.assert_array_equal(got.red, expected)
    np.testing.assert_array_equal(got.x, 600_000 + 20 * (np.arange(101, 260) + 0.5))
    np.testing.assert_array_equal(got.y, 5_000_000 - 20 * (np.arange(37, 190) + 0.5))


@given(
    top=st.integers(-90, 330), left=st.integers(-90, 330),
    rows=st.integers(1, 200), cols=st.integers(1, 200),
    chunk=st.sampled_from([None, {"y": 17, "x": 64}, {"y": 100}]),
)  # fmt: skip
def test_any_window_and_chunking_of_the_lattice(scene, top, left, rows, cols, chunk):
    """Numpy slices of a padded image are the oracle; outside of the file is nodata."""
    source, items = scene
    wide = np.pad(pixels(0), 400)
    expected = wide[400 + top : 400 + top + rows, 400 + left : 400 + left + cols]
    window = GeoBox((rows, cols), HERE.translate_pix(left, top).affine, HERE.crs)
    with dask.config.set(scheduler="sync"):
        np.testing.assert_array_equal(read(source, items[:1], window, chunks=chunk)[0], expected)


def nearest(day: int, window: GeoBox) -> np.ndarray:
    """The pixel in which each centre lies, by pyproj and numpy."""
    (ny, nx), a = window.shape, window.affine
    cols, rows = np.meshgrid(np.arange(nx) + 0.5, np.arange(ny) + 0.5)
    there = Transformer.from_crs(str(window.crs), "EPSG:32632", always_xy=True)
    x, y = there.transform(a.c + a.a * cols, a.f + a.e * rows)
    # a centre on an edge belongs to the pixel after it
    col, row = np.floor((x - 600_000) / 20 + 1e-6), np.floor((5_000_000 - y) / 20 + 1e-6)
    inside = (col >= 0) & (col < SIDE) & (row >= 0) & (row < SIDE)
    out = np.zeros(window.shape, "u2")
    out[inside] = pixels(day)[row[inside].astype(int), col[inside].astype(int)]
    return out


OTHER = {
    "coarser": ((600_000, 4_995_000, 605_000, 5_000_000), "EPSG:32632", 35),
    "finer": ((602_000, 4_996_000, 602_300, 4_996_200), "EPSG:32632", 3),
    "half a pixel off": ((600_010, 4_996_010, 604_910, 4_999_910), "EPSG:32632", 20),
    "degrees": ((10.27, 45.10, 10.35, 45.15), "EPSG:4326", 0.0003),
    "other zone": ((127_000, 5_000_000, 138_000, 5_013_000), "EPSG:32633", 25),
    "elsewhere": ((4_000_000, 2_000_000, 4_001_000, 2_001_000), "EPSG:3035", 20),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_grids_get_the_nearest_pixels_whatever_the_chunks(scene, name):
    source, items = scene
    bbox, crs, step = OTHER[name]
    window = GeoBox.from_bbox(bbox, crs, resolution=step, tight=True)
    expected = np.stack([nearest(day, window) for day in range(DAYS)])
    assert (name == "elsewhere") == (not expected.any())
    np.testing.assert_array_equal(read(source, items, window), expected)
    cut = read(source, items, window, chunks={"y": 37, "x": 61})
    np.testing.assert_array_equal(cut, expected)


def test_a_centre_on_an_edge_belongs_to_the_next_pixel_whatever_the_last_digits():
    found = resample._floor(np.array([3.0, 3 - 1e-9, 3 + 1e-9, 2.999, np.nan, np.inf, -0.5]))
    assert found.tolist() == [3, 3, 3, 2, -1, -1, -1]


def test_a_coarse_grid_is_filled_strip_by_strip(scene, monkeypatch):
    source, items = scene
    window = grid(60, step=97)
    monkeypatch.setattr(resample, "_STRIP", 5000)
    np.testing.assert_array_equal(read(source, items[:1], window)[0], nearest(0, window))


def test_elevations_are_interpolated_on_request(tmp_path):
    """A plane stays a plane between its pixels."""
    rows, cols = np.mgrid[0:SIDE, 0:SIDE]
    path = write_cog(tmp_path / "plane.tif", (2.0 * cols + rows).astype("f4"), HERE, nodata=-9999)
    item = make_item("plane", {"red": str(path)}, HERE, nodata=-9999, dtype="float32")
    window = GeoBox((100, 100), HERE.affine, HERE.crs).translate_pix(10.25, 20.5)
    got = read(make_source(tmp_path), [item], window, resampling="bilinear")[0]
    rows, cols = np.mgrid[0:100, 0:100]
    np.testing.assert_allclose(got, 2.0 * (cols + 10.25) + rows + 20.5, atol=1e-3)


def test_overviews_are_not_read(tmp_path):
    """On a coarser grid values are stored ones, not means of several."""
    checkers = (np.indices((256, 256)).sum(axis=0) % 2 * 1000 + 1).astype("u2")
    path = tmp_path / "c.tif"
    write_cog(path, checkers, grid(256))
    with rasterio.open(path, "r+", ignore_cog_layout_break="YES") as out:
        out.build_overviews([2, 4], rasterio.enums.Resampling.average)
    item = make_item("c", {"red": str(path)}, grid(256))
    got = read(make_source(tmp_path), [item], grid(64, step=80))
    assert set(np.unique(got)) <= {1, 1001}


def test_later_items_of_a_day_fill_the_gaps_of_earlier_ones(scene):
    source, items = scene
    got = read(source, items, groupby=lambda item, index: 0)[0]
    expected = pixels(0)
    for day in (1, 2):
        expected = np.where(expected == 0, pixels(day), expected)
    np.testing.assert_array_equal(got, expected)


def test_each_item_has_its_own_nodata(tmp_path):
    a, b = pixels(0), pixels(1)
    b[b == 0] = 65535
    paths = [write_cog(tmp_path / "a.tif", a, HERE, nodata=0),
             write_cog(tmp_path / "b.tif", b, HERE, nodata=65535)]  # fmt: skip
    items = [make_item(p.stem, {"red": str(p)}, HERE, day=i, nodata=n)
             for i, (p, n) in enumerate(zip(paths, (0, 65535), strict=True))]  # fmt: skip
    got = read(make_source(tmp_path), items)
    np.testing.assert_array_equal(got[1], np.where(b == 65535, 0, b))
    np.testing.assert_array_equal(got[0], a)


def test_types_of_several_items_are_joined_without_loss(tmp_path):
    small, large = np.full((SIDE, SIDE), 200, "u1"), np.full((SIDE, SIDE), 60_000, "u2")
    items = [
        make_item(
            name, {"red": str(write_cog(tmp_path / f"{name}.tif", v, HERE))}, HERE,
            day=i, dtype=str(v.dtype),
        )
        for i, (name, v) in enumerate({"small": small, "large": large}.items())
    ]  # fmt: skip
    got = read(make_source(tmp_path), items)
    assert got.dtype == np.uint16
    assert got[0, 0, 0] == 200
    assert got[1, 0, 0] == 60_000


def test_a_type_that_the_item_does_not_tell_must_hold_the_files_values(one, tmp_path):
    source, item, path = one
    item.assets["red"].extra_fields.clear()
    got = read(source, [item])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(np.nan_to_num(got[0]), pixels(0))
    write_cog(path, pixels(0).astype("i4"), HERE)
    with pytest.raises(ReadError, match=r"holds int32, which float32 cannot hold.*data_type"):
        read(source, [item])


def test_bands_of_one_file(tmp_path):
    layers = np.stack([pixels(d) for d in range(3)])
    path = write_cog(tmp_path / "b.tif", layers, HERE)
    item = make_item("b", {"data": str(path)}, HERE, bands=3)
    plain = load_layers(make_source(tmp_path), [item], ["data", "data.3"], HERE)
    np.testing.assert_array_equal(plain["data"][0], layers[0])
    np.testing.assert_array_equal(plain["data.3"][0], layers[2])
    told = make_source(tmp_path, bands={"red": "data"}, band_index={"red": 2})
    np.testing.assert_array_equal(load_layers(told, [item], ["data"], HERE)["data"][0], layers[1])
    two = make_source(tmp_path, bands={"red": "data", "nir": "data"},
                      band_index={"red": 2, "nir": 3})  # fmt: skip
    with pytest.raises(SourceError, match=r"several variables; ask for one band, e.g. 'data.2'"):
        load_layers(two, [item], ["data"], HERE)


def test_no_items_is_an_error(scene):
    with pytest.raises(InputError, match="no items"):
        load_layers(scene[0], [], ["red"], HERE)


# ── items that lie ───────────────────────────────────────────────────────────────────────────


def _shape(item, path):
    item.properties["proj:shape"] = [SIDE, SIDE + 1]


def _transform(item, path):
    item.properties["proj:transform"][2] += 20


def _crs(item, path):
    item.properties["proj:code"] = "EPSG:32633"


def _dtype(item, path):
    item.assets["red"].extra_fields["raster:bands"][0]["data_type"] = "int16"


def _nodata(item, path):
    write_cog(path, pixels(0), HERE, nodata=65535)


def _no_crs(item, path):
    with rasterio.open(
        path, "w", driver="GTiff", height=SIDE, width=SIDE, count=1, dtype="uint16", nodata=0,
        transform=HERE.affine,
    ) as out:  # fmt: skip
        out.write(pixels(0), 1)


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (_shape, r"\(300, 301\).*file itself has \(300, 300\); mend proj:shape"),
        (_transform, r"lies at \(20.0, 0.0, 600020.0.*file itself lies at \(20.0, 0.0, 600000.0"),
        (_crs, r"is in EPSG:32633, but the file itself is in EPSG:32632; mend proj:code"),
        (_dtype, "is int16, but the file itself is uint16; mend data_type"),
        (_nodata, "marks gaps by 0, but the file itself marks gaps by 65535; mend nodata"),
        (_no_crs, "is in EPSG:32632, but the file itself is in no CRS"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_its_item_says_is_refused(one, lie, message):
    source, item, path = one
    lie(item, path)
    # where the item claims to lie
    window = GeoBox(HERE.shape, HERE.affine, item.properties["proj:code"])
    with pytest.raises(ReadError, match=message) as caught:
        read(source, [item], window)
    assert str(path) in str(caught.value)
    assert (caught.value.item, caught.value.asset) == ("one", "red")
    west, south, east, north = map(float, caught.value.window.split(","))
    assert 10.2 < (west - 6 * (item.properties["proj:code"] == "EPSG:32633")) < east < 16.4
    assert 45 < south < north < 45.2


def test_a_transform_that_was_rounded_is_no_lie(one):
    source, item, _ = one
    item.properties["proj:transform"][2] += 0.01
    np.testing.assert_array_equal(read(source, [item])[0], pixels(0))


@pytest.mark.parametrize(("item_says", "file_says"), [(math.nan, -9999), (-9999, math.nan)])
def test_nan_and_a_number_may_both_mark_gaps_of_floats(tmp_path, item_says, file_says):
    values = pixels(0).astype("f4")
    values[5, 5] = file_says
    path = write_cog(tmp_path / "f.tif", values, HERE, nodata=file_says)
    item = make_item("f", {"red": str(path)}, HERE, nodata=None, dtype="float32")
    if not math.isnan(item_says):
        item.assets["red"].extra_fields["raster:bands"][0]["nodata"] = item_says
    got = read(make_source(tmp_path), [item])[0]
    gap = got[5, 5]
    assert math.isnan(gap) or gap == item_says
    got[5, 5] = values[5, 5] = 0
    np.testing.assert_array_equal(got, values)


# ── files that are damaged or hostile ────────────────────────────────────────────────────────


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("compress", ["deflate", "none"])
def test_a_cog_cut_short_is_an_error_and_never_values(tmp_path, share, compress):
    noise = np.random.default_rng(0).integers(1, 60_000, (SIDE, SIDE)).astype("u2")
    path = write_cog(tmp_path / "cut.tif", noise, HERE, compress=compress)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    item = make_item("cut", {"red": str(path)}, HERE)
    for window in (HERE, grid(SIDE, step=30)):
        with pytest.raises(ReadError, match=r"item 'cut', asset 'red'.*cut\.tif"):
            read(make_source(tmp_path), [item], window)


def test_a_small_file_that_declares_a_huge_block_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=SIDE, width=SIDE, count=1, dtype="uint16", nodata=0,
        crs="EPSG:32632", transform=HERE.affine, compress="deflate", blockysize=SIDE,
    ) as out:  # fmt: skip
        out.write(np.ones((SIDE, SIDE), "u2"), 1)
    item = make_item("bomb", {"red": str(path)}, HERE)
    source = make_source(tmp_path)
    assert read(source, [item]).all()
    monkeypatch.setattr(reading, "MAX_BLOCK_BYTES", SIDE * SIDE * 2 - 1)
    with pytest.raises(ReadError, match=r"blocks of 300 × 300 pixels.*Tile it"):
        read(source, [item])


def test_a_grid_of_the_same_numbers_in_another_crs_is_another_grid(one):
    source, item, _ = one
    # the item tells neither grid nor place, so that the file itself is asked
    for name in [name for name in item.properties if name.startswith("proj:")]:
        del item.properties[name]
    item.geometry, item.bbox = None, [-180.0, -90.0, 180.0, 90.0]
    elsewhere = GeoBox(HERE.shape, HERE.affine, "EPSG:32633")
    assert not read(source, [item], elsewhere).any()


def test_jpeg_2000_is_read_as_it_is(tmp_path):
    path = tmp_path / "a.jp2"
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", height=SIDE, width=SIDE, count=1, dtype="uint16",
        crs=str(HERE.crs), transform=HERE.affine, QUALITY=100, REVERSIBLE="YES", YCBCR420="NO",
    ) as out:  # fmt: skip
        out.write(pixels(0), 1)
    item = make_item("a", {"red": str(path)}, HERE)
    got = read(make_source(tmp_path), [item], HERE[10:100, 20:200])[0]
    np.testing.assert_array_equal(got, pixels(0)[10:100, 20:200])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_a_raster_without_a_place_is_refused(tmp_path, resampling):
    path = tmp_path / "a.png"
    with rasterio.open(
        path, "w", driver="PNG", height=SIDE, width=SIDE, count=1, dtype="uint16"
    ) as out:
        out.write(pixels(0), 1)
    item = make_item("a", {"red": str(path)}, HERE)
    for name in [name for name in item.properties if name.startswith("proj:")]:
        del item.properties[name]
    with pytest.raises(ReadError, match=r"item 'a', asset 'red' .* the PNG file has no CRS"):
        read(make_source(tmp_path), [item], resampling=resampling)


def test_text_that_names_other_files_is_no_raster(one, tmp_path):
    """GDAL's virtual rasters are text; no driver is asked that would follow it."""
    source, item, path = one
    secret = write_cog(tmp_path / "secret.tif", pixels(2), HERE)
    lazy = load_layers(source, [item], ["red"], HERE).red
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><VRTRasterBand dataType="UInt16" '
        f'band="1"><SimpleSource><SourceFilename>{secret}</SourceFilename></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(ReadError, match="not recognized"):
        lazy.compute()


def test_files_beside_a_raster_change_nothing(one):
    source, item, path = one
    Path(f"{path}.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>9</NoDataValue></PAMRasterBand>'
        "</PAMDataset>"
    )
    np.testing.assert_array_equal(read(source, [item])[0], pixels(0))


# ── failures ─────────────────────────────────────────────────────────────────────────────────


def spoiled(scene, tmp_path):
    """The scene with its second file cut short."""
    _, items = scene
    path = tmp_path / "s1.tif"
    whole = write_cog(path, pixels(1), HERE).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    bad = make_item("s1", {"red": str(path)}, HERE, day=1)
    return make_source(tmp_path, roots=[str(Path(items[0].assets["red"].href).parent)]), [
        items[0], bad, items[2],
    ]  # fmt: skip


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_failures_become_listed_gaps_on_request(scene, tmp_path, scheduler):
    source, items = spoiled(scene, tmp_path)
    with failures() as rows, dask.config.set(scheduler=scheduler):
        got = read(source, items, chunks={"y": 150, "x": 150})
    for day in (0, 2):
        np.testing.assert_array_equal(got[day], pixels(day))
    damaged = got[1] != pixels(1)
    assert damaged.any()
    assert (got[1][damaged] == 0).all()
    assert {(r["item"], r["asset"]) for r in rows} == {("s1", "red")}
    assert len(rows) == len({r["window"] for r in rows})
    # the chunks that became gaps are the ones listed
    blocks = [got[1][i : i + 150, j : j + 150] for i in (0, 150) for j in (0, 150)]
    assert len(rows) == sum(not block.any() for block in blocks)


def test_failures_raise_without_a_list(scene, tmp_path):
    source, items = spoiled(scene, tmp_path)
    strict = load_layers(source, items, ["red"], HERE).red
    with failures() as rows, pytest.raises(ReadError, match="item 's1'"):
        strict.compute()
    assert rows == []
    with failures():
        lenient = load_layers(source, items, ["red"], HERE).red
    assert lenient.data.name != strict.data.name
    with pytest.raises(ReadError, match="item 's1'"):
        lenient.compute()


def test_a_failure_that_no_value_can_mark_raises_even_so(one):
    source, item, path = one
    del item.assets["red"].extra_fields["raster:bands"][0]["nodata"]
    path.write_bytes(path.read_bytes()[:3000])
    with failures() as rows, pytest.raises(ReadError, match="item 'one'"):
        read(source, [item])
    assert rows == []


def test_other_processes_raise(scene, tmp_path):
    source, items = spoiled(scene, tmp_path)
    with (
        failures() as rows,
        dask.config.set(scheduler="processes", num_workers=1),
        pytest.raises(ReadError, match="item 's1'") as caught,
    ):
        read(source, items[1:2])
    assert rows == []
    assert caught.value.item == "s1"


@pytest.fixture(scope="module")
def client():
    """A worker process of a cluster; the default client while a test uses it."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


def test_failures_on_a_cluster_become_listed_gaps(scene, tmp_path, client):
    """The same rows and gaps as on threads, there as soon as the result is."""
    source, items = spoiled(scene, tmp_path)
    with failures() as near:
        expected = read(source, items, chunks={"y": 150, "x": 150})
    with client.as_current(), failures() as rows:
        got = read(source, items, chunks={"y": 150, "x": 150})
        at_once = list(rows)
    np.testing.assert_array_equal(got, expected)
    in_order = itemgetter("window")
    assert near
    assert sorted(at_once, key=in_order) == sorted(rows, key=in_order) == sorted(near, key=in_order)


def test_workers_raise_where_nobody_listens(scene, tmp_path, client):
    source, items = spoiled(scene, tmp_path)
    with client.as_current():
        strict = load_layers(source, items[1:2], ["red"], HERE).red
        with failures() as rows:
            late = load_layers(source, items[1:2], ["red"], HERE).red
            with pytest.raises(ReadError, match="item 's1'"):
                strict.compute()
        with pytest.raises(ReadError, match=r"item 's1', asset 'red'.*in the window") as caught:
            late.compute()
    with failures() as unheard:
        early = load_layers(source, items[1:2], ["red"], HERE).red
        with client.as_current(), pytest.raises(ReadError, match="item 's1'"):
            early.compute()
    assert rows == unheard == []
    assert (caught.value.item, caught.value.asset) == ("s1", "red")
    assert caught.value.window is not None


def test_rows_on_their_way_are_waited_for(scene, tmp_path, client):
    """A computation left to run: each block either became a listed gap, or an error."""
    source, items = spoiled(scene, tmp_path)
    with client.as_current():
        with failures() as rows:
            lazy = load_layers(source, items[1:2], ["red"], HERE, chunks={"y": 100, "x": 100}).red
            futures = futures_of(lazy.persist())
        whole = [f.result() for f in futures if f.exception() is None]
    assert len(rows) >= sum(not block.any() for block in whole)


# ── graphs ───────────────────────────────────────────────────────────────────────────────────


def tasks(lazy) -> int:
    return len(dict(lazy.__dask_graph__()))


def test_tasks_are_bounded(scene):
    source, items = scene
    layers = load_layers(source, items, ["red", "nir"], HERE)
    # two a date and band, and one grid and one setting a band
    assert tasks(layers) <= 2 * DAYS * 2 + 2 * 2
    assert len(layers.red.data.dask.keys()) <= 2 * DAYS + 2


def test_tasks_are_small(scene):
    """A task carries its own file only, not the catalogue."""
    source, items = scene
    few, many = (
        load_layers(source, [i.clone() for i in items * n], ["red"], HERE, groupby="id").red.data
        for n in (1, 20)
    )
    size = [
        max(len(pickle.dumps(task)) for task in dict(lazy.__dask_graph__()).values())
        for lazy in (few, many)
    ]
    assert size[1] <= size[0] + 50
    assert size[1] < 3000


def test_names_follow_from_what_is_read(one):
    source, item, _ = one
    names = {load_layers(source, [item], ["red"], HERE).red.data.name for _ in range(2)}
    assert len(names) == 1
    item.assets["red"].extra_fields["raster:bands"][0]["data_type"] = "int16"
    names.add(load_layers(source, [item], ["red"], HERE).red.data.name)
    item.properties["proj:shape"] = [5, 5]
    names.add(load_layers(source, [item], ["red"], HERE).red.data.name)
    assert len(names) == 3


def test_chunks_of_a_large_grid_end_where_blocks_end(tmp_path, no_compute):
    large = grid(4096)
    item = make_item("large", {"red": str(write_cog(tmp_path / "l.tif", pixels(0), HERE))}, large)
    source = make_source(tmp_path)
    lazy = load_layers(source, [item], ["red"], large[300:2500, 1000:3000]).red
    _, y, x = lazy.chunks
    ends = np.cumsum(y)[:-1] + 300, np.cumsum(x)[:-1] + 1000
    assert [end.tolist() for end in ends] == [[1024, 2048], [1024, 2048]]
    small = load_layers(source, [item], ["red"], large[300 : 300 + CHUNK, 1000:1500]).red
    assert small.chunks[1:] == ((CHUNK,), (500,))
    asked = load_layers(source, [item], ["red"], large[300:2500, :500], chunks={"y": 1100}).red
    assert asked.chunks[1] == (1100, 1100)


def test_each_block_is_decoded_once(tmp_path, monkeypatch):
    side = 2304
    values = pixels(0, side)
    path = write_cog(tmp_path / "l.tif", values, grid(side), block=256)
    item = make_item("l", {"red": str(path)}, grid(side))
    seen = []
    plain = reading.native_window

    def spy(opened, code, dst):
        found = plain(opened, code, dst)
        window = found[1]
        rows = range(window.row_off // 256, -(-(window.row_off + window.height) // 256))
        cols = range(window.col_off // 256, -(-(window.col_off + window.width) // 256))
        seen.extend((r, c) for r in rows for c in cols)
        return found

    monkeypatch.setattr(reading, "native_window", spy)
    got = read(make_source(tmp_path), [item], grid(side)[700:2200, 130:2100])[0]
    np.testing.assert_array_equal(got, values[700:2200, 130:2100])
    assert len(seen) == len(set(seen))
    assert set(seen) == {(r, c) for r in range(2, 9) for c in range(9)}


# ── the other engine ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def _stackstac():
    pytest.importorskip("stackstac", reason="stackstac is not installed; it is an extra")


WINDOWS = {
    "native": HERE[37:190, 101:260],
    "beyond": GeoBox((150, 170), HERE.translate_pix(-40, -30).affine, HERE.crs),
    "coarser": GeoBox.from_bbox(
        (600_000, 4_995_000, 605_000, 5_000_000), "EPSG:32632", resolution=35
    ),
}


@pytest.mark.usefixtures("_stackstac")
@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("groupby", ["time", "solar_day", "id", lambda item, i: i // 2])
@pytest.mark.parametrize("chunks", [None, {"y": 64, "x": 100}])
def test_both_engines_give_identical_arrays(scene, name, groupby, chunks):
    source, items = scene
    got, expected = (
        load_layers(
            source, items, ["red", "nir"], WINDOWS[name], groupby=groupby, chunks=chunks, engine=e
        )
        for e in ("stackstac", "odc")
    )
    assert expected.red.dtype == got.red.dtype
    xr.testing.assert_identical(got.compute(), expected.compute())


@pytest.mark.usefixtures("_stackstac")
def test_in_another_projection_stackstac_is_off_by_one_pixel_in_places(scene):
    """GDAL's warp, which stackstac uses, interpolates positions; the default engine does not."""
    source, items = scene
    window = GeoBox.from_bbox((10.27, 45.10, 10.35, 45.15), "EPSG:4326", resolution=0.0003)
    got = read(source, items[:1], window, engine="stackstac")
    assert 0.95 < (got[0] == nearest(0, window)).mean() < 1


@pytest.mark.usefixtures("_stackstac")
def test_both_engines_fill_the_gaps_of_floats_alike(tmp_path):
    values = pixels(0).astype("f4")
    values[values == 0] = np.nan
    path = write_cog(tmp_path / "f.tif", values, HERE, nodata=math.nan)
    item = make_item("f", {"red": str(path)}, HERE, nodata=None, dtype="float32")
    source = make_source(tmp_path)
    for window in WINDOWS.values():
        a, b = (read(source, [item], window, engine=e) for e in ("stackstac", "odc"))
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("_stackstac")
def test_the_other_engine_opens_lazily_and_fails_by_name(one, no_compute):
    source, item, path = one
    lazy = load_layers(source, [item], ["red"], HERE, engine="stackstac").red
    assert lazy.chunks == ((1,), (SIDE,), (SIDE,))
    path.write_bytes(path.read_bytes()[:3000])
    with dask.config.set(scheduler="sync"), pytest.raises(ReadError, match=r"one\.tif cannot"):
        lazy.compute()


@pytest.mark.usefixtures("_stackstac")
def test_the_other_engine_says_what_it_cannot_do(scene, tmp_path):
    source, items = scene
    with pytest.raises(InputError, match=r"north up; use engine='odc'"):
        load_layers(source, items, ["red"], HERE.flipy(), engine="stackstac")
    with pytest.raises(InputError, match="grouped by time, solar_day, id, not by 'platform'"):
        load_layers(source, items, ["red"], HERE, engine="stackstac", groupby="platform")
    two = make_item("two", {"red": items[0].assets["red"].href}, HERE, bands=2)
    with pytest.raises(InputError, match="first band of a file only"):
        load_layers(source, [two], ["red.2"], HERE, engine="stackstac")
    sign = {"kind": "query", "name": "key", "env": "SOME_KEY"}
    signed = make_source(Path(items[0].assets["red"].href).parent, sign=sign)
    with pytest.raises(InputError, match="cannot sign addresses"):
        load_layers(signed, items, ["red"], HERE, engine="stackstac")


def test_an_engine_that_is_not_installed_is_named(scene, monkeypatch):
    monkeypatch.setitem(sys.modules, "stackstac", None)
    monkeypatch.setitem(sys.modules, "stackstac.prepare", None)
    monkeypatch.delitem(sys.modules, "minetrace.cubes.stacked", raising=False)
    source, items = scene
    with pytest.raises(InputError, match=r"pip install 'minetrace\[stackstac\]'"):
        load_layers(source, items, ["red"], HERE, engine="stackstac")


def test_an_engine_with_a_typing_slip_is_refused(scene):
    source, items = scene
    with pytest.raises(InputError, match="engine 'stacktac' is not one of odc, stackstac"):
        load_layers(source, items, ["red"], HERE, engine="stacktac")

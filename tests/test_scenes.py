"""Scenes of solar days from real files: mosaics, masks, encodings and acquisitions met twice."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path

import dask
import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from shapely.geometry import box, mapping

from minetrace.catalog import Source
from minetrace.catalog.config import Radiometry, SourceConfig
from minetrace.cubes.scenes import clear_scenes
from minetrace.errors import ReadError, RecipeError, SourceError
from minetrace.schema import ImageryRecipe

LEFT, TOP, STEP = 400000.0, 5000040.0, 10.0
NY, NX = 24, 30
GRID = GeoBox((NY, NX), from_origin(LEFT, TOP, STEP, STEP), "EPSG:32633")
BOTH = ("red", "nir")
ESA = "S2A_MSIL2A_20200714T115221_N{n}_R123_T28QCH_{made}"


class Archive:
    """A folder of GeoTIFFs and the items that describe them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.items: list[pystac.Item] = []

    def source(self, radiometry: Radiometry | None = None, **bands: str) -> Source:
        config = SourceConfig(
            name="archive", kind="static", href="catalog.json", bands=bands,
            radiometry=radiometry or Radiometry(),
        )  # fmt: skip
        return Source(config, self.folder, tuple(self.items))

    def add(
        self,
        name: str,
        when: str,
        assets: dict[str, np.ndarray],
        *,
        columns: slice = slice(0, NX),
        zoom: int = 1,
        declare: dict | None = None,
        file_nodata: float | None = 0,
        overviews: Resampling | None = None,
        **properties,
    ) -> pystac.Item:
        """Write assets over columns of the grid; ``scl`` may be ``zoom`` times coarser."""
        declare = {"nodata": 0, "scale": 1e-4, "offset": 0.0} if declare is None else declare
        left = LEFT + columns.start * STEP
        moment = dt.datetime.fromisoformat(when).replace(tzinfo=dt.UTC)
        width = (columns.stop - columns.start) * STEP
        bounds = transform_bounds("EPSG:32633", "EPSG:4326", left, TOP - NY * STEP, left + width,
                                  TOP, densify_pts=21)  # fmt: skip
        item = pystac.Item(
            name, mapping(box(*bounds)), list(bounds), moment,
            {"proj:code": "EPSG:32633", **{k.replace("__", ":"): v for k, v in properties.items()}},
            stac_extensions=["https://stac-extensions.github.io/projection/v2.0.0/schema.json",
                             "https://stac-extensions.github.io/raster/v1.1.0/schema.json"],
        )  # fmt: skip
        for key, values in assets.items():
            step = STEP * (zoom if key == "scl" else 1)
            path = self.folder / f"{name}_{key}.tif"
            transform = from_origin(left, TOP, step, step)
            with rasterio.open(
                path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1,
                dtype=values.dtype, crs="EPSG:32633", transform=transform, nodata=file_nodata,
            ) as out:  # fmt: skip
                out.write(values, 1)
                if overviews is not None:
                    out.build_overviews([2, 4], overviews)
            fields = {"proj:shape": list(values.shape), "proj:transform": list(transform)[:6]}
            if key == "scl":
                fields["raster:bands"] = [{"data_type": str(values.dtype), "nodata": 0}]
            elif declare:
                fields["raster:bands"] = [{"data_type": str(values.dtype), **declare}]
            item.add_asset(key, pystac.Asset(str(path), extra_fields=fields))
        self.items.append(item)
        return item


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def flat(value: int, columns: slice = slice(0, NX), dtype: str = "uint16") -> np.ndarray:
    return np.full((NY, columns.stop - columns.start), value, dtype)


def part(**options) -> ImageryRecipe:
    return ImageryRecipe(source="archive", **{"bands": BOTH, "mask": "scl"} | options)


def scenes_of(archive: Archive, *, source: Source | None = None, **options) -> xr.Dataset:
    found = clear_scenes(source or archive.source(), archive.items, part(**options), GRID)
    return found.compute(scheduler="synchronous")


# ---- one step a solar day -------------------------------------------------------------


def test_a_day_of_two_encodings_is_one_step(archive):
    """Two tiles overlap in columns 12-17; one still holds the offset of baseline 04.00."""
    west, east = slice(0, 18), slice(12, NX)
    archive.add("west", "2022-02-01T09:30:00", {
        "red": flat(3000, west), "nir": flat(4000, west), "scl": flat(4, west, "uint8")},
        columns=west)  # fmt: skip
    archive.add("east", "2022-02-01T09:30:14", {
        "red": flat(2000, east), "nir": flat(6000, east), "scl": flat(4, east, "uint8")},
        columns=east, declare={"nodata": 0, "scale": 1e-4, "offset": -0.1})  # fmt: skip
    found = scenes_of(archive)
    assert found.sizes["time"] == 1
    assert found.time.values[0] == np.datetime64("2022-02-01T09:30:00")
    # each covers 18 columns: the lesser id comes first where both are clear
    np.testing.assert_allclose(found.red[0, :, :12], 0.3, rtol=1e-6)
    np.testing.assert_allclose(found.red[0, :, 12:], 0.1, rtol=1e-6)
    np.testing.assert_allclose(found.nir[0, :, 12:], 0.5, rtol=1e-6)


def test_cloud_in_one_tile_does_not_hide_the_ground_in_another(archive):
    cloudy = flat(4, dtype="uint8")
    cloudy[:, :20] = 9
    archive.add("a", "2020-06-01T09:30:00", {"red": flat(1000), "nir": flat(1500), "scl": cloudy})
    clear = flat(4, dtype="uint8")
    clear[:, 25:] = 3
    archive.add("b", "2020-06-01T09:30:20", {"red": flat(2000), "nir": flat(2500), "scl": clear})
    red = scenes_of(archive).red.values[0]
    np.testing.assert_allclose(red[:, :20], 0.2, rtol=1e-6)
    np.testing.assert_allclose(red[:, 20:], 0.1, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "gap"), [("uint16", 0), ("float32", np.nan)])
def test_all_bands_of_a_pixel_come_from_one_item(archive, dtype, gap):
    """Red is missing in one, nir in the other: together they are no observation."""
    no_red, no_nir = flat(1000, dtype=dtype), flat(2000, dtype=dtype)
    no_red[:5], no_nir[:5] = gap, gap
    archive.add("a", "2020-06-01T09:30:00", {"red": no_red, "nir": flat(1500, dtype=dtype)})
    archive.add("b", "2020-06-01T09:30:20", {"red": flat(3000, dtype=dtype), "nir": no_nir})
    found = scenes_of(archive, mask=None)
    for band in found.data_vars.values():
        assert np.isnan(band.values[0, :5]).all()
        assert np.isfinite(band.values[0, 5:]).all()


@pytest.mark.parametrize(
    ("crs", "left", "top", "first", "second", "days"),
    [
        # 178° E: local days change at 12:08 UTC
        ("EPSG:32760", 606000.0, 8000000.0, "2020-01-01T11:00:00", "2020-01-01T13:00:00", 2),
        ("EPSG:32760", 606000.0, 8000000.0, "2019-12-31T23:50:00", "2020-01-01T00:10:00", 1),
        # 178° W: at 11:52
        ("EPSG:32701", 394000.0, 8000000.0, "2020-01-01T11:00:00", "2020-01-01T13:00:00", 2),
        ("EPSG:32701", 394000.0, 8000000.0, "2020-01-01T23:50:00", "2020-01-02T00:10:00", 1),
    ],
)
def test_days_are_those_of_the_sun_at_the_site(
    archive, monkeypatch, crs, left, top, first, second, days
):
    for name, when in (("a", first), ("b", second)):
        archive.add(name, when, {"red": flat(1000), "nir": flat(1500)})
    grid = GeoBox((NY, NX), from_origin(left, top, STEP, STEP), crs)
    found = clear_scenes(archive.source(), archive.items, part(mask=None), grid)
    assert found.sizes["time"] == days
    assert found.time.values[0] == np.datetime64(first)


def test_the_latest_processing_of_a_day_comes_first(archive):
    """Before the item that covers more, which comes before the lesser id."""
    half = slice(0, 15)
    archive.add("a", "2020-06-01T09:30:00", {"red": flat(1000), "nir": flat(1000)},
                s2__processing_baseline="02.14")  # fmt: skip
    archive.add("z", "2020-06-01T09:30:10", {"red": flat(2000, half), "nir": flat(2000, half)},
                columns=half, s2__processing_baseline="05.00")  # fmt: skip
    red = scenes_of(archive, mask=None).red.values[0]
    np.testing.assert_allclose(red[:, :15], 0.2, rtol=1e-6)
    np.testing.assert_allclose(red[:, 15:], 0.1, rtol=1e-6)
    for item in archive.items:
        del item.properties["s2:processing_baseline"]
    archive.items[0].id, archive.items[1].id = "z", "a"
    np.testing.assert_allclose(scenes_of(archive, mask=None).red.values[0], 0.1, rtol=1e-6)


# ---- a mosaic against a plain reading -------------------------------------------------


@pytest.fixture(scope="module")
def jumble(tmp_path_factory) -> Archive:
    """Seven items on four days: overlaps, three encodings, gaps, cloud, one coarser scl."""
    archive = Archive(tmp_path_factory.mktemp("jumble"))
    rng = np.random.default_rng(8)
    plans = [
        ("i0", "01T09:00", slice(0, 20), 0.0), ("i1", "01T09:01", slice(10, NX), 0.0),
        ("i2", "06T09:00", slice(0, NX), 0.0), ("i3", "06T09:01", slice(6, 26), -0.1),
        ("i4", "11T09:00", slice(0, 8), -0.1), ("i5", "16T09:00", slice(0, NX), -0.2),
        ("i6", "16T09:01", slice(0, NX), -0.2),
    ]  # fmt: skip
    for name, when, columns, offset in plans:
        shape = (NY, columns.stop - columns.start)
        counts = {b: rng.integers(1100, 9000, shape).astype("uint16") for b in BOTH}
        for values in counts.values():
            values[rng.random(shape) < 0.1] = 0
            values[rng.random(shape) < 0.05] = 65535
        scl = rng.choice(np.arange(12, dtype="uint8"), (NY // 2, shape[1] // 2))
        archive.add(name, f"2020-03-{when}", {**counts, "scl": scl}, columns=columns, zoom=2,
                    declare={"nodata": 0, "scale": 1e-4, "offset": offset})  # fmt: skip
    return archive


SATURATED = Radiometry(saturated=65535)
DAYS = [["i0", "i1"], ["i2", "i3"], ["i4"], ["i5", "i6"]]


def read(path: str) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read(1)


def plain_mosaic(archive: Archive) -> np.ndarray:
    """(band, day, y, x), pixel by pixel in the order of the ids (none covers more than another
    that it shares a day with, but i0 and i1, i2 and i3, which are in order of it)."""
    out = np.full((2, len(DAYS), NY, NX), np.nan)
    items = {item.id: item for item in archive.items}
    for d, names in enumerate(DAYS):
        for name in names:
            item = items[name]
            first = round((item.assets["red"].extra_fields["proj:transform"][2] - LEFT) / STEP)
            red, nir, scl = (read(item.assets[k].href) for k in ("red", "nir", "scl"))
            offset = item.assets["red"].extra_fields["raster:bands"][0]["offset"]
            for y in range(NY):
                for x in range(red.shape[1]):
                    pair = int(red[y, x]), int(nir[y, x])
                    seen = not {0, 65535} & set(pair) and scl[y // 2, x // 2] in (2, 4, 5, 6, 7)
                    if seen and np.isnan(out[0, d, y, first + x]):
                        out[:, d, y, first + x] = [v / 10000 + offset for v in pair]
    return out


def open_jumble(jumble: Archive, items=None, **options) -> xr.Dataset:
    chosen = jumble.items if items is None else items
    return clear_scenes(jumble.source(SATURATED), chosen, part(), GRID, **options)


def test_a_mosaic_is_the_plain_reading_of_its_files(jumble):
    found = open_jumble(jumble).compute(scheduler="synchronous")
    expected = plain_mosaic(jumble)
    for i, band in enumerate(BOTH):
        assert found[band].dtype == np.float32
        np.testing.assert_allclose(found[band], expected[i], atol=1e-7, rtol=0)


def test_order_and_repeats_of_the_items_change_nothing(jumble):
    expected = open_jumble(jumble).compute(scheduler="synchronous")
    for seed in range(3):
        again = [item.clone() for item in jumble.items for _ in range(2)]
        random.Random(seed).shuffle(again)
        lazy = open_jumble(jumble, again)
        xr.testing.assert_identical(lazy.compute(scheduler="synchronous"), expected)
        assert lazy.red.data.name == open_jumble(jumble).red.data.name


def test_building_reads_nothing_and_keeps_its_word(jumble, no_compute):
    lazy = open_jumble(jumble)
    real = lazy.compute(scheduler="synchronous")
    for name, band in lazy.data_vars.items():
        assert (band.dtype, band.shape) == (real[name].dtype, real[name].shape)
        assert band.data._meta.dtype == np.float32
        assert band.chunks[0] == (len(DAYS),)


@pytest.mark.parametrize("chunks", [{"y": 7, "x": 11}, {"y": 24, "x": 4}])
def test_any_chunking_gives_the_same_pixels(jumble, chunks):
    tiled = open_jumble(jumble, chunks=chunks).compute(scheduler="synchronous")
    xr.testing.assert_identical(tiled, open_jumble(jumble).compute(scheduler="synchronous"))


def test_tokens_follow_what_is_asked(jumble):
    first = open_jumble(jumble).red.data.name
    assert first == open_jumble(jumble).red.data.name
    others = [
        open_jumble(jumble, jumble.items[1:]),
        clear_scenes(jumble.source(), jumble.items, part(), GRID),
        clear_scenes(jumble.source(SATURATED), jumble.items, part(mask=None), GRID),
        clear_scenes(jumble.source(SATURATED), jumble.items, part(keep_bright=True), GRID),
    ]
    assert len({first, *(ds.red.data.name for ds in others)}) == 5


def test_a_block_adds_one_task_to_those_that_read(jumble):
    lazy = open_jumble(jumble, chunks={"y": 12, "x": 15})
    stack = dask.optimize(lazy)[0]
    tasks = len(dict(stack.__dask_graph__()))
    reads = len(jumble.items) * 3 * 4
    assert tasks <= 2 * reads + 4 * (1 + len(BOTH)) + 20


# ---- masks and gaps -------------------------------------------------------------------


def test_scene_classes_are_taken_from_the_nearest_pixel_never_mixed(archive):
    """Overviews of a class layer that somebody averaged must not reach a coarser cube."""
    scl = np.tile(np.array([[4, 9], [9, 4]], "uint8"), (NY // 2, NX // 2))
    counts = np.where(scl == 4, 2000, 9000).astype("uint16")
    archive.add("a", "2020-06-01T09:30", {"red": counts, "nir": counts, "scl": scl},
                overviews=Resampling.average)  # fmt: skip
    coarse = GRID.zoom_out(2)
    found = clear_scenes(archive.source(), archive.items, part(), coarse)
    red = found.red.compute(scheduler="synchronous").values
    seen = red[np.isfinite(red)]
    assert seen.size
    np.testing.assert_allclose(seen, 0.2, rtol=1e-6)
    with rasterio.open(archive.items[0].assets["scl"].href, overview_level=0) as src:
        assert not np.isin(src.read(1), [4, 9]).any()


@pytest.mark.parametrize(
    ("mask", "key", "dtype", "hidden", "shown"),
    [
        ("qa_pixel", "QA", "uint16", [1, 2, 4, 8, 16, 32, 21824 | 8], [0, 64, 128, 21824, 21952]),
        ("fmask", "oa_fmask", "uint8", [0, 2, 3, 4, 9], [1, 5]),
        ("qa60", "QA60", "uint16", [1024, 2048, 3072], [0]),
        ("scl", "SCL", "uint8", [0, 1, 3, 8, 9, 10, 11, 12], [2, 4, 5, 6, 7]),
    ],
)
@pytest.mark.parametrize("silent", [False, True])
def test_each_mask_hides_its_codes(archive, mask, key, dtype, hidden, shown, silent):
    codes = np.zeros((NY, NX), dtype)
    codes[0, : len(hidden)], codes[1, : len(shown)] = hidden, shown
    item = archive.add("a", "2020-06-01T09:30", {"red": flat(1000), "nir": flat(1500), key: codes},
                       file_nodata=None)  # fmt: skip
    item.assets[key].extra_fields["raster:bands"] = [{} if silent else {"data_type": dtype}]
    red = scenes_of(archive, source=archive.source(**{mask: key}), mask=mask).red.values[0]
    assert np.isnan(red[0, : len(hidden)]).all()
    np.testing.assert_allclose(red[1, : len(shown)], 0.1, rtol=1e-6)


def test_an_empty_qa60_is_refused(archive):
    archive.add("a", "2023-06-01T09:30", {"red": flat(1000), "nir": flat(1500), "qa60": flat(0)})
    with pytest.raises(SourceError, match="QA60 is empty"):
        scenes_of(archive, mask="qa60")


def test_saturated_bands_hide_the_pixel(archive):
    qa = flat(0)
    qa[0], qa[1], qa[2], qa[3] = 1 << 3, 1 << 4, 1 << 6, 1 << 9
    item = archive.add("LC08", "2020-06-01T09:30",
                       {"red": flat(9000), "nir": flat(9500), "qa_radsat": qa})  # fmt: skip
    for key, band in (("red", "OLI_B4"), ("nir", "OLI_B5")):
        item.assets[key].extra_fields["eo:bands"] = [{"name": band}]
    plain = scenes_of(archive, mask=None)
    assert plain.red.notnull().all()
    found = scenes_of(archive, source=archive.source(qa_radsat="qa_radsat"), mask=None)
    for band in found.data_vars.values():
        # red, nir, a band that nobody asked for, dropped
        assert np.isnan(band.values[0, :, 0])[:5].tolist() == [True, True, False, True, False]


@pytest.mark.parametrize(
    ("dtype", "nodata", "declared"),
    [("uint16", 0, True), ("int16", -999, True), ("float32", -1, True), ("int32", -9999, True),
     ("uint16", 0, False), ("int16", -999, False), ("float32", -1, False)],
)  # fmt: skip
def test_ground_outside_an_item_is_missing(archive, dtype, nodata, declared):
    """Whoever states the gap value: outside the item nothing was seen, whatever fills it."""
    west = slice(0, 11)
    counts = flat(2000, west, dtype)
    counts[0, 0] = nodata
    fields = {"data_type": dtype, "scale": 1e-4, "nodata": nodata} if declared else {}
    archive.add("a", "2020-06-01T09:30", {"red": counts, "nir": counts}, columns=west,
                declare=fields, file_nodata=None)  # fmt: skip
    source = archive.source(None if declared else Radiometry(scale=1e-4, nodata=nodata))
    red = scenes_of(archive, source=source, mask=None).red.values[0]
    assert np.isnan(red[:, 11:]).all()
    assert np.isnan(red[0, 0])
    np.testing.assert_allclose(red[1:, :11], 0.2, rtol=1e-6)


def test_a_type_without_a_gap_value_is_filled_with_the_sources(archive):
    west = slice(0, 11)
    archive.add("a", "2020-06-01T09:30", {"red": flat(2000, west, "int16"),
                "nir": flat(2000, west, "int16")}, columns=west, file_nodata=None,
                declare={"data_type": "int16"})  # fmt: skip
    source = archive.source(Radiometry(scale=1e-4, nodata=-999))
    red = scenes_of(archive, source=source, mask=None).red.values[0]
    assert np.isnan(red[:, 11:]).all()
    np.testing.assert_allclose(red[:, :11], 0.2, rtol=1e-6)


def test_bands_of_one_file_are_told_apart(archive):
    """As in a quad that holds all bands; the encoding is each band's own."""
    item = archive.add("a", "2020-06-01T09:30", {"quad": flat(0)})
    path = item.assets["quad"].href
    with rasterio.open(path) as src:
        profile = src.profile | {"count": 3}
    with rasterio.open(path, "w", **profile) as out:
        for i, count in enumerate((9000, 2000, 500)):
            out.write(flat(count), i + 1)
    one = {"data_type": "uint16", "nodata": 0}
    item.assets["quad"].extra_fields["raster:bands"] = [
        one | {"scale": 1.0},
        one | {"scale": 1e-4},
        one | {"scale": 1e-3},
    ]
    config = archive.source(red="quad", nir="quad").config
    config = config.model_copy(update={"band_index": {"red": 2, "nir": 3}})
    found = scenes_of(archive, source=Source(config, archive.folder), mask=None)
    np.testing.assert_allclose(found.red, 0.2, rtol=1e-6)
    np.testing.assert_allclose(found.nir, 0.5, rtol=1e-6)


def test_items_that_store_in_different_ways_stand_side_by_side(archive):
    """Types and gap values differ; a gap value of one is a count of the other."""
    kinds = [("uint16", 0, 7000), ("int16", -999, 0), ("uint16", 7000, 2000), ("uint8", 255, 200)]
    for i, (dtype, nodata, count) in enumerate(kinds):
        columns = slice(5 * i, 5 * i + 8)
        counts = flat(count, columns, dtype)
        archive.add(f"i{i}", f"2020-06-{i + 1:02d}T09:30", {"red": counts, "nir": counts},
                    columns=columns, file_nodata=nodata,
                    declare={"scale": 1e-4, "nodata": nodata})  # fmt: skip
    red = scenes_of(archive, mask=None).red.values
    for i, (_, _, count) in enumerate(kinds):
        expected = np.full((NY, NX), np.nan)
        expected[:, 5 * i : 5 * i + 8] = count / 1e4
        np.testing.assert_allclose(red[i], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("count", "wrong"), [(300, True), (499, True), (501, False), (1200, False)]
)
def test_a_flag_that_the_pixels_contradict_is_refused(archive, count, wrong):
    """Forest of red 0.03 holds 300 counts once the offset is off, and 1300 before."""
    red = flat(2000)
    red[:, :2] = count
    archive.add("S2B_33UXP_20250302_0_L2A", "2025-03-02T09:30", {"red": red, "nir": flat(3500)},
                declare={"nodata": 0, "scale": 1e-4, "offset": -0.1},
                s2__processing_baseline="05.11", earthsearch__boa_offset_applied=False)  # fmt: skip
    source = archive.source(Radiometry(rule="sentinel2_l2a"))
    if wrong:
        with pytest.raises(ReadError, match=r"'S2B_33UXP_20250302_0_L2A'.*7% of.*flag is wrong"):
            scenes_of(archive, source=source, mask=None)
        # other sources have no such flag
        scenes_of(archive, mask=None)
        del archive.items[0].properties["earthsearch:boa_offset_applied"]
    assert scenes_of(archive, source=source, mask=None).red.notnull().all()


def test_a_few_dark_pixels_do_not_contradict_a_flag(archive):
    red = flat(2000)
    red[0, :20] = 300
    archive.add("a", "2025-03-02T09:30", {"red": red, "nir": flat(3500)},
                s2__processing_baseline="05.11", earthsearch__boa_offset_applied=False,
                declare={"nodata": 0, "scale": 1e-4, "offset": -0.1})  # fmt: skip
    source = archive.source(Radiometry(rule="sentinel2_l2a"))
    assert (scenes_of(archive, source=source, mask=None).red[0, 0, :20] == np.float32(-0.07)).all()


def test_reflectance_below_zero_is_kept(archive):
    archive.add("a", "2023-06-01T09:30", {"red": flat(950), "nir": flat(1500)}, declare={},
                s2__processing_baseline="05.09")  # fmt: skip
    source = archive.source(Radiometry(rule="sentinel2_l2a"))
    found = scenes_of(archive, source=source, mask=None)
    assert (found.red == np.float32(-0.005)).all()


# ---- bright ground --------------------------------------------------------------------


def bright_archive(archive: Archive) -> tuple[np.ndarray, np.ndarray]:
    """Twenty dates: tailings in the west that scl calls cloud on most, forest in the east."""
    rng = np.random.default_rng(4)
    real = np.arange(20) % 5 == 0
    for t in range(20):
        red, nir = flat(3000), flat(3600)
        red[:, 15:], nir[:, 15:] = 400, 3000
        light = rng.normal(1, 0.03)
        red, nir = ((v * light).astype("uint16") for v in (red, nir))
        scl = flat(4, dtype="uint8")
        scl[:, :15] = 5 if t % 5 == 1 else 8
        if real[t]:
            red[:], nir[:] = rng.integers(5500, 8000), rng.integers(5500, 8000)
            scl[:] = 9
        scl[:3] = 10 if t == 2 else scl[:3]
        archive.add(f"d{t:02d}", f"2020-04-{t + 1:02d}T09:30",
                    {"red": red, "nir": nir, "scl": scl})  # fmt: skip
    return real, np.array([t % 5 == 1 for t in range(20)])


def test_bright_ground_is_given_back_and_cloud_is_not(archive):
    real, clear = bright_archive(archive)
    plain = scenes_of(archive).red.notnull().values
    np.testing.assert_array_equal(plain[:, 5, 0], clear)
    np.testing.assert_array_equal(plain[:, 5, 20], ~real)
    kept = scenes_of(archive, keep_bright=True)
    seen = kept.red.notnull().values
    np.testing.assert_array_equal(seen[:, 5, 0], ~real)
    np.testing.assert_array_equal(seen[:, 5, 20], ~real)
    # cirrus is no cloud class that ground could be taken for
    np.testing.assert_array_equal(seen[2, :3], False)
    assert (kept.nir.notnull().values == seen).all()
    assert abs(float(kept.red[:, 5, 0].median()) - 0.3) < 0.01


def test_bright_ground_needs_a_mask(archive):
    archive.add("a", "2020-06-01T09:30", {"red": flat(1000), "nir": flat(1500)})
    loose = part(mask=None).model_copy(update={"keep_bright": True})
    with pytest.raises(RecipeError, match="name the mask"):
        clear_scenes(archive.source(), archive.items, loose, GRID)


# ---- bad input ------------------------------------------------------------------------


def test_no_items_and_missing_assets_are_named(archive):
    with pytest.raises(SourceError, match="'archive' has no items"):
        scenes_of(archive)
    archive.add("a", "2020-06-01T09:30", {"red": flat(1000), "nir": flat(1500)})
    with pytest.raises(SourceError, match=r"'a' of source 'archive' has no asset 'scl'"):
        scenes_of(archive)


def test_an_acquisition_read_twice_counts_once(archive):
    """The later baseline decides, also where the earlier one saw no cloud."""
    clouds = flat(4, dtype="uint8")
    clouds[:, 10:] = 9
    archive.add("old", "2020-06-01T09:30:00",
                {"red": flat(1000), "nir": flat(1500), "scl": flat(4, dtype="uint8")},
                s2__product_uri=ESA.format(n="0214", made="20200601T000000"))  # fmt: skip
    archive.add("new", "2020-06-01T09:30:00",
                {"red": flat(2000), "nir": flat(2500), "scl": clouds},
                s2__product_uri=ESA.format(n="0500", made="20230601T000000"))  # fmt: skip
    found = scenes_of(archive)
    assert found.sizes["time"] == 1
    assert np.isnan(found.red.values[0, :, 10:]).all()
    np.testing.assert_allclose(found.red.values[0, :, :10], 0.2, rtol=1e-6)

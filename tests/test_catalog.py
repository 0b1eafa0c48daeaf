"""Sources, address policy, building a catalogue from plain rasters."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import stat
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.transform import Affine, from_origin
from shapely.geometry import box

from minetrace.catalog import build_catalog, check_href, open_source, redact, search
from minetrace.catalog.policy import is_public
from minetrace.errors import HrefError, LegendError, SourceError

HERE = box(10.0, 49.99, 10.02, 50.0)
NORTH_UP = from_origin(10.0, 50.0, 0.0003, 0.0003)


def write_raster(
    path: Path,
    bands: dict[str, np.ndarray],
    *,
    crs: str | None = "EPSG:4326",
    nodata: float | None = 0,
    transform: Affine = NORTH_UP,
    driver: str = "GTiff",
) -> Path:
    first = next(iter(bands.values()))
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver=driver, height=first.shape[0], width=first.shape[1], count=len(bands),
        dtype=first.dtype, crs=crs, transform=transform, nodata=nodata,
    ) as dst:  # fmt: skip
        for i, (text, values) in enumerate(bands.items(), 1):
            dst.write(values, i)
            dst.set_band_description(i, text)
    return path


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    layers = {
        f"cover_{y}": rng.choice([10, 61, 200], (40, 50)).astype("u1") for y in (1990, 1995, 2000)
    }
    return write_raster(tmp_path / "raw" / "stack.tif", layers)


@pytest.mark.parametrize("link", [False, True])
def test_every_band_becomes_one_item_with_the_same_pixels(stack: Path, tmp_path: Path, link: bool):
    catalog = build_catalog([stack], tmp_path / "cat", legend="glc_fcs30d", link=link)
    found = search(open_source(catalog.parent), HERE, (1985, 2022))
    assert [item.datetime.year for item in found] == [1990, 1995, 2000]
    with rasterio.open(stack) as src:
        for i, item in enumerate(found, 1):
            href = item.assets["landcover"].get_absolute_href()
            with rasterio.open(href) as made:
                band = item.properties.get("minetrace:band", 1)
                np.testing.assert_array_equal(made.read(band), src.read(i))
                assert made.profile["tiled"] or link


def test_a_built_catalogue_is_plain_stac(stack: Path, tmp_path: Path):
    catalog = pystac.Catalog.from_file(str(build_catalog([stack], tmp_path / "cat")))
    items = list(catalog.get_items(recursive=True))
    assert len(items) == 3
    assert items[0].properties["proj:code"] == "EPSG:4326"
    assert all(not i.assets["landcover"].href.startswith("/") for i in items)


def test_a_relative_folder_works_like_an_absolute_one(stack: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = open_source(build_catalog([stack.relative_to(tmp_path)], "cat"))
    assert Path(source.check_href(source.items[0], "landcover")).is_file()


def test_a_catalogue_can_be_moved(stack: Path, tmp_path: Path):
    build_catalog([stack], tmp_path / "cat")
    (tmp_path / "cat").rename(tmp_path / "moved")
    source = open_source(tmp_path / "moved")
    assert Path(source.check_href(source.items[0], "landcover")).is_file()


def test_search_keeps_place_and_years(stack: Path, tmp_path: Path):
    source = open_source(build_catalog([stack], tmp_path / "cat"))
    assert [i.datetime.year for i in search(source, HERE, (1991, 1999))] == [1995]
    assert search(source, box(20, 50, 21, 51), (1985, 2022)) == []


@pytest.mark.parametrize(
    ("text", "year", "month"),
    [("LC_2001", 2001, 1), ("B_199507", 1995, 7), ("x_20130402_y", 2013, 4), ("2013-04", 2013, 4)],
)
def test_times_are_read_from_band_names(tmp_path: Path, text: str, year: int, month: int):
    raster = write_raster(
        tmp_path / "a.tif", {text: np.ones((4, 4), "u1"), "other_2030": np.ones((4, 4), "u1")}
    )
    times = [i.datetime for i in open_source(build_catalog([raster], tmp_path / "c")).items]
    assert (times[0].year, times[0].month) == (year, month)


@pytest.mark.parametrize(
    "when",
    [
        ["2018-05", "2019", "2020-02-29"],
        [dt.date(2018, 5, 1), dt.datetime(2019, 1, 1), "2020-02-29"],
    ],
)
def test_given_times_are_taken(stack: Path, tmp_path: Path, when: list):
    items = open_source(build_catalog([stack], tmp_path / "c", times=when)).items
    found = [i.datetime.date().isoformat() for i in items]
    assert found == ["2018-05-01", "2019-01-01", "2020-02-29"]


@pytest.mark.parametrize(
    "wrong",
    ["2018-13-01", "2018-02-30", "2018-2-3", "1949", "2101-01-01", "year 2018", "2018-01-01x", ""],
)
def test_given_times_that_are_no_dates_are_named(stack: Path, tmp_path: Path, wrong: str):
    with pytest.raises(SourceError, match=rf"time 2, '{wrong}', is no date; give YYYY-MM-DD"):
        build_catalog([stack], tmp_path / "c", times=["2000", wrong, "2002"])


@pytest.mark.parametrize(
    ("file", "text"), [("tile_2048_1999.tif", ""), ("a.tif", "1999 of mosaic 2048")]
)
def test_a_name_with_two_years_is_not_guessed_at(tmp_path: Path, file: str, text: str):
    raster = write_raster(tmp_path / file, {text: np.ones((4, 4), "u1")})
    with pytest.raises(SourceError, match=r"band 1: .* may be of 1999 or 2048.*--times"):
        build_catalog([raster], tmp_path / "c")
    items = open_source(build_catalog([raster], tmp_path / "c", times=["1999"])).items
    assert [i.datetime.year for i in items] == [1999]


def test_a_name_that_says_its_year_twice_is_clear(tmp_path: Path):
    raster = write_raster(tmp_path / "lc_20180601_20180930.tif", {"": np.ones((4, 4), "u1")})
    items = open_source(build_catalog([raster], tmp_path / "c")).items
    assert items[0].datetime.date() == dt.date(2018, 6, 1)


@pytest.mark.parametrize("text", ["12019", "v2_1850", "cover", "20191340"])
def test_numbers_that_are_no_dates_are_not_taken_for_dates(tmp_path: Path, text: str):
    raster = write_raster(tmp_path / "a.tif", {text: np.ones((4, 4), "u1")})
    with pytest.raises(SourceError, match=r"has no time.*--times"):
        build_catalog([raster], tmp_path / "c")


def test_raster_without_crs_is_named(tmp_path: Path):
    raster = write_raster(tmp_path / "no_crs_2000.tif", {"": np.ones((4, 4), "u1")}, crs=None)
    with pytest.raises(SourceError, match=r"no_crs_2000\.tif has no CRS"):
        build_catalog([raster], tmp_path / "c")


@pytest.mark.parametrize(
    "transform",
    [
        from_origin(10.0, 50.0, 0.0003, -0.0003),
        Affine(-0.0003, 0, 10.0, 0, -0.0003, 50.0),
        NORTH_UP @ Affine.rotation(5),
    ],
    ids=["south-up", "mirrored", "rotated"],
)
def test_a_raster_that_is_not_north_up_is_refused(tmp_path: Path, transform: Affine):
    raster = write_raster(tmp_path / "a_2000.tif", {"": np.ones((4, 4), "u1")}, transform=transform)
    with pytest.raises(SourceError, match=r"a_2000\.tif is not north-up.*gdalwarp"):
        build_catalog([raster], tmp_path / "c")


@pytest.mark.parametrize("link", [False, True])
def test_a_virtual_raster_is_refused(tmp_path: Path, link: bool):
    (tmp_path / "secret.txt").write_text("secret" * 10)
    virtual = tmp_path / "cover_2000.tif"
    virtual.write_text(
        "<VRTDataset rasterXSize='4' rasterYSize='4'><SRS>EPSG:4326</SRS>"
        "<GeoTransform>10, 0.1, 0, 50, 0, -0.1</GeoTransform>"
        "<VRTRasterBand dataType='Byte' band='1' subClass='VRTRawRasterBand'>"
        "<SourceFilename relativeToVRT='1'>secret.txt</SourceFilename>"
        "</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(SourceError, match=r"cover_2000\.tif cannot be read.*GTiff.*gdal_translate"):
        build_catalog([virtual], tmp_path / "c", link=link)


@pytest.mark.parametrize(
    ("driver", "file"), [("HFA", "a_2000.img"), ("ENVI", "a_2000.dat"), ("GTiff", "a_2000.tif")]
)
def test_plain_formats_are_read(tmp_path: Path, driver: str, file: str):
    pixels = np.arange(16, dtype="u1").reshape(4, 4)
    raster = write_raster(tmp_path / "in" / file, {"": pixels}, driver=driver)
    source = open_source(build_catalog([raster], tmp_path / "c"))
    with rasterio.open(source.check_href(source.items[0], "landcover")) as made:
        np.testing.assert_array_equal(made.read(1), pixels)


def test_a_link_that_could_not_be_opened_later_is_refused_now(tmp_path: Path):
    raster = write_raster(tmp_path / "a_2000.img", {"": np.ones((4, 4), "u1")}, driver="HFA")
    with pytest.raises(HrefError, match="neither TIFF, JPEG 2000 nor PNG"):
        build_catalog([raster], tmp_path / "c", link=True)


@pytest.mark.parametrize("link", [False, True])
def test_assets_carry_the_checksum_of_their_file(stack: Path, tmp_path: Path, link: bool):
    for item in open_source(build_catalog([stack], tmp_path / "c", link=link)).items:
        asset = item.assets["landcover"]
        digest = hashlib.sha256(Path(asset.get_absolute_href()).read_bytes()).hexdigest()
        assert asset.extra_fields["file:checksum"] == "1220" + digest
        assert any("/file/v2.1.0/" in e for e in item.stac_extensions)


def test_a_linked_file_is_hashed_once(stack: Path, tmp_path: Path, monkeypatch):
    hashed = []
    digest = hashlib.file_digest

    def count(file, name):
        hashed.append(Path(file.name))
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", count)
    build_catalog([stack], tmp_path / "c", link=True)
    assert hashed == [stack]


def test_the_catalogue_may_be_read_by_others(stack: Path, tmp_path: Path):
    before = os.umask(0o027)
    try:
        out = build_catalog([stack], tmp_path / "c").parent
    finally:
        os.umask(before)
    assert stat.S_IMODE(out.stat().st_mode) == 0o750


@pytest.mark.parametrize(("out", "why"), [("taken", "is a file"), ("taken/cat", "cannot be made")])
def test_a_file_in_the_way_is_named_and_stays(stack: Path, tmp_path: Path, out: str, why: str):
    (tmp_path / "taken").write_text("precious")
    with pytest.raises(SourceError, match=rf"{out} {why}.*give a"):
        build_catalog([stack], tmp_path / out)
    assert (tmp_path / "taken").read_text() == "precious"


def test_a_failed_build_leaves_nothing(tmp_path: Path):
    raster = write_raster(tmp_path / "in" / "a_2000.tif", {"": np.full((4, 4), 77, "u1")})
    with pytest.raises(LegendError, match=r"\[77\].*glc_fcs30d"):
        build_catalog([raster], tmp_path / "c", legend="glc_fcs30d")
    assert {p.name for p in tmp_path.iterdir()} == {"in"}


def test_build_refuses_a_folder_with_other_files(stack: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(SourceError, match="holds other files"):
        build_catalog([stack], tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_build_never_deletes_its_own_rasters(stack: Path, tmp_path: Path):
    build_catalog([stack], tmp_path / "cat")
    own = tmp_path / "cat" / "more_2001.tif"
    own.write_bytes(stack.read_bytes())
    with pytest.raises(SourceError, match="which a build replaces"):
        build_catalog([own], tmp_path / "cat", times=["2001", "2002", "2003"])
    assert own.is_file()


def test_what_a_linked_build_returns_can_be_opened(stack: Path, tmp_path: Path):
    source = open_source(build_catalog([stack], tmp_path / "cat", link=True))
    assert source.check_href(source.items[0], "landcover") == str(stack)


def test_times_must_match_bands(stack: Path, tmp_path: Path):
    with pytest.raises(SourceError, match="2 times were given for 3 bands"):
        build_catalog([stack], tmp_path / "c", times=["2000-01-01", "2001-01-01"])


@pytest.mark.parametrize(
    "href",
    [
        "/vsizip//tmp/x.zip", "/vsicurl/https://a.b/c.tif", "vrt:///tmp/x.tif", "ftp://a.b/x.tif",
        "<VRTDataset/>", "https://user:pw@good.org/x.tif", "https://evil.org/x.tif",
        "https://good.org.evil.org/x.tif", "http://good.org/x.tif", "s3://bucket/x.tif",
        "GTIFF_DIR:1:/tmp/x.tif", "/etc/passwd", "file:///etc/passwd", "../../etc/passwd",
        "https://127.0.0.1/x.tif", "http://127.0.0.1/x.tif", "https://10.0.0.1/x.tif",
        "https://[::1]/x.tif", "https://[::ffff:10.0.0.1]/x.tif", "https://2130706433/x.tif",
        "https://0x7f.1/x.tif", "https://169.254.169.254/latest/meta-data", "https://good.org:x/a",
        "https://good.org@evil.org/x.tif", "https:///x.tif", "https://[bad/x.tif", "",
        "https://tiles.org/x.tif", "https://eviltiles.org/x.tif", "file://good.org/x.tif",
    ],
)  # fmt: skip
def test_addresses_outside_the_policy_are_refused(tmp_path: Path, href: str):
    with pytest.raises(HrefError):
        check_href(href, roots=[tmp_path], hosts=["good.org", "*.tiles.org"])


def test_allowed_addresses_pass(stack: Path):
    assert check_href(str(stack), roots=[stack.parent]) == str(stack)
    assert check_href(f"file://{stack}", roots=[stack.parent]) == str(stack)
    for href in ("https://good.org/a.tif?sig=1", "https://b.tiles.org/a.tif"):
        assert check_href(href, roots=[], hosts=["good.org", "*.tiles.org"]) == href


def test_a_link_out_of_the_root_is_refused(stack: Path, tmp_path: Path):
    inside = tmp_path / "root"
    inside.mkdir()
    (inside / "x.tif").symlink_to(stack)
    with pytest.raises(HrefError, match="outside the folders"):
        check_href(str(inside / "x.tif"), roots=[inside])


def test_a_vrt_in_disguise_is_refused(tmp_path: Path):
    fake = tmp_path / "x.tif"
    fake.write_text("<VRTDataset rasterXSize='1' rasterYSize='1'/>")
    with pytest.raises(HrefError, match="first bytes"):
        check_href(str(fake), roots=[tmp_path])


@pytest.mark.parametrize("numeric", ["10.1.2.3", "0x0a.1", "0.0.0.012", "1.org.7"])
def test_a_wildcard_never_means_an_address(numeric: str):
    tail = "*." + numeric.partition(".")[2]
    with pytest.raises(HrefError, match="not among the hosts"):
        check_href(f"https://{numeric}/x.tif", roots=[], hosts=[tail])
    assert check_href(f"https://{numeric}/x.tif", roots=[], hosts=[numeric])


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.0.0.1", False),
        ("172.16.3.4", False), ("192.168.0.1", False), ("169.254.169.254", False),
        ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False),
        ("::", False), ("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True), ("64:ff9b::10.0.0.1", False), ("64:ff9b::8.8.8.8", True),
        ("2002:0a00:0001::", False), ("2001:db8::1", False),
    ],
)  # fmt: skip
def test_public_addresses(address: str, public: bool):
    assert is_public(address) is public


@pytest.mark.parametrize(
    "href", ["https://a.org/x.tif?sig=SECRET&se=1#f", "https://me:SECRET@a.org/x.tif"]
)
def test_redact_drops_secrets(href: str):
    assert redact(href) == "https://a.org/x.tif"


def test_a_catalogue_link_cannot_leave_its_folder(stack: Path, tmp_path: Path):
    path = build_catalog([stack], tmp_path / "cat")
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    data = json.loads(path.read_text())
    data["links"].append({"rel": "item", "href": "../secret.json"})
    path.write_text(json.dumps(data))
    with pytest.raises(SourceError, match="leaves it"):
        open_source(path)


def test_source_faults_are_named(tmp_path: Path):
    with pytest.raises(SourceError, match=r"no source 'nowhere'.*earth_search"):
        open_source("nowhere")
    bad = tmp_path / "bad.toml"
    bad.write_text('name = "x"\nkind = "static"\nhref = "catalog.json"\nhots = []\n')
    with pytest.raises(SourceError, match="hots: unknown key"):
        open_source(bad)
    bad.write_text('name = "x"\nkind = "static"\nhref = "catalog.json"\n')
    with pytest.raises(SourceError, match="there is no catalogue"):
        open_source(bad)


def test_missing_asset_and_collection_are_named(stack: Path, tmp_path: Path):
    source = open_source(build_catalog([stack], tmp_path / "cat"))
    with pytest.raises(SourceError, match=r"no asset 'red'; it has landcover"):
        source.check_href(source.items[0], "red")
    with pytest.raises(SourceError, match=r"no collection 'lights'; it has landcover"):
        search(source, HERE, (1985, 2022), collection="lights")

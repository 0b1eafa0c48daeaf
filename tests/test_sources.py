"""Source files: every shipped one, real items parsed by them, and files of known products."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.transform import from_origin
from shapely.geometry import box

from minetrace.catalog import build_catalog, item_time, open_source, search
from minetrace.catalog.parse import parse_item
from minetrace.cli.app import app
from minetrace.cubes.radiometry import encoding
from minetrace.errors import HrefError, InputError, LegendError, SourceError
from minetrace.schema import BANDS, load_legend
from minetrace.schema.shipped import shipped_folder, shipped_names
from stac_api import serve_stac, stac_item

NAMES = shipped_names("catalogs")
QUALITY = ("scl", "qa_pixel", "qa_radsat", "fmask", "qa60")
KNOWN = (*BANDS, *QUALITY, "landcover", "ntl", "n_views", "quality", "elevation")
STAC = "raster/stac_items/"
S2_10M = (10980, 10980)


def read_items(path: Path) -> list[pystac.Item]:
    data = json.loads(path.read_text())
    found = data if isinstance(data, list) else data.get("features", [data])
    return [parse_item(i, path.name) for i in found]


# ---- shipped files ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_source_is_whole(name):
    config = open_source(name).config
    text = (shipped_folder("catalogs") / f"{name}.toml").read_text(encoding="utf-8")
    assert config.name == name
    assert config.title
    assert text.startswith("#"), "a comment says what it is and what it asks for"
    assert config.product in ("imagery", "landcover", "lights", "terrain")
    assert config.href.startswith("https://")
    assert set(config.bands) | {f.variable for f in config.files} - {None} <= set(KNOWN)
    assert {v for f in config.files for v in (*f.variables, *f.fields)} <= set(KNOWN)
    if config.legend:
        assert load_legend(config.legend).codes
    if config.kind == "api":
        assert config.collection
        assert config.hosts
        assert not any("*" in host for host in config.hosts)
        for prefix, instead in config.rewrite.items():
            assert prefix.startswith("s3://")
            assert instead.endswith("/")
            assert instead.removeprefix("https://").strip("/") in config.hosts


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('kind = "api"\nhref = "h"\nhots = []', "hots: unknown key"),
        ('kind = "stac"\nhref = "h"', "kind: "),
        ('kind = "api"', "href: Field required"),
        ('kind = "api"\nhref = "h"\nhosts = ["https://a.org/x"]', "is no host name"),
        ('kind = "api"\nhref = "h"\nhosts = ["*.org"]', "is no host name"),
        ('kind = "api"\nhref = "h"\nband_index = { red = 0 }', "band_index.red: "),
        ('kind = "api"\nhref = "h"\nradiometry = { rule = "s2" }', "radiometry.rule: "),
        ('kind = "api"\nhref = "h"\nradiometry = { nodat = 0 }', "radiometry.nodat: unknown key"),
        ('kind = "api"\nhref = "h"\nsign = { kind = "query", name = "k" }', "needs name and env"),
        ('kind = "api"\nhref = "h"\nsign = { kind = "planetary_computer" }', "needs the endpoint"),
        (
            'kind = "api"\nhref = "h"\n[sign]\nkind = "planetary_computer"\nendpoint = "http://a.b"',
            "is not https",
        ),
        ('kind = "files"\nhref = "h"', "go together"),
        ('kind = "static"\nhref = "h"\n[[files]]\nmatch = "(?P<year>.)"\nvariable = "a"',
         "go together"),
        ('kind = "files"\nhref = "h"\n[[files]]\nmatch = "("\nvariable = "a"',
         "is no regular expression"),
        ('kind = "files"\nhref = "h"\n[[files]]\nmatch = "a"\nvariable = "a"', "group 'year'"),
        ('kind = "files"\nhref = "h"\n[[files]]\nmatch = "(?P<year>.)"',
         "one of variable, variables and fields"),
    ],
)  # fmt: skip
def test_typos_of_a_source_are_named(tmp_path: Path, text: str, fault: str):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n' + text)
    with pytest.raises(SourceError, match=r"mine\.toml") as caught:
        open_source(path)
    assert fault in str(caught.value)


# ---- real items ---------------------------------------------------------------------------------

PC, ES = "planetary_computer", "earth_search"
SCENE = "odc_stac/{}_02_T1_SR.json"
S2, LANDSAT = (*BANDS, "scl"), (*BANDS, "qa_pixel", "qa_radsat")
REAL = [
    # source, file, variables, (nodata, scale, offset) of the first variable, its CRS
    (f"{ES}_sentinel_2_l2a", f"{ES}/crates_server_data_sentinel-2_item-collection.json", S2,
     (0.0, 1e-4, -0.1), 32613),
    (f"{PC}_sentinel_2_l2a", f"{PC}/sentinel-2-l2a-pc.json", S2, (0.0, 1e-4, -0.1), None),
    (f"{PC}_sentinel_2_l2a", f"{ES}/crates_core_data_two-sentinel-2-items.json", S2,
     (0.0, 1e-4, -0.1), 32613),
    (f"{PC}_landsat_c2_l2", f"{PC}/landsat-c2-l2-pc.json", LANDSAT, (0.0, 2.75e-5, -0.2), None),
    (f"{PC}_io_lulc", f"{PC}/io-lulc-annual-v02-pc.json", ("landcover",), (0.0, 1, 0), None),
    (f"{PC}_cop_dem_glo_30", f"{PC}/cop-dem-glo-30-pc.json", ("elevation",), (None, 1, 0), 4326),
    (f"{ES}_landsat_c2_l2", SCENE.format("LC08_L2SP_028030_20200114_20200824"), LANDSAT,
     (0.0, 2.75e-5, -0.2), 32615),
    (f"{ES}_landsat_c2_l2", SCENE.format("LE07_L2SP_044033_20210329_20210424"), LANDSAT,
     (0.0, 2.75e-5, -0.2), 32610),
]  # fmt: skip


@pytest.mark.real
@pytest.mark.parametrize(("name", "file", "variables", "code", "epsg"), REAL)
def test_real_items_are_understood(real_data, name, file, variables, code, epsg):
    source = open_source(name)
    items = read_items(real_data(STAC + file))
    assert items
    for item in items:
        assert item_time(item).tzinfo is not None
        for variable in variables:
            key = source.asset_key(variable)
            href = source.check_href(item, key)
            assert href.startswith("https://")
            assert "?" not in href
            asset = item.assets[key]
            grid = {**item.properties, **asset.extra_fields}
            shape, transform = grid["proj:shape"], grid["proj:transform"]
            assert len(shape) == 2
            assert transform[0] > 0 > transform[4]
            assert item.properties["proj:code"].startswith("EPSG:")
            if epsg:
                assert item.properties["proj:code"] == f"EPSG:{epsg}"
            if variable in ("red", "nir") and "sentinel" in name:
                assert tuple(shape) == S2_10M
        own = encoding(source, item, source.asset_key(variables[0]))
        assert (own.nodata, own.scale, own.offset) == code


@pytest.mark.real
def test_digital_earth_africa_buckets_are_read_over_https(real_data):
    """Its items are those of the old Earth Search with addresses in its own bucket."""
    (item,) = read_items(real_data(STAC + "odc_stac/S2A_28QCH_20200714_0_L2A.json"))
    old = "https://sentinel-cogs.s3.us-west-2.amazonaws.com/"
    source = open_source("digital_earth_africa_s2_l2a")
    with pytest.raises(HrefError, match=r"sentinel-cogs.*is not among the hosts"):
        source.check_href(item, "B04")
    for asset in item.assets.values():
        asset.href = asset.href.replace(old, "s3://deafrica-sentinel-2/")
    for variable in (*BANDS, "scl"):
        href = source.check_href(item, source.asset_key(variable))
        assert href.startswith(
            "https://deafrica-sentinel-2.s3.af-south-1.amazonaws.com/sentinel-s2"
        )


@pytest.mark.real
def test_a_bucket_whose_requester_pays_is_explained(real_data):
    (item,) = read_items(
        real_data(STAC + "odc_stac/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json")
    )
    asset = item.assets["red"]
    web, bucket = asset.href, asset.extra_fields["alternate"]["s3"]["href"]
    assert bucket.startswith("s3://usgs-landsat/")
    source = open_source("earth_search_landsat_c2_l2")
    asset.href, asset.extra_fields["alternate"] = bucket, {}
    with pytest.raises(HrefError, match=r"usgs-landsat.*\[rewrite\].*requester pays.*AWS keys"):
        source.check_href(item, "red")
    asset.extra_fields["alternate"] = {"web": {"href": "/etc/passwd"}, "https": {"href": web}}
    assert source.check_href(item, "red") == web


def test_an_item_without_the_asset_is_named():
    item = pystac.Item("scene-1", None, None, item_time_of("2020-01-01"), {})
    item.add_asset("visual", pystac.Asset("https://x.org/a.tif"))
    source = open_source("planetary_computer_sentinel_2_l2a")
    with pytest.raises(SourceError, match=r"'scene-1'.*no asset 'B04'; it has visual.*\[bands\]"):
        source.check_href(item, source.asset_key("red"))


def item_time_of(text: str):
    return pystac.utils.str_to_datetime(f"{text}T00:00:00Z")


def test_bands_of_one_asset_are_counted(tmp_path: Path):
    path = tmp_path / "one.toml"
    path.write_text(
        'name = "one"\nkind = "api"\nhref = "https://a.org"\nbands = { red = "data" }\n'
        "band_index = { red = 3 }\n"
    )
    source = open_source(path)
    item = pystac.Item("a", None, None, item_time_of("2020-01-01"), {"minetrace:band": 2})
    assert (source.band(item, "red"), source.band(item, "nir")) == (3, 2)
    assert source.band(pystac.Item("a", None, None, item_time_of("2020-01-01"), {}), "nir") == 1


# ---- files of known products --------------------------------------------------------------------


def write_tile(
    path: Path, bands: np.ndarray, *, west=100.0, north=20.0, size=0.25, nodata=None, **more
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    stack = bands if bands.ndim == 3 else bands[None]
    with rasterio.open(
        path, "w", driver="GTiff", height=stack.shape[1], width=stack.shape[2], count=len(stack),
        dtype=stack.dtype, crs="EPSG:4326", transform=from_origin(west, north, size, size),
        nodata=nodata, **more,
    ) as dst:  # fmt: skip
        dst.write(stack)
    return path


def pixels(source, item, variable) -> np.ndarray:
    with rasterio.open(source.check_href(item, source.asset_key(variable))) as src:
        return src.read(source.band(item, variable))


@pytest.mark.parametrize("link", [False, True])
def test_glc_fcs30d_tiles_become_years(tmp_path: Path, link: bool):
    rng = np.random.default_rng(0)
    five = rng.choice([10, 61, 200, 0], (3, 8, 8)).astype("u1")
    annual = rng.choice([10, 61, 190, 0], (23, 8, 8)).astype("u1")
    files = [
        write_tile(tmp_path / "GLC_FCS30D_19851995_E100N20_5years_V1.1.tif", five),
        write_tile(tmp_path / "GLC_FCS30D_20002022_E100N20_Annual_V1.1.tif", annual),
        write_tile(tmp_path / "GLC_FCS30D_20002022_W75S10_Annual.tif", annual, west=-75, north=-10),
    ]
    out = build_catalog(files, tmp_path / "glc", profile="glc_fcs30d", link=link)
    source = open_source(tmp_path / "glc")
    assert out.parent == tmp_path / "glc"
    found = search(source, box(100.1, 18.1, 101, 19), None)
    assert [item_time(i).year for i in found] == [1985, 1990, 1995, *range(2000, 2023)]
    assert all(item_time(i).month == item_time(i).day == 1 for i in found)
    assert found[0].id == "glc_fcs30d-E100N20-19850101"
    for item, want in zip(found, [*five, *annual], strict=True):
        np.testing.assert_array_equal(pixels(source, item, "landcover"), want)
        assert encoding(source, item, "landcover").nodata == 0
    assert source.config.product == "landcover"
    assert source.config.legend == "glc_fcs30d"
    assert len(search(source, box(-74, -11, -73, -10.5), (2000, 2022))) == 23


def test_a_glc_tile_cut_short_is_refused(tmp_path: Path):
    cut = write_tile(
        tmp_path / "GLC_FCS30D_20002022_E100N20_Annual.tif", np.ones((22, 4, 4), "u1") * 10
    )
    with pytest.raises(SourceError, match=r"has 22 bands, but .*'glc_fcs30d' .* have 23"):
        build_catalog([cut], tmp_path / "c", profile="glc_fcs30d")


def test_codes_that_the_product_does_not_have_are_refused(tmp_path: Path):
    bad = write_tile(tmp_path / "brasil_coverage_2001.tif", np.full((4, 4), 99, "u1"))
    with pytest.raises(LegendError, match=r"\[99\].*mapbiomas_c8"):
        build_catalog([bad], tmp_path / "c", profile="mapbiomas_brazil")


def viirs(
    folder: Path, month: int, *, tile="75N060W", kinds=("avg_rade9h", "cf_cvg")
) -> list[Path]:
    stem = f"SVDNB_npp_2015{month:02}01-2015{month:02}31_{tile}_vcmslcfg_v10_c201701311200"
    data = {
        "avg_rade9h": np.full((6, 6), month - 1.5, "f4"),
        "avg_rade9": np.full((6, 6), month - 1.5, "f4"),
        "cf_cvg": np.full((6, 6), month, "u2"),
    }
    return [write_tile(folder / f"{stem}.{kind}.tif", data[kind]) for kind in kinds]


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("rade", ["avg_rade9", "avg_rade9h"])
def test_viirs_radiance_and_counts_become_one_item(tmp_path: Path, link: bool, rade: str):
    files = [f for m in (1, 3, 7) for f in viirs(tmp_path, m, kinds=(rade, "cf_cvg"))]
    out = build_catalog(files, tmp_path / "lights", profile="viirs_dnb_monthly", link=link)
    source = open_source(out.parent)
    found = search(source, box(100.1, 19, 101, 19.5), (2015, 2015))
    assert [item_time(i).month for i in found] == [1, 3, 7]
    for item, month in zip(found, (1, 3, 7), strict=True):
        assert set(item.assets) == {"ntl", "n_views"}
        assert item.id == f"viirs_dnb_monthly-75N060W-2015{month:02}01"
        np.testing.assert_array_equal(pixels(source, item, "ntl"), np.full((6, 6), month - 1.5))
        np.testing.assert_array_equal(pixels(source, item, "n_views"), np.full((6, 6), month))
        assert encoding(source, item, "ntl").nodata is None
        assert encoding(source, item, "n_views").nodata is None
    assert source.config.product == "lights"


def test_two_versions_of_one_month_are_refused(tmp_path: Path):
    first, _ = viirs(tmp_path, 1)
    second = first.with_name(first.name.replace("c201701311200", "c201802021300"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(SourceError, match=r"twice for one place and time.*c2017.*c2018.*keep one"):
        build_catalog([first, second], tmp_path / "c", profile="viirs_dnb_monthly")


@pytest.mark.parametrize(
    ("name", "product", "collection", "doy", "dtype", "nodata", "scale", "date"),
    [
        ("black_marble_monthly", "VNP46A3", "001", 60, "u2", 65535, 0.1, "2015-03-01"),
        ("black_marble_monthly", "VNP46A3", "002", 335, "f4", -999.9, 1.0, "2015-12-01"),
        ("black_marble_monthly", "VJ146A3", "002", 1, "f4", -999.9, 1.0, "2015-01-01"),
        ("black_marble_annual", "VNP46A4", "001", 1, "u2", 65535, 0.1, "2015-01-01"),
    ],
)
def test_black_marble_tiles(
    tmp_path: Path, name, product, collection, doy, dtype, nodata, scale, date
):
    stem = (
        f"{product}.A2015{doy:03}.h08v05.{collection}.2021125122613.NearNadir_Composite_Snow_Free"
    )
    radiance = np.full((4, 4), 7, dtype)
    files = [
        write_tile(tmp_path / f"{stem}.tif", radiance),
        write_tile(tmp_path / f"{stem}_Num.tif", np.full((4, 4), 3, "u2")),
    ]
    source = open_source(build_catalog(files, tmp_path / "bm", profile=name))
    (item,) = source.items
    assert item_time(item).date().isoformat() == date
    end = item.common_metadata.end_datetime
    assert end == (datetime(2015, 12, 31, 23, 59, 59, tzinfo=UTC) if "A4" in product else None)
    code = encoding(source, item, "ntl")
    assert (code.nodata, code.scale, code.offset) == (nodata, scale, 0.0)
    counts = encoding(source, item, "n_views")
    assert (counts.nodata, counts.scale) == (65535, 1.0)


def test_a_day_that_a_year_does_not_have_is_refused(tmp_path: Path):
    stem = "VNP46A3.A2015366.h08v05.001.2021125122613.NearNadir_Composite_Snow_Free.tif"
    path = write_tile(tmp_path / stem, np.ones((4, 4), "u2"))
    with pytest.raises(SourceError, match=r"holds no date: there is no day 366"):
        build_catalog([path], tmp_path / "c", profile="black_marble_monthly")


@pytest.mark.parametrize("link", [False, True])
def test_planet_quads_hold_their_bands_at_one_time(tmp_path: Path, link: bool):
    stack = np.stack([np.full((4, 4), v, "u2") for v in (1000, 2000, 3000, 4000, 65535)])
    stem = "planet_medres_normalized_analytic_{}_mosaic_1034-1056_quad.tif"
    files = [
        write_tile(tmp_path / stem.format("2020-09"), stack),
        write_tile(tmp_path / stem.format("2019-06_2019-11"), stack + 5),
    ]
    source = open_source(
        build_catalog(files, tmp_path / "planet", profile="planet_nicfi", link=link)
    )
    assert [item_time(i).strftime("%Y-%m") for i in source.items] == ["2019-06", "2020-09"]
    item = source.items[1]
    for variable, value in zip(("blue", "green", "red", "nir"), (1, 2, 3, 4), strict=True):
        assert (pixels(source, item, variable) == 1000 * value).all()
        code = encoding(source, item, source.asset_key(variable))
        assert (code.dtype, code.nodata, code.scale) == ("uint16", 0.0, 1e-4)


def test_a_gap_value_that_the_file_declares_wins(tmp_path: Path):
    path = write_tile(tmp_path / "brasil_coverage_2001.tif", np.full((4, 4), 3, "u1"), nodata=27)
    source = open_source(build_catalog([path], tmp_path / "c", profile="mapbiomas_brazil"))
    assert encoding(source, source.items[0], "landcover").nodata == 27


def test_a_name_that_no_pattern_knows_is_refused(tmp_path: Path):
    path = write_tile(tmp_path / "glc_2020.tif", np.full((4, 4), 10, "u1"))
    with pytest.raises(SourceError, match=r"glc_2020\.tif is not named like.*keep the names"):
        build_catalog([path], tmp_path / "c", profile="glc_fcs30d")


def test_a_profile_is_not_contradicted(tmp_path: Path):
    path = write_tile(tmp_path / "brasil_coverage_2001.tif", np.full((4, 4), 3, "u1"))
    with pytest.raises(InputError, match="a profile says product, scale itself"):
        build_catalog(
            [path], tmp_path / "c", profile="mapbiomas_brazil", product="lights", scale=2.0
        )
    with pytest.raises(SourceError, match="of kind 'api'; a profile is of kind 'files'"):
        build_catalog([path], tmp_path / "c", profile="earth_search_sentinel_2_l2a")


def test_a_source_of_files_says_how_to_use_it():
    with pytest.raises(SourceError, match=r"zenodo.*catalog build --source glc_fcs30d"):
        search(open_source("glc_fcs30d"), box(0, 0, 1, 1), (2000, 2001))


def test_a_user_adds_a_product_with_one_file_and_no_code(tmp_path: Path):
    """Two dates a file, tiles by letter, tenths of a degree: nothing of it is known to the code."""
    toml = tmp_path / "mine.toml"
    toml.write_text(
        """
        name = "mine"
        kind = "files"
        href = "https://example.org/maps"
        product = "lights"

        [[files]]
        match = 'lum_(?P<tile>[a-z])_(?P<year>\\d{4})_(?P<month>\\d{2})\\.tif'
        variable = "ntl"
        scale = 0.5
        offset = -1
        nodata = 255
        """
    )
    tomllib.loads(toml.read_text())
    files = [
        write_tile(tmp_path / "lum_a_2019_04.tif", np.full((4, 4), 9, "u1")),
        write_tile(tmp_path / "lum_b_2019_04.tif", np.full((4, 4), 9, "u1"), west=101),
    ]
    source = open_source(build_catalog(files, tmp_path / "c", profile=toml))
    assert [i.id for i in source.items] == ["mine-a-20190401", "mine-b-20190401"]
    code = encoding(source, source.items[0], "ntl")
    assert (code.scale, code.offset, code.nodata) == (0.5, -1.0, 255.0)


@pytest.mark.real
def test_a_real_mapbiomas_file_is_built_by_its_profile(real_data, tmp_path: Path):
    with rasterio.open(real_data("raster/mapbiomas_amapa_mines/lorenco_85a22.tif")) as src:
        own, profile = src.read(20), src.profile
    path = tmp_path / "brasil_coverage_2004.tif"
    with rasterio.open(path, "w", **{**profile, "count": 1, "nodata": None}) as dst:
        dst.write(own, 1)
    source = open_source(build_catalog([path], tmp_path / "c", profile="mapbiomas_brazil"))
    (item,) = source.items
    assert item_time(item).year == 2004
    np.testing.assert_array_equal(pixels(source, item, "landcover"), own)


# ---- the command --------------------------------------------------------------------------------


def command(capsys, *words: object) -> tuple[int, str]:
    """Exit code and output of a verb, run in this process."""
    with pytest.raises(SystemExit) as done:
        app([str(w) for w in words])
    return int(done.value.code or 0), capsys.readouterr().out


def test_list_names_every_source(capsys):
    code, text = command(capsys, "catalog", "list")
    assert code == 0
    assert all(name in text for name in NAMES)


def test_a_build_by_profile_from_the_command(capsys, tmp_path: Path):
    files = viirs(tmp_path / "in", 1)
    code, _ = command(
        capsys, "catalog", "build", *files, "--source", "viirs_dnb_monthly", "--out", tmp_path / "c"
    )
    assert code == 0
    assert set(open_source(tmp_path / "c").items[0].assets) == {"ntl", "n_views"}
    code, text = command(capsys, "catalog", "check", tmp_path / "c")
    assert code == 0
    assert "n_views" in text


def test_check_says_how_files_are_named(capsys):
    code, text = command(capsys, "catalog", "check", "glc_fcs30d")
    assert code == 0
    assert "zenodo" in text
    assert "catalog build --source glc_fcs30d" in text


def api_source(folder: Path, url: str, *more: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(
        "\n".join([
            'name = "mine"', 'kind = "api"', f'href = "{url}"', 'collection = "s2"',
            'product = "imagery"', 'bands = { nir = "B08" }', 'hosts = ["data.org"]', *more,
        ])
    )  # fmt: skip
    return path


def assets(*keys: str, host: str = "data.org") -> dict:
    return {k: {"href": f"https://{host}/{k}.tif", "type": "image/tiff"} for k in keys}


def test_check_finds_missing_bands_hosts_and_keys(capsys, tmp_path: Path, monkeypatch):
    whole = assets("blue", "green", "red", "B08", "swir16", "swir22")
    key = ("[sign]", 'kind = "query"', 'name = "k"', 'env = "MINE_KEY"')
    item = stac_item("scene-1", "2020-05-01T00:00:00Z", assets=whole)
    with serve_stac([item]) as api:
        code, text = command(capsys, "catalog", "check", api_source(tmp_path, api.url))
        assert code == 0
        assert "scene-1, 2020-05-01" in text
        asked = [query for _, path, query, _ in api.seen if path == "/search"]
        assert asked == [{"collections": ["s2"], "limit": 1}]
        source = api_source(tmp_path, api.url, *key)
        assert command(capsys, "catalog", "check", source)[0] == 3
        monkeypatch.setenv("MINE_KEY", "SECRET")
        code, text = command(capsys, "catalog", "check", source)
        assert (code, "SECRET" in text) == (0, False)
        item["assets"] = {**whole, **assets("red", host="evil.org")}
        del item["assets"]["B08"]
        api.items[:] = [item]
        code, text = command(capsys, "catalog", "check", api_source(tmp_path, api.url))
        assert code == 3
        assert "no asset 'B08'" in " ".join(text.split())
        assert "evil.org" in text
        api.items.clear()
        code, text = command(capsys, "catalog", "check", api_source(tmp_path, api.url))
        assert (code, "holds no item" in text) == (3, True)


def test_search_prints_times_and_clouds_of_a_site(capsys, tmp_path: Path):
    import geopandas as gpd

    items = [
        stac_item("clear", "2020-05-01T00:00:00Z", **{"eo:cloud_cover": 12.5}),
        stac_item("silent", "2020-06-01T00:00:00Z"),
        stac_item("far", "2020-06-01T00:00:00Z", bbox=(20, 49, 21, 50)),
    ]
    sites = tmp_path / "sites.gpkg"
    frame = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[box(10.1, 49.1, 10.2, 49.2)], crs=4326)
    frame.to_file(sites)
    with serve_stac(items) as api:
        words = ("catalog", "search", api_source(tmp_path, api.url), "--years", "2020:2020")
        code, text = command(capsys, *words, "--sites", sites, "--site", "a")
        assert code == 0
        assert "2020-05-01" in text
        assert "12.5" in text
        assert "silent" in text
        assert "far" not in text
        assert command(capsys, *words, "--bbox", "30,0,31,1")[0] == 3
        assert command(capsys, *words, "--bbox", "179,0,-179,1")[0] == 3
    for wrong in ((), ("--site", "a"), ("--bbox", "0,0,1,1", "--site", "a", "--sites", sites)):
        assert command(capsys, *words, *wrong)[0] == 2


@pytest.mark.parametrize("link", [False, True])
def test_months_of_a_built_catalogue_are_weighted_by_their_views(tmp_path: Path, link: bool):
    """From downloaded files to the annual mean: months 1, 3, 7 with as many views, month 9 none."""
    import geopandas as gpd

    import minetrace as mt

    files = [f for m in (1, 3, 7, 9) for f in viirs(tmp_path, m)]
    with rasterio.open(files[-1], "r+") as counts:
        counts.write(np.zeros((1, 6, 6), "u2"))
    build_catalog(files, tmp_path / "lights", profile="viirs_dnb_monthly", link=link)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('years = [2015, 2015]\n[lights]\nsource = "lights"\nweight = "n_views"\n')
    site = gpd.GeoDataFrame(
        {"site_id": ["a"]}, geometry=[box(100.3, 19.0, 100.9, 19.6)], crs="EPSG:4326"
    )
    lights = mt.open_cube(site, recipe)["lights"].to_dataset().compute()
    want = sum(m * (m - 1.5) for m in (1, 3, 7)) / (1 + 3 + 7)
    np.testing.assert_allclose(lights.ntl, np.full(lights.ntl.shape, want), rtol=1e-6)
    assert (lights.n_months == 3).all()

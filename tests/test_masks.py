"""Quality layers against slow readings of the public tables, code by code."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pystac
import pytest

from minetrace.cubes.masks import (
    CLEAR,
    CLOUD,
    LAYERS,
    OUT,
    SCL_OUT,
    VERDICTS,
    check_mask,
    qa_radsat,
    sensor_band,
)
from minetrace.errors import SourceError

SHOWS, IS_CLOUD, HIDES = "shows the ground", "cloud", "hides the ground"
STATES = {SHOWS: CLEAR, IS_CLOUD: CLOUD, HIDES: OUT}

SCENE_CLASSES = [
    ("no data", HIDES), ("saturated or defective", HIDES), ("dark area", SHOWS),
    ("cloud shadow", HIDES), ("vegetation", SHOWS), ("not vegetated", SHOWS), ("water", SHOWS),
    ("unclassified", SHOWS), ("cloud, medium probability", IS_CLOUD),
    ("cloud, high probability", IS_CLOUD), ("thin cirrus", HIDES), ("snow or ice", HIDES),
]  # fmt: skip
FMASK_CLASSES = [
    ("null", HIDES), ("clear", SHOWS), ("cloud", IS_CLOUD), ("cloud shadow", HIDES),
    ("snow", HIDES), ("water", SHOWS),
]  # fmt: skip


def by_class(classes, code: int) -> str:
    return classes[code][1] if code < len(classes) else HIDES


def read_qa_pixel(code: int) -> str:
    """Bit by bit from the binary digits, the last one first."""
    digits = f"{code:016b}"[::-1]
    fill, dilated, cirrus, cloud, shadow, snow = (d == "1" for d in digits[:6])
    if fill or cirrus or shadow or snow:
        return HIDES
    return IS_CLOUD if cloud or dilated else SHOWS


def read_qa60(code: int) -> str:
    digits = f"{code:016b}"[::-1]
    if digits[11] == "1":
        return HIDES
    return IS_CLOUD if digits[10] == "1" else SHOWS


READ = {
    "scl": lambda code: by_class(SCENE_CLASSES, code),
    "fmask": lambda code: by_class(FMASK_CLASSES, code),
    "qa_pixel": read_qa_pixel,
    "qa60": read_qa60,
}


@pytest.mark.parametrize("kind", sorted(VERDICTS))
def test_every_code_reads_as_its_public_table_says(kind):
    codes = np.arange(np.iinfo(LAYERS[kind]).max + 1)
    found = VERDICTS[kind](codes)
    assert found.dtype == np.uint8
    expected = [STATES[READ[kind](int(code))] for code in codes]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", sorted(VERDICTS))
def test_the_type_of_the_codes_does_not_matter(kind):
    codes = np.arange(200)
    for dtype in ("uint8", "int16", "uint16", "int32"):
        np.testing.assert_array_equal(VERDICTS[kind](codes.astype(dtype)), VERDICTS[kind](codes))


def test_masked_scene_classes_are_those_that_are_not_clear():
    codes = np.arange(256)
    masked = codes[VERDICTS["scl"](codes) != CLEAR]
    assert tuple(masked[masked <= 11]) == SCL_OUT


@pytest.mark.parametrize("bands", [(4,), (4, 5), (2, 3, 4, 6, 7)])
def test_saturation_is_that_of_the_bands_asked_for(bands):
    codes = np.arange(65536)
    expected = []
    for code in codes.tolist():
        digits = f"{code:016b}"[::-1]
        bad = [digits[9], digits[11], *(digits[band - 1] for band in bands)]
        expected.append(OUT if "1" in bad else CLEAR)
    np.testing.assert_array_equal(qa_radsat(codes, bands), expected)


# ---- against the tables that real items carry ----------------------------------------


def landsat_items(real_data) -> list[pystac.Item]:
    path = real_data("raster/stac_items/planetary_computer/landsat-c2-l2-pc.json")
    return [pystac.Item.from_dict(d) for d in json.loads(path.read_text())]


@pytest.mark.real
def test_qa_pixel_is_what_a_real_items_bit_table_says(real_data):
    fields = landsat_items(real_data)[0].assets["qa_pixel"].extra_fields["classification:bitfields"]
    place = {f["name"]: (f["offset"], f["length"]) for f in fields}
    hiding = {"fill": OUT, "cirrus": OUT, "cloud_shadow": OUT, "snow": OUT, "dilated_cloud": CLOUD,
              "cloud": CLOUD, "clear": CLEAR, "water": CLEAR}  # fmt: skip
    for name, (offset, length) in place.items():
        if name.endswith("_confidence"):
            assert VERDICTS["qa_pixel"](np.array([((1 << length) - 1) << offset])) == CLEAR
        else:
            assert VERDICTS["qa_pixel"](np.array([1 << offset])) == hiding.pop(name)
    assert not hiding


@pytest.mark.real
def test_saturation_bits_are_what_a_real_items_bit_table_says(real_data):
    item = landsat_items(real_data)[0]
    fields = item.assets["qa_radsat"].extra_fields["classification:bitfields"]
    place = {f["name"]: f["offset"] for f in fields}
    for key, name in (("blue", "band2"), ("red", "band4"), ("nir08", "band5"), ("swir22", "band7")):
        band = sensor_band(item, key)
        assert qa_radsat(np.array([1 << place[name]]), [band]) == OUT
        assert qa_radsat(np.array([1 << place["band1"]]), [band]) == CLEAR
    assert qa_radsat(np.array([1 << place["occlusion"]]), [4]) == OUT


@pytest.mark.real
def test_the_sensors_bands_of_real_usgs_items(real_data):
    folder = real_data("raster/stac_items/odc_stac")
    found = {}
    for path in (*folder.glob("LE07*.json"), *folder.glob("LC08_L2SP*.json")):
        item = pystac.Item.from_file(str(path))
        found[item.id[:4]] = [sensor_band(item, key) for key in ("red", "nir08", "swir22")]
    assert found == {"LE07": [3, 4, 7], "LC08": [4, 5, 7]}


def an_item(when: str, **assets: pystac.Asset) -> pystac.Item:
    moment = dt.datetime.fromisoformat(when).replace(tzinfo=dt.UTC)
    item = pystac.Item("scene", None, None, moment, {})
    for key, asset in assets.items():
        item.add_asset(key, asset)
    return item


@pytest.mark.parametrize(
    ("fields", "href", "band"),
    [
        ({"eo:bands": [{"name": "OLI_B5"}]}, "x.tif", 5),
        ({"eo:bands": [{"name": "B3"}]}, "x.tif", 3),
        ({"bands": [{"name": "nir"}]}, "LC08_L2SP_1_02_T1_SR_B5.TIF", 5),
        ({}, "https://a.example/LT05_SR_B7.TIF", 7),
    ],
)
def test_a_sensors_band_is_told_by_name_or_file(fields, href, band):
    item = an_item("2020-01-01", nir=pystac.Asset(href, extra_fields=fields))
    assert sensor_band(item, "nir") == band


def test_an_unknown_band_of_a_sensor_is_refused():
    item = an_item("2020-01-01", nir=pystac.Asset("SUB2.tif"))
    with pytest.raises(SourceError, match=r"'scene', asset 'nir'.*qa_radsat is not known"):
        sensor_band(item, "nir")


@pytest.mark.parametrize(
    ("when", "empty"),
    [("2022-01-24T23:59", False), ("2022-01-25", True), ("2024-02-27T23:59", True),
     ("2024-02-28", False)],
)  # fmt: skip
def test_qa60_is_refused_while_products_carry_none(when, empty):
    item = an_item(when)
    check_mask(item, "scl")
    if empty:
        with pytest.raises(SourceError, match=r"'scene'.*QA60 is empty.*mask = \"scl\""):
            check_mask(item, "qa60")
    else:
        check_mask(item, "qa60")

"""Stored values → reflectance: what items, sources and flags say, and who is believed."""

from __future__ import annotations

import datetime as dt
import json
import math
from fractions import Fraction
from pathlib import Path

import dask.array as da
import numpy as np
import pystac
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minetrace.catalog import Source
from minetrace.catalog.config import Radiometry, SourceConfig
from minetrace.cubes.radiometry import (
    Encoding,
    encoding,
    marked_encoding,
    physical,
    sentinel2_offset,
    to_physical,
)
from minetrace.errors import SourceError

SENTINEL2 = Radiometry(rule="sentinel2_l2a", saturated=65535)
LANDSAT = Radiometry(scale=2.75e-5, offset=-0.2, nodata=0, saturated=65535)


ITEM = Radiometry()


def a_source(radiometry: Radiometry = ITEM, **bands: str) -> Source:
    config = SourceConfig(name="s", kind="static", href="catalog.json", radiometry=radiometry,
                          bands=bands)  # fmt: skip
    return Source(config, Path())


def an_item(properties=None, *, item_id="scene", **assets) -> pystac.Item:
    item = pystac.Item(
        item_id, None, None, dt.datetime(2023, 5, 1, tzinfo=dt.UTC), properties or {}
    )
    for key, fields in assets.items():
        item.add_asset(key, pystac.Asset(f"{key}.tif", extra_fields=fields))
    return item


def raster(**fields) -> dict:
    return {"raster:bands": [fields]}


# ---- baseline × provider × flag ------------------------------------------------------

C1 = raster(nodata=0, data_type="uint16", scale=0.0001, offset=-0.1)
"""What Earth Search declares for both of its collections, harmonised pixels or not."""
SILENT: dict = {}
PRODUCT = "S2B_MSIL2A_20230519T164849_N{}_R026_T17SLB_20230519T214501.SAFE"

MATRIX = {
    # Earth Search v1 sentinel-2-l2a: the flag is right where raster:bands are not
    "earth search, harmonised": (
        {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}, C1, 0.0),
    "earth search, not harmonised": (
        {"s2:processing_baseline": "04.00", "earthsearch:boa_offset_applied": False}, C1, -0.1),
    "earth search, before 04.00, offset declared": (
        {"s2:processing_baseline": "02.14", "earthsearch:boa_offset_applied": False}, C1, 0.0),
    "earth search, before 04.00, no flag": (
        {"s2:processing_baseline": "03.01"}, C1, 0.0),
    # Earth Search v1 sentinel-2-c1-l2a: no flag, never harmonised, raster:bands right
    "earth search c1": ({"s2:processing_baseline": "05.10"}, C1, -0.1),
    "earth search c1, reprocessed 2016": (
        {"s2:processing_baseline": "05.00", "datetime": "2016-03-01T00:00:00Z"}, C1, -0.1),
    # Earth Search v0 and its copies
    "earth search v0, harmonised": (
        {"sentinel:processing_baseline": "04.00", "sentinel:boa_offset_applied": True}, SILENT,
        0.0),
    "earth search v0, not harmonised": (
        {"sentinel:processing_baseline": "04.00", "sentinel:boa_offset_applied": False}, SILENT,
        -0.1),
    "earth search v0, baseline in the product name": (
        {"sentinel:product_id": PRODUCT.format("0214")}, SILENT, 0.0),
    "digital earth africa": (
        {"sentinel:product_id": PRODUCT.format("0400"), "sentinel:boa_offset_applied": True,
         "odc:product": "s2_l2a"}, SILENT, 0.0),
    # Planetary Computer: counts as ESA made them, no raster:bands, no flag
    "planetary computer": ({"s2:processing_baseline": "05.10"}, SILENT, -0.1),
    "planetary computer, 04.00": ({"s2:processing_baseline": "04.00"}, SILENT, -0.1),
    "planetary computer, before": ({"s2:processing_baseline": "02.12"}, SILENT, 0.0),
    "planetary computer, the last before": ({"s2:processing_baseline": "03.01"}, SILENT, 0.0),
    # others
    "flag of another name": (
        {"s2:processing_baseline": "05.11", "s2:boa_offset_applied": True}, C1, 0.0),
    "flag as text": (
        {"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": "true"}, C1, 0.0),
    "two flags that agree": (
        {"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": False,
         "s2:boa_offset_applied": False}, C1, -0.1),
    "harmonised and declared so": (
        {"s2:processing_baseline": "05.11", "s2:boa_offset_applied": True},
        raster(nodata=0, scale=0.0001, offset=0), 0.0),
    "baseline as a version": ({"processing:version": "05.11"}, SILENT, -0.1),
    "another offset, as the product's metadata may have": (
        {"s2:processing_baseline": "06.00"}, raster(scale=0.0001, offset=-0.12), -0.12),
}  # fmt: skip


@pytest.mark.parametrize("case", MATRIX)
def test_sentinel2_reflectance_by_baseline_provider_and_flag(case):
    properties, fields, offset = MATRIX[case]
    item = an_item(properties, red=fields)
    code = encoding(a_source(SENTINEL2), item, "red")
    assert code == Encoding("uint16", 0.0, 1e-4, offset, 65535.0)
    counts = np.array([0, 1, 900, 1000, 1001, 3456, 28000, 65534, 65535], np.uint16)
    shift = Fraction(str(offset)) * 10000
    exact = [float((Fraction(int(c)) + shift) / 10000) for c in counts[1:-1]]
    found = to_physical(counts, code)
    assert found.dtype == np.float32
    assert np.isnan(found[[0, -1]]).all()
    np.testing.assert_array_equal(found[1:-1], np.array(exact, np.float32))
    assert np.abs(found[1:-1] - exact).max() <= 3e-7  # half a step of float32 near 6.5
    assert np.abs((found[1:-1] - exact)[np.abs(exact) < 1]).max() <= 1e-7


@pytest.mark.parametrize(
    ("properties", "fields", "names"),
    [
        ({"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": True,
          "s2:boa_offset_applied": False}, C1,
         ["earthsearch:boa_offset_applied = True", "s2:boa_offset_applied = False"]),
        ({"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": "maybe"}, C1,
         ["'maybe'"]),
        ({"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": False},
         raster(scale=0.0001, offset=0), ["05.11", "boa_offset_applied = false", "offset 0"]),
        ({"s2:processing_baseline": "05.11"}, raster(scale=0.0001, offset=0),
         ["05.11", "no boa_offset_applied", "offset 0"]),
        ({"s2:processing_baseline": "03.01", "s2:product_uri": PRODUCT.format("0500")}, C1,
         ["03.01", "N0500"]),
        ({}, C1, ["no processing baseline"]),
        ({}, SILENT, ["no processing baseline"]),
    ],
)  # fmt: skip
def test_what_no_rule_decides_is_refused_with_both_sides_named(properties, fields, names):
    item = an_item(properties, item_id="S2B_17SLB", red=fields)
    with pytest.raises(SourceError) as refused:
        encoding(a_source(SENTINEL2), item, "red")
    for name in ("'S2B_17SLB'", *names):
        assert name in str(refused.value)


@given(st.integers(0, 99), st.integers(0, 99), st.sampled_from([None, False]))
def test_only_the_baseline_decides_where_nobody_took_the_offset_off(major, minor, flag):
    said = {"s2:processing_baseline": f"{major:02d}.{minor:02d}"}
    said |= {} if flag is None else {"s2:boa_offset_applied": flag}
    assert sentinel2_offset(an_item(said), None) == (-0.1 if major >= 4 else 0.0)


def test_the_rule_of_items_believes_raster_bands():
    """A source that is not Sentinel-2 has no baselines; its items' word stands."""
    item = an_item({"s2:processing_baseline": "05.11", "s2:boa_offset_applied": True}, red=C1)
    assert encoding(a_source(), item, "red").offset == -0.1


# ---- who says what --------------------------------------------------------------------


def test_a_source_speaks_only_where_the_item_is_silent():
    source = a_source(LANDSAT)
    own = raster(scale=1e-4, offset=0.1, nodata=-9999, data_type="int16")
    item = an_item({}, loud=own, silent={}, half=raster(nodata=7, data_type="uint16"),
                   scaled=raster(scale=2.0))  # fmt: skip
    assert encoding(source, item, "loud") == Encoding("int16", -9999.0, 1e-4, 0.1, 65535.0)
    assert encoding(source, item, "silent") == Encoding("", 0.0, 2.75e-5, -0.2, 65535.0)
    assert encoding(source, item, "half") == Encoding("uint16", 7.0, 2.75e-5, -0.2, 65535.0)
    assert encoding(source, item, "scaled") == Encoding("", 0.0, 2.0, 0.0, 65535.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"raster:bands": [{"scale": 0.5, "offset": 3, "nodata": 9, "data_type": "uint8"}]},
        {"bands": [{"raster:scale": 0.5, "raster:offset": 3, "nodata": 9, "data_type": "uint8"}]},
        {"raster:scale": 0.5, "raster:offset": 3, "nodata": 9, "data_type": "uint8",
         "bands": [{"name": "red"}]},
        {"raster:scale": 0.5, "raster:offset": 3, "nodata": 9, "data_type": "uint8"},
    ],
)  # fmt: skip
def test_every_stac_version_is_read(fields):
    expected = Encoding("uint8", 9.0, 0.5, 3.0)
    assert encoding(a_source(), an_item({}, red=fields), "red") == expected


def test_each_band_of_an_asset_has_its_own_encoding():
    fields = {"raster:bands": [{"scale": 1.0}, {"scale": 2.0}]}
    item = an_item({"minetrace:band": 2}, red=fields)
    assert encoding(a_source(), item, "red").scale == 2
    assert encoding(a_source(), item, "red", band=1).scale == 1
    with pytest.raises(SourceError, match=r"band 3 of asset 'red', which describes 2"):
        encoding(a_source(), item, "red", band=3)


@pytest.mark.parametrize("key", ["SCL", "qa_pixel", "qa_radsat", "fmask", "qa60"])
def test_quality_layers_are_never_scaled(key):
    item = an_item({"s2:processing_baseline": "05.11"}, **{key: C1})
    for rules in (SENTINEL2, LANDSAT):
        assert encoding(a_source(rules, scl="SCL"), item, key) == Encoding("uint16", 0.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"scale": "much"}, "declares scale = 'much', which is no number"),
     ({"scale": 0}, "scale 0 and offset 0"),
     ({"offset": "nan"}, "scale 1 and offset nan"),
     ({"scale": math.inf}, "scale inf")],
)  # fmt: skip
def test_fields_that_cannot_scale_are_refused(fields, message):
    item = an_item({}, red=raster(**fields))
    with pytest.raises(SourceError, match=message) as refused:
        encoding(a_source(), item, "red")
    assert "'scene', asset 'red'" in str(refused.value)


def test_integers_without_a_gap_value_are_refused():
    item = an_item({}, red=raster(data_type="uint16"), ntl=raster(data_type="float32"))
    with pytest.raises(SourceError, match=r"asset 'red', declares no nodata"):
        marked_encoding(a_source(), item, "red")
    assert marked_encoding(a_source(), item, "ntl").nodata is None
    assert marked_encoding(a_source(Radiometry(nodata=0)), item, "red").nodata == 0


def test_nan_as_nodata_makes_no_encoding_of_its_own():
    items = [an_item({}, ntl=raster(data_type="float32", nodata="nan")) for _ in range(2)]
    one, other = (marked_encoding(a_source(), item, "ntl") for item in items)
    assert one == other
    assert hash(one) == hash(other)


# ---- arithmetic -----------------------------------------------------------------------


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=20), st.sampled_from([0.0, -0.1, -0.2]),
       st.sampled_from([1e-4, 2.75e-5]))  # fmt: skip
def test_reflectance_is_the_exact_quotient_rounded_once(counts, offset, scale):
    code = Encoding("uint16", 0.0, scale, offset, 65535.0)
    found = to_physical(np.array(counts, np.uint16), code)
    for count, value in zip(counts, found, strict=True):
        if count in (0, 65535):
            assert np.isnan(value)
        else:
            exact = Fraction(count) * Fraction(str(scale)) + Fraction(str(offset))
            assert abs(Fraction(float(value)) - exact) <= Fraction(1, 10**7) * max(1, abs(exact))


def test_dark_ground_stays_below_zero():
    code = Encoding("uint16", 0.0, 1e-4, -0.1)
    assert to_physical(np.array([950], np.uint16), code) == np.float32(-0.005)


def test_physical_is_lazy_and_the_same(no_compute):
    stored = da.from_array(np.arange(24, dtype=np.uint16).reshape(2, 3, 4), chunks=(1, 3, 2))
    lazy = physical(stored, Encoding("uint16", 5.0, 0.5, 1.0))
    assert (lazy.dtype, lazy.chunks) == (np.float32, stored.chunks)
    found = lazy.compute(scheduler="synchronous")
    expected = np.arange(24).reshape(2, 3, 4) * 0.5 + 1
    expected[0, 1, 1] = np.nan
    np.testing.assert_array_equal(found, expected.astype(np.float32))


# ---- real items -----------------------------------------------------------------------


def real_items(path: Path) -> list[pystac.Item]:
    data = json.loads(path.read_text())
    data = data if isinstance(data, list) else data.get("features", [data])
    return [pystac.Item.from_dict(d) for d in data]


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:Could not parse bucket")
@pytest.mark.parametrize(
    ("name", "key", "rules", "expected"),
    [
        ("earth_search/crates_server_data_sentinel-2_item-collection.json", "red", SENTINEL2,
         Encoding("uint16", 0.0, 1e-4, -0.1, 65535.0)),
        ("planetary_computer/sentinel-2-l2a-pc.json", "B04", SENTINEL2,
         Encoding("uint16", 0.0, 1e-4, -0.1, 65535.0)),
        ("odc_stac/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json", "B04", SENTINEL2,
         Encoding("uint16", 0.0, 1e-4, 0.0, 65535.0)),
        ("odc_stac/S2A_28QCH_20200714_0_L2A.json", "B04", SENTINEL2,
         Encoding("uint16", 0.0, 1e-4, 0.0, 65535.0)),
        ("planetary_computer/landsat-c2-l2-pc.json", "red", Radiometry(),
         Encoding("uint16", 0.0, 2.75e-5, -0.2)),
        ("odc_stac/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json", "red", LANDSAT,
         Encoding("", 0.0, 2.75e-5, -0.2, 65535.0)),
        ("odc_stac/ga_ls8c_ard_3-1-0_088080_2020-05-25_final.stac-item.json", "nbart_red",
         Radiometry(scale=1e-4, nodata=-999), Encoding("", -999.0, 1e-4, 0.0)),
    ],
)  # fmt: skip
def test_real_items_of_each_provider(real_data, name, key, rules, expected):
    for item in real_items(real_data(f"raster/stac_items/{name}")):
        assert encoding(a_source(rules), item, key) == expected

"""Acquisitions met more than once: which items of each provider are used."""

from __future__ import annotations

import datetime as dt
import json

import pystac
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box, mapping

from minetrace.cubes.duplicates import acquisition, latest_items

ESA = "S2A_MSIL2A_20200714T115221_N{n}_R123_T28QCH_{made}"
WEST, EAST, ALL = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)


def described(item_id: str, when="2020-07-14T11:55:52", *, bounds=ALL, **properties) -> pystac.Item:
    moment = dt.datetime.fromisoformat(when).replace(tzinfo=dt.UTC)
    return pystac.Item(
        item_id, mapping(box(*bounds)), list(bounds), moment,
        {k.replace("__", ":"): v for k, v in properties.items()},
    )  # fmt: skip


def sentinel(item_id: str, n: str, made: str, **kwargs) -> pystac.Item:
    return described(item_id, s2__product_uri=ESA.format(n=n, made=made), **kwargs)


def landsat(category: str, made: str, row: str = "030", **kwargs) -> pystac.Item:
    return described(
        f"LC08_L2SP_028{row}_20200114_{made}_02_{category}", "2020-01-14T17:05:46",
        platform="LANDSAT_8", landsat__wrs_path="028", landsat__wrs_row=row,
        landsat__collection_category=category, created=f"{made}T00:00:00Z", **kwargs,
    )  # fmt: skip


OLD, NEW = sentinel("S2A_28QCH_20200714_0_L2A", "0214", "20200714T191310"), sentinel(
    "S2A_28QCH_20200714_1_L2A", "0500", "20230401T000000"
)  # fmt: skip

CASES = {
    "two baselines": ([OLD, NEW], [NEW.id]),
    "a planetary computer id tells as much": (
        [OLD, described("S2A_MSIL2A_20200714T115221_R123_T28QCH_20230401T000000",
                        s2__processing_baseline="05.00")],
        ["S2A_MSIL2A_20200714T115221_R123_T28QCH_20230401T000000"]),
    "one baseline published again": (
        [sentinel("p", "0214", "20200714T191310", s2__generation_time="2020-07-14T19:13:10Z"),
         sentinel("q", "0214", "20200801T000000", s2__generation_time="2020-08-01T00:00:00Z")],
        ["q"]),
    "two halves of one pass": (
        [sentinel("p", "0214", "20200714T191310", bounds=WEST),
         sentinel("q", "0214", "20200714T191500", bounds=EAST)], ["p", "q"]),
    "a reprocessed half leaves the other": (
        [sentinel("old west", "0214", "20200714T191310", bounds=WEST),
         sentinel("old east", "0214", "20200714T191500", bounds=EAST),
         sentinel("new west", "0500", "20230401T000000", bounds=WEST)],
        ["new west", "old east"]),
    "two tiles": ([OLD, described(
        "x", s2__product_uri=ESA.format(n="0214", made="20200714T191310").replace("QCH", "QCG"))],
        [OLD.id, "x"]),
    "real time, then tier 1": (
        [landsat("T1", "20200128"), landsat("RT", "20200114")], [landsat("T1", "20200128").id]),
    "tier 2 after tier 1": (
        [landsat("T1", "20200128"), landsat("T2", "20200824")], [landsat("T1", "20200128").id]),
    "tier 1 reprocessed": (
        [landsat("T1", "20200128"), landsat("T1", "20200824")], [landsat("T1", "20200824").id]),
    "two rows of one path": (
        [landsat("T1", "20200128"), landsat("T1", "20200128", row="031")],
        [landsat("T1", "20200128").id, landsat("T1", "20200128", row="031").id]),
    "final after near real time": (
        [described("n", platform="landsat-8", odc__region_code="088080",
                   dea__dataset_maturity="nrt", odc__processing_datetime="2020-07-15T00:00:00Z"),
         described("f", platform="landsat-8", odc__region_code="088080",
                   dea__dataset_maturity="final")], ["f"]),
    "nothing known of the tile": ([described("a"), described("b")], ["a", "b"]),
    "one id twice, updated": (
        [described("a", updated="2020-01-01"), described("a", updated="2021-01-01")], ["a"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_latest_processing_of_an_acquisition_is_used_once(case):
    items, expected = CASES[case]
    for order in (items, items[::-1]):
        assert sorted(item.id for item in latest_items(order)) == sorted(expected)


@given(st.permutations([item for items, _ in CASES.values() for item in items]))
def test_the_order_of_the_items_does_not_matter(shuffled):
    once = [item.id for item in latest_items(shuffled)]
    assert once == [item.id for item in latest_items(sorted(shuffled, key=lambda i: i.id))]
    assert once == [item.id for item in latest_items(shuffled + shuffled[::2])]


def test_of_one_id_the_updated_item_stays():
    items, _ = CASES["one id twice, updated"]
    assert latest_items(items)[0].properties["updated"] == "2021-01-01"


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:Could not parse bucket")
def test_real_items_of_each_provider_are_told_apart(real_data):
    found = {}
    for name in ("earth_search/crates_server_data_sentinel-2_item-collection.json",
                 "earth_search/crates_core_data_two-sentinel-2-items.json",
                 "planetary_computer/sentinel-2-l2a-pc.json",
                 "planetary_computer/landsat-c2-l2-pc.json"):  # fmt: skip
        data = json.loads(real_data(f"raster/stac_items/{name}").read_text())
        items = [
            pystac.Item.from_dict(d) for d in (data if isinstance(data, list) else data["features"])
        ]
        assert [i.id for i in latest_items(items)] == [
            i.id for i in sorted(items, key=lambda i: (i.datetime, i.id))
        ]
        found |= {item.id: acquisition(item) for item in items}
    assert len(set(found.values())) == len(found)
    assert all(len(key) == 3 for key in found.values())
    assert found["S2A_T13TDE_20240422T174753_L2A"] == ("S2A", "20240422T173911", "13TDE")
    assert found["LC09_L2SP_089090_20240417_02_T1"] == ("LANDSAT-9", "20240417", "089090")

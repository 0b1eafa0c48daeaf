"""Search: an API, a static catalogue and a stac-geoparquet file give the same items."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import time
from collections import deque
from pathlib import Path

import numpy as np
import pystac
import pystac_client
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from shapely.geometry import MultiPolygon, Point, box, shape

from minetrace.catalog import item_time, open_source, search, web
from minetrace.cubes.steps import time_steps
from minetrace.errors import SourceError, UnavailableError
from stac_api import FAULTS, seconds, serve_stac, stac_item

HERE = box(10.2, 49.2, 10.3, 49.3)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Retries wait as long as services ask them to, and hardly at all by themselves."""
    monkeypatch.setattr(web, "RETRY", web.RETRY.new(backoff_factor=0.01, backoff_jitter=0))


def scenes() -> list[dict]:
    """Forty scenes here over four years, some elsewhere, some of a range, one other collection."""
    here = [
        stac_item(f"s-{y}-{m:02}", f"{y}-{m:02}-15T10:00:00Z")
        for y in range(2018, 2022)
        for m in range(1, 11)
    ]
    return [
        *here,
        stac_item("far", "2019-05-01T10:00:00Z", bbox=(20, 49, 21, 50)),
        stac_item("last", "2019-12-31T23:59:59.5Z"),
        stac_item("lc-2019", "2019-01-01T00:00:00Z/2020-01-01T00:00:00Z"),
        stac_item("other", "2019-05-01T10:00:00Z", collection="l8"),
    ]


def write_source(folder: Path, url: str, *more: str, collection: str | None = "s2") -> Path:
    lines = ['name = "api"', 'kind = "api"', f'href = "{url}"', *more]
    if collection:
        lines.insert(3, f'collection = "{collection}"')
    path = folder / "api.toml"
    path.write_text("\n".join(lines))
    return path


def write_static(folder: Path, items: list[dict]) -> Path:
    root = pystac.Catalog("static", "test")
    for name in sorted({i["collection"] for i in items}):
        extent = pystac.Extent(
            pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[None, None]])
        )
        child = pystac.Collection(name, name, extent)
        root.add_child(child)
        own = [pystac.Item.from_dict(copy.deepcopy(i)) for i in items if i["collection"] == name]
        child.add_items(own)
    root.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog.json"


def write_parquet(path: Path, items: list[dict]) -> Path:
    arrow = pytest.importorskip("stac_geoparquet.arrow", reason="stac-geoparquet is an extra")
    path.parent.mkdir(parents=True, exist_ok=True)
    arrow.to_parquet(arrow.parse_stac_items_to_arrow(copy.deepcopy(items)), path)
    return path


def ids(found) -> list[str]:
    return [item.id for item in found]


def expected(items: list[dict], geometry, years, collection="s2") -> list[str]:
    """What a search must give, from the dictionaries."""
    kept = []
    for item in items:
        when = item["properties"].get("datetime") or item["properties"]["start_datetime"]
        inside = years is None or years[0] <= int(when[:4]) <= years[1]
        if inside and collection == item["collection"] and box(*item["bbox"]).intersects(geometry):
            kept.append((when, item["id"]))
    return [name for _, name in sorted(kept)]


@pytest.mark.parametrize("years", [(2019, 2020), (2018, 2018), (1990, 1991), None])
def test_three_kinds_of_sources_give_the_same_items(tmp_path: Path, years):
    items = scenes()
    want = expected(items, HERE, years)
    assert (want == []) == (years == (1990, 1991))
    static = open_source(write_static(tmp_path / "static", items))
    flat = open_source(write_parquet(tmp_path / "flat.parquet", items))
    with serve_stac(items, page=7) as api:
        source = open_source(write_source(tmp_path, api.url))
        for kind in (source, static, flat):
            found = search(kind, HERE, years, collection="s2")
            assert ids(found) == want, kind
            assert all(set(i.assets) == {"data"} for i in found)
        paged = [entry for entry in api.seen if entry[1] == "/search"]
    assert len(paged) == {None: 6, (1990, 1991): 1}.get(years, len(paged))


def test_a_range_belongs_to_the_year_that_it_starts_in(tmp_path: Path):
    items = [stac_item("lc", "2019-01-01T00:00:00Z/2020-01-01T00:00:00Z")]
    with serve_stac(items) as api:
        source = open_source(write_source(tmp_path, api.url))
        assert ids(search(source, HERE, (2019, 2019))) == ["lc"]
        assert search(source, HERE, (2020, 2020)) == []


def test_an_item_of_two_pages_is_returned_once(tmp_path: Path):
    items = scenes()
    with serve_stac(items, page=8, repeat=3) as api:
        found = search(open_source(write_source(tmp_path, api.url)), HERE, (2018, 2021))
    assert ids(found) == expected(items, HERE, (2018, 2021))


def test_a_catalogue_that_lists_an_item_twice_gives_it_once(tmp_path: Path):
    item = stac_item("twice", "2020-01-01T00:00:00Z")
    flat = open_source(write_parquet(tmp_path / "a.parquet", [item, item]))
    assert ids(search(flat, HERE, None)) == ["twice"]


@pytest.mark.parametrize("west", [-180.0, -179.5, 179.4])
def test_places_at_the_antimeridian_are_found(tmp_path: Path, west: float):
    site = MultiPolygon([box(179.8, 10, 180, 10.1), box(-180, 10, -179.9, 10.1)])
    item = stac_item("edge", "2020-01-01T00:00:00Z", bbox=(west, 9, west + 0.6, 11))
    far = stac_item("far", "2020-01-01T00:00:00Z", bbox=(0, 9, 1, 11))
    hit = box(*item["bbox"]).intersects(site)
    flat = open_source(write_parquet(tmp_path / "a.parquet", [item, far]))
    assert ids(search(flat, site, None)) == (["edge"] if hit else [])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_boxes_are_pushed_down_without_losing_any(tmp_path_factory, data):
    corner = st.floats(-170, 160)
    boxes = data.draw(
        st.lists(
            st.tuples(corner, st.floats(-80, 70), st.floats(0.1, 10), st.floats(0.1, 10)),
            min_size=1, max_size=12,
        )
    )  # fmt: skip
    items = [
        stac_item(f"i{n}", "2020-01-01T00:00:00Z", bbox=(w, s, w + dx, s + dy))
        for n, (w, s, dx, dy) in enumerate(boxes)
    ]
    x, y = data.draw(corner), data.draw(st.floats(-80, 70))
    place = data.draw(st.sampled_from([Point(x, y).buffer(5), box(x, y, x + 9, y + 9)]))
    path = write_parquet(tmp_path_factory.mktemp("p") / "a.parquet", items)
    assert set(ids(search(open_source(path), place, None))) == {
        i["id"] for i in items if box(*i["bbox"]).intersects(place)
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_changes_nothing(tmp_path: Path, fault: str, monkeypatch):
    monkeypatch.setattr(web, "TIMEOUT_S", (1.0, 0.3))
    items = scenes()
    with serve_stac(items, page=20, faults=deque(["ok", fault, fault])) as api:
        api.faults.popleft()
        found = search(open_source(write_source(tmp_path, api.url)), HERE, (2018, 2021))
        assert api.n_faults == 2
    assert ids(found) == expected(items, HERE, (2018, 2021))


def test_thirty_percent_of_faults_change_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(web, "TIMEOUT_S", (1.0, 0.2))
    items = scenes()
    with serve_stac(items, page=4, fault_rate=0.3, seed=3) as api:
        source = open_source(write_source(tmp_path, api.url))
        for _ in range(3):
            assert ids(search(source, HERE, (2018, 2021))) == expected(items, HERE, (2018, 2021))
        assert api.n_faults > 8


def test_retry_after_is_kept(tmp_path: Path):
    with serve_stac(scenes(), faults=deque(["429"]), retry_after="1") as api:
        source = open_source(write_source(tmp_path, api.url))
        took, found = seconds(search, source, HERE, (2019, 2019))
    assert found
    assert took >= 1.0


def test_an_api_that_stays_down_is_named(tmp_path: Path):
    with serve_stac([], faults=deque(["503"] * 7)) as api:
        source = open_source(write_source(tmp_path, api.url))
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1.*status 503.*7 tries.*later"):
            search(source, HERE, (2019, 2021))
        assert not api.faults


@pytest.mark.parametrize(("code", "hint"), [("404", "address right"), ("403", "need a key")])
def test_an_api_that_refuses_is_asked_once(tmp_path: Path, code: str, hint: str):
    with serve_stac([], faults=deque([code])) as api:
        source = open_source(write_source(tmp_path, api.url))
        with pytest.raises(SourceError, match=rf"answered {code} .*{hint}") as caught:
            search(source, HERE, (2019, 2021))
    assert not isinstance(caught.value, UnavailableError)


def test_nothing_listens(tmp_path: Path):
    with serve_stac([]) as api:
        url = api.url
    with pytest.raises(UnavailableError, match=r"did not answer \(ConnectionError\)"):
        search(open_source(write_source(tmp_path, url)), HERE, (2019, 2021))


@pytest.mark.parametrize(
    "target", ["http://localhost:1/search", "https://evil.org/search", "file:///etc/passwd"]
)
@pytest.mark.parametrize("how", ["redirect", "next"])
def test_an_api_cannot_lead_elsewhere(tmp_path: Path, target: str, how: str):
    with serve_stac(scenes(), page=5) as api:
        if how == "redirect":
            api.moved["/search"] = target
        else:
            api.next_href = target
        source = open_source(write_source(tmp_path, api.url))
        with pytest.raises(SourceError, match="not among the hosts of its source"):
            search(source, HERE, (2018, 2021))


def test_a_redirect_within_the_host_is_followed(tmp_path: Path):
    with serve_stac(scenes()) as api:
        api.moved["/old"] = f"{api.url}/"
        source = open_source(write_source(tmp_path, f"{api.url}/old"))
        assert search(source, HERE, (2018, 2021))


def test_a_redirect_in_circles_ends(tmp_path: Path):
    with serve_stac([]) as api:
        api.moved["/old"] = f"{api.url}/old"
        with pytest.raises(SourceError, match="one redirect too many"):
            search(open_source(write_source(tmp_path, f"{api.url}/old")), HERE, (2018, 2021))


def test_an_answer_that_never_ends_is_cut(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(web, "MAX_JSON_BYTES", 2**14)
    big = stac_item("big", "2019-01-01T00:00:00Z", filler="x" * 2**15)
    with serve_stac([big]) as api:
        source = open_source(write_source(tmp_path, api.url))
        with pytest.raises(SourceError, match="answers more than"):
            search(source, HERE, (2018, 2021))


def test_too_many_items_are_refused(tmp_path: Path, monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules["minetrace.catalog.search"], "MAX_ITEMS", 30)
    items = scenes()
    flat = open_source(write_parquet(tmp_path / "a.parquet", items))
    with serve_stac(items) as api:
        for source in (open_source(write_source(tmp_path, api.url)), flat):
            assert len(search(source, HERE, (2018, 2019) if source is not flat else None,
                              collection="s2" if source is not flat else "l8")) < 30  # fmt: skip
            with pytest.raises(SourceError, match=r"more than 30 items.*smaller place"):
                search(source, HERE, (2018, 2021), collection="s2")


def test_an_api_needs_a_collection(tmp_path: Path):
    source = open_source(write_source(tmp_path, "https://stac.example.org", collection=None))
    with pytest.raises(SourceError, match="name a collection"):
        search(source, HERE, (2019, 2021))


def test_what_is_no_stac_is_named(tmp_path: Path):
    with serve_stac(scenes()) as api:
        source = open_source(write_source(tmp_path, f"{api.url}/collections"))
        with pytest.raises(SourceError, match=r"no STAC.*landing page"):
            search(source, HERE, (2018, 2021))


def test_pystac_client_reads_the_server_in_every_way():
    """The double is a STAC API to its real client: GET and POST, ids, boxes, collections."""
    items = scenes()
    with serve_stac(items, page=9) as api:
        client = pystac_client.Client.open(api.url)
        assert {c.id for c in client.get_collections()} == {"s2", "l8"}
        assert len(list(client.get_collection("s2").get_items())) == len(items) - 1
        for method in ("GET", "POST"):
            asked = {"method": method, "limit": 4}
            assert len(list(client.search(**asked).items())) == len(items)
            found = client.search(ids=["far", "last"], **asked).items()
            assert {i.id for i in found} == {"far", "last"}
            found = client.search(bbox=(20.5, 49, 22, 50), **asked).items()
            assert [i.id for i in found] == ["far"]
            found = client.search(intersects=HERE, collections="l8", **asked).items()
            assert [i.id for i in found] == ["other"]
            found = client.search(datetime="2019-12-01/..", collections="s2", **asked).items()
            assert {i.id for i in found} >= {"last", "lc-2019"}


@pytest.mark.parametrize("kind", ["header", "query"])
def test_an_api_gets_its_key_and_nobody_sees_it(tmp_path: Path, kind: str, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", "s3cr3t-key")
    caplog.set_level(logging.DEBUG)
    sign = ["[sign]", f'kind = "{kind}"', 'name = "api_key"', 'env = "MY_KEY"']
    with serve_stac(scenes(), page=20) as api:
        path = write_source(tmp_path, api.url, 'hosts = ["127.0.0.1"]', *sign)
        source = open_source(path)
        assert search(source, HERE, (2018, 2021))
        for _, where, _, headers in api.seen:
            assert (headers.get("api_key") or where.partition("api_key=")[2]) == "s3cr3t-key"
        api.faults.append("403")
        with pytest.raises(SourceError) as caught:
            search(source, HERE, (2018, 2021))
        # a host that is not listed gets no key, the API's own included
        keyless = open_source(write_source(tmp_path, api.url, *sign))
        api.seen.clear()
        assert search(keyless, HERE, (2018, 2021))
        assert "s3cr3t" not in json.dumps(api.seen)
    shown = repr(source) + str(caught.value) + caplog.text + str(pickle.dumps(source))
    assert "s3cr3t" not in shown


@pytest.mark.parametrize("kind", ["api", "static", "geoparquet"])
def test_a_source_is_pickled_small_and_without_a_client(tmp_path: Path, kind: str):
    items = scenes()[:3]
    path = {
        "api": lambda: write_source(tmp_path, "https://stac.example.org"),
        "static": lambda: write_static(tmp_path / "static", items),
        "geoparquet": lambda: write_parquet(tmp_path / "a.parquet", items),
    }[kind]()
    source = open_source(path)
    raw = pickle.dumps(source)
    copied = pickle.loads(raw)
    assert copied.config == source.config
    assert copied.roots == source.roots
    assert kind == "static" or len(raw) < 2000
    if kind != "api":
        search(source, HERE, None)
        assert len(pickle.dumps(source)) == len(raw)
        assert ids(search(copied, HERE, None)) == ids(search(source, HERE, None)) != []


def test_relative_addresses_lie_beside_the_parquet_file(tmp_path: Path):
    (tmp_path / "cat" / "px").mkdir(parents=True)
    image = tmp_path / "cat" / "px" / "a.tif"
    image.write_bytes(b"II*\x00" + b"\0" * 8)
    items = [
        stac_item("in", "2020-01-01T00:00:00Z", assets={"red": {"href": "px/a.tif"}}),
        stac_item("up", "2020-01-02T00:00:00Z", assets={"red": {"href": "../b.tif"}}),
    ]
    (tmp_path / "b.tif").write_bytes(image.read_bytes())
    source = open_source(write_parquet(tmp_path / "cat" / "a.parquet", items))
    inside, outside = search(source, HERE, None)
    assert source.check_href(inside, "red") == str(image)
    with pytest.raises(SourceError, match="outside the folders"):
        source.check_href(outside, "red")


@pytest.mark.parametrize(
    ("text", "fault"),
    [(b"no parquet at all", "cannot be read as stac-geoparquet"), (None, "there is no file")],
)
def test_a_file_that_is_no_catalogue_is_named(tmp_path: Path, text, fault: str):
    path = tmp_path / "a.parquet"
    if text:
        path.write_bytes(text)
    with pytest.raises(SourceError, match=fault):
        search(open_source(path), HERE, None)


def test_a_parquet_file_of_something_else_is_named(tmp_path: Path):
    import pandas as pd

    pd.DataFrame({"id": ["a"], "assets": ["b"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="no stac-geoparquet: it has no column 'geometry'"):
        search(open_source(tmp_path / "a.parquet"), HERE, None)


def test_a_collection_that_a_file_lacks_is_named(tmp_path: Path):
    source = open_source(write_parquet(tmp_path / "a.parquet", scenes()))
    with pytest.raises(SourceError, match=r"no collection 'l5'; it has l8, s2"):
        search(source, HERE, None, collection="l5")


@pytest.mark.parametrize("apart", [False, True])
def test_a_place_of_many_vertices_is_sent_as_boxes(tmp_path: Path, apart: bool):
    """What is sent is shorter; what is returned touches the place itself."""
    ring = Point(10.5, 49.5).buffer(0.4, quad_segs=300).difference(Point(10.5, 49.5).buffer(0.2))
    place = MultiPolygon([ring, Point(-179, 49.5).buffer(0.1)]) if apart else ring
    items = [
        stac_item("hit", "2020-01-01T00:00:00Z", bbox=(10.1, 49.1, 10.3, 49.4)),
        stac_item("hole", "2020-01-02T00:00:00Z", bbox=(10.45, 49.45, 10.55, 49.55)),
        stac_item("corner", "2020-01-03T00:00:00Z", bbox=(10.1, 49.1, 10.12, 49.12)),
        stac_item("west", "2020-01-04T00:00:00Z", bbox=(-180, 49, -178, 50)),
        stac_item("between", "2020-01-05T00:00:00Z", bbox=(-100, 49, -90, 50)),
    ]
    with serve_stac(items) as api:
        found = search(open_source(write_source(tmp_path, api.url)), place, None)
        (sent,) = [query["intersects"] for _, path, query, _ in api.seen if path == "/search"]
    assert ids(found) == (["hit", "west"] if apart else ["hit"])
    assert len(json.dumps(sent)) < 1000
    assert shape(sent).covers(place)
    assert not shape(sent).intersects(box(-100, 49, -90, 50))


def test_an_api_without_search_is_named(tmp_path: Path):
    with serve_stac(scenes(), conforms=["https://api.stacspec.org/v1.0.0/core"]) as api:
        source = open_source(write_source(tmp_path, api.url))
        with pytest.raises(SourceError, match=r"no STAC \(DoesNotConformTo.*ITEM_SEARCH"):
            search(source, HERE, (2018, 2021))


@pytest.mark.parametrize(
    "broken", [{"geometry": None, "bbox": None}, {"properties": {}}, {"id": 7}]
)
def test_an_item_that_is_broken_is_named(tmp_path: Path, broken: dict):
    item = {**stac_item("odd-one", "2020-01-01T00:00:00Z"), **broken}
    with serve_stac([]) as api:
        api.find = lambda query: [item]
        source = open_source(write_source(tmp_path, api.url))
        with pytest.raises(SourceError, match=r"odd-one|7"):
            search(source, HERE, (2018, 2021))


@pytest.fixture
def sao_paulo(monkeypatch):
    """A process three hours behind UTC."""
    monkeypatch.setenv("TZ", "America/Sao_Paulo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2020-01-01T00:30:00", "2020-01-01T00:30:00+00:00"),
        ("2020-01-01T00:30:00Z", "2020-01-01T00:30:00+00:00"),
        ("2019-12-31T21:30:00-03:00", "2020-01-01T00:30:00+00:00"),
        ("2020-01-01T00:30:00/2020-02-01T00:30:00", "2020-01-01T00:30:00+00:00"),
    ],
)
def test_times_are_of_utc_whatever_zone_they_name_or_not(tmp_path, sao_paulo, text, moment):
    path = write_static(tmp_path, [stac_item("new-year", text)])
    stored = json.loads((found := next(tmp_path.rglob("new-year.json"))).read_text())
    stored["properties"] |= stac_item("new-year", text)["properties"]
    found.write_text(json.dumps(stored))
    (item,) = search(open_source(path), HERE, (2020, 2020))
    assert item_time(item).isoformat() == moment
    assert search(open_source(path), HERE, (2019, 2019)) == []
    (step,), _ = time_steps([item], "time", GeoBox.from_bbox((-48, -1, -47, 0), shape=1))
    assert step == np.datetime64("2020-01-01T00:30")

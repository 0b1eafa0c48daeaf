"""Reading over HTTP while the server fails: same values, nothing lost without a row, no secret."""

from __future__ import annotations

import datetime as dt
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import format_datetime
from urllib.parse import urlsplit

import dask
import numpy as np
import pytest

from cogs import grid, make_item, make_source, write_cog
from minetrace.cubes import failures, load_layers, remote, windows
from minetrace.cubes.remote import Patience
from minetrace.errors import ReadError
from minetrace.schema import load_legend
from range_server import KINDS, serve

SIDE = 256
HERE = grid(SIDE)
DAYS = 12
QUICK = Patience(tries=30, delay_s=0.01, stall_s=1, connect_s=5)
SECRETS = re.compile(r"sig=|token=|X-Amz-|Bearer|top-secret", re.IGNORECASE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise, so that blocks are large; every third file is not compressed."""
    where = tmp_path_factory.mktemp("served")
    rng = np.random.default_rng(0)
    for day in range(DAYS):
        values = rng.integers(1, 60_000, (SIDE, SIDE)).astype("u2")
        compress = "none" if day % 3 == 0 else "deflate"
        write_cog(where / f"s{day}.tif", values, HERE, compress=compress)
    return where


@pytest.fixture(autouse=True)
def fresh_memory(monkeypatch):
    """Servers of different tests may get the same port."""
    monkeypatch.setattr(remote, "_failed", {})
    monkeypatch.setattr(remote, "_trusted", set())


def items_at(url, days=DAYS):
    return [make_item(f"s{d}", {"red": f"{url}/s{d}.tif"}, HERE, day=d) for d in range(days)]


def web_source(folder, **config):
    return make_source(folder, **{"hosts": ["127.0.0.1"], **config})


def load(source, items, patience=QUICK, **options):
    return load_layers(source, items, ["red"], HERE, patience=patience, **options).red


@pytest.fixture(scope="module")
def quiet(folder):
    items = [make_item(f"s{d}", {"red": str(folder / f"s{d}.tif")}, HERE, day=d)
             for d in range(DAYS)]  # fmt: skip
    return load(make_source(folder), items).values


def test_opening_asks_no_server(folder, no_compute):
    with serve(folder) as server:
        load(web_source(folder), items_at(server.url))
    assert server.asked == []


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_is_waited_out(folder, quiet, kind):
    with serve(folder, fail=0.3, kinds=(kind,), seed=3) as server:
        got = load(web_source(folder), items_at(server.url, 4)).values
    assert server.met[kind] > 0
    np.testing.assert_array_equal(got, quiet[:4])


@pytest.mark.parametrize("seed", [0, 1])
def test_thirty_per_cent_of_all_faults_change_no_value(folder, quiet, seed):
    with serve(folder, fail=0.3, seed=seed, stall_s=0.2) as server, failures() as rows:
        lazy = load(web_source(folder), items_at(server.url), chunks={"y": 128, "x": 128})
        with dask.config.set(scheduler="threads", num_workers=4):
            got = lazy.values
    met = sum(server.met.values())
    assert 0.2 < met / len(server.asked) < 0.4
    assert rows == []
    np.testing.assert_array_equal(got, quiet)


def test_a_server_that_names_a_time_is_not_asked_before(folder, quiet):
    """GDAL itself would come back after its own delay."""
    with serve(folder, retry_after="1") as server:
        server.always["/s1.tif"] = "429"
        start = time.monotonic()
        with pytest.raises(ReadError, match=r"answers 429 \(given up after 3 tries\)"):
            load(
                web_source(folder), items_at(server.url)[1:2], Patience(tries=3, delay_s=0.01)
            ).compute()
        assert time.monotonic() - start >= 2
        # a turn asks twice, for the file and for the reason; before the first, where it leads
        turns = [t for t, _, path, what in server.asked if what == "429"]
        gaps = np.diff(turns)
        assert (gaps > 0.95).sum() == 2
        assert len(turns) <= 1 + 2 * 3


def test_a_retry_after_may_be_a_date_and_is_bounded():
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)
    assert 27 < remote._seconds(format_datetime(later, usegmt=True)) <= 30
    assert remote._seconds("7") == 7
    assert remote._seconds("soon") == remote._seconds(None) == remote._seconds("-3") == 0


@pytest.mark.parametrize(("answer", "message"), [
    (404, "answers 404"), (410, "answers 410"), (403, r"answers 403; does the source need a key"),
])  # fmt: skip
def test_lasting_failures_are_told_at_once_and_listed(folder, quiet, answer, message):
    with serve(folder) as server:
        server.always["/s1.tif"] = answer
        items = items_at(server.url, 3)
        with pytest.raises(ReadError, match=rf"item 's1', asset 'red'.*s1\.tif.*{message}"):
            load(web_source(folder), items).compute()
        assert server.paths().count("/s1.tif") <= 4
        with failures() as rows:
            got = load(web_source(folder), items, chunks={"y": 128}).values
    assert not got[1].any()
    np.testing.assert_array_equal(got[[0, 2]], quiet[[0, 2]])
    assert [(r["item"], r["asset"]) for r in rows] == [("s1", "red")] * 2
    assert len({r["window"] for r in rows}) == 2
    assert all(re.search(message, r["reason"]) for r in rows)


def test_a_file_missing_for_a_moment_is_read_later(folder, quiet):
    """GDAL remembers a 404 for as long as the process lives; the reader does not."""
    with serve(folder) as server:
        source, items = web_source(folder), items_at(server.url, 2)
        server.always["/s1.tif"] = 404
        with pytest.raises(ReadError, match="404"):
            load(source, items).compute()
        del server.always["/s1.tif"]
        np.testing.assert_array_equal(load(source, items).values, quiet[:2])


def test_a_file_cut_in_half_is_an_error(folder, tmp_path):
    whole = (folder / "s1.tif").read_bytes()
    (tmp_path / "s1.tif").write_bytes(whole[: len(whole) // 2])
    with serve(tmp_path) as server, pytest.raises(ReadError, match=r"s1\.tif.*3 tries"):
        load(web_source(folder), items_at(server.url)[1:2], Patience(3, 0.01)).compute()


def test_a_page_instead_of_a_raster_is_an_error(folder, tmp_path):
    (tmp_path / "s0.tif").write_text("<html>please log in</html>")
    with serve(tmp_path) as server, pytest.raises(ReadError, match="a page, not with a raster"):
        load(web_source(folder), items_at(server.url, 1)).compute()


def test_redirects_inside_the_source_are_followed(folder, quiet):
    with serve(folder) as server:
        server.always["/s1.tif"] = f"{server.url}/s0.tif"
        got = load(web_source(folder), items_at(server.url)[1:2]).values
    np.testing.assert_array_equal(got[0], quiet[0])


@pytest.mark.parametrize("target", ["http://10.0.0.1/s0.tif", "http://localhost:{port}/s0.tif"])
def test_redirects_elsewhere_are_refused_before_they_are_followed(folder, target):
    with serve(folder) as server:
        server.always["/s1.tif"] = target.format(port=server.port)
        with pytest.raises(ReadError, match=r"item 's1'.*is redirected: host"):
            load(
                web_source(folder), items_at(server.url)[1:2], Patience(tries=1, connect_s=1)
            ).compute()
    assert server.paths() == ["/s1.tif"]


def test_blocks_are_those_of_the_file_whatever_the_server_does(folder, monkeypatch):
    """Units are planned by them, so a plan under faults is the plan without."""
    monkeypatch.setattr(windows, "Patience", lambda: QUICK)
    source, met = web_source(folder, bands={"landcover": "red"}), 0
    for seed in range(5):
        with serve(folder, fail=0.4, kinds=("429", "503"), seed=seed) as server:
            assert windows.block_shape(source, items_at(server.url, 1)[0]) == (128, 128)
        met += server.met.total()
    assert met > 2


@pytest.mark.parametrize(("times", "good"), [(2, True), (3, False)])
def test_a_file_that_differs_from_its_item_is_looked_at_again(times, good):
    """GDAL may open a file by half of its head, which then has no place, or no gap value."""
    href, access = "http://127.0.0.1:9/a.tif", remote.Access(None, ("127.0.0.1",), QUICK)
    remote._trusted.add(("127.0.0.1:9", access.hosts))
    paths = []

    def do(path):
        paths.append(path)
        if len(paths) <= times:
            raise ReadError("by its item it is elsewhere")
        return "pixels"

    if good:
        assert remote.patiently(do, href, access) == "pixels"
    else:
        with pytest.raises(ReadError, match=r"^by its item it is elsewhere$"):
            remote.patiently(do, href, access)
    assert len(paths) == len(set(paths)) == 3


def test_no_two_threads_open_the_same_address():
    """One that holds Python's lock would wait inside GDAL for one that needs it to log a fault."""
    href, access = "http://127.0.0.1:9/a.tif", remote.Access(None, ("127.0.0.1",), QUICK)
    remote._trusted.add(("127.0.0.1:9", access.hosts))
    meet = threading.Barrier(3)

    def path(_):
        meet.wait(20)
        return [remote.patiently(str, href, access) for _ in range(2)]

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(path, range(3)))
    assert all(first == second for first, second in found)
    assert len({first for first, _ in found}) == 3
    assert {remote.plain_text(ValueError(first)) for first, _ in found} == {href}


def test_many_windows_need_no_try_that_meets_no_fault(tmp_path):
    """Each of 64 windows is a request; all of them without a fault are never to be expected."""
    whole = grid(1024)
    codes = np.random.default_rng(0).integers(1, 200, whole.shape).astype("u1")
    write_cog(tmp_path / "lc.tif", codes, whole)
    # from the end, since GDAL would fetch ahead
    places = [np.s_[y : y + 128, x : x + 128] for y in range(896, -1, -128)
              for x in range(896, -1, -128)]  # fmt: skip
    source = web_source(tmp_path, bands={"landcover": "red"})
    with serve(tmp_path, fail=0.3, seed=0, stall_s=0.2) as server:
        item = make_item("lc", {"red": f"{server.url}/lc.tif"}, whole, dtype="uint8")
        read = windows.read_codes(
            source, [item], load_legend("glc_fcs30d"), [whole[place] for place in places],
            patience=Patience(8, 0.01, stall_s=1),
        )  # fmt: skip
        assert server.met.total() > 10
    assert read.lost == ()
    expected = [codes[place].ravel() for place in places]
    np.testing.assert_array_equal(read.codes[0], np.concatenate(expected))


# ── keys and tokens ──────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ShortTokens:
    """Signs with tokens that live for a moment, as a source's signer does."""

    life_s: float

    def sign(self, href: str) -> str:
        return f"{href}?sig={time.time() + self.life_s}"

    def headers(self, href: str) -> dict[str, str]:
        return {}

    def bare(self, href: str) -> str:
        return href


def signed_source(folder, monkeypatch, signer):
    source = web_source(folder)
    monkeypatch.setattr(type(source), "signer", lambda self: signer)
    return source


def test_tokens_that_end_during_the_run_fail_no_read(folder, quiet, monkeypatch):
    source = signed_source(folder, monkeypatch, ShortTokens(0.4))
    with serve(folder, sign=True) as server, failures() as rows:
        lazy = load(source, items_at(server.url))
        # the first tokens would be of no use by now, had they been put into the graph
        time.sleep(0.5)
        with dask.config.set(scheduler="threads", num_workers=2):
            np.testing.assert_array_equal(lazy.values, quiet)
    tokens = {target for _, _, target, _ in server.asked}
    assert len(tokens) >= DAYS
    assert rows == []


def test_a_token_that_the_server_took_back_is_renewed(folder, quiet, monkeypatch):
    lives = iter([-1.0, -1.0, 60.0, 60.0, 60.0, 60.0, 60.0])

    class Renewed(ShortTokens):
        def sign(self, href):
            return f"{href}?sig={time.time() + next(lives)}"

    source = signed_source(folder, monkeypatch, Renewed(0))
    with serve(folder, sign=True) as server:
        np.testing.assert_array_equal(load(source, items_at(server.url, 1)).values, quiet[:1])
    assert "403" in server.met


def test_keys_travel_in_headers(folder, quiet, monkeypatch):
    monkeypatch.setenv("COGS_KEY", "top-secret")
    sign = {"kind": "header", "name": "Authorization", "env": "COGS_KEY", "prefix": "Bearer "}
    with serve(folder, headers={"Authorization": "Bearer top-secret"}) as server:
        got = load(web_source(folder, sign=sign), items_at(server.url, 2)).values
    np.testing.assert_array_equal(got, quiet[:2])


@pytest.mark.parametrize("kind", ["query", "header"])
def test_no_secret_in_messages_rows_logs_or_graphs(folder, monkeypatch, caplog, kind):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("COGS_KEY", "top-secret")
    sign = {"kind": kind, "name": "sig", "env": "COGS_KEY", "prefix": "Bearer " * (kind != "query")}
    source = web_source(folder, sign=sign)
    with serve(folder) as server:
        # one file is gone, one breaks off, one is sound
        server.always |= {"/s0.tif": 404, "/s1.tif": "truncated", "/s2.tif": "503"}
        items = items_at(server.url, 4)
        lazy = load(source, items, Patience(2, 0.01))
        with pytest.raises(ReadError) as caught:
            lazy.compute(scheduler="sync")
        with failures() as rows:
            load(source, items, Patience(2, 0.01)).compute()
    assert len(rows) == 3
    sent = [target for _, _, target, _ in server.asked]
    assert kind == "header" or any("sig=top-secret" in target for target in sent)
    shown = [str(caught.value), repr(caught.value.__context__), repr(caught.value.__cause__),
             repr(rows), repr(dict(lazy.data.__dask_graph__())), caplog.text]  # fmt: skip
    assert not [SECRETS.search(text).group() for text in shown if SECRETS.search(text)]
    assert urlsplit(server.url).netloc in str(caught.value)

"""Signing at the moment of opening, and where redirects and names lead."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pystac
import pytest

from minetrace.catalog import Sign, Signer, SourceConfig, open_source, redirects, signing, web
from minetrace.catalog.redirects import check_host, resolve
from minetrace.errors import HrefError, MinetraceError, SourceError, UnavailableError
from stac_api import serve_stac

BLOB = "https://acc.blob.core.windows.net/box/a/b.tif"
LOCAL = ("127.0.0.1",)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No token of another test; retries hardly wait."""
    signing._tokens.clear()
    monkeypatch.setattr(web, "RETRY", web.RETRY.new(backoff_factor=0.01, backoff_jitter=0))


def blob_signer(api, *, hosts=("acc.blob.core.windows.net",), env=None) -> Signer:
    sign = Sign(kind="planetary_computer", endpoint=f"{api.url}/token", env=env)
    return Signer(sign, tuple(hosts))


def signature(href: str) -> str:
    return parse_qs(urlsplit(href).query)["sig"][0]


def test_an_address_is_signed_with_the_token_of_its_container():
    with serve_stac([]) as api:
        signed = blob_signer(api).sign(BLOB)
        assert signed.startswith(BLOB + "?")
        query = parse_qs(urlsplit(signed).query)
        assert (query["sig"], query["sr"]) == (["SECRET1"], ["acc/box"])
        assert datetime.fromisoformat(query["se"][0]) > datetime.now(UTC)
        assert api.seen[0][1] == "/token/acc/box"


def test_one_token_serves_a_container_in_every_thread():
    with serve_stac([]) as api:
        signer = blob_signer(api)
        signed: list[str] = []
        threads = [
            threading.Thread(target=lambda n=n: signed.append(signer.sign(f"{BLOB}{n}")))
            for n in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {signature(s) for s in signed} == {"SECRET1"}
        assert len(signed) == 16
        assert api.n_tokens == 1
        signer.sign("https://acc.blob.core.windows.net/other/x.tif")
        assert api.n_tokens == 2


@pytest.mark.parametrize(
    ("life", "later", "renewed"),
    [
        (30, 26.5, False),
        (30, 27.5, True),
        (3600, 3530, False),
        (3600, 3545, True),
        (600, 530, False),
    ],
)
def test_a_token_is_renewed_before_it_ends(monkeypatch, life, later, renewed):
    """Ahead of time: a minute, or a tenth of a short life."""
    with serve_stac([], token_life_s=life) as api:
        signer = blob_signer(api)
        signer.sign(BLOB)
        now = time.time()
        monkeypatch.setattr(signing.time, "time", lambda: now + later)
        signer.sign(BLOB)
        assert api.n_tokens == 1 + renewed


def test_what_is_signed_is_never_out_of_date():
    """Short tokens over many openings: each is valid when it is handed out."""
    with serve_stac([], token_life_s=0.3) as api:
        signer = blob_signer(api)
        for _ in range(40):
            query = parse_qs(urlsplit(signer.sign(BLOB)).query)
            assert datetime.fromisoformat(query["se"][0]) > datetime.now(UTC)
            time.sleep(0.02)
        assert 2 < api.n_tokens < 10


def test_a_signature_that_an_item_brings_is_replaced():
    with serve_stac([]) as api:
        signer = blob_signer(api)
        old = f"{BLOB}?sig=OLD&se=2020-01-01"
        assert signer.bare(old) == BLOB
        assert signer.sign(old).count("sig=") == 1
        assert "OLD" not in signer.sign(old)


@pytest.mark.parametrize("fault", ["429", "503", "reset", "truncate", "garbage"])
def test_a_token_service_is_asked_again(fault):
    with serve_stac([], faults=deque([fault, fault])) as api:
        assert signature(blob_signer(api).sign(BLOB)) == "SECRET1"
        assert api.n_faults == 2


def test_a_token_service_that_stays_down_is_named():
    with serve_stac([], fault_rate=1.0, seed=1) as api:
        api.faults.extend(["503"] * 7)
        with pytest.raises(UnavailableError, match=r"token service .*acc/box did not answer"):
            blob_signer(api).sign(BLOB)


def test_an_endpoint_that_is_something_else_is_named():
    with serve_stac([]) as api:
        sign = Sign(kind="planetary_computer", endpoint=f"{api.url}/collections")
        with pytest.raises(SourceError, match=r"answered 404"):
            Signer(sign, ("acc.blob.core.windows.net",)).sign(BLOB)
        api.moved["/tok/acc/box"] = f"{api.url}/collections"
        sign = Sign(kind="planetary_computer", endpoint=f"{api.url}/tok")
        with pytest.raises(UnavailableError, match=r"gave no token with an expiry.*\[sign\]"):
            Signer(sign, ("acc.blob.core.windows.net",)).sign(BLOB)


def test_a_token_service_cannot_lead_elsewhere(monkeypatch):
    monkeypatch.setenv("SUB_KEY", "SECRETSUB")
    with serve_stac([]) as api, serve_stac([]) as other:
        api.moved["/token/acc/box"] = f"{other.url}/token/acc/box"
        with pytest.raises(SourceError, match="redirects to"):
            blob_signer(api, env="SUB_KEY").sign(BLOB)
        assert other.seen == []


def test_a_subscription_key_is_sent_where_there_is_one(monkeypatch):
    with serve_stac([]) as api:
        blob_signer(api, env="SUB_KEY").sign(BLOB)
        monkeypatch.setenv("SUB_KEY", "SECRETSUB")
        signing._tokens.clear()
        blob_signer(api, env="SUB_KEY").sign(BLOB)
        sent = [headers.get("Ocp-Apim-Subscription-Key") for *_, headers in api.seen]
    assert sent == [None, "SECRETSUB"]


def test_keys_go_into_the_query_or_a_header(monkeypatch):
    monkeypatch.setenv("MY_KEY", " SECRET&1 \n")
    href = "https://tiles.org/a.tif?x=1&api_key=old"
    query = Signer(Sign(kind="query", name="api_key", env="MY_KEY"), ("tiles.org",))
    assert query.sign(href) == "https://tiles.org/a.tif?x=1&api_key=SECRET%261"
    assert query.headers(href) == {}
    assert query.bare(href) == "https://tiles.org/a.tif?x=1"
    header = Signer(
        Sign(kind="header", name="Authorization", env="MY_KEY", prefix="Bearer "), ("tiles.org",)
    )
    assert header.sign(href) == href
    assert header.headers(href) == {"Authorization": "Bearer SECRET&1"}
    for signer in (query, header):
        assert signer.sign("/data/a.tif") == "/data/a.tif"


@pytest.mark.parametrize("kind", ["query", "header", "planetary_computer"])
def test_other_hosts_get_no_key(kind, monkeypatch):
    monkeypatch.setenv("MY_KEY", "SECRET")
    sign = Sign(kind=kind, name="k", env="MY_KEY", endpoint="https://tokens.org")
    signer = Signer(sign, ("tiles.org",))
    with pytest.raises(HrefError, match=r"'evil\.org' .* gets no key"):
        assert signer.headers("https://evil.org/a/b") or signer.sign("https://evil.org/a/b") is None


@pytest.mark.parametrize(("value", "fault"), [(None, "is not set"), ("a\nb", "line break")])
def test_a_key_that_is_missing_is_named(monkeypatch, value, fault):
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    signer = Signer(Sign(kind="query", name="k", env="MY_KEY"), ("tiles.org",))
    with pytest.raises(SourceError, match=rf"MY_KEY .*{fault}"):
        signer.sign("https://tiles.org/a.tif")


def test_secrets_show_nowhere(monkeypatch, caplog, tmp_path: Path):
    """Repr, pickles, logs at the lowest level and messages hold names, never values."""
    monkeypatch.setenv("MY_KEY", "SECRETKEY")
    caplog.set_level(logging.DEBUG)
    shown = ""
    with serve_stac([]) as api:
        for signer in (
            blob_signer(api, env="MY_KEY"),
            Signer(Sign(kind="query", name="k", env="MY_KEY"), LOCAL),
            Signer(Sign(kind="header", name="k", env="MY_KEY"), LOCAL),
        ):
            href = BLOB if signer.config.kind == "planetary_computer" else f"{api.url}/a.tif"
            signed = signer.sign(href)
            headers = signer.headers(href)
            assert "SECRET" in signed + str(headers)
            shown += repr(signer) + str(pickle.dumps(signer))
            assert pickle.loads(pickle.dumps(signer)).sign(href) == signed
            api.faults.append("reset")
            for host in ("127.0.0.1", "nowhere.invalid"):
                there = signed.replace("acc.blob.core.windows.net", host).replace("https", "http")
                try:
                    resolve(there.replace("127.0.0.1", host), hosts=LOCAL, headers=headers)
                except MinetraceError as err:
                    shown += str(err) + repr(err.__cause__)
        with pytest.raises(HrefError) as caught:
            resolve(f"{api.url}/a?sig=SECRET9", hosts=["other.org"])
        shown += str(caught.value)
    assert len(shown) > 500
    assert len(caplog.text) > 500
    assert "SECRET" not in shown + caplog.text


def test_a_source_hands_out_unsigned_addresses_and_a_signer(tmp_path: Path):
    with serve_stac([]) as api:
        path = tmp_path / "pc.toml"
        path.write_text(
            f'name = "pc"\nkind = "api"\nhref = "{api.url}"\n'
            'hosts = ["acc.blob.core.windows.net"]\n'
            f'[sign]\nkind = "planetary_computer"\nendpoint = "{api.url}/token"\n'
        )
        source = open_source(path)
        item = pystac.Item("a", None, None, datetime(2020, 1, 1, tzinfo=UTC), {})
        item.add_asset("red", pystac.Asset(f"{BLOB}?sig=OLD"))
        href = source.check_href(item, "red")
        assert href == BLOB
        copied = pickle.loads(pickle.dumps(source.signer()))
        assert signature(copied.sign(href)) == "SECRET1"
    assert open_source("earth_search_sentinel_2_l2a").signer() is None


# ---- redirects and names ------------------------------------------------------------------------


def test_an_address_that_stays_is_returned():
    with serve_stac([]) as api:
        assert resolve(f"{api.url}/a.tif?sig=1", hosts=LOCAL) == f"{api.url}/a.tif?sig=1"


def test_a_redirect_to_an_allowed_place_is_followed():
    with serve_stac([]) as api, serve_stac([]) as other:
        api.moved["/a.tif"] = "/b.tif"
        api.moved["/b.tif"] = f"{other.url}/c.tif"
        assert resolve(f"{api.url}/a.tif", hosts=LOCAL) == f"{other.url}/c.tif"


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/", "https://evil.org/x.tif", "file:///etc/passwd",
        "http://localhost:1/x.tif", "https://[::1]/x.tif", "/vsizip/x.zip", "ftp://127.0.0.1/x",
        "https://me:pw@127.0.0.1/x.tif", "s3://bucket/x.tif",
    ],
)  # fmt: skip
def test_a_redirect_out_of_the_policy_is_refused(target):
    with serve_stac([]) as api:
        api.moved["/a.tif"] = target
        if target.startswith("/"):
            # a path of the same host: nothing leaves it
            assert resolve(f"{api.url}/a.tif", hosts=LOCAL).startswith(api.url)
        else:
            with pytest.raises(HrefError, match=r"a\.tif' is redirected"):
                resolve(f"{api.url}/a.tif", hosts=LOCAL)


def test_redirects_in_circles_end():
    with serve_stac([]) as api:
        api.moved["/a.tif"] = f"{api.url}/a.tif"
        with pytest.raises(HrefError, match="redirected more than 5 times"):
            resolve(f"{api.url}/a.tif", hosts=LOCAL)


def test_a_host_that_does_not_answer_is_named():
    with serve_stac([]) as api:
        url = api.url
    with pytest.raises(UnavailableError, match=r"a\.tif cannot be reached"):
        resolve(f"{url}/a.tif", hosts=LOCAL)


@pytest.mark.parametrize(
    ("addresses", "hosts", "passes"),
    [
        (["93.184.216.34"], ["data.org"], True),
        (["10.1.2.3"], ["data.org"], False),
        (["10.1.2.3"], ["data.org", "10.1.2.3"], True),
        (["93.184.216.34", "127.0.0.1"], ["data.org"], False),
        (["::ffff:192.168.0.9"], ["data.org"], False),
        ([], ["data.org"], True),
    ],
)
def test_names_that_lead_inside_are_refused(monkeypatch, addresses, hosts, passes):
    """A name of the list that was pointed at the inside of somebody's network."""
    asked = []

    def lookup(host, port, **kwargs):
        asked.append(host)
        if not addresses:
            raise OSError("no such name")
        return [(2, 1, 6, "", (a, 0)) for a in addresses]

    redirects._addresses.cache_clear()
    monkeypatch.setattr(redirects.socket, "getaddrinfo", lookup)
    try:
        for _ in range(2):
            if passes:
                check_host("data.org", hosts=hosts)
            else:
                with pytest.raises(HrefError, match=r"'data\.org' leads to .* no public address"):
                    check_host("data.org", hosts=hosts)
    finally:
        redirects._addresses.cache_clear()
    assert asked == ["data.org"]


def test_a_name_that_leads_inside_is_refused_before_it_is_asked():
    with serve_stac([]) as api:
        href = f"{api.url}/a.tif".replace("127.0.0.1", "localhost")
        with pytest.raises(
            HrefError, match=r"'localhost' leads to \S+, which is no public address"
        ):
            resolve(href, hosts=["localhost"])
        assert api.seen == []
        assert resolve(f"{api.url}/a.tif", hosts=LOCAL)


def test_a_shipped_source_keeps_its_secrets_in_the_environment():
    config = open_source("planetary_computer_sentinel_2_l2a").config
    assert config.sign is not None
    assert config.sign.env == "PC_SDK_SUBSCRIPTION_KEY"
    assert SourceConfig(**config.model_dump()) == config

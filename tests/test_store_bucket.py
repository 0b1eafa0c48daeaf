"""A store in an object store: the same promises, without renames. S3 is moto's, on loopback."""

from __future__ import annotations

import logging
import pickle
import re
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import obstore
import pytest
import xarray as xr
from moto.server import ThreadedMotoServer
from obstore.store import MemoryStore, S3Store

from minetrace.errors import InputError, StoreError
from minetrace.store import load_cube, save_cube
from minetrace.store.place import Bucket, open_place
from test_store import assert_same, make_cube, make_years

SECRET = "wJalrXUtnFEMI-very-secret"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    # it would print each request of a failed test
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of a bucket of its own; credentials are in the environment only."""
    import boto3

    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    name = f"b{np.random.default_rng().integers(1 << 60)}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=name)
    return f"s3://{name}"


def test_a_cube_in_s3_is_read_back_the_same(s3: str):
    cube = make_cube(chunks={"y": 64, "x": 100})
    address = f"{s3}/mines/sim-001.zarr"
    assert save_cube(cube, address) == address
    assert_same(cube, load_cube(address, verify=True))
    plain = xr.open_datatree(
        obstore_zarr(S3Store.from_url(address)), engine="zarr", chunks={}, consolidated=True
    )
    assert_same(cube, plain)


def obstore_zarr(store):
    from zarr.storage import ObjectStore

    return ObjectStore(store, read_only=True)


def test_years_are_added_and_saving_again_writes_nothing(s3: str):
    address = f"{s3}/c.zarr"
    save_cube(make_years([2018, 2019]), address)
    save_cube(make_years([2018, 2019, 2020]), address)
    objects = open_place(address).objects
    before = {o["path"]: o["e_tag"] for page in obstore.list(objects) for o in page}
    save_cube(make_years([2020]), address)
    assert {o["path"]: o["e_tag"] for page in obstore.list(objects) for o in page} == before
    assert_same(make_years([2018, 2019, 2020]), load_cube(address))
    assert any(name.startswith("years/2020/") for name in before)
    plain = xr.open_datatree(obstore_zarr(objects), engine="zarr", consolidated=True)
    assert plain["years/2020/landcover/landcover"].sizes["time"] == 1


def test_nothing_committed_is_overwritten(s3: str):
    address = f"{s3}/c.zarr"
    save_cube(make_cube(0), address)
    with pytest.raises(StoreError, match="holds another cube"):
        save_cube(make_cube(1), address)
    with pytest.raises(StoreError, match="cannot be swapped"):
        save_cube(make_cube(1), address, resume=False)
    assert_same(make_cube(0), load_cube(address, verify=True))


def test_readers_see_nothing_of_an_upload_that_was_cut_off():
    store = MemoryStore()
    save_cube(make_cube(), store)
    obstore.delete(store, "zarr.json")
    with pytest.raises(StoreError, match="no finished cube"):
        load_cube(store)
    # the same cube goes on where it was; another one is refused until the rest is cleared
    with pytest.raises(StoreError, match="another cube is being written"):
        save_cube(make_cube(1), store)
    save_cube(make_cube(), store)
    assert_same(make_cube(), load_cube(store, verify=True))
    obstore.delete(store, "zarr.json")
    save_cube(make_cube(1), store, resume=False)
    assert_same(make_cube(1), load_cube(store, verify=True))


def test_an_unfinished_year_is_listed_and_is_no_part_of_the_cube():
    store = MemoryStore()
    save_cube(make_years([2018, 2019]), store)
    old = obstore.get(store, "zarr.json").bytes()
    save_cube(make_years([2020]), store)
    obstore.delete(store, "years/2020/zarr.json")
    with pytest.raises(StoreError, match="years/2020 is not what was committed"):
        load_cube(store)
    obstore.put(store, "zarr.json", old)
    cube = load_cube(store)
    assert cube.attrs["unfinished"] == ["years/2020"]
    assert_same(make_years([2018, 2019]), cube)
    save_cube(make_years([2020]), store)
    assert_same(make_years([2018, 2019, 2020]), load_cube(store, verify=True))
    assert "unfinished" not in load_cube(store).attrs


def test_of_many_writers_one_wins_and_the_others_are_told():
    store = MemoryStore()
    save_cube(make_years([2018, 2019]), store)

    def write(seed: int) -> str:
        try:
            save_cube(make_years([2020], seed=seed), store)
        except StoreError as err:
            return str(err)
        return ""

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(write, range(4)))
    winners = [seed for seed, text in enumerate(told) if not text]
    assert len(winners) <= 1
    assert all(re.search("another cube|another writer", t) for t in told if t)
    if winners:
        parts = [make_years([2018, 2019]), make_years([2020], seed=winners[0])]
        both = xr.concat([part["imagery/red"] for part in parts], "time")
        np.testing.assert_array_equal(load_cube(store)["imagery/red"], both)


def test_a_lost_or_changed_object_is_never_read_as_something_else(s3: str):
    address = f"{s3}/c.zarr"
    save_cube(make_cube(), address)
    objects = open_place(address).objects
    name = "imagery/red/c/0/0/0"
    good = bytes(obstore.get(objects, name).bytes())
    cube = load_cube(address)
    obstore.put(objects, name, good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(StoreError, match="differs from the manifest"):
        cube["imagery/red"].compute()
    obstore.delete(objects, name)
    with pytest.raises(StoreError, match="misses its file"):
        cube["imagery/red"].compute()
    with pytest.raises(StoreError, match="misses 1 of its files"):
        load_cube(address)
    with pytest.raises(StoreError, match="Save the cube to another address"):
        save_cube(make_cube(), address)


def test_no_secret_is_in_a_message_or_in_what_travels_to_workers(
    s3: str, monkeypatch: pytest.MonkeyPatch
):
    save_cube(make_cube(), f"{s3}/c.zarr")
    cube = load_cube(f"{s3}/c.zarr")
    for seen in (pickle.dumps(cube["imagery/red"].data), repr(cube).encode()):
        assert SECRET.encode() not in seen
        assert b"AKIDEXAMPLE" not in seen
    again = pickle.loads(pickle.dumps(cube["imagery/red"].data))
    np.testing.assert_array_equal(again.compute(scheduler="sync"), make_cube()["imagery/red"])
    nobody = S3Store(
        "b", endpoint="http://127.0.0.1:9", access_key_id="AKIDEXAMPLE", secret_access_key=SECRET,
        region="us-east-1", client_options={"allow_http": True}, retry_config={"max_retries": 0},
    )  # fmt: skip
    for call in (load_cube, lambda store: save_cube(make_cube(), store)):
        with pytest.raises(StoreError, match=r"could not read 'zarr\.json'") as caught:
            call(nobody)
        text = "".join(traceback.format_exception(caught.value))
        assert SECRET not in text
        assert "AKIDEXAMPLE" not in text


def test_addresses_with_credentials_and_unknown_schemes_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="holds credentials") as caught:
        save_cube(make_cube(), "s3://key:hidden@bucket/c.zarr")
    assert "hidden" not in str(caught.value)
    with pytest.raises(InputError, match="not ftp://"):
        load_cube("ftp://host/c.zarr")
    with pytest.raises(InputError, match="no path, address or obstore store"):
        load_cube(3)  # type: ignore[arg-type]
    assert isinstance(open_place("s3://bucket/c.zarr"), Bucket)

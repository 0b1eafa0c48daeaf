"""Runs under kills, full disks, failing servers and other runs: the same tables, nothing twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

import forked
from minetrace.errors import RunError
from minetrace.run import batch, run_sites
from minetrace.run.commit import Manifest

COUNT = int(os.environ.get("MINETRACE_KILLS", "2"))
"""Faults of each kind; more of them on demand."""
SITES = 6


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    return forked.make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def forks(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forks")
    with forked.warm_forks(folder, recipe, folder / "out", SITES) as context:
        yield context, folder / "out"


@pytest.fixture(scope="module")
def quiet(recipe, tmp_path_factory) -> Path:
    """The output of an undisturbed run."""
    out = tmp_path_factory.mktemp("quiet") / "out"
    forked.quiet(recipe, out, SITES)
    return out


def tables(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.parquet"))}


def committed(out: Path) -> dict[str, int]:
    """Every file that the manifest lists, and when it was made; each is whole."""
    manifest, found = Manifest(out), {}
    for path in manifest.folder.glob("*.json"):
        unit, _, key = path.stem.rpartition("-")
        entry = manifest.find(unit, key)
        assert entry is not None
        assert entry.files
        for file in (path, *(manifest.files(entry) / name for name in entry.files)):
            found[str(file.relative_to(out))] = file.stat().st_mtime_ns
    return found


def assert_as_quiet(out: Path, quiet: Path, before: dict[str, int]) -> None:
    """The end is that of a quiet run, and what stood in the manifest was not touched."""
    after = committed(out)
    assert {name: after.get(name) for name in before} == before
    assert tables(out) == tables(quiet)
    assert {p.name for p in out.iterdir()} == {p.name for p in quiet.iterdir()}
    assert {p.suffix for p in (out / "manifest").iterdir()} == {".json"}
    listed = {json.loads(p.read_text())["folder"] for p in (out / "manifest").glob("*.json")}
    assert {p.name for p in (out / "units").iterdir()} == listed


def fork(context, target, *args) -> int:
    process = context.Process(target=target, args=args)
    process.start()
    process.join(120)
    return process.exitcode


def test_a_killed_driver_goes_on_where_it_was(recipe, quiet, forks, tmp_path):
    """Half of the kills come at changes to files, half at moments."""
    rng, (context, theirs) = random.Random(0), forks
    told = tmp_path / "told"
    assert fork(context, forked.drive, recipe, tmp_path / "first", SITES, told, 0, 0.0) == 0
    whole = json.loads(told.read_text())
    assert_as_quiet(tmp_path / "first", quiet, {})
    assert tables(theirs) == tables(quiet)
    left = []
    for number in range(COUNT):
        out = tmp_path / f"out{number}"
        at = rng.randint(1, whole["changes"]) if number % 2 == 0 else 0
        after_s = 0.0 if at else rng.uniform(0.01, whole["took"])
        code = fork(context, forked.drive, recipe, out, SITES, told, at, after_s)
        assert code == -signal.SIGKILL or not at
        before = committed(out) if out.exists() else {}
        assert fork(context, forked.drive, recipe, out, SITES, told, 0, 0.0) == 0
        again = json.loads(told.read_text())
        assert_as_quiet(out, quiet, before)
        entries = sum(name.startswith("manifest") for name in before)
        assert again["reused"] == entries
        left.append(entries)
    print(f"driver kills: {COUNT}, committed at each: {left} of {whole['units']}")


def test_workers_killed_in_a_run_change_nothing(recipe, forks, tmp_path, monkeypatch):
    """Workers are killed while they are at work; others do what they had in hand."""
    forked.apart(monkeypatch.setattr)
    rng, n = random.Random(1), min(36, SITES + COUNT)
    sites = forked.make_sites(n)
    run_sites(sites, recipe, tmp_path / "quiet", scheduler="synchronous")
    monkeypatch.setattr(batch, "Work", forked.Slow)
    over, killed = threading.Event(), []

    def kill(cluster, client):
        while len(killed) < COUNT and not over.wait(rng.uniform(0.05, 0.6)):
            busy = {address for address, keys in client.processing().items() if keys}
            pids = [w.pid for w in cluster.workers.values() if w.worker_address in busy and w.pid]
            if pids:
                killed.append(rng.choice(pids))
                os.kill(killed[-1], signal.SIGKILL)

    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        killer = threading.Thread(target=kill, args=(cluster, client))
        killer.start()
        result = run_sites(sites, recipe, tmp_path / "out", scheduler=client)
        over.set()
        killer.join()
    assert len(killed) == COUNT
    assert result.complete, result.failures
    assert tables(tmp_path / "out") == tables(tmp_path / "quiet")
    print(f"worker kills: {len(killed)}, units: {result.n_units}, elsewhere: {result.n_elsewhere}")

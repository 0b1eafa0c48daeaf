"""Runs under kills, full disks, failing servers and other runs: the same tables, nothing twice.

Every proof takes ``MINETRACE_KILLS`` faults of its kind, few of them unless asked for more.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import dask
import forked
import pystac
import pytest
from distributed import Client, LocalCluster
from forked import APART, SITES, SLOW, Forks

import minetrace as mt
from minetrace.catalog import Source, open_source, web
from minetrace.cubes.remote import _FAR, Patience
from minetrace.errors import InputError, RunError
from minetrace.run.commit import Manifest
from range_server import serve
from stac_api import serve_stac

COUNT = int(os.environ.get("MINETRACE_KILLS", "2"))
HALF = range((COUNT + 1) // 2)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    return forked.make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> Path:
    """Where the output of an undisturbed run is, once there are forks."""
    return tmp_path_factory.mktemp("quiet") / "out"


@pytest.fixture(scope="module")
def forks(recipe, quiet, tmp_path_factory) -> Iterator[Forks]:
    with forked.warm_forks(tmp_path_factory.mktemp("forks"), recipe, quiet) as forks:
        assert forks.code(print) == 0
        yield forks


@pytest.fixture(scope="module")
def cluster(forks) -> Iterator[Client]:
    """Two workers with nannies, which are forks, too."""
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


def tell(text: str) -> None:
    """Counts of a proof, for who asks pytest to show them (``-s``)."""
    sys.stdout.write(f"{text}\n")


def tables(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.parquet"))}


def maps(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("maps/*"))}


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


def units(files: dict[str, int]) -> int:
    """Committed units among the files that the manifest lists."""
    return sum(name.startswith("manifest") for name in files)


def assert_as_quiet(out: Path, quiet: Path, before: dict[str, int]) -> None:
    """The end is that of a quiet run, what stood in the manifest is as it was, no more is left."""
    after = committed(out)
    assert {name: after.get(name) for name in before} == before
    assert tables(out) == tables(quiet)
    assert maps(out) == maps(quiet)
    assert (len(tables(out)), len(maps(out))) == (4, SITES)
    assert {p.name for p in out.iterdir()} == {p.name for p in quiet.iterdir()}
    assert {p.suffix for p in (out / "manifest").iterdir()} == {".json"}
    listed = {json.loads(p.read_text())["folder"] for p in (out / "manifest").glob("*.json")}
    assert {p.name for p in (out / "units").iterdir()} == listed


# ---- kills ---------------------------------------------------------------------------------------


def test_a_killed_driver_goes_on_where_it_was(recipe, quiet, forks, tmp_path):
    """Half of the kills come at changes to files, half at moments."""
    rng, told = random.Random(0), tmp_path / "told"
    assert forks.code(forked.drive, recipe, tmp_path / "first", told, 0, 0.0) == 0
    whole = json.loads(told.read_text())
    assert_as_quiet(tmp_path / "first", quiet, {})
    left, number = [], 0
    while len(left) < COUNT:
        out, number = tmp_path / f"out{number}", number + 1
        at = rng.randint(1, whole["changes"]) if number % 2 else 0
        after_s = 0.0 if at else rng.uniform(0.01, whole["took"])
        code = forks.code(forked.drive, recipe, out, told, at, after_s)
        if code == 0 and not at:
            # it was done before its moment came
            continue
        assert code == -signal.SIGKILL
        before = committed(out) if out.exists() else {}
        assert forks.code(forked.drive, recipe, out, told, 0, 0.0) == 0
        assert_as_quiet(out, quiet, before)
        assert json.loads(told.read_text())["reused"] == units(before)
        left.append(units(before))
    tell(f"killed drivers: {len(left)}, committed at each: {left} of {whole['units']}")


def test_workers_killed_in_a_run_change_nothing(recipe, forks, cluster, tmp_path):
    """Workers are killed while they are at work; others do what they had in hand."""
    rng, killed = random.Random(1), 0
    rows, address = range(min(36, SITES + COUNT)), cluster.scheduler.address
    forks.call(forked.run, recipe, tmp_path / "quiet", rows=rows)
    options = {"rows": rows, "scheduler": address, "settings": APART | SLOW}
    results = []
    thread = threading.Thread(
        target=lambda: results.append(
            forks.call(forked.run, recipe, tmp_path / "out", **options)
        )
    )  # fmt: skip
    thread.start()
    while thread.is_alive() and killed < COUNT:
        time.sleep(rng.uniform(0.05, 0.6))
        busy = {worker for worker, keys in cluster.processing().items() if keys}
        nannies = cluster.cluster.workers.values()
        pids = [nanny.pid for nanny in nannies if nanny.worker_address in busy and nanny.pid]
        if pids:
            os.kill(rng.choice(pids), signal.SIGKILL)
            killed += 1
    thread.join()
    assert killed == COUNT
    (result,) = results
    assert result.complete, result.failures
    assert tables(tmp_path / "out") == tables(tmp_path / "quiet")
    tell(f"killed workers: {killed}, units: {result.n_units}, found done: {result.n_elsewhere}")


# ---- a full disk ---------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no command to mount a small file system with")
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system may not be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_ends_a_run_that_goes_on_when_there_is_room(
    recipe,
    quiet,
    forks,
    disk,
):
    rng, room, reached = random.Random(2), shutil.disk_usage(disk).free, []
    run = partial(forks.call, forked.run, recipe, disk / "out", scheduler="synchronous")
    n = run().n_units
    need = room - shutil.disk_usage(disk).free
    for number in range(COUNT):
        shutil.rmtree(disk / "out")
        # almost nothing, almost enough, and what lies between
        left = [4096, need - 4096, rng.randrange(need)][min(number, 2)]
        with (disk / "ballast").open("wb") as file:
            file.write(bytes(room - left))
        with pytest.raises(RunError, match=r"no space is left in .*; free some and run again"):
            run()
        before = committed(disk / "out")
        assert not tables(disk / "out")
        (disk / "ballast").unlink()
        assert run().n_reused == units(before)
        assert_as_quiet(disk / "out", quiet, before)
        reached.append(units(before))
    tell(f"full disks: {len(reached)}, committed at each: {reached} of {n}")


@pytest.mark.parametrize(("place", "nth", "n_before"), [
    ("minetrace.run.work:write_unit", 3, 2), ("os:link", 3, 2),
    ("minetrace.run.batch:write_tables", 1, 12),
])  # fmt: skip
def test_a_disk_may_be_full_at_any_step(recipe, quiet, forks, tmp_path, place, nth, n_before):
    out = tmp_path / "out"
    with pytest.raises(RunError, match=r"no space is left in .*; free some and run again"):
        forks.call(forked.run_out_of_space, place, nth, recipe, out, scheduler="synchronous")
    before = committed(out)
    assert units(before) == n_before
    forks.call(forked.run, recipe, out)
    assert_as_quiet(out, quiet, before)


# ---- failing servers -----------------------------------------------------------------------------

HASTY = {
    "minetrace.cubes.layers:Patience": partial(Patience, delay_s=0.01, stall_s=1, connect_s=5),
    "minetrace.cubes.windows:Patience": partial(Patience, delay_s=0.01, stall_s=1, connect_s=5),
    "minetrace.catalog.web:RETRY": web.RETRY.new(backoff_factor=0.01, backoff_jitter=0),
    "minetrace.catalog.web:TIMEOUT_S": (1.0, 0.2),
    # every unit asks the server itself
    "minetrace.cubes.remote:_FAR": {
        **_FAR, "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/http://127.0.0.1",
    },
}  # fmt: skip
"""The tries of every day, without their waits."""


def moved(source: Source, folder: Path, url: str) -> Source:
    """A source whose files a server has."""
    items = []
    for item in source.items:
        there = item.clone()
        for key, asset in item.assets.items():
            path = Path(asset.get_absolute_href()).relative_to(folder)
            there.assets[key].href = f"{url}/{path}"
        items.append(there)
    config = source.config.model_copy(update={"hosts": ("127.0.0.1",)})
    return replace(source, config=config, items=tuple(items))


def bare(item: pystac.Item) -> dict:
    return {**item.to_dict(include_self_link=False, transform_hrefs=False), "links": []}


@contextmanager
def served(folder: Path, kind: str, **faults):
    """A source over HTTP, as a catalogue or a service, and the server of its files."""
    with ExitStack() as stack:
        server = stack.enter_context(serve(folder, stall_s=0.2, **faults))
        source = moved(open_source(folder), folder, server.url)
        if kind == "api":
            rate, seed = faults.get("fail", 0.0), faults.get("seed", 0)
            items = [bare(item) for item in source.items]
            api = stack.enter_context(serve_stac(items, fault_rate=rate, seed=seed))
            config = source.config.model_copy(update={"kind": "api", "href": api.url})
            source = replace(source, config=config, items=())
        yield source, server


@pytest.mark.parametrize("kind", ["static", "api"])
def test_thirty_per_cent_of_faults_change_no_table(
    recipe,
    quiet,
    forks,
    tmp_path,
    kind,
):
    met = requests = retries = 0
    for seed in HALF:
        with served(recipe.parent / "catalog", kind, fail=0.3, seed=seed) as (source, server):
            result, lines = forks.call(
                forked.run_and_listen, recipe, tmp_path / str(seed), sources=source, workers=4,
                settings=APART | HASTY,
            )  # fmt: skip
        assert result.complete, result.failures.to_string()
        assert tables(tmp_path / str(seed)) == tables(quiet)
        met, requests = met + server.met.total(), requests + len(server.asked)
        retries += sum("is asked again" in line for _, line in lines)
        unnamed = [line for thread, line in lines if thread.startswith("minetrace")
                   and not re.match(r"unit (landcover|maps)-\S+: ", line)]  # fmt: skip
        assert unnamed == []
    assert 0.2 < met / requests < 0.4
    assert retries > 0.2 * met
    tell(f"faulty runs, {kind}: {seed + 1}, faults {met} of {requests} requests for files")


def test_lasting_faults_are_listed_by_item_and_window_and_mended_by_the_next_run(
    recipe, forks, tmp_path
):
    bad = {"lc_2001-20010101": "404", "lc_2003-20030101": "503"}
    settings = APART | HASTY
    for module in ("layers", "windows"):
        settings[f"minetrace.cubes.{module}:Patience"] = partial(Patience, 2, delay_s=0.01)
    # of two sites: every fault that lasts is asked for many times over
    rows = range(2)
    forks.call(forked.run, recipe, tmp_path / "quiet", rows=rows)
    with served(recipe.parent / "catalog", "static") as (source, server):
        for name, fault in bad.items():
            server.always[f"/landcover/{name}/{name}-landcover.tif"] = fault
        run = partial(
            forks.call, forked.run, recipe, tmp_path / "out", rows=rows, sources=source,
            settings=settings,
        )  # fmt: skip
        told = run().failures.dropna(subset="item")
        sites = forked.make_sites(2).set_index("site_id").geometry
        # a row for each site and item, of the tables and of the maps alike
        assert set(zip(told["site_id"], told["item"], strict=True)) == {
            (site_id, item) for site_id in sites.index for item in bad
        }
        assert set(told["asset"]) == {"landcover"}
        for site_id, window in zip(told["site_id"], told["window"], strict=True):
            assert window == ",".join(f"{v:.5f}" for v in sites[site_id].bounds)
        for name, fault in bad.items():
            reasons = told.loc[told["item"] == name, "reason"]
            assert reasons.str.contains(f"the server answers {fault}").all()
        server.always.clear()
        assert run().complete
    assert tables(tmp_path / "out") == tables(tmp_path / "quiet")


@pytest.mark.skipif(COUNT <= 2, reason="on demand: MINETRACE_KILLS=25")
def test_thirty_per_cent_of_faults_change_no_table_of_all_products(
    forks,
    tmp_path,
):
    world = tmp_path / "world"
    mt.simulate_mines(world, sites=4, years=range(2018, 2023), seed=3)
    forks.call(forked.run_file, world, tmp_path / "quiet", {})
    met = requests = 0
    for seed in range(3):
        with serve(world, fail=0.3, seed=seed, stall_s=0.2) as server:
            source = moved(open_source(world), world, server.url)
            result = forks.call(
                forked.run_file, world, tmp_path / str(seed), APART | HASTY, sources=source
            )
        assert result.complete, result.failures.to_string()
        assert tables(tmp_path / str(seed)) == tables(tmp_path / "quiet")
        met, requests = met + server.met.total(), requests + len(server.asked)
    tell(f"faulty runs, all products: {seed + 1}, faults {met} of {requests} requests")


# ---- any order, any grouping, anywhere -----------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["synchronous", "threads", "cluster", *(["processes"] if COUNT > 2 else [])]
)
def test_order_grouping_and_scheduler_change_no_byte(
    recipe,
    quiet,
    forks,
    cluster,
    tmp_path,
    name,
):
    source = open_source(recipe.parent / "catalog")
    for seed in range((COUNT + 3) // 4):
        rng = random.Random(f"{name} {seed}")
        items = [*source.items, *rng.sample(source.items, 4)]
        rng.shuffle(items)
        settings = {
            "minetrace.run.plan:CELL_DEGREES": rng.choice([1e-3, 3e-3, 6e-3, 0.25]),
            "minetrace.run.plan:MOST_SITES": rng.choice([1, 2, 3, 256]),
            "minetrace.run.plan:_CHAIN": rng.choice([1, 1024]),
            "minetrace.run.plan:_LEAST_DEGREES": rng.choice([1e-9, 0.02]),
            "minetrace.run.landcover:BATCH_BYTES": rng.choice([500, 5000, 2**26]),
        }
        forks.call(
            forked.run, recipe, tmp_path / str(seed), rows=rng.sample(range(SITES), SITES),
            settings=settings, sources=replace(source, items=tuple(items)), workers=2,
            scheduler=cluster.scheduler.address if name == "cluster" else name,
        )  # fmt: skip
        assert tables(tmp_path / str(seed)) == tables(quiet)
    tell(f"shuffled runs, {name}: {seed + 1}")


def test_a_site_that_is_there_twice_is_refused(recipe, tmp_path):
    with pytest.raises(InputError, match=r"(?s)sites breaks its contract.*site_id.*s\d\d"):
        mt.run_sites(forked.make_sites().iloc[[0, 1, 0]], recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- other runs, signals, logs -------------------------------------------------------------------


def test_two_runs_at_once_share_the_units(recipe, quiet, forks, tmp_path):
    for number in HALF:
        out, start, results = tmp_path / str(number), forks.context.Barrier(2), []
        options = {"settings": APART | SLOW, "start": start, "workers": 2}

        def drive(out=out, options=options, results=results):
            results.append(forks.call(forked.run_and_listen, recipe, out, **options))

        threads = [threading.Thread(target=drive) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (one, _), (other, _) = results
        # each unit was committed by one of them, and the other was told
        assert one.n_elsewhere + other.n_elsewhere == one.n_units == 12
        assert_as_quiet(out, quiet, {})
    told = [line for _, lines in results for _, line in lines if "was committed by another" in line]
    tell(f"pairs of runs: {number + 1}; of the last, {len(told)} units were done by both")


def test_sigterm_finishes_the_units_in_hand(recipe, forks, tmp_path):
    rng, file, log = random.Random(3), tmp_path / "sites.gpkg", tmp_path / "log"
    forked.make_sites().to_file(file)
    words = ["run", "--sites", str(file), "--id-column", "site_id", "--recipe", str(recipe),
             "--workers", "2", "--no-report", "--out"]  # fmt: skip
    assert forks.code(forked.command, [*words, str(tmp_path / "quiet")], log) == 0
    for number in HALF:
        out = tmp_path / str(number)
        process = forks.start(forked.command, [*words, str(out)], log)
        while not list(out.glob("manifest/*.json")):
            assert process.is_alive(), log.read_text()
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        os.kill(process.pid, signal.SIGTERM)
        process.join(60)
        text, before = log.read_text(), committed(out)
        assert process.exitcode == 1, text
        assert "stopping: units in hand are finished first" in text
        n = units(before)
        assert f"minetrace: stopped after {n} of 12 units; these are committed" in text
        assert len(list((out / "units").iterdir())) == n < 12, "none was left half done"
        assert forks.code(forked.command, [*words, str(out)], log) == 0
        assert f"{n} of 12 units reused" in log.read_text()
        assert_as_quiet(out, tmp_path / "quiet", before)
    tell(f"runs stopped by SIGTERM: {number + 1}")


def test_what_units_log_on_a_cluster_begins_with_their_ids(recipe, forks, cluster, tmp_path):
    cluster.run(forked.listen)
    forks.call(forked.run, recipe, tmp_path / "out", scheduler=cluster.scheduler.address)
    told = [line for lines in cluster.run(forked.heard).values() for _, line in lines]
    done = [json.loads(p.read_text())["unit"] for p in (tmp_path / "out/manifest").iterdir()]
    begun, ended = (
        sorted(found[1] for line in told if (found := re.fullmatch(rf"unit (\S+): {text}", line)))
        for text in ("begins, 1 sites", r"ends after \d+\.\d\d s")
    )
    assert begun == ended == sorted(done)
    assert len(told) == len(begun) + len(ended)

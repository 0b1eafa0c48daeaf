"""One function over many jobs: the same on threads, processes and clusters, whatever dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import psutil
import pytest
from distributed import Client, KilledWorker, LocalCluster, get_worker
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin

from minetrace.errors import InputError, RunError
from minetrace.run import cluster
from minetrace.run.schedule import each_done

ROOT = Path(__file__).resolve().parents[1]
HERE = ("synchronous", "threads", "local")


@contextmanager
def local_cluster(n_workers=2, **options):
    with (
        LocalCluster(
            n_workers=n_workers, threads_per_worker=1, host="127.0.0.1",
            dashboard_address="127.0.0.1:0", **options,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


LIGHT = """
import sys
import types
import minetrace

package = sys.modules["minetrace.run"] = types.ModuleType("minetrace.run")
package.__path__ = [f"{minetrace.__path__[0]}/run"]
"""


@pytest.fixture(scope="module", autouse=True)
def light_workers(tmp_path_factory):
    """Workers that leave out the package's other modules: seconds each, and no job needs them."""
    path = tmp_path_factory.mktemp("preload") / "light.py"
    path.write_text(LIGHT)
    with dask.config.set({"distributed.worker.preload": [str(path)]}):
        yield


@pytest.fixture(scope="module")
def client():
    with local_cluster() as client:
        yield client


@pytest.fixture
def scheduler_of(client):
    """What to give as scheduler, by a name for it."""
    named = {"client": client, "address": client.scheduler.address}
    return lambda name: named.get(name, name)


ALL = pytest.mark.parametrize("name", [*HERE, "client", "address"])
SOME = pytest.mark.parametrize("name", ["synchronous", "threads", "client"])


def tasks_of(client):
    """Tasks that the scheduler still knows a moment after they were let go."""
    for _ in range(100):
        if not client.cluster.scheduler.tasks:
            return []
        time.sleep(0.02)
    return list(client.cluster.scheduler.tasks)


# ---- what each job does --------------------------------------------------------------------------


@dataclass(frozen=True)
class Mean:
    """A job that computes a dask array and tells in how many other threads."""

    size: int

    def __call__(self, job):
        if job == 3:
            raise ValueError("three") from KeyError("why")
        own, threads = threading.get_ident(), set()

        def block(x):
            threads.add(threading.get_ident())
            return x + job

        mean = da.zeros(self.size, chunks=1).map_blocks(block, dtype=float, meta=np.empty(0)).mean()
        return float(mean.compute()), len(threads - {own})


@dataclass(frozen=True)
class Marked:
    """Jobs that leave a line each in a file when they start, and wait for another file."""

    folder: Path
    wait_for: str = ""

    def __call__(self, job):
        with (self.folder / "started").open("a") as file:
            file.write(f"{job}\n")
        if self.wait_for:
            until(lambda: (self.folder / self.wait_for).exists())
        return job

    @property
    def started(self):
        path = self.folder / "started"
        return path.read_text().split() if path.exists() else []


@dataclass(frozen=True)
class Deadly(Marked):
    """Kills its process at the job "deadly", as often as told."""

    deaths: int = 1

    def __call__(self, job):
        super().__call__(job)
        if job == "deadly" and self.started.count(job) <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return job


@dataclass(frozen=True)
class Counted:
    """Leaves a line whenever it is unpickled."""

    log: Path

    def __setstate__(self, state):
        self.__dict__.update(state)
        with self.log.open("a") as file:
            file.write(f"{os.getpid()}\n")

    def __call__(self, job):
        return os.getpid()


def raises(kind):
    raise kind(3)


def variable(name):
    return os.environ.get(name)


def until(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


# ---- every way to run ----------------------------------------------------------------------------


@ALL
def test_results_and_faults_are_given_and_dask_stays_in_the_jobs_thread(name, scheduler_of):
    found = dict(each_done(Mean(5), range(6), scheduler=scheduler_of(name), workers=2))
    fault = found.pop(3)
    assert found == {i: (float(i), 0) for i in (0, 1, 2, 4, 5)}
    assert repr(fault) == "ValueError('three')"
    assert repr(fault.__cause__) == "KeyError('why')"
    assert fault.__traceback__ is not None
    assert dask.config.get("scheduler", None) is None


@ALL
def test_no_jobs_give_nothing(name, scheduler_of):
    assert list(each_done(abs, [], scheduler=scheduler_of(name))) == []


@pytest.mark.parametrize("name", ["threads", "client"])
def test_results_come_as_they_are_done(name, scheduler_of, tmp_path):
    slow = Marked(tmp_path, wait_for="go")

    def function(job):
        return slow(job) if job == "slow" else job

    results = each_done(function, ["slow", "quick"], scheduler=scheduler_of(name), workers=2)
    assert next(results) == (1, "quick")
    (tmp_path / "go").touch()
    assert list(results) == [(0, "slow")]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@SOME
def test_an_interrupt_in_a_job_ends_the_run(name, kind, scheduler_of, client):
    workers = set(client.nthreads())
    with pytest.raises(kind):
        list(each_done(raises, [kind, kind, kind], scheduler=scheduler_of(name)))
    assert set(client.nthreads()) == workers, "no worker ended with it"
    assert tasks_of(client) == []


@pytest.mark.parametrize("name", ["threads", "client"])
def test_who_stops_asking_waits_for_the_started_jobs_only(name, scheduler_of, client, tmp_path):
    function = Marked(tmp_path, wait_for="go")

    def first_at_once(job):
        try:
            (tmp_path / "first").touch(exist_ok=False)
        except FileExistsError:
            return function(job)

    with closing(
        each_done(first_at_once, range(50), scheduler=scheduler_of(name), workers=2)
    ) as results:
        assert next(results)[1] is None
        until(lambda: len(function.started) == 2)
        threading.Timer(0.5, (tmp_path / "go").touch).start()
    assert (tmp_path / "go").exists()
    assert len(function.started) == 2
    assert tasks_of(client) == []


@pytest.mark.parametrize("name", ["synchronous", "threads", "client"])
def test_stop_lets_the_started_jobs_finish(name, scheduler_of, client, tmp_path):
    stop, function = threading.Event(), Marked(tmp_path, wait_for="go")
    n = 1 if name == "synchronous" else 2

    def watch():
        until(lambda: len(function.started) == n)
        stop.set()
        time.sleep(0.5)
        (tmp_path / "go").touch()

    watcher = threading.Thread(target=watch)
    watcher.start()
    found = list(each_done(function, range(50), scheduler=scheduler_of(name), workers=2, stop=stop))
    watcher.join()
    assert sorted(str(value) for _, value in found) == sorted(function.started)
    assert len(found) == n
    assert tasks_of(client) == []


@SOME
def test_a_stop_that_is_set_before_starts_nothing(name, scheduler_of, tmp_path):
    stop = threading.Event()
    stop.set()
    function = Marked(tmp_path)
    assert list(each_done(function, range(5), scheduler=scheduler_of(name), stop=stop)) == []
    assert function.started == []


def test_dask_is_synchronous_until_the_last_of_several_jobs_is_done():
    gates = [threading.Event() for _ in range(2)]
    seen = []

    def function(job):
        gates[job].wait(20)
        seen.append(dask.config.get("scheduler"))

    with dask.config.set(scheduler="threads"):
        results = each_done(function, [0, 1], workers=2)
        gates[0].set()
        next(results)
        gates[1].set()
        assert list(results) == [(1, None)]
        assert dask.config.get("scheduler") == "threads"
    assert seen == ["synchronous", "synchronous"]


# ---- clusters ------------------------------------------------------------------------------------


class Watch(SchedulerPlugin):
    """Counts the tasks that were ever there, and those at one time."""

    name = "watch"

    def __init__(self, scheduler):
        self.scheduler, self.keys, self.most = scheduler, set(), 0

    def transition(self, key, start, finish, *args, **kwargs):
        self.keys.add(key)
        self.most = max(self.most, len(self.scheduler.tasks))


@pytest.fixture
def watch(client):
    assert tasks_of(client) == []
    scheduler = client.cluster.scheduler
    plugin = Watch(scheduler)
    client.sync(add_plugin, scheduler, plugin)
    yield plugin
    client.sync(remove_plugin, scheduler)


async def add_plugin(scheduler, plugin):
    scheduler.add_plugin(plugin)


async def remove_plugin(scheduler):
    scheduler.remove_plugin("watch")


def test_each_job_is_one_task_and_few_are_there_at_a_time(client, watch):
    n = 100
    assert sorted(each_done(abs, range(n), scheduler=client)) == [(i, i) for i in range(n)]
    assert len(watch.keys) == n
    assert watch.most <= 2 * 4 * 2, "in hand, and some being let go"
    assert tasks_of(client) == []
    assert client.futures == {}
    left = client.run(lambda dask_worker: [p for p in dask_worker.plugins if "minetrace" in p])
    assert set(map(len, left.values())) == {0}


def test_the_function_is_made_once_in_each_worker_and_nowhere_else(client, tmp_path):
    function = Counted(tmp_path / "log")
    workers = {pid for _, pid in each_done(function, range(30), scheduler=client)}
    assert sorted(function.log.read_text().split()) == sorted(map(str, workers))
    assert os.getpid() not in workers


def test_few_jobs_are_spread_over_all_workers(client):
    def nap(_):
        time.sleep(0.3)
        return os.getpid()

    pids = [pid for _, pid in each_done(nap, range(2), scheduler=client)]
    assert len(set(pids)) == 2


def test_a_large_function_is_no_fault(client):
    context = np.zeros(3_000_000)
    found = list(each_done(lambda job: context.size + job, [1], scheduler=client))
    assert found == [(0, 3_000_001)]


def test_a_killed_worker_costs_a_repetition_only(tmp_path):
    """The one worker takes the function with it, too."""
    function = Deadly(tmp_path)
    jobs = [*"abc", "deadly", *"def"]
    found = dict(each_done(function, jobs, scheduler="processes", workers=1))
    assert found == dict(enumerate(jobs))
    assert function.started.count("deadly") == 2


def test_a_job_that_always_kills_is_given_as_killed_and_takes_no_other_along(tmp_path):
    """With no failure allowed, all that waited on the worker with it are blamed at first."""
    function = Deadly(tmp_path, deaths=99)
    jobs = [*"abcd", "deadly", *"efgh"]
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        found = dict(each_done(function, jobs, scheduler="processes", workers=2))
    fault = found.pop(4)
    assert isinstance(fault, KilledWorker)
    assert found == {i: job for i, job in enumerate(jobs) if job != "deadly"}


def test_a_run_waits_for_workers_unless_stopped_and_makes_a_cluster_grow():
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with local_cluster(n_workers=0) as client:
        assert list(each_done(abs, [1, 2], scheduler=client, stop=stop)) == []
        assert tasks_of(client) == []
        client.cluster.adapt(minimum=0, maximum=1, interval="100ms")
        assert list(each_done(abs, [-1], scheduler=client)) == [(0, 1)]


def listening():
    """Addresses that this process and its children listen on."""
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    yield process.pid, *connection.laddr


def test_processes_have_their_memory_and_listen_on_loopback_only():
    before = set(listening())
    results = each_done(
        lambda job: (Mean(5)(job), os.getpid(), get_worker().memory_manager.memory_limit),
        [0, 1, 2] * 3, scheduler="processes", workers=1, memory=10**9,
    )  # fmt: skip
    _, ((mean, other_threads), pid, memory) = next(results)
    assert (mean, other_threads, memory) == (0.0, 0, 10**9)
    now = set(listening()) - before
    assert {os.getpid(), pid} <= {process for process, *_ in now}
    assert {ip for _, ip, _ in now} == {"127.0.0.1"}
    assert [job for _, ((job, _), *_) in results] == [1, 2, 0, 1, 2, 0, 1, 2]
    assert set(listening()) <= before


def test_variables_reach_workers_that_join_later_and_nothing_shows_them(caplog):
    with local_cluster(n_workers=1) as client, caplog.at_level("DEBUG"):
        results = each_done(
            variable, ["MINETRACE_TEST"] * 9, scheduler=client,
            environment={"MINETRACE_TEST": "s3cret"},
        )  # fmt: skip
        assert next(results)[1] == "s3cret"
        keys = list(client.cluster.scheduler.tasks)
        client.cluster.scale(2)
        client.wait_for_workers(2)
        assert set(client.run(variable, "MINETRACE_TEST").values()) == {"s3cret"}
        plugins = client.run(lambda dask_worker: repr(dask_worker.plugins))
        shown = [*keys, *plugins.values(), *client.get_worker_logs().values(),
                 client.get_scheduler_logs(), *client.cluster.get_logs().values(),
                 client.cluster.scheduler.get_events(), caplog.text]  # fmt: skip
        list(results)
    assert "minetrace-environment" in str(shown)
    assert "s3cret" not in str(shown)
    assert "MINETRACE_TEST" not in os.environ


@dataclass(frozen=True)
class Knowing:
    token: str

    def __call__(self, job):
        raise ValueError("no")


def test_a_fault_logs_nothing_that_the_function_holds(client):
    ((_, fault),) = each_done(Knowing("s3cret"), [1], scheduler=client)
    assert isinstance(fault, ValueError)
    logs = str(client.get_worker_logs())
    assert "Compute Failed" in logs
    assert "s3cret" not in logs


# ---- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", ["thread", "localhost:8786", 3, "foo://x:1", "tcp://", "tls://x:1"]
)
def test_an_unknown_scheduler_is_named(wrong):
    if "tls" in str(wrong):
        wrong = "tls://127.0.0.1:1"
    with pytest.raises(InputError, match=re.escape(repr(wrong))):
        list(each_done(abs, [1], scheduler=wrong))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"memory": -1}, "memory is -1"),
        ({"environment": {"TOKEN": 5}}, "value of TOKEN is no text"),
    ],
)
def test_wrong_options_are_named_at_once(options, told):
    with pytest.raises(InputError, match=told):
        each_done(abs, [1], **options)


def test_an_address_where_nobody_answers(monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.5)
    with pytest.raises(RunError, match=r"no scheduler answers at tcp://127.0.0.1:9.*port"):
        list(each_done(abs, [1], scheduler="tcp://127.0.0.1:9"))


def make_old():
    import minetrace._version

    minetrace._version.__version__ = "0.0.0"


def take_away():
    sys.modules["minetrace._version"] = None


def test_a_worker_with_another_version_is_named():
    with local_cluster() as client:
        worker = list(client.nthreads())[1]
        for change, has in ((make_old, "minetrace 0.0.0"), (take_away, "no minetrace")):
            client.run(change, workers=[worker])
            with pytest.raises(RunError, match=rf"worker {worker} has {has}.*install minetrace=="):
                list(each_done(abs, [1], scheduler=client.scheduler.address))


class Spoils(WorkerPlugin):
    """Lets workers that join have another version."""

    def setup(self, worker):
        make_old()


def test_a_worker_with_another_version_that_joins_later_is_named():
    with local_cluster(n_workers=0) as client:
        client.register_plugin(Spoils(), name="spoils")
        threading.Timer(0.5, client.cluster.scale, [1]).start()
        with pytest.raises(RunError, match=r"worker tcp.* has minetrace 0\.0\.0"):
            list(each_done(abs, range(20), scheduler=client))


def light_environment():
    preload = dask.config.get("distributed.worker.preload")
    return {**os.environ, "DASK_DISTRIBUTED__WORKER__PRELOAD": repr(preload)}


SERVER = """
import time
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1",
                           dashboard_address="127.0.0.1:0")
    print(cluster.scheduler_address, flush=True)
    time.sleep(600)
"""


def test_a_scheduler_that_dies_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_S", 2.0)
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    with subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, text=True, env=light_environment()
    ) as server:
        results = each_done(abs, range(1000), scheduler=server.stdout.readline().strip())
        assert next(results)[1] >= 0
        server.kill()
        with pytest.raises(RunError, match="lost its scheduler"):
            list(results)


LEAVES = """
from minetrace.run.schedule import each_done
if __name__ == "__main__":
    results = each_done(abs, range(100), scheduler="processes", workers=1)
    next(results)
"""


def test_a_script_that_leaves_its_results_unread_ends(tmp_path):
    path = tmp_path / "leaves.py"
    path.write_text(LEAVES)
    run = subprocess.run(
        [sys.executable, str(path)], env=light_environment(), capture_output=True, timeout=60
    )
    assert run.returncode == 0


def test_a_closed_client_is_told():
    with local_cluster(n_workers=0) as client:
        pass
    with pytest.raises(RunError, match="closed"):
        list(each_done(abs, [1], scheduler=client))


def test_distributed_is_imported_only_by_who_needs_it():
    code = (
        "import sys; from minetrace.run.schedule import each_done; "
        "print(list(each_done(abs, [-1])), 'distributed' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[(0, 1)] False"


# ---- the page about clusters ---------------------------------------------------------------------


def test_the_slurm_recipe_makes_the_job_script_it_promises(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "docs/clusters.md", "exec"), names)
    with closing(names["cluster"]) as cluster:
        dashboard = cluster.scheduler.services["dashboard"]
        ips = {socket.getsockname()[0] for socket in dashboard._sockets.values()}
    lines = capsys.readouterr().out.splitlines()
    assert {
        "#SBATCH -p regular", "#SBATCH -A mines", "#SBATCH -n 1", "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=60G", "#SBATCH -t 12:00:00",
        "source /shared/minetrace/.venv/bin/activate",
    } <= set(lines)  # fmt: skip
    (worker,) = (line for line in lines if "dask_worker" in line)
    assert worker.startswith("python -m distributed.cli.dask_worker tcp://")
    for option in (
        "--nthreads 1", "--nworkers 8", "--memory-limit 7.45GiB", "--nanny",
        "--lifetime 11h --lifetime-stagger 30m", "--dashboard-address 127.0.0.1:0",
    ):  # fmt: skip
        assert option in worker
    assert ips == {"127.0.0.1"}


def test_the_other_recipes_are_python():
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```py\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    for code in blocks:
        compile(code, "docs/clusters.md", "exec")

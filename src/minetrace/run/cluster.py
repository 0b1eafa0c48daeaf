"""Jobs on worker processes: a cluster of this machine or one far away."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import uuid4

from minetrace._version import __version__
from minetrace.errors import InputError, RunError
from minetrace.run.flow import IN_HAND, Sign, flow, synchronous

if TYPE_CHECKING:
    from distributed import Client

J = TypeVar("J")
R = TypeVar("R")

_CONNECT_S = 10.0
_LOOK_S = 1.0
_ENVIRONMENT = "minetrace-environment"
_VERSION = "minetrace._version:__version__"


@contextmanager
def open_cluster(
    scheduler: Any, workers: int | None, memory: int | None
) -> Iterator[tuple[Client, bool]]:
    """A client, and whether its workers end with it."""
    from distributed import Client, LocalCluster

    if isinstance(scheduler, Client):
        yield scheduler, False
    elif scheduler == "processes":
        options = {} if memory is None else {"memory_limit": memory}
        with (
            LocalCluster(
                n_workers=workers or os.cpu_count(), threads_per_worker=1, host="127.0.0.1",
                dashboard_address="127.0.0.1:0", **options,
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):  # fmt: skip
            yield client, True
    else:
        with _connect(scheduler) as client:
            yield client, False


def _connect(address: str) -> Client:
    from distributed import Client, Security
    from distributed.comm.addressing import resolve_address

    try:
        # a Client that fails at one of these is never closed
        resolve_address(address)
        if (
            address.startswith("tls")
            and not Security().get_connection_args("client")["ssl_context"]
        ):
            raise ValueError(
                "there are no certificates for tls; set distributed.comm.tls in dask's "
                "configuration, or give a distributed.Client made with a distributed.Security"
            )
        return Client(address, timeout=_CONNECT_S, set_as_default=False)
    except OSError as err:
        raise RunError(
            f"no scheduler answers at {address}; see that one runs there, that host, port and "
            "protocol (tcp or tls) are right, and that no firewall lies between"
        ) from err
    except ValueError as err:
        raise InputError(f"scheduler {address!r} cannot be used: {err}") from err


def on_cluster(
    function: Callable[[J], R],
    jobs: Sequence[J],
    opened: Any,
    environment: Mapping[str, str],
    stop: threading.Event,
) -> Generator[tuple[int, R | Exception], None, None]:
    """Call a function with each job on an opened cluster, as `each_done` does."""
    from distributed import KilledWorker

    with opened as (client, ends), _cluster(client, function, environment, ends) as crew:
        lost = []
        for index, value in flow(crew, enumerate(jobs), stop):
            if isinstance(value, KilledWorker):
                lost.append(index)
            else:
                yield index, value
        # a job is blamed for what another on its worker did, so each must be guilty alone
        crew.alone = True
        yield from flow(crew, ((index, jobs[index]) for index in lost), stop)


def _call(job: Any, version: str, plugin: str) -> Any:
    from distributed import get_worker

    if version != __version__:
        raise RunError(f"this worker has minetrace {__version__}, the run {version}")
    found = get_worker().plugins.get(plugin)
    if found is None:
        return Sign.UNSTARTED
    try:
        with synchronous:
            return found.function()(job)
    except (KeyboardInterrupt, SystemExit) as end:
        # raised here it would end this worker, then the next that gets the job
        return end


def _function_plugin(function: Callable[[J], R]) -> Any:
    """What holds a run's function in each worker, until the run ends or is halted.

    As data that tasks need, the function would draw them all to the few workers that hold it, and
    scattered it would be gone for good, its tasks waiting forever, when those workers die.
    """
    from distributed.diagnostics.plugin import WorkerPlugin
    from distributed.protocol.pickle import dumps

    class Function(WorkerPlugin):  # type: ignore[misc]
        def __init__(self, pickled: bytes) -> None:
            self._pickled = pickled

        def __repr__(self) -> str:
            return "<function of a run>"

        def setup(self, worker: Any) -> None:
            self._lock = threading.Lock()
            self._function: Any = None

        def function(self) -> Any:
            with self._lock:
                if self._function is None:
                    self._function = pickle.loads(self._pickled)
                return self._function

    return Function(dumps(function))


def _environment_plugin(values: Mapping[str, str]) -> Any:
    from distributed.diagnostics.plugin import WorkerPlugin

    class Environment(WorkerPlugin):  # type: ignore[misc]
        def __init__(self, values: dict[str, str]) -> None:
            self._values = values

        def __repr__(self) -> str:
            return f"<{len(self._values)} environment variables>"

        def setup(self, worker: Any) -> None:
            os.environ.update(self._values)

    return Environment(dict(values))


@contextmanager
def _cluster(
    client: Client, function: Callable[[J], R], environment: Mapping[str, str], ends: bool
) -> Iterator[_Cluster[J, R]]:
    crew: _Cluster[J, R] = _Cluster(client, outlive=not ends)
    plugin = _function_plugin(function)
    with _answering(client):
        _check_scheduler(client)
        crew.look()
        if environment:
            client.register_plugin(_environment_plugin(environment), name=_ENVIRONMENT)
        client.register_plugin(plugin, name=crew.plugin)
    try:
        yield crew
    finally:
        crew.halt(())


@dataclass
class _Cluster(Generic[J, R]):
    client: Any
    outlive: bool
    alone: bool = False
    halted: bool = False
    plugin: str = field(default_factory=lambda: f"minetrace-run-{uuid4()}")
    threads: int = 0
    checked: frozenset[str] = frozenset()
    looked: float = 0.0

    def room(self) -> int:
        if time.monotonic() - self.looked >= _LOOK_S:
            self.look()
        return 1 if self.alone else max(1, IN_HAND * self.threads)

    def look(self) -> None:
        """Count the threads, and check the workers that have joined."""
        with _answering(self.client):
            threads = self.client.nthreads()
            _check_workers(self.client, threads.keys() - self.checked)
        self.threads = sum(threads.values())
        self.checked = frozenset(threads)
        self.looked = time.monotonic()

    def submit(self, index: int, job: J) -> Any:
        # without a priority those of the same moment are done in any order
        return self.client.submit(
            _call, job, __version__, self.plugin, pure=False, retries=0, priority=-index
        )

    def fetch(self, future: Any) -> Any:
        value = self._value(future)
        future.release()
        if isinstance(value, (KeyboardInterrupt, SystemExit)):
            raise value
        if isinstance(value, Exception):
            # a worker that has just joined without minetrace fails every job it gets
            self.look()
        return value

    def _value(self, future: Any) -> Any:
        if future.status == "error":
            return future.exception().with_traceback(future.traceback())
        with suppress(CancelledError):
            if future.status == "finished":
                try:
                    return future.result()
                except Exception as err:
                    return err
        if self.halted:
            return Sign.UNSTARTED
        if future.status == "cancelled":
            raise _lost(self.client)
        # its worker died with the result
        return Sign.LOST

    def halt(self, hand: Collection[Any]) -> None:
        if self.client.status != "running" or sys.is_finalizing():
            # an interpreter that ends has stopped the client's loop, which none could wait for
            return
        with suppress(OSError, RuntimeError):
            if not self.halted:
                self.halted = True
                self.client.unregister_worker_plugin(self.plugin)
            if hand:
                # without a worker they would wait for one
                given = {key for keys in self.client.processing().values() for key in keys}
                rest = [f for f in hand if f.status == "pending" and f.key not in given]
                self.client.cancel(rest)


@contextmanager
def _answering(client: Client) -> Iterator[None]:
    try:
        yield
    except RunError:
        raise
    except (OSError, RuntimeError, CancelledError) as err:
        raise _lost(client) from err


def _lost(client: Client) -> RunError:
    return RunError(
        f"{client} has lost its scheduler, is closed, or dropped the run; see that the cluster "
        "is up and run again, what is committed is not done twice"
    )


def _check_scheduler(client: Client) -> None:
    try:
        theirs = client.run_on_scheduler(resolve_name, _VERSION)
    except ImportError as err:
        theirs = err
    _check_version("the scheduler", theirs)


def _check_workers(client: Client, addresses: Collection[str]) -> None:
    if not addresses:
        return
    found = client.run(resolve_name, _VERSION, workers=list(addresses), on_error="return")
    for address, theirs in found.items():
        # one that has just left says nothing
        if isinstance(theirs, (str, ImportError)):
            _check_version(f"worker {address}", theirs)


def _check_version(who: str, theirs: str | ImportError) -> None:
    if theirs == __version__:
        return
    has = f"minetrace {theirs}" if isinstance(theirs, str) else "no minetrace"
    raise RunError(
        f"{who} has {has}, this process {__version__}; install minetrace=={__version__} in the "
        "environment that it runs in and start it again"
    )

"""One function over many jobs, on threads, processes or a cluster: each job is one task."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from minetrace.errors import InputError
from minetrace.run.flow import IN_HAND, Sign, flow, synchronous

if TYPE_CHECKING:
    from distributed import Client

J = TypeVar("J")
R = TypeVar("R")


def each_done(
    function: Callable[[J], R],
    jobs: Sequence[J],
    *,
    scheduler: str | Client | None = None,
    workers: int | None = None,
    memory: int | None = None,
    environment: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Generator[tuple[int, R | Exception], None, None]:
    """Call a function with each job and give the results as they come.

    While a job runs, dask computes in the job's own thread. That setting of dask belongs to the
    process: arrays that other threads of it compute in the meantime are computed so, too.

    Parameters
    ----------
    function
        Called once per job. It is sent once, so it may hold much; away from threads it must be
        picklable.
    jobs
        Small and, away from threads, picklable. A job whose worker process dies is done again,
        whatever it has left behind.
    scheduler
        "threads" or "local" (the default): threads of this process. "synchronous": the calling
        thread, in order. "processes": worker processes of this machine, ended afterwards. An
        address such as ``tcp://host:8786``, or a `distributed.Client`, which stays open.
    workers
        Threads or processes, default the number of cores. A cluster has its own.
    memory
        Bytes of each process of "processes", default an even share.
    environment
        Variables for worker processes, also for those that join later. They are neither logged
        nor shown, and stay in a cluster's workers when all is done.
    stop
        Once set, no further job starts; those in hand finish and are given.

    Yields
    ------
    tuple
        The job's place in ``jobs`` and what the function returned. An exception is given, not
        raised, and so is `distributed.KilledWorker` for a job that ends its workers. Closing the
        iterator starts no further job and waits for those in hand; those of "processes" are ended.

    Raises
    ------
    InputError
        An option is none of the above.
    RunError
        A cluster does not answer, is lost, or has another version of minetrace.

    Examples
    --------
    >>> sorted(each_done(abs, [-3, 2]))
    [(0, 3), (1, 2)]
    """
    _check(scheduler, workers, memory, environment)
    stop = stop or threading.Event()
    if scheduler == "synchronous":
        return _one_by_one(function, jobs, stop)
    if scheduler in (None, "threads", "local"):
        return _on_threads(function, jobs, workers or os.cpu_count() or 1, stop)
    from minetrace.run.cluster import on_cluster, open_cluster

    return on_cluster(
        function, jobs, open_cluster(scheduler, workers, memory), environment or {}, stop
    )


def _check(
    scheduler: Any, workers: int | None, memory: int | None, environment: Mapping[str, str] | None
) -> None:
    named = ("threads", "local", "synchronous", "processes")
    if scheduler is not None and scheduler not in named and not _leads_away(scheduler):
        raise InputError(
            f"scheduler {scheduler!r} is none of {', '.join(named)}, an address such as "
            "tcp://host:8786, or a distributed.Client (of a cluster: cluster.get_client())"
        )
    for name, number in (("workers", workers), ("memory", memory)):
        if number is not None and number < 1:
            raise InputError(f"{name} is {number}; give a positive number or leave it out")
    for name, value in (environment or {}).items():
        if not isinstance(value, str):
            # the value may be a secret
            raise InputError(f"environment: the value of {name} is no text; give a str")


def _leads_away(scheduler: Any) -> bool:
    if isinstance(scheduler, str):
        return "://" in scheduler
    from distributed import Client

    return isinstance(scheduler, Client) and not scheduler.asynchronous


def _one_by_one(
    function: Callable[[J], R], jobs: Sequence[J], stop: threading.Event
) -> Generator[tuple[int, R | Exception], None, None]:
    for index, job in enumerate(jobs):
        if stop.is_set():
            return
        value: R | Exception
        try:
            with synchronous:
                value = function(job)
        except Exception as err:
            value = err
        yield index, value


def _on_threads(
    function: Callable[[J], R], jobs: Sequence[J], workers: int, stop: threading.Event
) -> Generator[tuple[int, R | Exception], None, None]:
    with ThreadPoolExecutor(workers, thread_name_prefix="minetrace") as pool:
        yield from flow(_Threads(pool, workers, function, stop), enumerate(jobs), stop)


@dataclass
class _Threads(Generic[J, R]):
    pool: ThreadPoolExecutor
    workers: int
    function: Callable[[J], R]
    stop: threading.Event
    outlive: bool = True
    halted: bool = False

    def room(self) -> int:
        return IN_HAND * self.workers

    def submit(self, index: int, job: J) -> Future[R | Sign]:
        return self.pool.submit(self._do, job)

    def _do(self, job: J) -> R | Sign:
        if self.halted or self.stop.is_set():
            return Sign.UNSTARTED
        with synchronous:
            return self.function(job)

    def fetch(self, future: Future[R | Sign]) -> R | Exception | Sign:
        err = future.exception()
        if err is None:
            return future.result()
        if not isinstance(err, Exception):
            raise err
        return err

    def halt(self, hand: Collection[Future[R | Sign]]) -> None:
        self.halted = True

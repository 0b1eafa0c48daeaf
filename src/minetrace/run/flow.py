"""Jobs in hand and jobs done: what threads and clusters have in common."""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Generator, Iterator
from contextlib import suppress
from enum import Enum
from itertools import chain, islice
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import dask

_WAKE_S = 0.2
IN_HAND = 4
"""Jobs in hand per thread. Those that wait are what makes an adaptive cluster grow."""


class Sign(Enum):
    """What stands for a result that there is none of."""

    UNSTARTED = "unstarted"
    LOST = "lost"


class _Synchronous:
    """Keeps dask synchronous while any job of this process runs.

    dask's settings are those of the process, so the first job in sets and the last one out resets.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._setting: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._setting = dask.config.set(scheduler="synchronous")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._setting.__exit__(None, None, None)


synchronous = _Synchronous()


class Crew(Protocol):
    """Those who do the jobs."""

    outlive: bool
    """Whether jobs that have started go on when nobody waits for them."""

    def room(self) -> int:
        """How many jobs to have in hand."""

    def submit(self, index: int, job: Any) -> Any:
        """A future of the job."""

    def fetch(self, future: Any) -> Any:
        """What became of a job. Raises what ends the whole run."""

    def halt(self, hand: Collection[Any]) -> None:
        """Start none of the futures that have not started."""


def flow(
    crew: Crew, todo: Iterator[tuple[int, Any]], stop: threading.Event
) -> Generator[tuple[int, Any], None, None]:
    """Keep a crew busy with numbered jobs, and give their results as they come."""
    hand: dict[Any, tuple[int, Any]] = {}
    done: SimpleQueue[Any] = SimpleQueue()
    try:
        while True:
            if stop.is_set():
                todo = iter(())
                crew.halt(hand)
            for index, job in islice(todo, max(0, crew.room() - len(hand))):
                future = crew.submit(index, job)
                hand[future] = index, job
                future.add_done_callback(done.put)
            if not hand:
                return
            try:
                future = done.get(timeout=_WAKE_S)
            except Empty:
                continue
            index, job = hand.pop(future)
            value = crew.fetch(future)
            if value is Sign.LOST:
                todo = chain([(index, job)], todo)
            elif value is not Sign.UNSTARTED:
                yield index, value
    finally:
        # a job that outlived its run would write where the next run writes
        while hand and crew.outlive and not sys.is_finalizing():
            crew.halt(hand)
            with suppress(Empty):
                del hand[done.get(timeout=_WAKE_S)]

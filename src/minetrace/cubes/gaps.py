"""Reads that failed for good: an error, or a listed gap where the caller asks for that.

A worker of a dask cluster is another process and cannot reach the list. It logs the failed read
with the scheduler, which passes it on to the client, and then makes sure that somebody still
listens. Only then is the read a gap: a gap that nobody hears of would be a lie.
"""

from __future__ import annotations

import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

FailedRead = dict[str, str]


@dataclass
class _List:
    rows: list[FailedRead] = field(default_factory=list)
    clients: list[Any] = field(default_factory=list)
    """Of the clusters whose workers may add rows."""


_lists: dict[str, _List] = {}
_guard = threading.Lock()
_list: ContextVar[str] = ContextVar("minetrace_failures", default="")


@contextmanager
def failures() -> Iterator[list[FailedRead]]:
    """Go on where files cannot be read, and list every failure.

    Cubes opened inside the context get nodata where a file cannot be read for good; without it
    reading raises. Cubes opened before are not concerned.

    Yields
    ------
    list
        One row a failed read, with ``item``, ``asset``, ``window`` (west, south, east, north in
        degrees) and ``reason``. It fills while the cube is computed, which must happen inside the
        context too: by dask's threads, its synchronous scheduler, or the cluster whose
        `distributed.Client` was the current one when the cube was opened. Where no list can be
        reached, as from the processes of dask's own pool, reading raises.

    Examples
    --------
    >>> with failures() as gaps:
    ...     pass
    >>> gaps
    []
    """
    name, ours = uuid.uuid4().hex, _List()
    _lists[name] = ours
    token = _list.set(name)
    try:
        yield ours.rows
    finally:
        _list.reset(token)
        del _lists[name]
        for client in ours.clients:
            # without its scheduler no reading went well
            with suppress(OSError):
                _stop_listening(client, name, ours.rows)


def current_list() -> str:
    """Name of the list that surrounds the call, empty where there is none.

    The workers of the current cluster, if there is one, may put rows on it from then on.
    """
    name = _list.get()
    if name:
        _listen(name)
    return name


def listed(name: str, row: FailedRead) -> bool:
    """Put a failed read on its list; False where the list is gone or cannot be reached."""
    ours = _lists.get(name)
    if ours is None:
        return bool(name) and _told_the_client(name, row)
    _put(ours.rows, row)
    return True


def _put(rows: list[FailedRead], row: FailedRead) -> None:
    with _guard:
        # a task that ran twice, or a row that came by two ways
        if row not in rows:
            rows.append(row)


def _listen(name: str) -> None:
    """Take rows from the workers of the current cluster."""
    # who has a client has imported it
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return
    try:
        client = distributed.default_client()
    except ValueError:
        return
    ours = _lists[name]
    if client.asynchronous or client in ours.clients:
        return
    client.subscribe_topic(name, lambda event: _put(ours.rows, event[1]))
    distributed.Event(name, client=client).set()
    ours.clients.append(client)


def _stop_listening(client: Any, name: str, rows: list[FailedRead]) -> None:
    from distributed import Event

    if client.status != "running":
        return
    # in this order: a worker that still finds the event set has logged its row before
    Event(name, client=client).clear()
    for _, row in client.get_events(name):
        _put(rows, row)
    client.unsubscribe_topic(name)


def _told_the_client(name: str, row: FailedRead) -> bool:
    """Log a failed read with the scheduler of this worker; whether a client has heard of it."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    client = distributed.get_client()
    client.log_event(name, row)
    # the other way round the client might stop listening in between
    return bool(distributed.Event(name, client=client).is_set())

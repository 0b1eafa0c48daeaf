"""Reads that failed for good: an error, or a listed gap where the caller asks for that."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

FailedRead = dict[str, str]

_rows: dict[str, list[FailedRead]] = {}
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
        context too, by dask's threads or its synchronous scheduler. Workers in other processes
        know no list: they raise.

    Examples
    --------
    >>> with failures() as gaps:
    ...     pass
    >>> gaps
    []
    """
    name, rows = uuid.uuid4().hex, list[FailedRead]()
    _rows[name] = rows
    token = _list.set(name)
    try:
        yield rows
    finally:
        _list.reset(token)
        del _rows[name]


def current_list() -> str:
    """Name of the list that surrounds the call; empty where there is none."""
    return _list.get()


def listed(name: str, row: FailedRead) -> bool:
    """Put a failed read on its list; False where this process has no such list."""
    with _guard:
        rows = _rows.get(name)
        if rows is None:
            return False
        if row not in rows:
            rows.append(row)
        return True

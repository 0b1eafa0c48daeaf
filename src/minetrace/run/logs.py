"""Log lines of a unit begin with its id, whoever writes them and wherever the unit is done."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LOGGERS = ("minetrace", "odc", "rasterio", "urllib3")
"""Those who talk while a unit is done, and all below them."""
_unit: ContextVar[str] = ContextVar("unit", default="")


class _Named(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        unit = _unit.get()
        # two threads may have put this filter on a logger twice
        if unit and not hasattr(record, "unit"):
            record.unit = unit
            record.msg, record.args = f"unit {unit}: {record.getMessage()}", ()
        return True


_NAMED = _Named()


@contextmanager
def in_unit(unit: str) -> Iterator[None]:
    """Put the id of a unit before what this thread logs; records have it as ``unit``, too."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in _LOGGERS:
            # a filter of a logger is not asked for the records of those below it
            logging.getLogger(name).addFilter(_NAMED)
    token = _unit.set(unit)
    try:
        yield
    finally:
        _unit.reset(token)

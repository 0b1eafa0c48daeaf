"""What a batch run needs of the command line: sizes, and signals that end it cleanly."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from minetrace.cli import console

_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30,
          "ti": 2**40}  # fmt: skip


def bytes_of(text: str | None) -> int | None:
    """Bytes of a size such as ``8GB``, ``512MiB`` or a number.

    Examples
    --------
    >>> bytes_of("8GB"), bytes_of("1.5 GiB"), bytes_of("4096")
    (8000000000, 1610612736, 4096)
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]i?|)b?\s*", text.lower())
    try:
        size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    except ValueError:
        size = 0
    if size < 1:
        raise typer.BadParameter(f"give a size such as 8GB or 512MiB, not {text!r}")
    return size


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Event that SIGTERM and Ctrl-C set: units in hand are finished. A second Ctrl-C interrupts."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()
        console.err.print("stopping: units in hand are finished first")

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

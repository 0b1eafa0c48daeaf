"""What the command line shows: progress on a terminal, plain lines without one, tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pandas as pd
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

_PLAIN_WIDTH = 120
_LINE_S = 60.0
"""A line without a terminal is due after so long, or when a tenth is done."""


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    # a pipe has no width; rich would assume 80 columns and cut the tables
    return (
        console
        if console.is_terminal
        else Console(stderr=stderr, highlight=False, width=_PLAIN_WIDTH)
    )


out = _console(stderr=False)
err = _console(stderr=True)

Step = Callable[[int, int, str], None]


@contextmanager
def progress(*titles: str) -> Iterator[list[Step]]:
    """One bar per title on a terminal, a line per tenth and minute without one.

    Both tell rate and time left, of what is done after the step's first report: what an earlier
    run had done took no time. A bar pulses until then.
    """
    if err.is_terminal:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("{task.fields[pace]}"),
        )  # fmt: skip
        with Progress(*columns, console=err) as bars:
            yield [_bar(bars, title) for title in titles]
    else:
        yield [_lines(title) for title in titles]


def _bar(bars: Progress, title: str) -> Step:
    task = bars.add_task(title, total=None, pace="")
    pace = _Pace()

    def step(done: int, total: int, name: str) -> None:
        if done or total > 1:
            bars.update(task, completed=done, total=total, pace=pace.text(done, total))

    return step


def _lines(title: str) -> Step:
    shown, at = -1, 0.0
    pace = _Pace()

    def step(done: int, total: int, name: str) -> None:
        nonlocal shown, at
        tenth, told = 10 * done // max(total, 1), pace.text(done, total)
        if tenth > shown or time.monotonic() - at >= _LINE_S:
            shown, at = tenth, time.monotonic()
            err.print(", ".join(filter(None, (f"{title}: {done}/{total}", told))), soft_wrap=True)

    return step


class _Pace:
    """How fast something goes on, and how long it will take."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def text(self, done: int, total: int) -> str:
        """Rate and time left; nothing is known at the first report."""
        now = time.monotonic()
        if self._first is None:
            self._first = done, now
        n, seconds = done - self._first[0], now - self._first[1]
        if n <= 0 or seconds <= 0:
            return ""
        left = f", {_span((total - done) * seconds / n)} left" if done < total else ""
        return _rate(n / seconds) + left


def _rate(per_s: float) -> str:
    """A rate in the unit that leaves a number above one, if there is one."""
    for unit, seconds in (("s", 1), ("min", 60)):
        if per_s * seconds >= 1:
            return f"{per_s * seconds:.3g}/{unit}"
    return f"{per_s * 3600:.3g}/h"


def _span(seconds: float) -> str:
    """Hours, minutes and seconds as a clock shows them."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"


def table(frame: pd.DataFrame, title: str) -> None:
    """Print a table; text from data is never read as markup."""
    grid = Table(title=title, title_justify="left")
    for column in frame.columns:
        numeric = pd.api.types.is_numeric_dtype(frame[column])
        grid.add_column(str(column), justify="right" if numeric else "left")
    for row in frame.itertuples(index=False):
        grid.add_row(*(_cell(v) for v in row))
    out.print(grid)


def _cell(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return "–"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("[", r"\[")

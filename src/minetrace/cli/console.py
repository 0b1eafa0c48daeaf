"""What the command line shows: progress on a terminal, plain lines without one, tables."""

from __future__ import annotations

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
    TimeRemainingColumn,
)
from rich.table import Table

_PLAIN_WIDTH = 120


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
    """One bar per title on a terminal, one line per tenth without one.

    A bar pulses until its step first reports.
    """
    if err.is_terminal:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=err) as bars:
            yield [_bar(bars, title) for title in titles]
    else:
        yield [_lines(title) for title in titles]


def _bar(bars: Progress, title: str) -> Step:
    task = bars.add_task(title, total=None)

    def step(done: int, total: int, name: str) -> None:
        if done or total > 1:
            bars.update(task, completed=done, total=total)

    return step


def _lines(title: str) -> Step:
    shown = -1

    def step(done: int, total: int, name: str) -> None:
        nonlocal shown
        tenth = 10 * done // max(total, 1)
        if tenth > shown:
            shown = tenth
            err.print(f"{title}: {done}/{total} {name}".rstrip(), soft_wrap=True)

    return step


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

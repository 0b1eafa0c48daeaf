"""Progress as lines and as a bar: count, rate and time left, and not too many lines."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from minetrace.cli import console


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(console.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def lines(monkeypatch):
    """What is printed where there is no terminal."""
    text = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=text, width=120, highlight=False))
    return lambda: text.getvalue().splitlines()


def report(clock, seconds_a_unit: float, done: range, total: int) -> None:
    with console.progress("tracing") as [step]:
        step(done[0], total, "")
        for n in done[1:]:
            clock.now += seconds_a_unit
            step(n, total, f"landcover-{n}")


def test_lines_tell_count_rate_and_time_left(clock, lines):
    report(clock, 0.25, range(0, 21), 20)
    assert lines() == [
        "tracing: 0/20", "tracing: 2/20, 4/s, 0:00:04 left", "tracing: 4/20, 4/s, 0:00:04 left",
        "tracing: 6/20, 4/s, 0:00:04 left", "tracing: 8/20, 4/s, 0:00:03 left",
        "tracing: 10/20, 4/s, 0:00:02 left", "tracing: 12/20, 4/s, 0:00:02 left",
        "tracing: 14/20, 4/s, 0:00:02 left", "tracing: 16/20, 4/s, 0:00:01 left",
        "tracing: 18/20, 4/s, 0:00:00 left", "tracing: 20/20, 4/s",
    ]  # fmt: skip


def test_what_was_done_before_takes_no_part_in_the_rate(clock, lines):
    report(clock, 90.0, range(9_000, 9_003), 10_000)
    assert lines() == [
        "tracing: 9000/10000",
        "tracing: 9001/10000, 40/h, 24:58:30 left",
        "tracing: 9002/10000, 40/h, 24:57:00 left",
    ]


@pytest.mark.parametrize(
    ("seconds", "rate", "n_lines"), [(0.1, "10/s", 11 + 10), (2, "30/min", 334)]
)
def test_ten_thousand_units_are_a_line_a_minute_or_a_tenth(clock, lines, seconds, rate, n_lines):
    report(clock, seconds, range(0, 10_001), 10_000)
    told = lines()
    assert n_lines <= len(told) <= n_lines + 11
    assert all(f", {rate}" in line for line in told[1:])
    assert told[-1] == f"tracing: 10000/10000, {rate}"


def test_a_bar_tells_rate_and_time_left(clock, monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(
        console, "err", Console(file=text, width=120, highlight=False, force_terminal=True)
    )
    report(clock, 2.0, range(0, 3), 10)
    assert "2/10" in text.getvalue()
    assert "30/min, 0:00:16 left" in text.getvalue()

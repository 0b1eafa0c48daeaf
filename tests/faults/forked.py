"""Runs in forks of one warm process: what ``test_run_faults`` starts, watches and kills.

A fresh process for each would spend its time on imports and on compiling kernels.
"""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import geopandas as gpd
import numpy as np
from cut_off import at_event

import minetrace as mt
from minetrace.cli.app import main
from minetrace.run import RunResult, run_sites, work
from test_run import boxes, plain_world

YEARS = range(2000, 2006)
SIDE, STEP = 6, 25
SITES = 6
PAUSE_S = 0.1


def make_world(folder: Path) -> Path:
    """A recipe over six layers of land cover in which a good part of the ground changes."""
    rng = np.random.default_rng(0)
    codes = rng.choice(np.array([10, 61, 130, 200], "u1"), (SIDE * STEP, SIDE * STEP))
    layers = {}
    for year in YEARS:
        flips = rng.random(codes.shape) < 0.1
        codes = np.where(flips, rng.choice(np.array([61, 200], "u1"), codes.shape), codes)
        layers[f"lc_{year}"] = codes
    return plain_world(folder, layers)


def make_sites(n: int = SITES) -> gpd.GeoDataFrame:
    """Squares of 20 pixels, 36 at most, in no order."""
    places = [
        (10 + x * STEP * 1e-4, 50 - y * STEP * 1e-4) for x in range(SIDE) for y in range(SIDE)
    ]
    names = [f"s{i:02d}" for i in range(len(places))]
    random.Random(0).shuffle(names)
    return boxes(**dict(zip(names, places, strict=True))).iloc[:n]


class Slow(work.Work):
    """Takes its time before and after a unit, so that a kill may meet any part of it."""

    def __call__(self, job: work.Job) -> work.Done:
        time.sleep(PAUSE_S)
        done = super().__call__(job)
        time.sleep(PAUSE_S)
        return done


APART = {
    "minetrace.run.plan:CELL_DEGREES": 1e-3,
    "minetrace.run.plan:MOST_SITES": 1,
    "minetrace.run.plan:_CHAIN": 1,
    "minetrace.run.plan:_LEAST_DEGREES": 1e-9,
}
"""Settings with which every site is a unit of its own."""
SLOW = {"minetrace.run.batch:Work": Slow}


def put(settings: Mapping[str, Any]) -> None:
    """Set names of modules, given as ``module:name``, for the rest of this process."""
    for place, value in settings.items():
        module, _, name = place.partition(":")
        setattr(resolve_name(module), name, value)


# ---- processes -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forks:
    """Processes that begin with all kernels compiled."""

    context: Any

    def start(self, function: Callable[..., Any], *args: Any) -> Any:
        """A process that calls a function."""
        process = self.context.Process(target=function, args=args)
        process.start()
        return process

    def code(self, function: Callable[..., Any], *args: Any) -> int:
        """Exit code of a process that calls a function; minus the signal that ended it."""
        process = self.start(function, *args)
        process.join(120)
        assert process.exitcode is not None, "it never ended"
        return int(process.exitcode)

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """What a function returns or raises in a process of its own."""
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.start(_tell, theirs, function, args, options)
        theirs.close()
        good, value = ours.recv()
        process.join()
        if good:
            return value
        raise value


def _tell(pipe: Any, function: Callable[..., Any], args: Any, options: Any) -> None:
    try:
        told = True, function(*args, **options)
    except Exception as err:
        told = False, err
    pipe.send(told)


@contextmanager
def warm_forks(folder: Path, recipe: Path, out: Path) -> Iterator[Forks]:
    """Forks of a process that has done a quiet run, which leaves its output."""
    code = f"import forked\nforked.quiet({str(recipe)!r}, {str(out)!r})\n"
    (folder / "warm_up.py").write_text(code)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm_up"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *sys.path])
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    yield Forks(context)
    forkserver._forkserver._stop()


def quiet(recipe: str, out: str) -> None:
    """An undisturbed run on one thread, of the same units as the others."""
    put(APART)
    run_sites(make_sites(), recipe, out, scheduler="synchronous")


# ---- what they do --------------------------------------------------------------------------------


def run(
    recipe: Path, out: Path, *, rows: Sequence[int] = range(SITES),
    settings: Mapping[str, Any] = APART, start: Any = None, **options: Any,
) -> RunResult:  # fmt: skip
    """A run of some sites; it waits at the barrier ``start`` when it knows what there is to do."""
    put(settings)

    def told(done: int, total: int, unit: str) -> None:
        if start is not None and not unit:
            start.wait(60)

    return run_sites(make_sites(36).iloc[rows], recipe, out, progress=told, **options)


class Heard(logging.Handler):
    """Keeps what a process logs, and the threads that do."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((str(record.threadName), record.getMessage()))


_heard = Heard()


def listen() -> None:
    """Keep what minetrace and the libraries under it log in this process from now on."""
    logging.getLogger().addHandler(_heard)
    logging.getLogger("minetrace").setLevel(logging.INFO)


def heard() -> list[tuple[str, str]]:
    """Threads and lines, and an end of it."""
    logging.getLogger().removeHandler(_heard)
    logging.getLogger("minetrace").setLevel(logging.NOTSET)
    return _heard.lines


def run_and_listen(*args: Any, **options: Any) -> tuple[RunResult, list[tuple[str, str]]]:
    """A run, and what its process logged."""
    listen()
    return run(*args, **options), heard()


def run_out_of_space(place: str, nth: int, *args: Any, **options: Any) -> RunResult:
    """A run for which the disk is full when a function is called for the nth time."""
    real, calls = resolve_name(place), []

    def full(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **options)

    put({place: full})
    return run(*args, **options)


def drive(recipe: Path, out: Path, told: Path, at: int, after_s: float) -> None:
    """A run on threads that dies at a change to its files, after a while, or never."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    count = at_event(at, out, die)
    if after_s:
        threading.Timer(after_s, die).start()
    start = time.monotonic()
    result = run(recipe, out, workers=2)
    took = time.monotonic() - start
    about = {"reused": result.n_reused, "units": result.n_units, "changes": count[0], "took": took}
    told.write_text(json.dumps(about))


def command(words: list[str], log: Path) -> None:
    """The command line with slow units, everything that it prints in a file."""
    put(APART | SLOW)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["minetrace", *words]
    main()


def run_file(world: Path, out: Path, settings: Mapping[str, Any], **options: Any) -> RunResult:
    """A run of a simulated world, all products."""
    put(settings)
    sites = mt.read_sites(world / "sites.gpkg", id_column="site_id")
    return run_sites(sites, world / "recipe.toml", out, **options)

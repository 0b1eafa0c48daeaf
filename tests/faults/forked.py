"""Runs that die, in forks of one warm process; what ``test_run_faults`` kills.

A fresh process for each would spend its time on imports and on compiling kernels.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np

from cut_off import at_event
from minetrace.cli.app import main
from minetrace.run import batch, plan, run_sites
from minetrace.run.work import Done, Job, Work
from test_run import boxes, plain_world

YEARS = range(2000, 2006)
SIDE, STEP = 6, 25
PAUSE_S = 0.1
_HERE = Path(__file__).parent


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


def make_sites(n: int) -> gpd.GeoDataFrame:
    """Squares of 20 pixels, 36 at most, in no order."""
    places = [(10 + x * STEP * 1e-4, 50 - y * STEP * 1e-4) for x in range(SIDE) for y in range(SIDE)]
    names = [f"s{i:02d}" for i in range(len(places))]
    random.Random(0).shuffle(names)
    return boxes(**dict(zip(names, places, strict=True))).iloc[:n]


def apart(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Let every site be a unit of its own."""
    for name, value in (("CELL_DEGREES", 1e-3), ("MOST_SITES", 1), ("_CHAIN", 1),
                        ("_LEAST_DEGREES", 1e-9)):  # fmt: skip
        put(plan, name, value)


class Slow(Work):
    """Takes its time before and after a unit, so that a kill may meet any part of it."""

    def __call__(self, job: Job) -> Done:
        time.sleep(PAUSE_S)
        done = super().__call__(job)
        time.sleep(PAUSE_S)
        return done


def quiet(recipe: Path, out: Path, n_sites: int) -> None:
    """An undisturbed run on one thread."""
    run_sites(make_sites(n_sites), recipe, out, scheduler="synchronous")


@contextmanager
def warm_forks(folder: Path, recipe: Path, out: Path, n_sites: int) -> Iterator[Any]:
    """Context whose processes are forks of one that has done a quiet run."""
    code = f"from forked import quiet\nquiet({str(recipe)!r}, {str(out)!r}, {n_sites})\n"
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
    yield context
    forkserver._forkserver._stop()


def drive(recipe: Path, out: Path, n_sites: int, told: Path, at: int, after_s: float) -> None:
    """A run on threads that dies at a change to its files, after a while, or never."""
    apart()

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    count = at_event(at, out, die)
    if after_s:
        threading.Timer(after_s, die).start()
    start = time.monotonic()
    result = run_sites(make_sites(n_sites), recipe, out, workers=2)
    took = time.monotonic() - start
    about = {"reused": result.n_reused, "units": result.n_units, "changes": count[0], "took": took}
    told.write_text(json.dumps(about))


def command(words: list[str], log: Path) -> None:
    """The command line, with everything that it prints in a file."""
    apart()
    batch.Work = Slow
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["minetrace", *words]
    main()

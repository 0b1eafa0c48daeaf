"""Runs whose workers and drivers are killed: the same tables, and nothing done twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import minetrace as mt
from minetrace.run import run_sites

KILLS = int(os.environ.get("MINETRACE_KILLS", "2"))
"""Random moments at which a driver dies; half as many workers. More of them on demand."""

DRIVER = """
import sys
import minetrace as mt
from minetrace.run import plan, run_sites

plan.CELL_DEGREES, plan.MOST_SITES, plan._CHAIN = 0.001, 1, 1
world, out, scheduler = sys.argv[1:]
if __name__ == "__main__":
    sites = mt.read_sites(f"{world}/sites.gpkg", id_column="site_id")
    def told(done, total, unit):
        print(done, total, unit or "-", flush=True)
    run_sites(sites, f"{world}/recipe.toml", out, scheduler=scheduler, workers=2,
              products=["panel"], progress=told)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "sim"
    mt.simulate_mines(folder, sites=4, years=range(2016, 2023), seed=3)
    return folder


@pytest.fixture(scope="module")
def quiet(world, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("quiet") / "out"
    sites = mt.read_sites(world / "sites.gpkg", id_column="site_id")
    run_sites(sites, world / "recipe.toml", out, products=["panel"], scheduler="synchronous")
    return out


def tables(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.parquet"))}


def committed(out: Path) -> dict[str, int]:
    """Entries of the manifest and when they were made."""
    return {p.name: p.stat().st_mtime_ns for p in (out / "manifest").glob("*.json")}


def start(world: Path, out: Path, scheduler: str) -> subprocess.Popen[str]:
    code = out.parent / "driver.py"
    code.write_text(DRIVER)
    return subprocess.Popen(
        [sys.executable, str(code), str(world), str(out), scheduler],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_driver_killed_at_random_moments_goes_on_where_it_was(world, quiet, tmp_path):
    """Whatever is committed at a kill is not done again, and the end is that of a quiet run."""
    rng, out = random.Random(0), tmp_path / "out"
    for _ in range(KILLS):
        before = committed(out) if out.exists() else {}
        driver = start(world, out, "threads")
        with driver:
            for line in driver.stdout:
                # some units further than the last time, then somewhere within the next
                if int(line.split()[0]) > len(before):
                    break
            time.sleep(rng.uniform(0, 0.5))
            driver.send_signal(signal.SIGKILL)
        after = committed(out)
        assert {name: after[name] for name in before} == before
        for path in (out / "manifest").glob("*.json"):
            assert json.loads(path.read_text())["files"]
    before = committed(out)
    with start(world, out, "threads") as driver:
        driver.communicate()
    assert driver.returncode == 0
    after = committed(out)
    assert {name: after[name] for name in before} == before
    assert tables(out) == tables(quiet)
    listed = {json.loads(p.read_text())["folder"] for p in (out / "manifest").glob("*.json")}
    assert {p.name for p in (out / "units").iterdir()} == listed


def test_workers_killed_in_a_run_change_nothing(world, quiet, tmp_path):
    """Workers are killed while they are at work; others do what they had in hand."""
    import psutil

    rng, out = random.Random(1), tmp_path / "out"
    wanted, killed = max(1, KILLS // 2), 0
    with start(world, out, "processes") as driver:
        for line in driver.stdout:
            done, total, _ = line.split(maxsplit=2)
            # a unit more is done: all workers have started and are at work again
            if 0 < int(done) < int(total) and killed < wanted:
                time.sleep(rng.uniform(0, 0.5))
                children = psutil.Process(driver.pid).children(recursive=True)
                workers = [p for p in children if "spawn_main" in " ".join(p.cmdline())]
                rng.choice(workers).kill()
                killed += 1
    assert killed == wanted
    assert driver.returncode == 0
    assert tables(out) == tables(quiet)

"""The land cover of every mine on Earth, measured on a sample of a made world.

    python benchmarks/world.py [--sites 2000] [--folder DIR] [--out results.json] [--quick]

`worldmaker` tells how the world is made. The sample is a simple random sample of the 5° tiles that
hold sites, so districts, shared blocks and tile borders are whole. The whole world is made as well,
without its pixels: its sites and the blocks that they touch are counted, not guessed. A run's time
is extrapolated by both, as time per site times the sites of the world and as time per block times
its blocks; these ratio estimators differ as far as the sample is more or less crowded than the
world. The larger of the two is the one to quote. Start and compilation are in the time of the run,
so they are multiplied too, which is to our disadvantage.

Files are local and in the page cache. An engine that reads beyond the touched blocks finds nothing
there and pays less for that than with whole tiles.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import inspect
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import pandas as pd
import psutil
import rasterio
import xarray as xr
from worldmaker import (
    FILES,
    LAYERS,
    REAL,
    Blocks,
    World,
    block_window,
    describe,
    make_world,
    part_of,
    touched_blocks,
)

import minetrace as mt
from minetrace.panel import read_geoparquet, read_table, write_geoparquet
from minetrace.run import run_sites
from minetrace.schema import load_recipe

GROWTH = (100, 1000, 10_000)
_WARM_UP = 200
"""Sites of all kinds: every kernel is compiled, in every worker, before the clock runs."""
"""Fewer sites leave rare kernels uncompiled."""
_STATUS_YEARS = (2000, 2022)
Numbers = dict[str, Any]


def decode(world: World, blocks: Blocks, *, threads: int = 2, repeats: int = 1) -> Numbers:
    """Least time of plain rasterio to decode every touched block once, in all layers.

    Each thread opens each file once and takes every other of its blocks.
    """
    work = [
        (world.file(tile, pattern), sorted(blocks[tile]))
        for tile in sorted(blocks)
        for pattern in FILES
    ]

    def read(part: int) -> int:
        size = 0
        for path, places in work:
            with rasterio.open(path) as file:
                for row, col in places[part::threads]:
                    size += file.read(window=block_window(row, col, world.lattice)).size
        return size

    least = float("inf")
    for _ in range(repeats):
        start = perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            size = sum(pool.map(read, range(threads)))
        least = min(least, perf_counter() - start)
    n = sum(map(len, blocks.values()))
    stored = sum(path.stat().st_size for path, _ in work)
    return {
        "seconds": least, "blocks": n, "layer_blocks": n * len(LAYERS), "bytes": size,
        "stored_bytes": stored, "stored_bytes_per_layer_block": stored / n / len(LAYERS),
        "megabytes_per_second": size / least / 1e6,
    }  # fmt: skip


def engine(world: World, sites_file: Path, *, repeats: int = 1, **how: object) -> Numbers:
    """The quickest of some runs of the panel alone, each in a fresh process.

    The process first traces a few sites, so that compilation is told apart. The peak is that of the
    process and all below it, the largest of all runs.
    """
    if "products" in inspect.signature(run_sites).parameters:
        how = {"products": ["panel"], **how}
    runs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="run-", dir=world.folder) as out:
            job = {"recipe": str(world.recipe), "sites": str(sites_file), "out": out, "how": how}
            runs.append(_in_fresh_process(job))
    best = min(runs, key=lambda run: run["seconds"])
    return {**best, "peak_bytes": max(run["peak_bytes"] for run in runs), "runs": len(runs)}


def _in_fresh_process(job: Numbers) -> Numbers:
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        tree = {"peak": 0}
        watch = threading.Thread(target=_watch, args=(process.pid, tree), daemon=True)
        watch.start()
        printed, _ = process.communicate()
        watch.join()
    if process.returncode:
        raise SystemExit(f"the run of {job['sites']} failed")
    found = json.loads(printed.splitlines()[-1])
    own = found.pop("own_peak_bytes")
    return {**found, "peak_bytes": max(tree["peak"], own)}


def _watch(pid: int, tree: dict[str, int]) -> None:
    """Resident memory of a process and all below it, while it lives."""
    try:
        top = psutil.Process(pid)
        while top.is_running() and top.status() != psutil.STATUS_ZOMBIE:
            held = 0
            for process in (top, *top.children(recursive=True)):
                try:
                    held += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            tree["peak"] = max(tree["peak"], held)
            # looking through all processes takes milliseconds of the cores that are measured
            sleep(0.2)
    except psutil.NoSuchProcess:
        return


def do_job(job: Numbers) -> Numbers:
    """What the fresh process does: some sites, then all of them."""
    sites, recipe, out = read_geoparquet(job["sites"]), job["recipe"], Path(job["out"])
    how = dict(job["how"])
    with _cluster(how) as how:
        start = perf_counter()
        run_sites(sites.sample(min(_WARM_UP, len(sites)), random_state=0), recipe, out / "w", **how)
        warm = perf_counter()
        result = run_sites(sites, recipe, out / "run", **how)
        seconds = perf_counter() - warm
    return {
        "seconds": seconds, "warm_up_seconds": warm - start, "sites": len(sites),
        "traced": result.n_sites, "units": result.n_units, "failures": len(result.failures),
        "own_peak_bytes": _own_peak(),
    }  # fmt: skip


@contextmanager
def _cluster(how: Numbers) -> Iterator[Numbers]:
    """Processes that start and compile before the clock runs, as those of a long run do."""
    if how.get("scheduler") != "processes":
        yield how
        return
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=how["workers"], threads_per_worker=1, host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield {**how, "scheduler": client, "workers": None}


def _own_peak() -> int:
    with open("/proc/self/status") as status:
        return next(int(k.split()[1]) for k in status if k.startswith("VmHWM")) * 1024


def lazy(world: World, n: int, seed: int = 0) -> Numbers:
    """The loop that a user writes, on some of the sites; its numbers must be the engine's."""
    rng = np.random.default_rng([seed, 5])
    rows = np.sort(rng.choice(len(world.sites), min(n, len(world.sites)), replace=False))
    sites = world.sites.iloc[rows].reset_index(drop=True)
    file = world.folder / "lazy.parquet"
    write_geoparquet(sites, file)
    recipe = load_recipe(world.recipe)
    source = mt.open_source(world.folder / "catalog" / "source.toml")
    _by_hand(sites.iloc[[0]], recipe, source)
    start = perf_counter()
    by_hand = [_by_hand(sites.iloc[[i]], recipe, source) for i in range(len(sites))]
    seconds = perf_counter() - start
    with tempfile.TemporaryDirectory(prefix="world-run-", dir=world.folder) as out:
        run_sites(sites, recipe, out, workers=2)
        _check_equal(by_hand, Path(out))
    return {"seconds": seconds, "sites": len(sites), "seconds_per_site": seconds / len(sites)}


ByHand = tuple[pd.DataFrame, pd.DataFrame, int]


def _by_hand(site: Any, recipe: Any, source: Any) -> ByHand:
    codes = mt.open_cube(site, recipe, sources=source)["landcover/landcover"].compute()
    bsp = mt.bare_surface_percentage(codes, site, legend="glc_fcs30d", coverage="fraction")
    areas = mt.transition_areas(codes, site, legend="glc_fcs30d", coverage="fraction")
    series = xr.DataArray(bsp["bsp"], {"time": codes["time"].to_numpy()}, ["time"])
    trend = mt.mann_kendall(series.sel(time=slice(*map(str, _STATUS_YEARS))))
    return bsp, areas, int(trend["trend"])


def _check_equal(by_hand: Sequence[ByHand], out: Path) -> None:
    panel = read_geoparquet(out / "site_panel.parquet")
    table = read_geoparquet(out / "site_table.parquet").set_index("site_id")
    moves = read_table(out / "transition_areas.parquet")
    shares, flows = (
        pd.concat([site[k] for site in by_hand]).reset_index(drop=True) for k in (0, 1)
    )
    key = ["site_id", "year"]
    ours = panel.sort_values(key).set_index(key)["bsp"]
    theirs = shares.sort_values(key).set_index(key)["bsp"]
    pd.testing.assert_series_equal(ours, theirs, check_exact=True)
    key = ["site_id", "year", "interval_years", "cover"]
    both = [k.sort_values(key).reset_index(drop=True) for k in (moves, flows)]
    pd.testing.assert_frame_equal(*both, check_exact=True, check_dtype=False)
    for bsp, _, trend in by_hand:
        site_id = bsp["site_id"].iloc[0]
        if table.loc[site_id, "bsp_trend"] != trend:
            raise AssertionError(f"the trend of {site_id} differs")


def growth(world: World, counts: Sequence[int], *, repeats: int = 1) -> list[Numbers]:
    """Runs over ever fewer whole tiles, as crowded as all; counts beyond the sites are left out."""
    found: list[Numbers] = []
    part = world
    for n in sorted((k for k in counts if k <= len(world.sites)), reverse=True):
        part = part if n == len(part.sites) else part_of(part, n)
        touched = touched_blocks(part.sites, part.lattice)
        run = engine(part, part.sites_file, repeats=repeats, workers=2)
        blocks = sum(map(len, touched.values()))
        each = {
            "tiles": len(touched),
            "blocks": blocks,
            "seconds_per_site": run["seconds"] / len(part.sites),
            "seconds_per_block": run["seconds"] / blocks,
        }
        found.insert(0, {**run, **each})
    return found


def processes(world: World, *, repeats: int = 1) -> Numbers | None:
    """Runs on one process and on two; None where runs know no schedulers."""
    if "scheduler" not in inspect.signature(run_sites).parameters:
        return None
    one, two = (
        engine(world, world.sites_file, repeats=repeats, scheduler="processes", workers=n)
        for n in (1, 2)
    )
    return {"one": one, "two": two, "times_faster": one["seconds"] / two["seconds"]}


def memory(
    world: World, run: Numbers, plan_bytes: Callable[[World], int] | None = None
) -> Numbers | None:
    """Peak of a run beside the peak that its plan names; None where nothing plans."""
    if plan_bytes is None:
        return None
    planned = plan_bytes(world)
    return {"planned_bytes": planned, "times_the_plan": run["peak_bytes"] / planned}


def extrapolated(world: World, seconds: float, sites: int, blocks: int) -> Numbers:
    """Minutes for the whole world, by its sites and by its blocks."""
    by_sites = seconds / sites * world.whole["sites"] / 60
    by_blocks = seconds / blocks * world.whole["blocks"] / 60
    return {"by_sites": by_sites, "by_blocks": by_blocks, "larger": max(by_sites, by_blocks)}


def measure(world: World, arguments: argparse.Namespace) -> Numbers:
    """Everything, on the sites of a world."""
    blocks = touched_blocks(world.sites, world.lattice)
    n, repeats = len(world.sites), 1 if arguments.quick else arguments.repeats
    # the first pass fills the page cache for all that follow
    decode(world, blocks)
    decoded = decode(world, blocks, repeats=repeats)
    ran = engine(world, world.sites_file, repeats=repeats, workers=2)
    by_hand = lazy(world, 10 if arguments.quick else arguments.lazy, arguments.seed)
    counts = (n // 4, n) if arguments.quick else GROWTH
    return {
        "decode": decoded, "engine": ran, "lazy": by_hand,
        "growth": growth(world, counts, repeats=repeats),
        "processes": processes(world, repeats=repeats), "memory": memory(world, ran),
        "ratios": {
            "share_of_decode_throughput": decoded["seconds"] / ran["seconds"],
            "times_faster_than_the_lazy_loop": by_hand["seconds_per_site"] * n / ran["seconds"],
            "milliseconds_per_site": 1e3 * ran["seconds"] / n,
        },
        "world_minutes": extrapolated(world, ran["seconds"], n, decoded["blocks"]),
        "world_minutes_of_decoding": extrapolated(world, decoded["seconds"], n, decoded["blocks"]),
    }  # fmt: skip


def machine() -> Numbers:
    """What the figures depend on."""
    names = ("minetrace", "numpy", "numba", "dask", "rasterio", "xarray")
    return {
        "cpu": _cpu(), "cores": os.cpu_count(), "memory_bytes": psutil.virtual_memory().total,
        "load_at_start": os.getloadavg()[0], "system": platform.platform(),
        "python": platform.python_version(), "gdal": rasterio.__gdal_version__,
        **{name: importlib.metadata.version(name) for name in names},
    }  # fmt: skip


def _cpu() -> str:
    with open("/proc/cpuinfo") as cpus:
        return next((k.split(":")[1].strip() for k in cpus if k.startswith("model name")), "")


def show(results: Numbers) -> None:
    """Print the made world beside the real one, then the measurements."""
    columns = {**REAL, "world": results["world"], "sample": results["sample"]}
    table = pd.DataFrame(columns).reindex(list(results["world"]))
    print(table.map(lambda v: "" if pd.isna(v) else f"{v:,.4g}").to_string(), end="\n\n")
    for name, value in _flat(results["measured"]):
        text = f"{value:,.4g}" if isinstance(value, float) else value
        print(f"{name:60s} {text!s:>16}")


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return [(name, "not measured" if value is None else value)]
    return [pair for k, v in value.items() for pair in _flat(v, f"{name} {k}".strip())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the world is, or is made and kept")
    parser.add_argument("--out", type=Path, help="JSON of the results")
    parser.add_argument("--interleave", choices=("band", "pixel"), default="band")
    parser.add_argument("--repeats", type=int, default=2, help="the quickest counts")
    parser.add_argument("--lazy", type=int, default=100, help="sites of the lazy loop")
    parser.add_argument("--quick", action="store_true", help="at most 200 sites, once")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(do_job(json.loads(arguments.job))))
        return
    about = machine()
    n = min(arguments.sites, 200) if arguments.quick else arguments.sites
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="world-"))
    try:
        start = perf_counter()
        world = make_world(folder, n, arguments.seed, interleave=arguments.interleave)
        made = perf_counter() - start
        results = {
            "machine": about, "seed": arguments.seed, "interleave": arguments.interleave,
            "seconds_to_make": made, "world": world.whole,
            "sample": describe(world.sites, world.lattice), "measured": measure(world, arguments),
        }  # fmt: skip
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    show(results)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

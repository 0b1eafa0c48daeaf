"""Damage, full disks and killed writers: a store gives the right values or says that it cannot."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

from minetrace.errors import StoreError
from minetrace.store import load_cube, save_cube
from test_store import make_years

YEARS = [2018, 2019, 2020]
CORRUPTIONS = 1000


def values(cube: xr.DataTree) -> dict[str, np.ndarray]:
    """Every array of a cube, coordinates too."""
    with dask.config.set(scheduler="sync"):
        return {
            f"{name}/{key}": var.values
            for name, node in cube.children.items()
            for key, var in node.to_dataset(inherit=False).variables.items()
        }


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes()
        for k in a
    )


def make_pair(years: list[int]) -> xr.DataTree:
    """Two variables of one form, so that files of one would fit in place of the other's."""
    cube = make_years(years)
    image = cube["imagery"].to_dataset()
    image["nir"] = 1 - image["red"]
    return xr.DataTree.from_dict({"/": cube.to_dataset(), "imagery": image})


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """A store of two years with a third that was added."""
    save_cube(make_pair(YEARS[:2]), tmp_path / "c.zarr")
    return save_cube(make_pair(YEARS), tmp_path / "c.zarr")


def corrupt(files: list[Path], rng: random.Random) -> tuple[str, dict[Path, bytes]]:
    """Damage one file, or exchange two; what it was, and what the files held before."""
    kind = rng.choice(["flip", "flip", "cut", "grow", "delete", "swap", "zero"])
    file, other = rng.sample(files, 2)
    good = {file: file.read_bytes()}
    data = bytearray(good[file])
    if kind == "flip":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[rng.randrange(len(data)) :]
    elif kind == "grow":
        data += bytes(rng.randrange(1, 9))
    elif kind == "zero":
        data = bytearray(len(data))
    elif kind == "swap":
        good[other] = other.read_bytes()
        data = bytearray(good[other])
        other.write_bytes(good[file])
    if kind == "delete":
        file.unlink()
    else:
        file.write_bytes(data)
    return f"{kind} {file} {other if kind == 'swap' else ''}", good


def test_a_thousand_corruptions_and_not_one_silent_wrong_value(grown: Path):
    rng = random.Random(2026)
    opened = load_cube(grown, verify=True)
    right = values(opened)
    assert same(right, values(make_pair(YEARS)))
    files = sorted(p for p in grown.rglob("*") if p.is_file())
    chunks = [p for p in files if "c" in p.parts and p.parts[-5] in ("red", "nir")]
    assert len(chunks) == 4
    silent, refused = [], {True: 0, False: 0}
    for number in range(CORRUPTIONS):
        # every other in what holds the pixels, met by a reader who opened the store before
        late = bool(number % 2)
        what, good = corrupt(chunks if late else files, rng)
        try:
            if not same(values(opened if late else load_cube(grown)), right):
                silent.append(what)
        except StoreError:
            refused[late] += 1
        for path, data in good.items():
            path.write_bytes(data)
    assert silent == []
    assert refused[True] == CORRUPTIONS / 2
    # the rest is damage to what no value comes from, such as metadata that the root repeats
    assert refused[False] > 0.3 * CORRUPTIONS / 2
    assert same(values(load_cube(grown, verify=True)), right)


def test_verify_finds_every_corruption(grown: Path):
    rng = random.Random(7)
    files = sorted(p for p in grown.rglob("*") if p.is_file())
    missed = []
    for _ in range(100):
        what, good = corrupt(files, rng)
        if all(path.is_file() and path.read_bytes() == data for path, data in good.items()):
            continue
        try:
            load_cube(grown, verify=True)
            missed.append(what)
        except StoreError:
            pass
        for path, data in good.items():
            path.write_bytes(data)
    assert missed == []


def test_a_killed_writer_or_a_full_disk_leaves_the_old_state_and_a_rerun_equals_a_quiet_run(
    tmp_path: Path,
):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", Path(__file__).with_name("cut_off.py"), tmp_path],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    for what in ("first", "year", "anew"):
        assert told[what]["killed"] == told[what]["points"] >= 5
    assert told["full"] == {"refused": 5}
    assert "No space" in done.stderr or "too large" in done.stderr

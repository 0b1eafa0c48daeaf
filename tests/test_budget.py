"""What plans cost, and the ways to end a run: sizes, refusals, signals."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import typer

from minetrace.cli.batch import bytes_of, stop_on_signals
from minetrace.cubes import open_sources
from minetrace.errors import InputError, RunError
from minetrace.run import plan_units, run_sites
from minetrace.run.blocks import sites_that_share_blocks
from minetrace.run.budget import PROCESS_BYTES, budget
from minetrace.schema import ImageryRecipe, LightsRecipe, Recipe, load_recipe
from test_run import boxes, full, plain_world


@pytest.fixture
def small_blocks(monkeypatch):
    """Files of 100 × 100 pixels pass for ones of four blocks."""
    for module in ("blocks", "budget"):
        monkeypatch.setattr(f"minetrace.run.{module}.block_shape", lambda *_: (50, 50))


def test_blocks_and_bytes_are_those_that_sites_touch(tmp_path, small_blocks):
    path = plain_world(tmp_path, {"lc_2000": full(61), "lc_2001": full(200)})
    recipe = load_recipe(path)
    sources = open_sources(recipe)
    upper, both = boxes(a=(10.002, 49.998)), boxes(a=(10.002, 49.998), b=(10.002, 49.9925))
    found = []
    for sites in (upper, both):
        units = plan_units(sites, recipe, sources)
        found.append(budget(sites, units, recipe, sources, units_at_once=2))
    assert [(b.n_sites, b.n_blocks) for b in found] == [(1, 2), (2, 4)]
    assert found[1].decoded_bytes == 2 * found[0].decoded_bytes
    files = sum(f.stat().st_size for f in (tmp_path / "catalog").rglob("*.tif"))
    assert found[1].stored_bytes == pytest.approx(files / 2, rel=0.01)
    assert found[1].n_units == {"landcover": 1, "maps": 1}
    assert found[1].peak_bytes == PROCESS_BYTES + 2 * found[1].unit_bytes


def test_trends_and_cubes_are_counted_and_estimated():
    recipe = Recipe(
        name="t", years=(2000, 2020),
        imagery=ImageryRecipe(source="s", crs="utm", resolution=30),
        lights=LightsRecipe(source="s"),
    )  # fmt: skip
    small = boxes(a=(10.0, 50.0), b=(10.004, 50.0), c=(30.0, 50.0))
    large = small.assign(geometry=[g.buffer(0.5) for g in small.geometry])
    found = {}
    for name, sites, buffer_m in (
        ("small", small, 0.0),
        ("wide", small, 9e3),
        ("large", large, 0.0),
    ):
        plan = recipe.model_copy(update={"buffer_m": buffer_m})
        units = plan_units(sites, plan, {}, products=["panel", "trends", "cubes"])
        found[name] = budget(sites, units, plan, {})
    assert found["small"].n_units == {"imagery": 2, "lights": 2, "trends": 4, "cubes": 3}
    taken = found["large"].product_bytes
    assert found["large"].unit_bytes == max(taken.values())
    # what is done by blocks takes less than a window as a whole
    assert taken["cubes"] < taken["trends"] < taken["imagery"]
    assert found["small"].unit_bytes < found["wide"].unit_bytes


def test_a_plan_that_does_not_fit_is_refused_before_anything_is_read(tmp_path):
    recipe = plain_world(tmp_path, {"lc_2000": full(61)})
    sites = boxes(a=(10.002, 49.998))
    with pytest.raises(RunError, match=r"in a process that does 4 units .* \d units at a time"):
        run_sites(sites, recipe, tmp_path / "out", workers=4, memory=PROCESS_BYTES + 2**29)
    with pytest.raises(RunError, match="give more memory"):
        run_sites(sites, recipe, tmp_path / "out", memory=2**20)
    assert not (tmp_path / "out").exists()
    assert run_sites(sites, recipe, tmp_path / "out", memory=2**33).n_sites == 1


def test_sites_that_share_a_block_stay_together(tmp_path, monkeypatch, small_blocks):
    path = plain_world(tmp_path, {"lc_2000": full(61)})
    recipe = load_recipe(path)
    source = open_sources(recipe)["landcover"]
    sites = boxes(a=(10.0, 50.0), b=(10.004, 49.9998), c=(10.006, 49.9918))
    a, b, c = sites_that_share_blocks(sites, recipe, source)
    assert a == b != c
    monkeypatch.setattr("minetrace.run.plan.MOST_SITES", 1)
    monkeypatch.setattr("minetrace.run.plan._LEAST_DEGREES", 1e-4)
    for chain, expected in ((10, [(0, 1), (2,)]), (1, [(0,), (1,), (2,)])):
        monkeypatch.setattr("minetrace.run.plan._CHAIN", chain)
        units = plan_units(sites, recipe, {"landcover": source}, products=["panel"])
        assert sorted(u.rows for u in units) == expected


def test_products_are_named(tmp_path):
    recipe = plain_world(tmp_path, {"lc_2000": full(61)})
    with pytest.raises(InputError, match="give 'panel'"):
        run_sites(boxes(a=(10.0, 50.0)), recipe, tmp_path, products=["panel", "soup"])


def test_a_run_without_maps_has_the_same_tables(tmp_path):
    recipe = plain_world(tmp_path, {"lc_2000": full(61), "lc_2001": full(200)})
    sites = boxes(a=(10.002, 49.998))
    run_sites(sites, recipe, tmp_path / "with")
    run_sites(sites, recipe, tmp_path / "without", products=["panel"])
    for name in ("site_panel", "site_table", "transition_areas", "failures"):
        a, b = (tmp_path / f / f"{name}.parquet" for f in ("with", "without"))
        assert a.read_bytes() == b.read_bytes()
    assert len(list((tmp_path / "with" / "maps").iterdir())) == 1
    assert not (tmp_path / "without" / "maps").exists()
    # an earlier run's maps are not taken for those of new tables
    run_sites(sites, recipe, tmp_path / "with", products=["panel"])
    assert not (tmp_path / "with" / "maps").exists()


@pytest.mark.parametrize("text", ["", "eight", "8XB", "-1GB", "0", "1.2.3GB"])
def test_a_size_that_is_none_is_a_usage_error(text):
    with pytest.raises(typer.BadParameter, match="such as 8GB"):
        bytes_of(text)


def test_signals_ask_a_run_to_stop_and_a_second_ctrl_c_interrupts():
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_every_site_is_in_one_unit(tmp_path):
    recipe = load_recipe(plain_world(tmp_path, {"lc_2000": full(61)}))
    rng = np.random.default_rng(0)
    corners = np.c_[10 + rng.random(2000) * 0.0099, 50 - rng.random(2000) * 0.0099]
    sites = boxes(**{f"s{i}": tuple(c) for i, c in enumerate(corners)})
    units = plan_units(sites, recipe, open_sources(recipe), products=["panel"])
    assert sorted(r for u in units for r in u.rows) == list(range(2000))

"""The world that the benchmark measures: its statistics, and a small one from end to end."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from geopandas.testing import assert_geodataframe_equal

import minetrace as mt
from minetrace.panel import read_geoparquet
from minetrace.schema import SITES, check_table

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from worldmaker import (
    FILES,
    LAYERS,
    MEAN_KM2,
    REAL,
    Lattice,
    Tile,
    block_window,
    describe,
    make_sites,
    make_world,
    nested_tiles,
    part_of,
    sample_tiles,
    touched_blocks,
)

SMALL = Lattice(degrees=1, pixel=0.00026949458523585647 * 3, block=64)


@pytest.fixture(scope="module")
def sites():
    return make_sites(5000, seed=0)


def test_sites_are_valid_and_keep_the_contract(sites):
    check_table(sites, SITES)
    assert sites.crs == "EPSG:4326"
    assert shapely.is_valid(sites.geometry.values).all()
    kinds = sites.geom_type.value_counts()
    assert kinds["Polygon"] > 20 * kinds["MultiPolygon"] > 0
    assert shapely.get_num_interior_rings(sites.geometry.values).sum() > 20


def test_sites_have_the_statistics_of_real_ones(sites):
    found, tropics, chile = describe(sites), REAL["tropics"], REAL["Chile"]
    assert found["mean_km2"] == pytest.approx(MEAN_KM2, rel=0.01)
    assert found["area_km2"] == pytest.approx(5000 * MEAN_KM2, rel=0.01)
    assert 0.17 < found["median_km2"] < 0.22
    for name in ("sd_log_area", "median_vertices", "median_fill"):
        assert found[name] == pytest.approx(tropics[name], rel=0.1), name
    assert found["blocks_touched_per_site"] < chile["blocks_touched_per_site"]
    # fewer mines than in the world are more scattered than in it
    assert REAL["Ghana"]["blocks_per_site"] < found["blocks_per_site"] < chile["blocks_per_site"]
    assert 1.5 < found["median_nearest_km"] < 6
    assert found["over_100_km2"] >= 1


def test_sites_hang_on_the_seed_alone(sites):
    assert_geodataframe_equal(make_sites(5000, seed=0), sites)
    other = make_sites(5000, seed=1)
    assert not other.geometry.geom_equals(sites.geometry).any()


def test_sites_do_not_overlap(sites):
    a, b = shapely.STRtree(sites.geometry.values).query(sites.geometry.values, "intersects")
    assert (a != b).sum() < 0.01 * len(sites)


def test_samples_are_nested_and_whole(sites):
    some, more = (set(sample_tiles(sites, n, seed=3).site_id) for n in (100, 1000))
    assert len(some) == 100
    assert some < more
    part = nested_tiles(sites, 500)
    assert 400 < len(part) < 600
    assert describe(part)["blocks_per_site"] == pytest.approx(
        describe(sites)["blocks_per_site"], rel=0.1
    )


def test_tiles_are_named_by_their_north_west_corner_and_leave_no_gap():
    lattice = Lattice()
    assert lattice.side == 18_554
    assert [Tile(110, 25).name, Tile(-75, -10).name, Tile(0, 0).name] == [
        "E110N25",
        "W75S10",
        "E0N0",
    ]
    for west in range(-175, 175, 5):
        edge = Tile(west, 10).corner(lattice)[1] + lattice.side
        assert Tile(west + 5, 10).corner(lattice)[1] <= edge


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A dozen sites, with every code checked against the legend."""
    return make_world(
        tmp_path_factory.mktemp("world") / "w", 12, lattice=SMALL, world=300, workers=1,
        check_codes=True,
    )  # fmt: skip


def test_only_touched_blocks_are_written(world):
    blocks = touched_blocks(world.sites, SMALL)
    for tile, places in blocks.items():
        with rasterio.open(world.file(tile, list(FILES)[1])) as file:
            assert (file.block_shapes[0], file.compression.value) == ((64, 64), "DEFLATE")
            assert file.shape == (SMALL.side, SMALL.side)
            whole = file.read(5) > 0
        expected = np.zeros_like(whole)
        for place in places:
            window = block_window(*place, SMALL)
            expected[window.toslices()] = True
        np.testing.assert_array_equal(whole, expected)


def test_run_of_a_small_world(world, tmp_path):
    result = mt.run_sites(
        world.sites, world.recipe, tmp_path / "out", products=["panel"], workers=1
    )
    assert result.n_sites == len(world.sites)
    assert result.complete, result.failures
    panel = read_geoparquet(tmp_path / "out" / "site_panel.parquet")
    assert len(panel) == len(world.sites) * len(LAYERS)
    assert (panel.n_pixels > 0).all()
    assert panel.bsp.between(0, 1).all()
    assert panel.bsp.nunique() > 20
    codes = mt.open_cube(world.sites.iloc[[0]], world.recipe)["landcover/landcover"]
    assert codes.sizes["time"] == len(LAYERS)
    assert (codes > 0).all()


def test_a_part_has_a_catalogue_of_its_own(world):
    part = part_of(world, 4)
    assert 0 < len(part.sites) < len(world.sites)
    codes = mt.open_cube(part.sites.iloc[[0]], part.recipe)["landcover/landcover"]
    assert (codes > 0).all()


def test_an_equal_world_is_kept_and_no_other_folder_is_touched(world, tmp_path):
    before = world.sites_file.stat().st_mtime_ns
    again = make_world(world.folder, 12, lattice=SMALL, world=300, check_codes=True)
    assert again.sites_file.stat().st_mtime_ns == before
    tmp_path.joinpath("precious.txt").touch()
    with pytest.raises(SystemExit, match="holds other files"):
        make_world(tmp_path, 12, lattice=SMALL, world=300)
    assert tmp_path.joinpath("precious.txt").exists()

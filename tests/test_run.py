"""The batch engine: same numbers as by hand, faults as rows, exact resume."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import Point, box

import minetrace as mt
from minetrace.errors import LegendError, RunError, SiteError
from minetrace.panel import read_geoparquet, read_table
from minetrace.run import plan_units, run_sites
from minetrace.schema import load_recipe
from minetrace.zones import zonal_mean

YEARS = range(2016, 2023)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "sim"
    mt.simulate_mines(folder, sites=3, years=YEARS, seed=5)
    return folder


@pytest.fixture(scope="module")
def sites(world: Path) -> gpd.GeoDataFrame:
    return mt.read_sites(world / "sites.gpkg", id_column="site_id")


@pytest.fixture(scope="module")
def quiet(world, sites, tmp_path_factory) -> Path:
    """The output of an undisturbed run."""
    out = tmp_path_factory.mktemp("quiet") / "out"
    result = run_sites(sites, world / "recipe.toml", out)
    assert result.complete, result.failures
    return out


def tables(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.parquet"))}


def test_run_equals_the_way_by_hand(world, sites, quiet):
    """Every number of the batch equals what a user computes for one site, exactly."""
    panel = read_geoparquet(quiet / "site_panel.parquet")
    moves = read_table(quiet / "transition_areas.parquet")
    recipe = load_recipe(world / "recipe.toml")
    for i in range(len(sites)):
        row = sites.iloc[[i]]
        cube = mt.open_cube(row, recipe)
        codes = cube["landcover/landcover"]
        bsp = mt.bare_surface_percentage(codes, row, legend="glc_fcs30d", coverage="fraction")
        mine = panel[panel.site_id == row.site_id.iloc[0]].set_index("year")
        merged = bsp.set_index("year")["bsp"]
        np.testing.assert_array_equal(mine.loc[merged.index, "bsp"], merged)
        areas = mt.transition_areas(codes, row, legend="glc_fcs30d", coverage="fraction")
        theirs = moves[moves.site_id == row.site_id.iloc[0]].reset_index(drop=True)
        pd.testing.assert_frame_equal(theirs, areas, check_exact=True, check_dtype=False)
        green = zonal_mean(mt.ndvi(cube["imagery"].to_dataset()), row)
        years = pd.DatetimeIndex(green["time"]).year
        np.testing.assert_array_equal(mine.loc[years, "ndvi"], green["value"])
        lit = zonal_mean(cube["lights/ntl"], row)
        years = pd.DatetimeIndex(lit["time"]).year
        np.testing.assert_array_equal(mine.loc[years, "ntl"], lit["value"])


def test_grouping_and_workers_change_nothing(world, sites, quiet, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "minetrace.run.batch.plan_units", lambda frame: plan_units(frame, cell_degrees=0.001)
    )
    run_sites(
        sites.iloc[::-1].reset_index(drop=True), world / "recipe.toml", tmp_path / "out", workers=3
    )
    for name in ("site_panel.parquet", "site_table.parquet"):
        pd.testing.assert_frame_equal(
            pd.DataFrame(read_geoparquet(tmp_path / "out" / name)),
            pd.DataFrame(read_geoparquet(quiet / name)), check_exact=True,
        )  # fmt: skip


def test_a_rerun_redoes_nothing_and_is_byte_equal(world, sites, quiet, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(quiet, out)
    before = tables(out)
    units = {p: p.stat().st_mtime_ns for p in (out / "units").rglob("*.parquet")}
    result = run_sites(sites, world / "recipe.toml", out)
    assert result.n_reused == result.n_units
    assert tables(out) == before
    assert {p: p.stat().st_mtime_ns for p in (out / "units").rglob("*.parquet")} == units


def test_a_fresh_run_is_byte_equal(world, sites, quiet, tmp_path):
    run_sites(sites, world / "recipe.toml", tmp_path / "out")
    assert tables(tmp_path / "out") == tables(quiet)


def test_a_run_that_died_goes_on(world, sites, quiet, tmp_path, monkeypatch):
    """The driver dies while a unit's files are half written; the rerun equals the quiet run."""
    import minetrace.run.batch as batch

    monkeypatch.setattr(batch, "plan_units", lambda frame: plan_units(frame, cell_degrees=0.001))
    real, done = batch.write_unit, []

    def dies(folder, **kwargs):
        if len(done) == 1:
            (folder / "panel.parquet").write_bytes(b"half")
            raise KeyboardInterrupt
        done.append(folder)
        real(folder, **kwargs)

    monkeypatch.setattr(batch, "write_unit", dies)
    with pytest.raises(KeyboardInterrupt):
        run_sites(sites, world / "recipe.toml", tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "site_panel.parquet").exists()
    monkeypatch.setattr(batch, "write_unit", real)
    result = run_sites(sites, world / "recipe.toml", tmp_path / "out", workers=1)
    assert result.n_reused == 1
    pd.testing.assert_frame_equal(
        pd.DataFrame(read_geoparquet(tmp_path / "out" / "site_table.parquet")),
        pd.DataFrame(read_geoparquet(quiet / "site_table.parquet")), check_exact=True,
    )  # fmt: skip


def test_changed_settings_are_not_mixed_with_old_results(world, sites, quiet, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(quiet, out)
    recipe = load_recipe(world / "recipe.toml")
    change = recipe.change.model_copy(update={"coverage": "centre"})
    result = run_sites(sites, recipe.model_copy(update={"change": change}), out)
    assert result.n_reused == 0
    assert tables(out)["site_panel.parquet"] != tables(quiet)["site_panel.parquet"]


def test_a_damaged_unit_is_not_reused(world, sites, quiet, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(quiet, out)
    file = next((out / "units").rglob("panel.parquet"))
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(RunError, match="damaged or gone"):
        run_sites(sites, world / "recipe.toml", out)
    result = run_sites(sites, world / "recipe.toml", out, resume=False)
    assert result.n_reused == 0
    assert tables(out) == tables(quiet)


def test_a_site_outside_the_data_is_a_row_while_others_finish(world, sites, quiet, tmp_path):
    far = gpd.GeoDataFrame(
        {"site_id": ["atlantis", "near"], "area_km2": [1.0, 1.0], "source": "x", "country": None},
        geometry=[Point(-30, 0).buffer(0.01),
                  box(*(sites.total_bounds[:2] - 0.2), *(sites.total_bounds[:2] - 0.19))],
        crs=4326,
    )  # fmt: skip
    both = gpd.GeoDataFrame(pd.concat([sites, far], ignore_index=True), crs=4326)
    result = run_sites(both, world / "recipe.toml", tmp_path / "out")
    assert not result.complete
    assert set(result.failures.site_id) == {"atlantis", "near"}
    again = run_sites(both, world / "recipe.toml", tmp_path / "out")
    assert again.n_reused == again.n_units, "a site outside the data is no passing fault"
    table = read_geoparquet(tmp_path / "out" / "site_table.parquet")
    pd.testing.assert_frame_equal(
        pd.DataFrame(table), pd.DataFrame(read_geoparquet(quiet / "site_table.parquet"))
    )


def test_a_damaged_raster_fails_only_the_sites_it_touches(world, sites, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(world, broken)
    path = next((broken / "landcover").rglob("*2019*.tif"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with contextlib.suppress(RunError):  # the cut may take every site's block
        run_sites(sites, broken / "recipe.toml", tmp_path / "out")
    failures = read_table(tmp_path / "out" / "failures.parquet")
    assert len(failures)
    assert set(failures["item"].dropna()) == {path.stem.removesuffix("_landcover")}
    assert "landcover" in set(failures["asset"].dropna())
    # a passing fault is tried again once the file is whole
    path.write_bytes(data)
    assert run_sites(sites, broken / "recipe.toml", tmp_path / "out").complete


def test_a_legend_that_misses_a_code_stops_the_run(world, sites, tmp_path):
    legend = tmp_path / "few.toml"
    legend.write_text(
        'name = "few"\n[[class]]\ncode = 61\nname = "forest"\ngroup = "dense"\ncover = "forest"\n'
    )
    recipe = load_recipe(world / "recipe.toml")
    part = recipe.landcover.model_copy(update={"legend": str(legend)})
    with pytest.raises(LegendError, match="few"):
        run_sites(sites, recipe.model_copy(update={"landcover": part}), tmp_path / "out")
    assert not list((tmp_path / "out" / "manifest").iterdir())


def test_absent_layers_are_said(world, sites, tmp_path):
    recipe = load_recipe(world / "recipe.toml").model_copy(update={"years": (2016, 2017)})
    result = run_sites(sites, recipe, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "run.json").read_text())
    assert summary["missing"] == ["imagery"]
    assert summary["layers"]["landcover"] == [2016, 2017]
    panel = read_geoparquet(tmp_path / "out" / "site_panel.parquet")
    assert panel["ndvi"].isna().all()
    assert panel["bsp"].notna().all()
    assert "no imagery item" in " ".join(result.failures["reason"])


def test_no_sites_and_no_result_are_errors(world, sites, tmp_path):
    with pytest.raises(SiteError, match="no sites"):
        run_sites(sites.iloc[:0], world / "recipe.toml", tmp_path / "a")
    nowhere = sites.iloc[[0]].assign(geometry=[Point(-30, 0).buffer(0.01)])
    with pytest.raises(RunError, match="none of 1 sites"):
        run_sites(nowhere, world / "recipe.toml", tmp_path / "b")


def test_another_run_in_the_same_folder_is_told(world, sites, tmp_path, monkeypatch):
    import minetrace.run.batch as batch

    real = batch.write_unit

    def raced(folder, **kwargs):
        monkeypatch.setattr(batch, "write_unit", real)
        run_sites(sites, world / "recipe.toml", tmp_path / "out", workers=1)
        folder.mkdir(exist_ok=True)
        real(folder, **kwargs)

    monkeypatch.setattr(batch, "write_unit", raced)
    with pytest.raises(RunError, match="committed by another run"):
        run_sites(sites, world / "recipe.toml", tmp_path / "out", workers=1)

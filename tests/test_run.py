"""The batch engine: same numbers as by hand, faults as rows, exact resume."""

from __future__ import annotations

import errno
import json
import shutil
import threading
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import from_origin
from shapely.geometry import Point, box

import minetrace as mt
from minetrace.errors import ReadError, RecipeError, RunError, SiteError
from minetrace.panel import read_geoparquet, read_table
from minetrace.run import run_sites
from minetrace.schema import load_recipe
from minetrace.sites import SiteWarning
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


def apart(monkeypatch):
    """Let every site be a unit of its own."""
    monkeypatch.setattr("minetrace.run.plan.CELL_DEGREES", 0.001)
    monkeypatch.setattr("minetrace.run.plan.MOST_SITES", 1)
    monkeypatch.setattr("minetrace.run.plan._CHAIN", 1)


def test_grouping_and_workers_change_nothing(world, sites, quiet, tmp_path, monkeypatch):
    apart(monkeypatch)
    # strips of a few rows, so that every site is taken in parts
    monkeypatch.setattr("minetrace.run.landcover.BATCH_BYTES", 2000)
    # tables in as many pieces as there are sites
    monkeypatch.setattr("minetrace.run.gather.BATCH", 1)
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
    units = {p: p.stat().st_mtime_ns for p in (out / "units").rglob("*.*")}
    result = run_sites(sites, world / "recipe.toml", out)
    assert result.n_reused == result.n_units
    assert tables(out) == before
    assert {p: p.stat().st_mtime_ns for p in (out / "units").rglob("*.*")} == units


def test_a_fresh_run_is_byte_equal(world, sites, quiet, tmp_path):
    run_sites(sites, world / "recipe.toml", tmp_path / "out")
    assert tables(tmp_path / "out") == tables(quiet)


def test_a_run_that_died_goes_on(world, sites, quiet, tmp_path, monkeypatch):
    """The driver dies while a unit's files are half written; the rerun equals the quiet run."""
    import minetrace.run.work as work

    apart(monkeypatch)
    real, done = work.write_unit, []

    def dies(folder, **kwargs):
        if len(done) == 1:
            (folder / "rows.arrow").write_bytes(b"half")
            raise KeyboardInterrupt
        done.append(folder)
        real(folder, **kwargs)

    monkeypatch.setattr(work, "write_unit", dies)
    with pytest.raises(KeyboardInterrupt):
        run_sites(sites, world / "recipe.toml", tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "site_panel.parquet").exists()
    monkeypatch.setattr(work, "write_unit", real)
    result = run_sites(sites, world / "recipe.toml", tmp_path / "out", workers=1)
    assert result.n_reused == 1
    assert tables(tmp_path / "out") == tables(quiet)


def test_a_stopped_run_finishes_what_is_in_hand_and_goes_on(
    world, sites, quiet, tmp_path, monkeypatch
):
    apart(monkeypatch)
    stop, out = threading.Event(), tmp_path / "out"
    with pytest.raises(RunError, match=r"stopped after 1 of \d+ units; these are committed"):
        run_sites(
            sites, world / "recipe.toml", out, scheduler="synchronous", stop=stop,
            progress=lambda done, total, unit: stop.set() if done else None,
        )  # fmt: skip
    result = run_sites(sites, world / "recipe.toml", out)
    assert result.n_reused == 1
    assert tables(out) == tables(quiet)


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
    file = next((out / "units").rglob("rows.arrow"))
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


@pytest.mark.parametrize("damage", ["cut in half", "gone"])
def test_a_damaged_raster_costs_its_layer_and_no_more(world, sites, quiet, tmp_path, damage):
    broken = tmp_path / "broken"
    shutil.copytree(world, broken)
    path = next((broken / "landcover").rglob("*2019*.tif"))
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2])
    if damage == "gone":
        with pytest.raises(RunError, match="cannot be opened"):
            run_sites(sites, broken / "recipe.toml", tmp_path / "out")
        return
    result = run_sites(sites, broken / "recipe.toml", tmp_path / "out")
    assert result.n_sites == len(sites)
    assert not result.complete
    assert set(result.failures["item"].dropna()) == {path.stem.removesuffix("_landcover")}
    assert set(result.failures["asset"]) == {"landcover"}
    assert result.failures["reason"].str.contains(path.name).any()
    panel = read_geoparquet(tmp_path / "out" / "site_panel.parquet").set_index(["site_id", "year"])
    good = read_geoparquet(quiet / "site_panel.parquet").set_index(["site_id", "year"])
    for site_id in result.failures["site_id"].dropna().unique():
        assert np.isnan(panel.loc[(site_id, 2019), "bsp"])
    others = panel.index[panel["bsp"].notna()]
    pd.testing.assert_series_equal(panel.loc[others, "bsp"], good.loc[others, "bsp"])
    pd.testing.assert_series_equal(panel["ntl"], good["ntl"])
    # a passing fault is tried again once the file is whole
    path.write_bytes(data)
    assert run_sites(sites, broken / "recipe.toml", tmp_path / "out").complete


# ---- small worlds of plain rasters ---------------------------------------------------------------


def plain_world(folder: Path, layers: dict[str, np.ndarray], *, north: float = 50.0) -> Path:
    """A recipe over a catalogue of land cover with one file a layer (name → codes)."""
    files = []
    for name, codes in layers.items():
        path = folder / "raw" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(
            path, "w", driver="GTiff", height=codes.shape[0], width=codes.shape[1], count=1,
            dtype="uint8", crs="EPSG:4326", nodata=0,
            transform=from_origin(10.01 if "east" in name else 10.0, north, 0.0001, 0.0001),
        ) as dst:  # fmt: skip
            dst.write(codes, 1)
        files.append(path)
    mt.build_catalog(files, folder / "catalog")
    recipe = folder / "recipe.toml"
    recipe.write_text(
        'years = [1985, 2022]\n[landcover]\nsource = "catalog"\nlegend = "glc_fcs30d"\n'
    )
    return recipe


def boxes(**where: tuple[float, float]) -> gpd.GeoDataFrame:
    """Square sites of 20 pixels by name and upper left corner."""
    shapes = [box(x, y - 0.002, x + 0.002, y) for x, y in where.values()]
    frame = gpd.GeoDataFrame({"site_id": list(where)}, geometry=shapes, crs=4326)
    return frame.assign(area_km2=0.03, source="test", country=None)


def full(code: int) -> np.ndarray:
    return np.full((100, 100), code, "u1")


def test_neighbours_change_no_number(tmp_path):
    """A layer that covers only the neighbour does not shorten a site's interval."""
    recipe = plain_world(
        tmp_path,
        {"west_1985": full(61), "west_1990": full(200),
         "east_1985": full(61), "east_1987": full(61), "east_1990": full(200)},
    )  # fmt: skip
    both = boxes(a=(10.002, 49.998), b=(10.014, 49.998))
    run_sites(both, recipe, tmp_path / "both")
    run_sites(both.iloc[[0]], recipe, tmp_path / "alone")
    moves = read_table(tmp_path / "both" / "transition_areas.parquet")
    a = moves[moves.site_id == "a"]
    assert set(a.year) == {1990}
    assert set(a.interval_years) == {5}
    assert set(moves[moves.site_id == "b"].interval_years) == {2, 3}
    alone = read_table(tmp_path / "alone" / "transition_areas.parquet")
    pd.testing.assert_frame_equal(a.reset_index(drop=True), alone)


def test_a_tile_that_ends_at_the_equator_is_a_place(tmp_path):
    recipe = plain_world(tmp_path, {"lc_2000": full(61), "lc_2001": full(200)}, north=0.01)
    sites = boxes(a=(10.002, 0.003), b=(10.006, 0.003))
    result = run_sites(sites, recipe, tmp_path / "out")
    assert (result.complete, result.n_sites) == (True, 2)


def test_changed_pixels_are_not_served_from_an_earlier_run(tmp_path):
    site = boxes(a=(10.002, 49.998))
    for code, bsp in ((200, 1.0), (61, 0.0)):
        recipe = plain_world(tmp_path, {"lc_2000": full(code), "lc_2001": full(code)})
        result = run_sites(site, recipe, tmp_path / "out")
        assert result.n_reused == 0
        panel = read_geoparquet(tmp_path / "out" / "site_panel.parquet")
        assert panel["bsp"].tolist() == [bsp, bsp]


def test_changed_site_columns_are_not_served_from_an_earlier_run(tmp_path):
    recipe = plain_world(tmp_path, {"lc_2000": full(200)})
    site = boxes(a=(10.002, 49.998))
    run_sites(site, recipe, tmp_path / "out")
    run_sites(site.assign(country="CHL"), recipe, tmp_path / "out")
    table = read_geoparquet(tmp_path / "out" / "site_table.parquet")
    assert table["country"].tolist() == ["CHL"]


def test_a_year_without_data_is_recorded(tmp_path):
    years = {f"lc_{y}": full(61) for y in (1985, 1990, 2000, 2001, 2003, 2004)}
    recipe = plain_world(tmp_path, years)
    result = run_sites(boxes(a=(10.002, 49.998)), recipe, tmp_path / "out")
    assert result.failures["reason"].tolist() == ["no landcover item in 2002"]


def test_years_that_a_product_never_had_are_no_gaps(tmp_path):
    years = {f"lc_{y}": full(61) for y in (1990, 1995, 2000, 2001, 2005, 2010)}
    recipe = plain_world(tmp_path, years)
    assert run_sites(boxes(a=(10.002, 49.998)), recipe, tmp_path / "out").complete


@pytest.mark.parametrize("found", [0, 1])
def test_a_unit_with_a_passing_fault_is_tried_again(tmp_path, monkeypatch, found):
    """Nothing on disk changes: only the fault of the first try is gone at the second."""
    from minetrace.run import attempt

    recipe = plain_world(tmp_path, {"lc_2000": full(61), "lc_2001": full(200)})
    sites = boxes(a=(10.002, 49.998), b=(10.004, 49.998))
    real, tries = attempt.measure, []

    def stumbles(product, rows, *args):
        if "a" in set(rows.site_id) and len(args[-1]) == 2:
            tries.append(1)
            raise ReadError("the disk stumbled")
        return real(product, rows, *args)

    monkeypatch.setattr(attempt, "measure", stumbles)
    monkeypatch.setattr(attempt, "account_sites", lambda rows, *args: ([], [*range(len(rows))]))
    monkeypatch.setattr(
        attempt, "unreadable", lambda *args: [(i, "stumbled") for i in args[-1][:found]]
    )
    first = run_sites(sites, recipe, tmp_path / "out", products=["panel"])
    assert tries
    assert set(first.failures["site_id"]) == {"a"}
    assert first.n_sites == 1 + found
    monkeypatch.undo()
    second = run_sites(sites, recipe, tmp_path / "out", products=["panel"])
    assert (second.n_reused, second.complete, second.n_sites) == (0, True, 2)


def test_an_empty_layer_is_recorded_and_stays_a_gap(tmp_path):
    layers = {"lc_2000": full(61), "lc_2001": full(0), "lc_2002": full(200)}
    recipe = plain_world(tmp_path, layers)
    result = run_sites(boxes(a=(10.002, 49.998)), recipe, tmp_path / "out")
    assert result.failures["reason"].tolist() == ["no valid pixel in 2001"]
    panel = read_geoparquet(tmp_path / "out" / "site_panel.parquet").set_index("year")
    assert np.isnan(panel.loc[2001, "bsp"])
    assert panel.loc[2002, "development_km2"] > 0


def test_two_dates_in_one_year_fail_only_their_sites(tmp_path):
    recipe = plain_world(
        tmp_path,
        {"west_2000": full(61), "west_2001": full(61), "west_2001-07": full(200),
         "east_2000": full(61), "east_2001": full(200)},
    )  # fmt: skip
    result = run_sites(
        boxes(a=(10.002, 49.998), b=(10.014, 49.998)), recipe, tmp_path / "out", workers=1
    )
    assert result.failures["site_id"].tolist() == ["a"]
    assert "both give the land cover of 2001" in result.failures["reason"][0]
    assert result.n_sites == 1


def test_nothing_observed_anywhere_is_an_error(tmp_path):
    recipe = plain_world(tmp_path, {"lc_2000": full(0)})
    with pytest.raises(RunError, match=r"none of 1 sites gave a result.*outside the data"):
        run_sites(boxes(a=(10.002, 49.998)), recipe, tmp_path / "out")


def test_integer_ids_are_ids(tmp_path):
    recipe = plain_world(tmp_path, {"lc_2000": full(200)})
    site = boxes(a=(10.002, 49.998)).assign(site_id=[7])
    assert run_sites(site, recipe, tmp_path / "out").n_sites == 1


def test_rejects_of_a_file_are_not_those_of_a_part_of_it(tmp_path):
    recipe = plain_world(tmp_path, {"lc_2000": full(200)})
    frame = boxes(a=(10.002, 49.998), b=(10.004, 49.998), c=(10.006, 49.998))
    frame.loc[2, "geometry"] = None
    frame.to_file(tmp_path / "sites.gpkg")
    with pytest.warns(SiteWarning):
        sites = mt.read_sites(tmp_path / "sites.gpkg", id_column="site_id")
    assert run_sites(sites, recipe, tmp_path / "all").failures["site_id"].tolist() == ["c"]
    assert run_sites(sites[sites.site_id == "a"], recipe, tmp_path / "one").complete


def test_imagery_without_nir_is_refused(world, sites, tmp_path):
    recipe = load_recipe(world / "recipe.toml")
    part = recipe.imagery.model_copy(update={"bands": ("red", "green")})
    with pytest.raises(RecipeError, match="NDVI needs red and nir"):
        run_sites(sites, recipe.model_copy(update={"imagery": part}), tmp_path / "out")


def test_a_legend_that_misses_a_code_is_named(world, sites, tmp_path):
    legend = tmp_path / "few.toml"
    legend.write_text(
        'name = "few"\n[[class]]\ncode = 61\nname = "forest"\ngroup = "dense"\ncover = "forest"\n'
    )
    recipe = load_recipe(world / "recipe.toml")
    part = recipe.landcover.model_copy(update={"legend": str(legend)})
    with pytest.raises(RunError, match=r"none of 3 sites.*class codes \[.*legend 'few'"):
        run_sites(sites, recipe.model_copy(update={"landcover": part}), tmp_path / "out")


def test_an_unknown_code_in_one_place_fails_only_its_site(tmp_path):
    codes = full(61)
    codes[20:30, 20:30] = 77
    recipe = plain_world(tmp_path, {"lc_2000": codes, "lc_2001": full(61)})
    sites = boxes(a=(10.002, 49.998), b=(10.006, 49.998))
    result = run_sites(sites, recipe, tmp_path / "out")
    assert (result.n_sites, result.failures["site_id"].tolist()) == (1, ["a"])
    assert "[77]" in result.failures["reason"][0]


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


def test_of_two_runs_in_one_folder_one_wins_each_unit(
    world, sites, quiet, tmp_path, monkeypatch, caplog
):
    import minetrace.run.work as work

    real = work.write_unit

    def raced(folder, **kwargs):
        monkeypatch.setattr(work, "write_unit", real)
        run_sites(sites, world / "recipe.toml", tmp_path / "out", workers=1)
        real(folder, **kwargs)

    monkeypatch.setattr(work, "write_unit", raced)
    result = run_sites(sites, world / "recipe.toml", tmp_path / "out", scheduler="synchronous")
    assert "was committed by another run" in caplog.text
    assert result.n_elsewhere == result.n_units
    assert tables(tmp_path / "out") == tables(quiet)
    folders = {p.name for p in (tmp_path / "out" / "units").iterdir()}
    entries = [json.loads(p.read_text()) for p in (tmp_path / "out" / "manifest").iterdir()]
    assert {entry["folder"] for entry in entries} == folders


def test_a_full_disk_is_said_and_leaves_nothing_torn(world, sites, quiet, tmp_path, monkeypatch):
    import minetrace.run.work as work

    real = work.write_unit

    def full(folder, **kwargs):
        (folder / "rows.arrow").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(work, "write_unit", full)
    with pytest.raises(RunError, match="no space is left"):
        run_sites(sites, world / "recipe.toml", tmp_path / "out")
    assert not list((tmp_path / "out" / "manifest").iterdir())
    monkeypatch.setattr(work, "write_unit", real)
    run_sites(sites, world / "recipe.toml", tmp_path / "out")
    assert tables(tmp_path / "out") == tables(quiet)

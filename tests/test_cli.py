"""The command as a user runs it: exit codes, messages, files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
from shapely.geometry import Point

import minetrace as mt
from minetrace.panel import read_geoparquet


def minetrace(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from minetrace.cli import main; main()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("demo")
    return out, minetrace("demo", "--out", out)


def test_the_demo_recovers_every_simulated_site(demo):
    out, done = demo
    assert done.returncode == 0, done.stderr
    assert "all 5 sites recovered" in done.stdout
    for word in ("growing_pit", "reclaimed", "forest", "desert", "Confusion"):
        assert word in done.stdout
    page = (out / "report.html").read_text()
    assert "sim-001" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_demo_fails_on_a_miss(demo):
    """The comparison itself can fail: a wrong status, year or BSP is a miss."""
    from minetrace.cli.demo import compare

    out, _ = demo
    truth = gpd.read_file(out / "simulated" / "truth.gpkg")
    table = read_geoparquet(out / "run" / "site_table.parquet")
    panel = read_geoparquet(out / "run" / "site_panel.parquet")
    assert compare(truth, table, panel)["hit"].all()
    wrong = table.assign(status=table.status.replace({"active": "closed"}))
    assert not compare(truth, wrong, panel)["hit"].all()
    wrong = table.assign(first_disturbance_year=table.first_disturbance_year + 2)
    assert not compare(truth, wrong, panel)["hit"].all()
    assert not compare(truth, table, panel.assign(bsp=panel.bsp + 0.021))["hit"].any()
    assert not compare(truth, table.iloc[1:], panel)["hit"].all()


def test_a_run_from_files(demo, tmp_path: Path):
    out, _ = demo
    words = (
        "run",
        "--sites",
        out / "simulated" / "sites.gpkg",
        "--id-column",
        "site_id",
        "--recipe",
        out / "simulated" / "recipe.toml",
        "--out",
        tmp_path / "r",
    )
    plan = minetrace(*words, "--plan")
    assert (plan.returncode, "5 sites in 4 units" in plan.stdout) == (0, True)
    other = minetrace(*words, "--plan", "--product", "trends", "--product", "cubes", "--maps")
    assert "5 sites in 8 units, each one task: 1 of maps (up to " in other.stdout
    assert "2 of trends (up to " in other.stdout
    assert "5 of cubes (up to " in other.stdout
    assert not (tmp_path / "r").exists()
    done = minetrace(*words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r" / "report.html").is_file()
    again = minetrace(*words)
    assert "4 of 4 units reused" in again.stdout


def test_recorded_gaps_exit_with_3(demo, tmp_path: Path):
    out, _ = demo
    sites = gpd.read_file(out / "simulated" / "sites.gpkg")
    sites = sites.iloc[:2]
    sites.loc[1, "geometry"] = None
    sites.to_file(tmp_path / "s.gpkg")
    done = minetrace("run", "--sites", tmp_path / "s.gpkg", "--id-column", "site_id", "--recipe",
                     out / "simulated" / "recipe.toml", "--out", tmp_path / "r")  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "1 gaps recorded" in done.stdout


def test_faults_exit_with_1_and_one_line(demo, tmp_path: Path):
    out, _ = demo
    bad = tmp_path / "bad.toml"
    bad.write_text(
        'years = [2000, 2001]\n[landcover]\nsource = "x"\nlegend = "glc_fcs30d"\nlegnd = 1\n'
    )
    done = minetrace("run", "--sites", out / "simulated" / "sites.gpkg", "--recipe", bad, "--out",
                     tmp_path / "r")  # fmt: skip
    assert done.returncode == 1
    assert "landcover.legnd: unknown key" in done.stderr
    assert "Traceback" not in done.stderr


def test_usage_faults_exit_with_2():
    assert minetrace("run").returncode == 2
    assert minetrace("fly").returncode == 2


def test_one_cube_to_zarr(demo, tmp_path: Path):
    out, _ = demo
    words = (
        "--recipe",
        out / "simulated" / "recipe.toml",
        "--sites",
        out / "simulated" / "sites.gpkg",
        "--id-column",
        "site_id",
    )
    done = minetrace("cube", "sim-001", *words, "--out", tmp_path / "c.zarr")
    assert done.returncode == 0, done.stderr
    cube = mt.load_cube(tmp_path / "c.zarr", verify=True)
    assert set(cube.children) == {"landcover", "imagery", "lights"}
    done = minetrace("cube", "sim-001", *words, "--out", tmp_path / "c.zarr", "--catalog")
    assert done.returncode == 0, done.stderr
    (item,) = pystac.Catalog.from_file(tmp_path / "catalog.json").get_items()
    assert item.id == "sim-001"
    done = minetrace("cube", "sim-001", *words, "--out", "s3://bucket/c.zarr", "--catalog")
    assert done.returncode == 1
    assert "--out is an address" in done.stderr
    done = minetrace("cube", "nobody", *words, "--out", tmp_path / "d.zarr")
    assert done.returncode == 1
    assert "no site 'nobody'" in done.stderr


def test_catalog_and_sites_verbs(demo, tmp_path: Path):
    from test_catalog import write_raster

    out, _ = demo
    raster = write_raster(tmp_path / "r" / "a_2000.tif", {"": np.full((40, 40), 61, "u1")})
    done = minetrace("catalog", "build", raster, "--out", tmp_path / "cat", "--legend",
                     "glc_fcs30d")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "landcover" in minetrace("catalog", "check", tmp_path / "cat").stdout
    found = minetrace("catalog", "search", tmp_path / "cat", "--bbox", "10,49.99,10.01,50",
                      "--years", "1999:2001")  # fmt: skip
    assert "2000-01-01" in found.stdout
    assert minetrace("catalog", "search", tmp_path / "cat", "--bbox", "0,0,1,1", "--years",
                     "1999:2001").returncode == 3  # fmt: skip
    assert minetrace("catalog", "search", tmp_path / "cat", "--bbox", "0,0,1", "--years",
                     "1999:2001").returncode == 2  # fmt: skip
    file = out / "simulated" / "sites.gpkg"
    assert "5 sites" in minetrace("sites", "check", file, "--id-column", "site_id").stdout
    twice = gpd.GeoDataFrame(geometry=[Point(0, 0).buffer(0.01), Point(0.01, 0).buffer(0.01)],
                             crs=4326)  # fmt: skip
    twice.to_file(tmp_path / "t.gpkg")
    merged = minetrace("sites", "merge", file, tmp_path / "t.gpkg", "--out", tmp_path / "m.parquet")
    assert "7 polygons → 6 sites" in merged.stdout, merged.stderr
    assert len(read_geoparquet(tmp_path / "m.parquet")) == 6


def test_doctor_says_versions():
    done = minetrace("doctor")
    assert done.returncode == 0, done.stderr
    for word in ("minetrace", "GDAL", "numba", "torch"):
        assert word in done.stdout


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 1 and one line that holds all words."""
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert last.startswith("minetrace: ")
    for word in words:
        assert word in last


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    from test_catalog import write_raster

    return write_raster(tmp_path / "r" / "a_2000.tif", {"": np.full((40, 40), 61, "u1")})


def test_dates_that_cannot_be_read_are_named(raster: Path, tmp_path: Path):
    words = ("catalog", "build", raster, "--out", tmp_path / "c", "--times")
    refused(minetrace(*words, tmp_path / "none.csv"), "none.csv: No such file or directory")
    (tmp_path / "empty.csv").touch()
    refused(minetrace(*words, tmp_path / "empty.csv"), "empty.csv is no CSV with a column 'date'")
    (tmp_path / "blank.csv").write_text('date\n""\n')
    refused(minetrace(*words, tmp_path / "blank.csv"), "time 1, 'nan', is no date")


def test_an_output_that_cannot_be_made_is_named(demo, raster: Path, tmp_path: Path):
    taken = tmp_path / "taken"
    taken.write_text("precious")
    sites = demo[0] / "simulated" / "sites.gpkg"
    words = ("--sites", sites, "--id-column", "site_id",
             "--recipe", demo[0] / "simulated" / "recipe.toml", "--out")  # fmt: skip
    refused(minetrace("cube", "sim-001", *words, taken), "taken", "file")
    refused(minetrace("run", *words, taken), "taken", "cannot be made")
    refused(minetrace("catalog", "build", raster, "--out", taken), "taken is a file")
    refused(
        minetrace("sites", "merge", sites, "--out", taken / "m.parquet"), "taken", "File exists"
    )
    assert taken.read_text() == "precious"


def test_merge_makes_the_folder_of_its_output(demo, tmp_path: Path):
    sites = demo[0] / "simulated" / "sites.gpkg"
    done = minetrace("sites", "merge", sites, "--out", tmp_path / "new" / "m.parquet")
    assert done.returncode == 0, done.stderr
    assert len(read_geoparquet(tmp_path / "new" / "m.parquet")) == 5


def test_check_prints_the_title_of_a_source(raster: Path, tmp_path: Path):
    assert minetrace("catalog", "build", raster, "--out", tmp_path / "c").returncode == 0
    config = tmp_path / "c" / "source.toml"
    config.write_text(config.read_text() + 'title = "Cover [test] of 2000"\n')
    assert "Cover [test] of 2000" in minetrace("catalog", "check", tmp_path / "c").stdout

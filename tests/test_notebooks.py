"""Every notebook runs as a plain script, writes only where it is told to, and can say no."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import realdata

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))
FIGURES = {"01_lourenco": 6}


def execute(notebook: Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", str(notebook)],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "MPLBACKEND": "Agg", "MINETRACE_NOTEBOOK_OUT": str(folder / "out"),
             **environment},
    )  # fmt: skip


def test_every_notebook_is_known():
    assert {n.stem for n in NOTEBOOKS} == set(FIGURES)


@pytest.mark.real
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_a_notebook_runs_from_end_to_end(notebook, real_data, tmp_path):
    real_data(realdata.LOURENCO)
    beside = set(notebook.parent.rglob("*"))
    done = execute(notebook, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    figures = [p for p in (tmp_path / "out").rglob("*.png") if p.stat().st_size > 10_000]
    assert len(figures) == FIGURES[notebook.stem]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert list((tmp_path / "out").rglob("report.html"))
    assert set(notebook.parent.rglob("*")) == beside


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_a_notebook_without_its_data_says_so(notebook, tmp_path):
    done = execute(notebook, tmp_path, MINETRACE_REAL_DATA=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert done.stderr.startswith("This notebook needs the real data raster/")
    assert "Traceback" not in done.stderr

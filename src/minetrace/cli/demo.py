"""The embedded demo: simulated mines with known truth, through the whole chain."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import geopandas as gpd
import pandas as pd

from minetrace.cli import console
from minetrace.panel import read_geoparquet
from minetrace.report import write_report
from minetrace.run import run_sites
from minetrace.simulate import simulate_mines
from minetrace.sites import read_sites

YEAR_TOLERANCE = 1
BSP_TOLERANCE = 0.02


def run_demo(out: Path, *, sites: int, seed: int) -> int:
    """Simulate, trace, compare with the truth, report; 1 when the truth was missed."""
    with console.progress("simulating", "tracing", "reporting") as (simulating, tracing, reporting):
        _, truth = simulate_mines(out / "simulated", sites=sites, seed=seed)
        simulating(1, 1, "")
        result = run_sites(
            read_sites(out / "simulated" / "sites.gpkg", id_column="site_id"),
            out / "simulated" / "recipe.toml", out / "run", progress=tracing,
        )  # fmt: skip
        page = write_report(
            out / "run", path=out / "report.html", title="minetrace demo: simulated mines",
            expected=truth[["site_id", "status"]],
        )  # fmt: skip
        reporting(1, 1, "")
    found = compare(
        truth,
        read_geoparquet(out / "run" / "site_table.parquet"),
        read_geoparquet(out / "run" / "site_panel.parquet"),
    )
    console.table(found.drop(columns="hit"), "Simulated sites: found and expected")
    console.table(confusion(found), "Confusion: expected status (rows) against found (columns)")
    for path in _written(out, page):
        console.out.print(str(path), markup=False, soft_wrap=True)
    missed = found.loc[~found["hit"], "site_id"].tolist()
    if missed:
        console.err.print(f"missed the truth at: {', '.join(missed)}", style="red", markup=False)
        return 1
    console.out.print(
        f"all {len(found)} sites recovered: status, first disturbance within {YEAR_TOLERANCE} "
        f"year, BSP within {BSP_TOLERANCE}; {len(result.failures)} gaps recorded",
        markup=False,
    )
    return 0


def compare(
    truth: gpd.GeoDataFrame, table: gpd.GeoDataFrame, panel: gpd.GeoDataFrame
) -> pd.DataFrame:
    """One row a site: what was found beside what was simulated, and whether it is a hit.

    A first disturbance is a hit when it lies within one year of the first layer that can show it.
    """
    rows = truth.merge(table, on="site_id", how="left", suffixes=("_true", ""))
    bsp = panel.pivot(index="site_id", columns="year", values="bsp")
    out = pd.DataFrame(
        {
            "site_id": rows["site_id"],
            "kind": rows["kind"],
            "status": rows["status"],
            "expected": rows["status_true"],
            "stage": rows["stage"],
            "first year": rows["first_disturbance_year"].astype("Int64"),
            "expected year": rows["first_disturbance_layer"].astype("Int64"),
            "BSP error": [_bsp_error(row, bsp) for _, row in rows.iterrows()],
        }
    )
    year, expected = out["first year"], out["expected year"]
    near = ((year - expected).abs() <= YEAR_TOLERANCE).fillna(False) | (
        year.isna() & expected.isna()
    )
    out["hit"] = (
        (out["status"] == out["expected"])
        & (out["stage"] == rows["stage_true"])
        & near
        & (out["BSP error"] <= BSP_TOLERANCE)
    ).astype(bool)
    return out


def _bsp_error(row: pd.Series, found: pd.DataFrame) -> float:
    """Largest |found - true| over the layers."""
    years = [int(c[4:]) for c in row.index if c.startswith("bsp_") and c[4:].isdigit()]
    if row["site_id"] not in found.index:
        return float("nan")
    mine = found.loc[row["site_id"]]
    return float(max(abs(mine[y] - row[f"bsp_{y}"]) for y in years))


def confusion(found: pd.DataFrame) -> pd.DataFrame:
    """Expected status against found status, counts."""
    return pd.crosstab(found["expected"], found["status"]).reset_index()


def _written(out: Path, page: Path) -> Iterable[Path]:
    yield out / "simulated" / "catalog.json"
    yield from sorted((out / "run").glob("*.parquet"))
    yield page

"""From a run's output folder to one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from minetrace.errors import InputError
from minetrace.report import words
from minetrace.report.atlas import MOST_NUMBERS, site_maps, status_map
from minetrace.report.charts import annual_change, change_rates, site_series
from minetrace.report.load import RunFolder, check_expected, load_run
from minetrace.report.maps import MapIndex, index_maps
from minetrace.report.style import STATUS_MARKS, to_png, to_svg
from minetrace.schema import PRODUCTS, STATUSES

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_CARDS = 40
_MOST_ROWS = 2000
_MOST_FAILURES = 200
_SEAMS = {"glc_fcs30d": (1995, 2000)}
"""Legend → layers between which its product passes from one production line to another."""


def write_report(
    folder: str | Path,
    *,
    path: str | Path | None = None,
    title: str | None = None,
    expected: pd.DataFrame | None = None,
) -> Path:
    """Write the report of a run: one HTML file that opens anywhere and asks for nothing.

    Parameters
    ----------
    folder
        A run's output folder (`minetrace.report.load_run` says what it holds).
    path
        Where to write; by default ``report.html`` in the folder. An older report is replaced
        only when the new one is complete.
    title
        Heading of the page.
    expected
        Columns ``site_id`` and ``status``: adds the expected status and a confusion table.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        A file of the folder is missing or damaged, or ``expected`` names unknown sites.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as empty:
    ...     write_report(empty)
    Traceback (most recent call last):
    minetrace.errors.InputError: ...run.json is missing. `minetrace run` writes it...
    """
    run = load_run(folder)
    target = run.path / "report.html" if path is None else Path(path)
    if target.is_dir():
        raise InputError(f"{target} is a folder; give the path of the HTML file to write")
    page = _render(_context(run, title, expected))
    target.parent.mkdir(parents=True, exist_ok=True)
    _write_atomically(target, page)
    return target


def _render(context: dict[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        area=words.area, share=words.share, count=words.count, sortable=_sortable
    )
    return environment.get_template("report.html.j2").render(context)


def _sortable(value: Any) -> str:
    """Value that the page's script sorts by; empty where it is missing."""
    return "" if words.absent(value) else str(value)


def _write_atomically(target: Path, text: str) -> None:
    # beside the target, so that the rename stays on one file system
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def _context(run: RunFolder, title: str | None, expected: pd.DataFrame | None) -> dict[str, Any]:
    maps = index_maps(run.maps)
    rows = _rows(run, expected)
    ranked = sorted(rows, key=_by_disturbed)
    first, last = run.info.years
    return {
        "title": title or f"Surface mines, {first}–{last}",
        "info": run.info,
        "layers": [_layer(run, product) for product in words.PRODUCT_NAMES],
        "method": words.method(run.info),
        "headline": _headline(run),
        "marks": STATUS_MARKS,
        "statuses": STATUSES,
        "trend_names": words.TREND_NAMES,
        "n_sites": len(rows),
        "overview": _overview(run, maps),
        "numbered": len(rows) <= MOST_NUMBERS,
        "change": _change(run),
        "confusion": None if expected is None else _confusion(rows),
        "failures": run.failures.fillna("").head(_MOST_FAILURES).to_dict("records"),
        "n_failures": len(run.failures),
        "failed_sites": run.failed_sites,
        "rows": _tabled(rows, ranked),
        "cards": [_card(run, maps, row) for row in _carded(rows, ranked)],
    }


def _rows(run: RunFolder, expected: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Every site's row of the table, with the texts that the page shows."""
    rows: list[dict[str, Any]] = run.table.drop(columns=run.table.geometry.name).to_dict("records")
    for number, row in enumerate(rows, 1):
        row["number"] = number
        row |= {key: None for key in ("stage", "country") if words.absent(row[key])}
        row["first"] = words.first_disturbance(row)
        row["trends"] = [words.trend(row, name) for name in words.TREND_NAMES]
        row["summary"] = words.summary(row["trends"])
        row["has_card"] = False
        row["expected"] = None
    if expected is not None:
        wanted = check_expected(expected, run.table)
        for row in rows:
            row["expected"] = wanted.get(row["site_id"])
    return rows


def _by_disturbed(row: dict[str, Any]) -> tuple[float, int]:
    """Sort key: largest disturbed area first, unknown areas last."""
    disturbed = row["development_km2"]
    return (0.0 if pd.isna(disturbed) else -float(disturbed), row["number"])


def _tabled(rows: list[dict[str, Any]], ranked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Few sites in the order of their numbers on the map, many by their disturbed area."""
    chosen = ranked[:_MOST_ROWS]
    return sorted(chosen, key=lambda r: r["number"]) if len(rows) <= MOST_NUMBERS else chosen


def _carded(rows: list[dict[str, Any]], ranked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    chosen = rows if len(rows) <= _MOST_CARDS else ranked[:_MOST_CARDS]
    for row in chosen:
        row["has_card"] = True
    return chosen


def _layer(run: RunFolder, product: str) -> dict[str, Any]:
    years = run.info.years_of(product)
    return {"name": words.PRODUCT_NAMES[product], "years": words.year_list(years), "n": len(years)}


def _headline(run: RunFolder) -> dict[str, Any]:
    table = run.table
    columns = (
        "development_km2",
        "development_unique_km2",
        "reclamation_km2",
        "reclamation_unique_km2",
    )
    return {
        "by_status": {s: int((table["status"] == s).sum()) for s in STATUSES},
        "conflicts": int(table["conflict"].sum()),
        "overlapping": _overlapping(table.geometry.to_numpy()),
        "observed_sites": int(table["development_km2"].notna().sum()),
        **{c: float(table[c].sum(min_count=1)) for c in columns},
    }


def _overlapping(shapes: NDArray[Any]) -> int:
    """Number of sites that share ground with another; less than a thousandth is a sliver."""
    a, b = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    a, b = a[a != b], b[a != b]
    shared = shapely.area(shapely.intersection(shapes[a], shapes[b]))
    return np.unique(a[shared > 1e-3 * shapely.area(shapes[a])]).size


def _overview(run: RunFolder, maps: MapIndex) -> str | None:
    shapes = run.table.geometry
    if (shapes.isna() | shapes.is_empty).all():
        return None
    return _png(to_png(status_map(run.table, maps=maps, years=run.info.years)))


def _change(run: RunFolder) -> dict[str, Any] | None:
    areas = run.transition_areas
    if areas.empty:
        return None
    seam = _seam(run)
    development, reclamation = change_rates(areas).total
    return {
        "image": _svg(to_svg(annual_change(areas, seam=seam))),
        "seam": seam,
        "n": areas["site_id"].nunique(),
        "development": development,
        "reclamation": reclamation,
        "coarse": bool((areas["interval_years"] > 1).any()),
    }


def _seam(run: RunFolder) -> tuple[int, int] | None:
    """Years between which the product changed, if any change of this run falls there."""
    seam = None if run.legend is None else _SEAMS.get(run.legend.name)
    if seam is None:
        return None
    year = run.transition_areas["year"]
    across = run.transition_areas[(year > seam[0]) & (year <= seam[1])]
    changed = across[["development_km2", "reclamation_km2"]].to_numpy().any()
    return seam if changed else None


def _confusion(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Count expected against found; sites without an expected status are left out."""
    judged = [row for row in rows if row["expected"] is not None]
    table = {
        wanted: [
            sum(r["expected"] == wanted and r["status"] == found for r in judged)
            for found in STATUSES
        ]
        for wanted in STATUSES
    }
    wrong = [row for row in judged if row["expected"] != row["status"]]
    return {"table": table, "n": len(judged), "right": len(judged) - len(wrong), "wrong": wrong}


def _card(run: RunFolder, maps: MapIndex, row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "maps": _card_maps(run, maps, row), "series": _card_series(run, row)}


def _card_maps(run: RunFolder, maps: MapIndex, row: dict[str, Any]) -> str | None:
    geometry = run.table.geometry.iloc[row["number"] - 1]
    layers = run.info.years_of("landcover")
    if run.legend is None or not layers or geometry is None or geometry.is_empty:
        return None
    figure = site_maps(geometry, maps, legend=run.legend, layers=layers, years=run.info.years)
    return None if figure is None else _png(to_png(figure))


def _card_series(run: RunFolder, row: dict[str, Any]) -> str:
    figure = site_series(
        run.panel,
        row,
        transition_areas=run.transition_areas,
        layers={product: run.info.years_of(product) for product in PRODUCTS},
        status_years=run.info.status.years,
        alpha=run.info.status.alpha,
        seam=_seam(run),
    )
    return _svg(to_svg(figure))


def _png(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _svg(data: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}"

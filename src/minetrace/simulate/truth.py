"""The truth table of simulated mines, from their scripts and polygons alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import geopandas as gpd
import numpy as np
import pandas as pd

from minetrace.simulate.plane import LONLAT, UTM
from minetrace.simulate.scenario import Mine

FIRST_SHARE = 0.01
"""Share of a site that must be disturbed before a layer counts as showing it."""


def truth_table(
    mines: Sequence[Mine], window: range, products: Mapping[str, Sequence[int]]
) -> gpd.GeoDataFrame:
    """One row per site: what a correct analysis of the simulated data must find.

    Parameters
    ----------
    mines
        The sites.
    window
        Years of the trends.
    products
        Years of ``landcover``, ``imagery`` and ``lights``.
    """
    rows = [_row(mine, window, products) for mine in mines]
    outlines = gpd.GeoSeries([mine.outline for mine in mines], crs=UTM).to_crs(LONLAT)
    table = pd.DataFrame(rows)
    numbers = [c for c in table.columns if c.endswith("_trend") or c.startswith("first_")]
    return gpd.GeoDataFrame(table.astype(dict.fromkeys(numbers, "Int64")), geometry=outlines)


def _row(mine: Mine, window: range, products: Mapping[str, Sequence[int]]) -> dict[str, object]:
    layers = products["landcover"]
    bsp = trend([mine.bsp(y) for y in window if y in layers])
    ndvi = trend([mine.ndvi(y) for y in window if y in products["imagery"]])
    ntl = trend([mine.radiance(y) for y in window if y in products["lights"]])
    stages = {1: "expanding", -1: "shrinking", 0: "stable", None: None}
    return {
        "site_id": f"sim-{mine.number:03d}",
        "name": f"{mine.script.kind.replace('_', ' ').capitalize()} {mine.number}",
        "kind": mine.script.kind,
        "status": status(bsp, ndvi, ntl),
        "stage": stages[bsp],
        "bsp_trend": bsp,
        "ndvi_trend": ndvi,
        "ntl_trend": ntl,
        "first_disturbance_year": mine.opening,
        "first_disturbance_layer": _first_layer(mine, layers),
        **{f"bsp_{y}": mine.bsp(y) for y in layers},
    }


def _first_layer(mine: Mine, layers: Sequence[int]) -> int | None:
    """First layer that shows new ground laid bare; what the first layer shows is not new."""
    if mine.opening is None:
        return None
    before = mine.bsp(layers[0])
    return next((y for y in layers if mine.bsp(y) - before >= FIRST_SHARE), None)


def trend(series: Sequence[float]) -> int | None:
    """Sign of a significant trend over at most five values, None for fewer than four.

    Kendall's score of four values is never significant at 5 %; that of five is from ±9 on:
    strictly monotone, or monotone with one tie.

    Examples
    --------
    >>> trend([0.1, 0.2, 0.3, 0.4, 0.5]), trend([0.1, 0.3, 0.2, 0.4, 0.5]), trend([0.1, 0.2])
    (1, 0, None)
    """
    if len(series) < 4:
        return None
    values = np.asarray(series)
    score = int(np.sign(values[None, :] - values[:, None])[np.triu_indices(values.size, 1)].sum())
    return int(np.sign(score)) if abs(score) >= 9 else 0


def status(bsp: int | None, ndvi: int | None, ntl: int | None) -> str:
    """The decision tree: bare surface before NDVI before night lights.

    Examples
    --------
    >>> status(0, 1, 1), status(0, 0, 1), status(0, None, 0)
    ('closed', 'active', 'undefined')
    """
    for works in (bsp, None if ndvi is None else -ndvi, ntl):
        if works:
            return "active" if works > 0 else "closed"
    return "undefined"

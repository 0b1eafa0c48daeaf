"""One row per site and year, one row per site, and the files that hold them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import xarray as xr

from minetrace.errors import InputError
from minetrace.schema import (
    SITE_PANEL,
    SITE_TABLE,
    SITES,
    TRANSITION_AREAS,
    ChangeRecipe,
    StatusRecipe,
    check_table,
)
from minetrace.status import classify_status
from minetrace.trends import mann_kendall

_KEY = ["site_id", "year"]
_AREAS = ["development_km2", "reclamation_km2"]
_UNIQUE = ["development_unique_km2", "reclamation_unique_km2"]
_LAYERS = ["bsp", "ndvi", "ntl"]


def site_panel(
    sites: gpd.GeoDataFrame,
    *,
    composition: pd.DataFrame | None,
    transitions: pd.DataFrame | None,
    ndvi: pd.DataFrame | None,
    ntl: pd.DataFrame | None,
) -> gpd.GeoDataFrame:
    """Join what was measured per site and year.

    Parameters
    ----------
    sites
        Site table (`minetrace.read_sites`).
    composition
        ``site_id, year, bsp, n_pixels`` from land cover; None when there is no such layer.
    transitions
        `minetrace.transition_areas` of the same land cover, or None.
    ndvi, ntl
        ``site_id, year, value``, or None when the layer is missing.

    Returns
    -------
    GeoDataFrame
        `minetrace.schema.SITE_PANEL` and the site's geometry, sorted by site and year. It has the
        site-years of any layer; a gap is NaN. ``development_km2`` and ``reclamation_km2`` are
        sums over cover types, NaN for the first land-cover layer, which has none before it, and
        where no land cover was observed. ``n_pixels`` is 0 there.

    Raises
    ------
    InputError
        A table misses a column, repeats a site-year or names an unknown site.

    Examples
    --------
    >>> from shapely.geometry import box
    >>> sites = gpd.GeoDataFrame(
    ...     {"site_id": ["a"], "area_km2": 1.2, "source": "doc", "country": "GHA"},
    ...     geometry=[box(0, 0, 0.01, 0.01)], crs=4326)
    >>> green = pd.DataFrame({"site_id": ["a"], "year": [2020], "value": [0.5]})
    >>> panel = site_panel(sites, composition=None, transitions=None, ndvi=green, ntl=None)
    >>> panel[["site_id", "year", "ndvi", "n_pixels"]].values.tolist()
    [['a', 2020, 0.5, 0.0]]
    """
    moves = None if transitions is None else _over_covers(transitions)
    sites = check_table(sites, SITES)
    panel = join_panel(sites, composition=composition, moves=moves, ndvi=ndvi, ntl=ntl)
    return check_table(panel, SITE_PANEL)


def join_panel(
    sites: gpd.GeoDataFrame,
    *,
    composition: pd.DataFrame | None,
    moves: pd.DataFrame | None,
    ndvi: pd.DataFrame | None,
    ntl: pd.DataFrame | None,
) -> gpd.GeoDataFrame:
    """`site_panel` of checked tables; ``moves`` are transitions summed over the cover types."""
    parts = [
        _keyed(composition, ["bsp", "n_pixels"], "composition", sites),
        _keyed(moves, _AREAS, "transitions", sites),
        _keyed(ndvi, ["value"], "ndvi", sites).rename(columns={"value": "ndvi"}),
        _keyed(ntl, ["value"], "ntl", sites).rename(columns={"value": "ntl"}),
    ]
    panel = pd.concat(parts, axis=1).sort_index().reset_index()
    panel["n_pixels"] = panel["n_pixels"].fillna(0.0)
    panel.loc[panel["n_pixels"] == 0, _AREAS] = np.nan
    panel["reclamation_rate"] = 1 - panel["bsp"]
    outlines = sites.set_index("site_id").geometry.reindex(panel["site_id"]).to_numpy()
    return gpd.GeoDataFrame(panel[[*SITE_PANEL.columns]], geometry=outlines, crs=sites.crs)


def site_table(
    panel: pd.DataFrame,
    sites: gpd.GeoDataFrame,
    *,
    composition: pd.DataFrame | None,
    transitions: pd.DataFrame | None,
    status: StatusRecipe,
    change: ChangeRecipe,
) -> gpd.GeoDataFrame:
    """Sum up each site: trends, status, first disturbance, total areas.

    Parameters
    ----------
    panel
        From `site_panel`.
    sites
        Site table; the result has its rows, in its order.
    composition
        ``site_id, year, observed_km2`` from land cover, or None.
    transitions
        `minetrace.transition_areas` of the same land cover, or None.
    status
        Years, significance level, fewest valid years and kind of p-value of the trends.
    change
        Share of a site's observed area that must be disturbed before the site counts as begun.

    Returns
    -------
    GeoDataFrame
        `minetrace.schema.SITE_TABLE`, then for each of bsp, ndvi and ntl ``_p`` and ``_slope``
        (per year), ``first_disturbance_year`` and ``first_disturbance_interval`` (Int64, years
        since the layer before; null when never), ``development_km2, reclamation_km2`` (sums of
        events), ``development_unique_km2, reclamation_unique_km2`` (ground counted once),
        ``observed_share`` (largest share of the site that a layer observed) and geometry. A trend
        is null with fewer than ``status.min_valid`` years; areas are NaN without land cover.

    Raises
    ------
    InputError
        A table misses a column, or names an unknown site.

    Notes
    -----
    Mann-Kendall trends and the decision tree follow Xu et al. (activity status of surface mines).

    Examples
    --------
    >>> from shapely.geometry import box
    >>> sites = gpd.GeoDataFrame(
    ...     {"site_id": ["a"], "area_km2": 1.2, "source": "doc", "country": "GHA"},
    ...     geometry=[box(0, 0, 0.01, 0.01)], crs=4326)
    >>> years = range(2018, 2023)
    >>> green = pd.DataFrame({"site_id": "a", "year": years, "value": [0.2, 0.3, 0.4, 0.6, 0.7]})
    >>> panel = site_panel(sites, composition=None, transitions=None, ndvi=green, ntl=None)
    >>> table = site_table(panel, sites, composition=None, transitions=None,
    ...                    status=StatusRecipe(), change=ChangeRecipe())
    >>> table[["ndvi_trend", "n_years_ndvi", "status"]].values.tolist()
    [[1, 5, 'closed']]
    """
    moves = None if transitions is None else _over_covers(transitions)
    panel, sites = check_table(panel, SITE_PANEL), check_table(sites, SITES)
    table = sum_up(panel, sites, composition=composition, moves=moves, status=status, change=change)
    return check_table(table, SITE_TABLE)


def sum_up(
    panel: pd.DataFrame,
    sites: gpd.GeoDataFrame,
    *,
    composition: pd.DataFrame | None,
    moves: pd.DataFrame | None,
    status: StatusRecipe,
    change: ChangeRecipe,
) -> gpd.GeoDataFrame:
    """`site_table` of checked tables; ``moves`` are transitions summed over the cover types."""
    ids = pd.Index(sites["site_id"], name="site_id")
    trends = pd.concat([_trend(panel, name, ids, status) for name in _LAYERS], axis=1)
    verdict = classify_status(*(trends[f"{name}_trend"] for name in _LAYERS))
    table = sites.set_index(ids)[["area_km2", "country", "geometry"]]
    observed = _observed(composition, sites).reindex(ids)
    table = table.assign(
        **trends,
        stage=verdict.stage,
        status=verdict.status,
        conflict=verdict.conflict,
        **_first_disturbance(moves, observed, change).reindex(ids),
        **_totals(moves, observed),
        observed_share=observed / table["area_km2"],
    ).reset_index()
    first = [*SITE_TABLE.columns]
    rest = [c for c in table.columns if c not in (*first, "geometry")]
    return table[[*first, *rest, "geometry"]]


def write_geoparquet(frame: gpd.GeoDataFrame, path: str | Path) -> Path:
    """Write GeoParquet 1.1 with a bbox covering, sorted by site and year, atomically.

    Equal tables give equal bytes.

    Examples
    --------
    >>> import tempfile
    >>> points = gpd.points_from_xy([0], [0], crs=4326)
    >>> frame = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=points)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read_geoparquet(write_geoparquet(frame, f"{folder}/a.parquet")).site_id.tolist()
    ['a']
    """
    with written_whole(Path(path)) as file:
        _sorted(frame).to_parquet(
            file,
            index=False,
            compression="zstd",
            schema_version="1.1.0",
            write_covering_bbox=True,
        )
    return Path(path)


def write_table(frame: pd.DataFrame, path: str | Path) -> Path:
    """Write Parquet sorted by site and year, atomically; equal tables give equal bytes.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_table(pd.DataFrame({"site_id": ["b", "a"]}), f"{folder}/t.parquet")
    ...     read_table(path).site_id.tolist()
    ['a', 'b']
    """
    with written_whole(Path(path)) as file:
        _sorted(frame).to_parquet(file, index=False, compression="zstd")
    return Path(path)


def read_geoparquet(path: str | Path) -> gpd.GeoDataFrame:
    """Read a table that `write_geoparquet` wrote.

    Raises
    ------
    InputError
        No such file, or it is no GeoParquet.
    """
    return _read(path, gpd.read_parquet, "GeoParquet")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote.

    Raises
    ------
    InputError
        No such file, or it is no Parquet.
    """
    return _read(path, pd.read_parquet, "Parquet")


def _require(frame: pd.DataFrame, columns: list[str], name: str) -> None:
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise InputError(f"the {name} table has no columns {missing}; it has {list(frame.columns)}")


def _keyed(
    frame: pd.DataFrame | None, columns: list[str], name: str, sites: gpd.GeoDataFrame
) -> pd.DataFrame:
    """Columns of a table by site and year; no rows where the layer is missing."""
    if frame is None:
        frame = pd.DataFrame(columns=[*_KEY, *columns]).astype({"site_id": "str", "year": "int64"})
    _require(frame, [*_KEY, *columns], name)
    unknown = sorted(set(frame["site_id"].unique()) - set(sites["site_id"]))
    if unknown:
        raise InputError(f"the {name} table names sites that are not in sites: {unknown[:5]}")
    twice = frame.loc[frame.duplicated(_KEY), _KEY].to_numpy().tolist()
    if twice:
        raise InputError(f"the {name} table repeats site-years, first {twice[0]}")
    return frame.set_index(_KEY)[columns].astype("float64")


_TREND_DIGITS = 7
"""Decimals of a series that enters a trend; a 30 m pixel is 1e-6 of a site of 900 km²."""


def _trend(panel: pd.DataFrame, name: str, ids: pd.Index, status: StatusRecipe) -> pd.DataFrame:
    first, last = status.years
    years = np.arange(first, last + 1)
    wide = panel.pivot(index="site_id", columns="year", values=name)
    # the test ranks whatever differs: below this, differences are rounding or two pixels of
    # unequal latitude changing places, not ground
    values = wide.reindex(index=ids, columns=years).to_numpy("float64").round(_TREND_DIGITS)
    series = xr.DataArray(values, dims=("site", "time"), coords={"time": years})
    result = mann_kendall(
        series, alpha=status.alpha, min_valid=status.min_valid, p_value=status.p_value
    )
    n = result["n"].to_numpy()
    sign = pd.Series(result["trend"].to_numpy(), ids, dtype="Int8")
    return pd.DataFrame(
        {
            f"{name}_trend": sign.mask(n < status.min_valid),
            f"{name}_p": result["p"].to_numpy(),
            f"{name}_slope": result["slope"].to_numpy(),
            f"n_years_{name}": n.astype(np.int64),
        },
        index=ids,
    )


def _observed(composition: pd.DataFrame | None, sites: gpd.GeoDataFrame) -> pd.Series:
    """Largest observed area of each site over the land-cover layers, km²."""
    land = _keyed(composition, ["observed_km2"], "composition", sites)
    return land["observed_km2"].groupby(level="site_id").max()


def _over_covers(transitions: pd.DataFrame) -> pd.DataFrame:
    """Areas of all cover types together, by site and year in order."""
    checked = check_table(transitions, TRANSITION_AREAS)
    how = dict.fromkeys((*_AREAS, *_UNIQUE), "sum") | {"interval_years": "first"}
    return checked.groupby(_KEY, as_index=False).agg(how)


def _first_disturbance(
    moves: pd.DataFrame | None, observed: pd.Series, change: ChangeRecipe
) -> pd.DataFrame:
    """First layer at which the ground disturbed so far reaches the share, by site."""
    names = {"year": "first_disturbance_year", "interval_years": "first_disturbance_interval"}
    if moves is None:
        return pd.DataFrame(columns=list(names.values()), dtype="Int64")
    so_far = moves.groupby("site_id")["development_unique_km2"].cumsum()
    needed = change.first_disturbance_share * observed.reindex(moves["site_id"]).to_numpy()
    begun = moves[(so_far >= needed) & (so_far > 0)].drop_duplicates("site_id")
    return begun.set_index("site_id")[list(names)].rename(columns=names).astype("Int64")


def _totals(moves: pd.DataFrame | None, observed: pd.Series) -> pd.DataFrame:
    """Areas summed over the layers; NaN where no land cover was observed."""
    if moves is None:
        return pd.DataFrame(np.nan, index=observed.index, columns=[*_AREAS, *_UNIQUE])
    sums = moves.groupby("site_id")[[*_AREAS, *_UNIQUE]].sum()
    return sums.reindex(observed.index).where(observed > 0)


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    keys = [c for c in _KEY if c in frame.columns]
    return frame.sort_values(keys, kind="stable", ignore_index=True) if keys else frame


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """File beside the target, put in its place at the end: readers never see half of it."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _read(path: str | Path, read: Callable[[str | Path], pd.DataFrame], kind: str) -> pd.DataFrame:
    try:
        return read(path)
    except FileNotFoundError as err:
        raise InputError(f"there is no table {path}") from err
    except (pa.ArrowInvalid, ValueError) as err:
        raise InputError(f"{path} is no readable {kind} file: {err}") from err

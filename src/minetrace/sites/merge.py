"""Merge site tables: overlapping or touching polygons become one site."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely.affinity import translate

from minetrace.errors import SiteError
from minetrace.schema import SITES, check_table
from minetrace.sites.outline import (
    LONLAT,
    canonical,
    geodesic_area_km2,
    mend,
    outline_ids,
    require_lonlat,
)
from minetrace.sites.read import CONTRACT, join_sources


def merge_sites(*frames: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Merge polygons of several inventories: overlapping or touching ones become one site.

    The connected components of the intersection graph are unioned; a site that meets no other
    keeps its id, its geometry and its own columns. Touching counts, also across 180°. The result
    does not depend on the order of frames or rows.

    Parameters
    ----------
    *frames
        Site tables as `read_sites` returns them. Parts of one MultiPolygon stay together.

    Returns
    -------
    GeoDataFrame
        Site table sorted by ``site_id``. A merged site has a new hash id, the sources of its
        members joined with ";", the country if they agree on one, and nulls in other columns;
        integer and boolean columns are nullable for that reason. ``attrs["merged"]`` maps each
        new id to its members' ids.

    Raises
    ------
    SiteError
        No frame, one that is no site table in EPSG:4326, or two separate sites with one id.

    Notes
    -----
    Rule: Maus et al. 2025, union-split-aggregate; unlike there, nothing is lost when no polygons
    overlap.

    Examples
    --------
    >>> from shapely.geometry import box
    >>> def table(x, name):
    ...     return gpd.GeoDataFrame({"site_id": [name], "geometry": [box(x, 0, x + 2, 1)],
    ...                              "area_km2": 1.0, "source": name, "country": None}, crs=4326)
    >>> merged = merge_sites(table(0, "a"), table(1, "b"), table(5, "c"))
    >>> sorted(merged["source"])
    ['a;b', 'c']
    """
    stacked = _stack(frames)
    shapes = canonical(stacked.geometry.to_numpy())
    stacked["geometry"] = gpd.GeoSeries(shapes, crs=LONLAT, index=stacked.index)
    order = np.lexsort((shapely.to_wkb(shapes, hex=True), stacked["site_id"].astype(str)))
    stacked = stacked.iloc[order].reset_index(drop=True)
    component = pd.Series(_touching(stacked.geometry.to_numpy()), index=stacked.index)
    alone = ~component.duplicated(keep=False)
    joined = stacked[~alone].groupby(component[~alone])
    unions = [_union(members) for _, members in joined]
    sites = _concat([stacked[alone], gpd.GeoDataFrame(unions, columns=CONTRACT, crs=LONLAT)])
    clash = sorted(set(sites.loc[sites["site_id"].duplicated(), "site_id"]))
    if clash:
        raise SiteError(
            f"ids {clash[:5]} name several separate sites; read the files without "
            "id_column, or make the ids unique over all files"
        )
    sites["area_km2"] = geodesic_area_km2(sites.geometry)
    own = sorted(sites.columns.difference(CONTRACT))
    sites = sites[[*CONTRACT, *own]].sort_values("site_id", ignore_index=True)
    sites = check_table(sites, SITES)
    sites.attrs = {
        "merged": {
            union["site_id"]: sorted(members["site_id"])
            for union, (_, members) in zip(unions, joined, strict=True)
        }
    }
    return sites


def _stack(frames: tuple[gpd.GeoDataFrame, ...]) -> gpd.GeoDataFrame:
    if not frames:
        raise SiteError("merge_sites needs at least one site table")
    ready = []
    for number, frame in enumerate(frames):
        missing = [c for c in CONTRACT if c not in frame]
        if missing:
            raise SiteError(f"table {number} has no columns {missing}; read it with read_sites")
        require_lonlat(frame.crs, f"table {number}: sites must be")
        nullable = {
            c: "boolean" if kind.kind == "b" else "Int64"
            for c, kind in frame.dtypes.items()
            if kind.kind in "biu" and c not in CONTRACT
        }
        ready.append(frame.astype(nullable))
    return _concat(ready)


def _concat(frames: list[gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    # an empty frame would only blur the dtypes of the others
    filled = [f for f in frames if len(f)] or frames[:1]
    return gpd.GeoDataFrame(pd.concat(filled, ignore_index=True), crs=LONLAT)


def _touching(shapes: NDArray[Any]) -> NDArray[np.int64]:
    """Label of the connected component of each shape in the graph of intersections."""
    tree = shapely.STRtree(shapes)
    a, b = tree.query(shapes, predicate="intersects")
    west = np.flatnonzero(shapely.bounds(shapes)[:, 0] <= -180)
    around = np.array([translate(shape, 360) for shape in shapes[west]], object)
    c, d = tree.query(around, predicate="intersects")
    a, b = np.concatenate([a, west[c]]), np.concatenate([b, d])
    graph = coo_array((np.ones(a.size, bool), (a, b)), shape=(shapes.size, shapes.size))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _union(members: gpd.GeoDataFrame) -> dict[str, Any]:
    shape = shapely.union_all(members.geometry.to_numpy())
    outline = canonical(np.array([mend(shape)[0]], object))
    countries = set(members["country"].dropna())
    return {
        "site_id": outline_ids(outline)[0],
        "geometry": outline[0],
        "area_km2": 0.0,
        "source": join_sources(members["source"]),
        "country": countries.pop() if len(countries) == 1 else None,
    }

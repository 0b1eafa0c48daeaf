"""Read a site file: open, identify, reproject, repair, tabulate."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj.exceptions import CRSError, ProjError
from shapely import GeometryType
from shapely.errors import GEOSException

from minetrace.errors import SiteError
from minetrace.schema import SITES, check_table
from minetrace.sites.outline import LONLAT, canonical, geodesic_area_km2, mend, outline_ids

CONTRACT = ["site_id", "geometry", "area_km2", "source", "country"]
"""The columns that every site table has."""
_COUNTRY_COLUMNS = ("country", "iso3", "ISO3_CODE")
_POLYGONAL = (GeometryType.POLYGON, GeometryType.MULTIPOLYGON, GeometryType.GEOMETRYCOLLECTION)
_DRIVERS = frozenset({
    "GPKG", "GeoJSON", "GeoJSONSeq", "ESRI Shapefile", "FlatGeobuf", "Parquet", "Arrow",
    "OpenFileGDB", "KML", "LIBKML", "GML", "CSV", "MapInfo File", "TopoJSON", "SQLite",
})  # fmt: skip
"""GDAL drivers whose files hold their own geometries; a virtual one could name any file."""
_EDGE_M = 100.0
"""A 100 m edge of a UTM grid bends by 0.2 mm in longitude and latitude at 45°."""
_FAR = 1e9
"""No projected coordinate on Earth is larger, in metres or feet."""


class SiteWarning(UserWarning):
    """Some rows of a site file were left out, or its ids could not be used."""


def read_sites(
    path: str | Path, *, layer: str | None = None, id_column: str | None = None
) -> gpd.GeoDataFrame:
    """Read mine polygons from any vector file, repair and identify them.

    Parameters
    ----------
    path
        A local vector file of a plain format (GeoPackage, GeoJSON, shapefile, FlatGeobuf, file
        geodatabase, KML, GML, ...) or GeoParquet.
    layer
        Needed when the file has several layers.
    id_column
        Column of unique ids. Without it a complete and unique ``site_id`` column is used, else
        the id is a hash of the outline and rows with one outline become one site.

    Returns
    -------
    GeoDataFrame
        EPSG:4326, one row a site in file order: ``site_id``, ``geometry`` (valid, two-dimensional,
        exterior rings counter-clockwise, split at 180°), ``area_km2`` (geodesic, WGS 84),
        ``source`` (the file's own column or its stem), ``country`` (ISO 3166 alpha-3 from
        ``country``, ``iso3`` or ``ISO3_CODE``, else null), then the file's own columns; one that
        says something else than the contract column of its name gets the suffix ``_file``.
        ``attrs["rejected"]`` lists rows left out (``site_id, row, reason``) and
        ``attrs["repaired"]`` those changed (``site_id, row, repair``); ``attrs["read"]`` counts
        the sites, so that a table cut down later is known.

    Raises
    ------
    SiteError
        No such file or layer, a virtual or foreign format, no CRS, no features, no usable polygon,
        or faulty ids.

    Warns
    -----
    SiteWarning
        Rows were left out, or the file's own ``site_id`` is not an id.

    Notes
    -----
    Edges of a projected file are densified before reprojection, so the outline stays true. A ring
    whose longitude jumps by more than 180° is taken to cross the antimeridian.

    Examples
    --------
    >>> import tempfile
    >>> from shapely.geometry import box
    >>> pits = gpd.GeoDataFrame({"name": ["north"]}, geometry=[box(0, 0, 0.01, 0.01)], crs=4326)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pits.to_file(f"{folder}/pits.gpkg")
    ...     sites = read_sites(f"{folder}/pits.gpkg", id_column="name")
    >>> sites[["site_id", "area_km2", "source"]].round(3).values.tolist()
    [['north', 1.231, 'pits']]
    """
    path = Path(path)
    frame = _open(path, layer)
    ids, notes = _file_ids(frame, id_column, path)
    with np.errstate(invalid="ignore"):
        lonlat, reasons = _to_lonlat(frame)
        shapes, repairs = _mend_all(lonlat, reasons)
    good = reasons == ""
    rejected = [
        {"site_id": None if ids is None else str(ids[i]), "row": int(i), "reason": reasons[i]}
        for i in np.flatnonzero(~good)
    ]
    if not good.any():
        raise SiteError(
            f"{path}: none of its {len(frame)} features is a usable polygon: {_first(rejected)}"
        )
    if rejected:
        notes.append(f"{len(rejected)} of {len(frame)} features left out: {_first(rejected)}")
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}", SiteWarning, stacklevel=2)
    names = np.array(ids if ids is not None else [""] * len(frame), object)
    if ids is None:
        names[good] = outline_ids(shapes[good])
    repaired = [
        {"site_id": names[i], "row": int(i), "repair": repairs[i]}
        for i in np.flatnonzero(good & (repairs != ""))
    ]
    sites = _tabulate(frame[good], names[good], shapes[good], path.stem)
    if ids is None:
        sites, joined = _join_twins(sites)
        repaired += joined
    sites = check_table(sites.reset_index(drop=True), SITES)
    sites.attrs = {"read": len(sites), "rejected": rejected, "repaired": repaired}
    return sites


def _open(path: Path, layer: str | None) -> gpd.GeoDataFrame:
    if not path.exists():
        raise SiteError(f"there is no site file {path}")
    try:
        with np.errstate(invalid="ignore"):
            frame = _read(path, layer)
    except (DataSourceError, DataLayerError, GEOSException, pa.ArrowInvalid, ValueError) as err:
        if isinstance(err, SiteError):
            raise
        raise SiteError(f"{path} cannot be read as polygons: {err}") from err
    if not isinstance(frame, gpd.GeoDataFrame):
        raise SiteError(f"{path} has no geometry column")
    if frame.empty:
        raise SiteError(f"{path} holds no features")
    if frame.crs is None:
        raise SiteError(
            f"{path} has no CRS, so its coordinates mean nothing; assign one "
            "(ogr2ogr -a_srs EPSG:...)"
        )
    if frame.geometry.name != "geometry":
        frame = frame.rename_geometry("geometry")
    return frame.reset_index(drop=True)


def _read(path: Path, layer: str | None) -> gpd.GeoDataFrame:
    if path.suffix.lower() in (".parquet", ".geoparquet"):
        return gpd.read_parquet(path)
    driver = pyogrio.read_info(path, layer=0)["driver"]
    if driver not in _DRIVERS:
        raise SiteError(
            f"{path} is a {driver} file, which is not read; turn it into a GeoPackage "
            "(ogr2ogr NEW.gpkg FILE)"
        )
    # a ring that cannot be built costs its row, not the file
    return pyogrio.read_dataframe(path, layer=_layer(path, layer), on_invalid="ignore")


def _layer(path: Path, layer: str | None) -> str:
    found = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if layer is not None and layer not in found:
        raise SiteError(f"{path} has no layer {layer!r} with geometries; it has {found}")
    if layer is None and len(found) != 1:
        raise SiteError(
            f"{path} has {len(found)} layers with geometries, {found}: name one with layer="
        )
    return layer or found[0]


def _file_ids(
    frame: gpd.GeoDataFrame, id_column: str | None, path: Path
) -> tuple[list[str] | None, list[str]]:
    """Ids of the file (None: use hashes) and what to warn about."""
    column = id_column or "site_id"
    if column not in frame.columns:
        if id_column is None:
            return None, []
        raise SiteError(
            f"{path} has no column {column!r}; it has "
            f"{[c for c in frame.columns if c != 'geometry']}"
        )
    values = frame[column]
    if values.dtype.kind == "f" and (values % 1 == 0).all():
        # shapefiles hold long integers as reals
        values = values.astype("int64")
    text = pd.Series([str(v) for v in values])
    twice = sorted(set(text[text.duplicated()]))
    if values.isna().any():
        fault = f"column {column!r} is empty in {int(values.isna().sum())} rows"
    elif twice:
        fault = f"column {column!r} is not unique: {len(twice)} repeated ids, {twice[:5]}"
    else:
        return list(text), []
    if id_column is None:
        return None, [f"{fault}; ids are hashes of the outlines instead"]
    raise SiteError(f"{path}: {fault}; mend it, or leave id_column out")


def _to_lonlat(frame: gpd.GeoDataFrame) -> tuple[NDArray[Any], NDArray[Any]]:
    """Geometries in longitude and latitude, and for each why it cannot be used ("" if it can)."""
    shapes = np.array(frame.geometry.to_numpy(), object)
    reasons = np.full(shapes.size, "", object)
    for i in np.flatnonzero(~np.isin(shapely.get_type_id(shapes), _POLYGONAL)):
        reasons[i] = "no geometry" if shapes[i] is None else f"a {shapes[i].geom_type}"
    reasons[shapely.is_empty(shapes)] = "an empty geometry"
    _mark(reasons, ~_finite(shapes), "coordinates that are not finite")
    if not frame.crs.equals(LONLAT, ignore_axis_order=True):
        outside = f"outside the domain of {frame.crs.name}"
        # before densifying: one stray vertex would ask for all the memory there is
        _mark(reasons, np.abs(shapely.bounds(shapes)).max(axis=1) > _FAR, outside)
        good = reasons == ""
        shapes[good] = _reproject(gpd.GeoSeries(shapes[good], crs=frame.crs))
        _mark(reasons, ~_finite(shapes), outside)
    west, south, east, north = shapely.bounds(shapes).T
    _mark(reasons, (south < -90) | (north > 90), "a latitude beyond 90°")
    _mark(reasons, (west < -360) | (east > 360), "a longitude beyond 360°")
    return shapely.force_2d(shapes), reasons


def _mark(reasons: NDArray[Any], bad: NDArray[np.bool_], reason: str) -> None:
    reasons[bad & (reasons == "")] = reason


def _finite(shapes: NDArray[Any]) -> NDArray[np.bool_]:
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    finite = np.ones(shapes.size, bool)
    finite[owner[~np.isfinite(xy).all(axis=1)]] = False
    return finite


def _reproject(shapes: gpd.GeoSeries) -> NDArray[Any]:
    try:
        if not shapes.crs.is_geographic:
            metres = shapes.crs.axis_info[0].unit_conversion_factor
            shapes = shapes.segmentize(_EDGE_M / metres)
        return np.array(shapes.to_crs(LONLAT).to_numpy(), object)
    except (CRSError, ProjError, IndexError) as err:
        raise SiteError(
            f"the sites' CRS {shapes.crs.name!r} cannot be turned into longitude and "
            f"latitude: {err}"
        ) from err


def _mend_all(shapes: NDArray[Any], reasons: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Canonical valid polygons and what was done to each; adds to ``reasons`` in place."""
    repairs = np.full(shapes.size, "", object)
    west, _, east, _ = shapely.bounds(shapes).T
    sound = shapely.is_valid(shapes) & (west >= -180) & (east <= 180) & (east - west <= 180)
    sound &= shapely.get_type_id(shapes) != GeometryType.GEOMETRYCOLLECTION
    for i in np.flatnonzero(~sound & (reasons == "")):
        shapes[i], repairs[i] = mend(shapes[i])
        if shapes[i] is None:
            reasons[i], repairs[i] = repairs[i], ""
    good = reasons == ""
    shapes[good] = canonical(shapes[good])
    return shapes, repairs


def _tabulate(
    frame: gpd.GeoDataFrame, ids: NDArray[Any], shapes: NDArray[Any], stem: str
) -> gpd.GeoDataFrame:
    source = frame["source"].fillna(stem).astype("str") if "source" in frame else stem
    sites = gpd.GeoDataFrame({"site_id": ids}, geometry=shapes, index=frame.index, crs=LONLAT)
    sites["area_km2"] = geodesic_area_km2(sites.geometry)
    sites["source"] = source
    sites["country"] = _countries(frame)
    for name in frame.columns.drop("geometry"):
        if name not in CONTRACT:
            sites[name] = frame[name]
        elif not frame[name].astype("str").equals(sites[name].astype("str")):
            sites[f"{name}_file"] = frame[name]
    return sites


def _countries(frame: gpd.GeoDataFrame) -> pd.Series:
    codes = pd.Series(None, index=frame.index, dtype="str")
    for column in _COUNTRY_COLUMNS:
        if column in frame:
            text = frame[column].astype("str")
            codes = codes.fillna(text.where(text.str.fullmatch("[A-Z]{3}", na=False)))
    return codes


def _join_twins(sites: gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, list[dict[str, Any]]]:
    """Keep the first of the rows with one outline; the others leave their source."""
    first = ~sites["site_id"].duplicated()
    joined = [
        {"site_id": sites.at[row, "site_id"], "row": int(row), "repair": "same outline as another"}
        for row in sites.index[~first]
    ]
    source = sites.groupby("site_id")["source"].agg(join_sources)
    sites = sites[first].copy()
    sites["source"] = sites["site_id"].map(source)
    return sites, joined


def join_sources(sources: pd.Series) -> str:
    """Sorted names of all sources, each once, joined with ";"."""
    return ";".join(sorted({name for text in sources for name in str(text).split(";")}))


def _first(rejected: list[dict[str, Any]], n: int = 3) -> str:
    told = ", ".join(f"row {r['row']}: {r['reason']}" for r in rejected[:n])
    return told + (", ..." if len(rejected) > n else "")

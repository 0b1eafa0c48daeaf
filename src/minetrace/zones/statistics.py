"""Statistics of image layers over sites."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from minetrace.errors import InputError
from minetrace.kernels.strips import Cells, Window, zones_within
from minetrace.kernels.zonal import zone_classes, zone_quantiles, zone_sums
from minetrace.schema import fill_value, label
from minetrace.zones.coverage import Coverage, Zones, cells_on, cover
from minetrace.zones.layers import each_block, geobox_of, time_first
from minetrace.zones.sums import ZoneSums, finish, merge

_SUMS = ("sum", "mean", "count", "min", "max")


def zonal_statistics(
    da: xr.DataArray,
    sites: gpd.GeoDataFrame | Zones,
    *,
    statistics: Sequence[str] = ("mean",),
    coverage: Coverage = "fraction",
) -> pd.DataFrame:
    """Statistics of image layers inside every site.

    Parameters
    ----------
    da
        ``(time, y, x)`` of float32, float64 or integers. Values that are not finite, or equal
        ``_FillValue`` or ``nodata`` of the attributes, were not observed. Integers count as
        float64, so those beyond 2^53 are rounded.
    sites
        Polygons as for `cover`, or the `Zones` that it made of them: build them once for many
        layers of one grid.
    statistics
        Any of

        - ``sum``: of each value times the share of its pixel inside the site,
        - ``mean``: weighted by the area inside the site,
        - ``count``: sum of the shares of the observed pixels,
        - ``min``, ``max``: of the pixels that the site touches, however little,
        - ``median`` and quantiles in percent, such as ``q10`` or ``q97.5``: the smallest value
          such that values up to it take that share of the observed area (NumPy's method
          ``"inverted_cdf"``, which it equals for equal weights). It is always one of the values.
    coverage
        As for `cover`; not used for `Zones`.

    Returns
    -------
    DataFrame
        ``site_id, time``, one column a statistic, ``n_pixels``: one row a site and layer.
        ``n_pixels`` is the count. Where nothing was observed it is 0, and all else is NaN.

    Raises
    ------
    GridError, SiteError, InputError
        As for `cover`, and for a type of data or a statistic that is not known, zones of another
        grid, or quantiles of layers in several blocks.

    Notes
    -----
    Lazy data are computed here, block by block in dask's threads, so a cube may be larger than
    memory. Layers in several blocks are merged from the sums of each; quantiles have no such
    sums, so they need whole layers.

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import wrap_xr
    >>> from shapely.geometry import box
    >>> grid = GeoBox.from_bbox((0, 0, 4, 1), "EPSG:32622", shape=(1, 4))
    >>> layer = wrap_xr(np.array([[[1, 2, 4, 255]]], "uint8"), grid, time=["2020"], nodata=255)
    >>> sites = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[box(0, 0, 3.5, 1)], crs=grid.crs)
    >>> zonal_statistics(layer, sites, statistics=["sum", "median", "max"])
      site_id       time  sum  median  max  n_pixels
    0       a 2020-01-01  7.0     2.0  4.0       3.0
    """
    quantiles = _quantiles(statistics)
    zones, cells = _zones_of(da, sites, coverage)
    nodata = _nodata(da)
    _require_whole_layers(da, quantiles)
    extremes = not {"min", "max"}.isdisjoint(statistics)
    percents = np.array(list(quantiles.values()))

    def block(
        values: NDArray[Any], layer: int, window: Window
    ) -> tuple[ZoneSums, NDArray[np.float64] | None]:
        within = zones_within(cells.runs, window)
        table = zone_sums(values, window, nodata, cells, within, extremes)
        ranked = zone_quantiles(values, window, nodata, cells, percents) if quantiles else None
        return ZoneSums(within, layer, table), ranked

    parts = each_block(da, block)
    sums = merge([part for part, _ in parts], len(zones), da.sizes["time"])
    columns = {name: finish(sums, name) for name in statistics if name in _SUMS}
    if quantiles:
        found = np.concatenate([q for _, q in parts if q is not None], axis=1)
        columns |= {name: found[..., i] for i, name in enumerate(quantiles)}
    ordered = {name: columns[name] for name in statistics}
    return _table(da, zones, ordered | {"n_pixels": finish(sums, "count")})


def zonal_mean(
    da: xr.DataArray, sites: gpd.GeoDataFrame, *, coverage: Coverage = "fraction"
) -> pd.DataFrame:
    """Mean of an image layer inside every site, weighted by the area inside it.

    Parameters
    ----------
    da
        Float ``(time, y, x)``, NaN where nothing was observed. Lazy data are computed here.
    sites, coverage
        As for `cover`.

    Returns
    -------
    DataFrame
        ``site_id, time, value, n_pixels``: one row a site and layer. ``value`` is NaN where
        nothing was observed; ``n_pixels`` is the sum of the shares of the observed pixels.

    Raises
    ------
    GridError, SiteError, InputError
        As for `cover`, and for data that are not float or have no time.

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import xr_zeros
    >>> from shapely.geometry import box
    >>> grid = GeoBox.from_bbox((0, 0, 3, 3), "EPSG:32622", shape=(3, 3))
    >>> ndvi = xr_zeros(grid, "float32").expand_dims(time=[2020]) + 0.5
    >>> sites = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[box(0.5, 0.5, 2.5, 2.5)],
    ...                          crs="EPSG:32622")
    >>> zonal_mean(ndvi, sites)
      site_id  time  value  n_pixels
    0       a  2020    0.5       4.0
    """
    return mean_in_zones(da, cover(sites, geobox_of(da), coverage=coverage))


def mean_in_zones(da: xr.DataArray, zones: Zones) -> pd.DataFrame:
    """`zonal_mean` for zones that are at hand: build them once for many layers of one grid."""
    if da.dtype.kind != "f":
        raise InputError(
            f"{label(da)} is {da.dtype}; a mean needs floats with NaN for gaps: use "
            ".where(da != nodata) first"
        )
    return zonal_statistics(da, zones).rename(columns={"mean": "value"})


def zonal_shares(
    da: xr.DataArray, sites: gpd.GeoDataFrame | Zones, *, coverage: Coverage = "fraction"
) -> pd.DataFrame:
    """Share of every class in the observed area of every site.

    Parameters
    ----------
    da
        Class codes ``(time, y, x)``, integers of 8 or 16 bits. Codes that equal ``_FillValue`` or
        ``nodata`` of the attributes were not observed. Lazy data are computed here, block by
        block.
    sites, coverage
        As for `zonal_statistics`.

    Returns
    -------
    DataFrame
        ``site_id, time, value, share, n_pixels``: one row a site, layer and class found there, by
        rising code. ``share`` is the area of the class inside the site over that of all classes;
        ``n_pixels`` is the sum of the shares of its pixels. A site and layer without any
        observed pixel has one row, with the value NA, the share NaN and 0 pixels.

    Raises
    ------
    GridError, SiteError, InputError
        As for `cover`, for data that are no such codes, and for zones of another grid.

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import wrap_xr
    >>> from shapely.geometry import box
    >>> grid = GeoBox.from_bbox((0, 0, 4, 1), "EPSG:4326", shape=(1, 4))
    >>> codes = wrap_xr(np.array([[[7, 9, 7, 0]]], "uint8"), grid, time=["2020"], nodata=0)
    >>> sites = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[box(0, 0, 2.5, 1)], crs=grid.crs)
    >>> zonal_shares(codes, sites)
      site_id       time  value  share  n_pixels
    0       a 2020-01-01      7    0.6       1.5
    1       a 2020-01-01      9    0.4       1.0
    """
    if da.dtype.kind not in "iu" or da.dtype.itemsize > 2:
        raise InputError(
            f"{label(da)} is {da.dtype}; class codes are integers of 8 or 16 bits: use "
            '.astype("int16") if its values fit'
        )
    zones, cells = _zones_of(da, sites, coverage)
    nodata = _nodata(da)
    info = np.iinfo(da.dtype)

    def classes(values: NDArray[Any], layer: int, window: Window) -> pd.DataFrame:
        within = zones_within(cells.runs, window)
        keys, sums = zone_classes(
            values, window, nodata, cells, within, int(info.min), 2**info.bits
        )
        keys[:, 1] += layer
        named = dict(zip(("zone", "layer", "value"), keys.T, strict=True))
        return pd.DataFrame(named | {"area": sums[:, 0], "n_pixels": sums[:, 1]})

    rows = pd.concat(each_block(da, classes)).astype({"value": "Int64"})
    rows = rows.groupby(["zone", "layer", "value"], as_index=False).sum()
    rows["share"] = rows["area"] / rows.groupby(["zone", "layer"])["area"].transform("sum")
    keys = [range(len(zones)), range(da.sizes["time"])]
    every = pd.MultiIndex.from_product(keys, names=["zone", "layer"]).to_frame(index=False)
    table = every.merge(rows, how="left", on=["zone", "layer"])
    return pd.DataFrame(
        {
            "site_id": np.asarray(zones.site_ids, object)[table["zone"]],
            "time": da["time"].to_numpy()[table["layer"]],
            "value": table["value"],
            "share": table["share"],
            "n_pixels": table["n_pixels"].fillna(0.0),
        }
    ).astype({"site_id": "str"})


def _quantiles(statistics: Sequence[str]) -> dict[str, float]:
    """Quantiles among the statistics, 0 to 1; `InputError` for what is no statistic."""
    if isinstance(statistics, str):
        raise InputError(f"statistics is {statistics!r}; give a list: [{statistics!r}]")
    found = {}
    for name in statistics:
        percent = re.fullmatch(r"q(\d+(?:\.\d+)?)", name)
        if name == "median":
            found[name] = 0.5
        elif percent and float(percent[1]) <= 100:
            found[name] = float(percent[1]) / 100
        elif name not in _SUMS:
            known = ", ".join((*_SUMS, "median"))
            raise InputError(f"{name!r} is no statistic; use {known} or a quantile such as 'q10'")
    return found


def _zones_of(
    da: xr.DataArray, sites: gpd.GeoDataFrame | Zones, coverage: Coverage
) -> tuple[Zones, Cells]:
    geobox = geobox_of(time_first(da))
    zones = sites if isinstance(sites, Zones) else cover(sites, geobox, coverage=coverage)
    return zones, cells_on(zones, geobox)


def _nodata(da: xr.DataArray) -> float:
    """Number that marks gaps, or NaN; `InputError` for data that are no such numbers."""
    if da.dtype.kind not in "iuf" or da.dtype.itemsize > 8 or da.dtype == np.float16:
        raise InputError(
            f"{label(da)} is {da.dtype}; statistics take float32, float64 or integers: use .astype"
        )
    fill = fill_value(da)
    return np.nan if fill is None else float(fill)


def _require_whole_layers(da: xr.DataArray, quantiles: Mapping[str, float]) -> None:
    y, x = da.odc.spatial_dims
    if quantiles and any(len(da.chunksizes.get(dim, (0,))) > 1 for dim in (y, x)):
        raise InputError(
            f"{label(da)} has layers in several blocks, and {', '.join(quantiles)} need whole "
            f"layers: use .chunk({{'time': 1, {y!r}: -1, {x!r}: -1}})"
        )


def _table(
    da: xr.DataArray, zones: Zones, columns: Mapping[str, NDArray[np.float64]]
) -> pd.DataFrame:
    """One row a site and layer from columns ``(site, time)``."""
    time = da["time"].to_numpy()
    keys = {
        "site_id": np.repeat(np.asarray(zones.site_ids, object), time.size),
        "time": np.tile(time, len(zones)),
    }
    values = {name: column.ravel() for name, column in columns.items()}
    return pd.DataFrame(keys | values).astype({"site_id": "str"})

"""Land-cover areas of sites: composition, bare surface, disturbance and reclamation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from minetrace.change.codes import Codes, as_codes, checked_legend, describe, layer_years
from minetrace.kernels.transitions import zone_composition, zone_transitions
from minetrace.schema import COVERS, Kind, Legend, fill_value, load_legend
from minetrace.zones import Coverage, Zones, cell_km2, cover, geobox_of, space_last

_FLOWS = (
    "development_km2", "reclamation_km2", "development_unique_km2", "reclamation_unique_km2",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LandAccount:
    """Land cover of sites by year."""

    composition: pd.DataFrame
    """``site_id, year, bsp, mine_km2, vegetated_km2, other_km2, observed_km2, n_pixels``."""
    transitions: pd.DataFrame
    """As `transition_areas`."""


def transition_areas(
    landcover: xr.DataArray,
    sites: gpd.GeoDataFrame,
    *,
    legend: str | Legend = "glc_fcs30d",
    coverage: Coverage = "fraction",
    min_persistence: int = 1,
) -> pd.DataFrame:
    """Area disturbed and reclaimed in every site, by layer and cover type.

    Parameters
    ----------
    landcover, legend, min_persistence
        As for `transitions`; dims ``(time, y, x)`` on a north-up grid. Lazy data are computed.
    sites, coverage
        As for `minetrace.zones.cover`.

    Returns
    -------
    DataFrame
        ``site_id, year, interval_years, cover, development_km2, reclamation_km2,
        development_unique_km2, reclamation_unique_km2``: one row a site, layer from the second,
        and cover type (lost by disturbance, gained by reclamation). ``interval_years`` is the
        time since the last layer that observed any of the site; up to the site's first such
        layer, since the layer before. The unique areas count a pixel's first disturbance and first
        reclamation only, so their sums over the years are areas of ground. Areas are those of
        the ellipsoid inside the site.

    Raises
    ------
    LegendError, InputError
        As `transitions`.
    GridError, SiteError
        As `minetrace.zones.cover`.

    Notes
    -----
    A layer without any data in a site has rows of zeros there and changes none of the site's
    later rows. A gap of single pixels in a layer that observed others is not resolved: their
    events may have happened before ``interval_years``.

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import wrap_xr
    >>> from shapely.geometry import box
    >>> grid = GeoBox.from_bbox((500000, 0, 501000, 1000), "EPSG:32631", shape=(1, 1))
    >>> codes = wrap_xr(np.array([[[51]], [[200]]], "uint8"), grid, time=["1985", "1990"])
    >>> west = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[box(500000, 0, 500500, 1000)],
    ...                         crs=grid.crs)
    >>> table = transition_areas(codes, west).set_index("cover")
    >>> table.loc["forest", ["year", "interval_years", "development_km2"]].round(3).tolist()
    [1990.0, 5.0, 0.5]
    """
    zones = cover(sites, geobox_of(landcover), coverage=coverage)
    layers = _read(landcover, zones, legend, min_persistence)
    return _flow_table(layers, zones, _kind_sums(layers, zones), min_persistence)


def bare_surface_percentage(
    landcover: xr.DataArray,
    sites: gpd.GeoDataFrame,
    *,
    legend: str | Legend = "glc_fcs30d",
    coverage: Coverage = "fraction",
) -> pd.DataFrame:
    """Share of every site that is under mine-related classes, by year.

    Parameters
    ----------
    landcover, sites, legend, coverage
        As for `transition_areas`.

    Returns
    -------
    DataFrame
        ``site_id, year, bsp``: mine-related area over observed area, 0 to 1; NaN where nothing
        was observed.

    Raises
    ------
    LegendError, InputError, GridError, SiteError
        As `transition_areas`.

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import wrap_xr
    >>> grid = GeoBox.from_bbox((0, 0, 2, 1), "EPSG:32631", shape=(1, 2))
    >>> codes = wrap_xr(np.array([[[200, 51]]], "uint8"), grid, time=["1985"])
    >>> sites = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[grid.extent.geom], crs=grid.crs)
    >>> round(float(bare_surface_percentage(codes, sites).bsp[0]), 6)
    0.5
    """
    zones = cover(sites, geobox_of(landcover), coverage=coverage)
    layers = _read(landcover, zones, legend)
    sums = _kind_sums(layers, zones)
    return _composition_table(layers, zones, sums)[["site_id", "year", "bsp"]]


def class_areas(
    landcover: xr.DataArray,
    sites: gpd.GeoDataFrame,
    *,
    legend: str | Legend = "glc_fcs30d",
    coverage: Coverage = "fraction",
) -> pd.DataFrame:
    """Area of every class in every site, by year.

    Parameters
    ----------
    landcover, sites, legend, coverage
        As for `transition_areas`.

    Returns
    -------
    DataFrame
        ``site_id, year, code, name, n_pixels, area_km2`` of the classes found, no data included.
        ``n_pixels`` is the sum of pixel shares. A class without a row is absent.

    Raises
    ------
    LegendError, InputError, GridError, SiteError
        As `transition_areas`.

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import wrap_xr
    >>> grid = GeoBox.from_bbox((0, 0, 2, 1), "EPSG:32631", shape=(1, 2))
    >>> codes = wrap_xr(np.array([[[200, 51]]], "uint8"), grid, time=["1985"])
    >>> sites = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[grid.extent.geom], crs=grid.crs)
    >>> class_areas(codes, sites)[["code", "n_pixels"]].to_numpy().tolist()
    [[51.0, 1.0], [200.0, 1.0]]
    """
    zones = cover(sites, geobox_of(landcover), coverage=coverage)
    layers = _read(landcover, zones, legend)
    found = layers.codes.present
    bins = np.zeros(256, np.uint8)
    bins[found] = np.arange(found.size)
    sums = _zone_sums(layers, bins, found.size, zones)
    keys = {"site_id": zones.site_ids, "year": layers.years, "code": found}
    table = _table(keys, {"n_pixels": sums[..., 1], "area_km2": sums[..., 0]})
    names = {c.code: c.name for c in load_legend(legend).classes}
    table.insert(3, "name", [names.get(code, "No data") for code in table["code"]])
    return table[table["n_pixels"] > 0].astype({"name": "str"}).reset_index(drop=True)


def land_account(
    landcover: xr.DataArray,
    zones: Zones,
    *,
    legend: str | Legend = "glc_fcs30d",
    min_persistence: int = 1,
) -> LandAccount:
    """Composition and transitions of every site from one reading of the land cover.

    Parameters
    ----------
    landcover, legend, min_persistence
        As for `transition_areas`.
    zones
        Sites on the grid of ``landcover``, by `minetrace.zones.cover`.

    Returns
    -------
    LandAccount
        ``composition`` has one row a site and layer; ``bsp`` is NaN where nothing was observed.
        ``transitions`` is the table of `transition_areas`.

    Raises
    ------
    LegendError, InputError, GridError
        As `transition_areas`, and for zones of another grid.

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import wrap_xr
    >>> grid = GeoBox.from_bbox((0, 0, 2, 1), "EPSG:32631", shape=(1, 2))
    >>> codes = wrap_xr(np.array([[[0, 51]], [[200, 200]]], "uint8"), grid,
    ...                 time=["1985", "1990"])
    >>> sites = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[grid.extent.geom], crs=grid.crs)
    >>> account = land_account(codes, cover(sites, grid))
    >>> account.composition[["year", "bsp", "n_pixels"]].to_numpy().tolist()
    [[1985.0, 0.0, 1.0], [1990.0, 1.0, 2.0]]
    """
    layers = _read(landcover, zones, legend, min_persistence)
    sums = _kind_sums(layers, zones)
    return LandAccount(
        _composition_table(layers, zones, sums), _flow_table(layers, zones, sums, min_persistence)
    )


@dataclass(frozen=True, eq=False)
class _Layers:
    """Land cover in memory, with what the tables need of it."""

    years: NDArray[np.int64]
    codes: Codes
    km2: NDArray[np.float64]
    """Area of every cell of the zones."""


def _read(
    landcover: xr.DataArray, zones: Zones, legend: str | Legend, min_persistence: int = 1
) -> _Layers:
    classes = checked_legend(legend, landcover, min_persistence)
    years = layer_years(landcover)
    km2 = cell_km2(zones, geobox_of(landcover))
    codes = as_codes(space_last(landcover), classes, fill_value(landcover), describe(landcover))
    return _Layers(years, codes, km2)


def _zone_sums(
    layers: _Layers, bins: NDArray[np.uint8], n_bins: int, zones: Zones
) -> NDArray[np.float64]:
    """km² and pixel shares ``(site, time, bin, 2)``."""
    sums: NDArray[np.float64] = zone_composition(
        layers.codes.values, bins, n_bins, zones.runs, layers.km2, zones.weight
    )
    return sums


def _kind_sums(layers: _Layers, zones: Zones) -> NDArray[np.float64]:
    return _zone_sums(layers, layers.codes.lut, len(Kind), zones)


def _total_km2(layers: _Layers, zones: Zones) -> NDArray[np.float64]:
    """Area of every site's cells, added in the order in which the kernel adds the classes."""
    everything = np.zeros(256, np.uint8)
    total: NDArray[np.float64] = zone_composition(
        layers.codes.values[:1], everything, 1, zones.runs, layers.km2, layers.km2
    )[:, 0, 0, 0]
    return total


def _composition_table(layers: _Layers, zones: Zones, sums: NDArray[np.float64]) -> pd.DataFrame:
    km2, pixels = sums[..., 0], sums[..., 1]
    vegetated = km2[..., Kind.CROPLAND : Kind.SPARSE + 1].sum(axis=-1)
    mine, other = km2[..., Kind.MINE], km2[..., Kind.OTHER]
    # not the sum of the three: its last digits would change with the classes, and a trend test
    # takes a rounding difference for a step
    observed = _total_km2(layers, zones)[:, None] - km2[..., Kind.NODATA]
    values = {
        "bsp": np.divide(mine, observed, out=np.full(mine.shape, np.nan), where=observed > 0),
        "mine_km2": mine,
        "vegetated_km2": vegetated,
        "other_km2": other,
        "observed_km2": observed,
        "n_pixels": pixels[..., Kind.CROPLAND :].sum(axis=-1),
    }
    return _table({"site_id": zones.site_ids, "year": layers.years}, values)


def _flow_table(
    layers: _Layers, zones: Zones, sums: NDArray[np.float64], min_persistence: int
) -> pd.DataFrame:
    codes, years = layers.codes, layers.years
    flows = zone_transitions(codes.values, codes.lut, min_persistence, zones.runs, layers.km2)
    keys = {"site_id": zones.site_ids, "year": years[1:], "cover": COVERS}
    table = _table(keys, {name: flows[:, 1:, :, k] for k, name in enumerate(_FLOWS)})
    intervals = _intervals(years, sums[..., Kind.CROPLAND :, 0])
    table.insert(2, "interval_years", np.repeat(intervals, len(COVERS)))
    return table


def _intervals(years: NDArray[np.int64], seen: NDArray[np.float64]) -> NDArray[np.int64]:
    """Years since each site's last layer with data, or else since the layer before.

    ``seen`` has areas ``(site, time, kind)``; the result is ``(site, time)`` from layer two on.
    """
    layer = np.arange(years.size)
    last = np.maximum.accumulate(np.where((seen > 0).any(axis=-1), layer, -1), axis=1)[:, :-1]
    return years[1:] - years[np.where(last < 0, layer[:-1], last)]


def _table(
    keys: Mapping[str, Collection[Any]], values: Mapping[str, NDArray[np.float64]]
) -> pd.DataFrame:
    """One row for each combination of the keys, in their order."""
    index = pd.MultiIndex.from_product(list(keys.values()), names=list(keys))
    table = pd.DataFrame({name: a.ravel() for name, a in values.items()}, index).reset_index()
    return table.astype({k: "int64" if k in ("year", "code") else "str" for k in keys})

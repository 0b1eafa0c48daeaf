"""Land-cover areas of sites: composition, bare surface, disturbance and reclamation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from minetrace.change.codes import (
    Codes,
    as_codes,
    checked_legend,
    code_kinds,
    describe,
    fixed_codes,
    flat_layers,
    known_kinds,
    layer_years,
    refuse,
)
from minetrace.change.sums import LandAccount, LandSums, composition_table, keyed_table, sum_land
from minetrace.kernels.transitions import codes_present, zone_composition
from minetrace.schema import Kind, Legend, fill_value, load_legend
from minetrace.zones import Coverage, Zones, cell_km2, cell_shares, cover, geobox_of, space_last

_BANDS = 8
"""Bands of rows that codes of another type than uint8 are converted in, one after the other."""


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
    return land_account(
        landcover, zones, legend=legend, min_persistence=min_persistence
    ).transitions


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
    sums = zone_composition(
        layers.codes.values, layers.codes.lut, len(Kind), zones.runs, layers.km2, layers.share
    )
    return composition_table(zones.site_ids, layers.years, sums)[["site_id", "year", "bsp"]]


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
    sums = zone_composition(
        layers.codes.values, bins, found.size, zones.runs, layers.km2, layers.share
    )
    keys = {"site_id": zones.site_ids, "year": layers.years, "code": found}
    table = keyed_table(keys, {"n_pixels": sums[..., 1], "area_km2": sums[..., 0]})
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
    years, sums = land_sums(landcover, zones, legend=legend, min_persistence=min_persistence)
    return sums.account(zones.site_ids, years)


def land_sums(
    landcover: xr.DataArray, zones: Zones, *, legend: str | Legend, min_persistence: int = 1
) -> tuple[NDArray[np.int64], LandSums]:
    """Years of the layers, and what `land_account` makes its tables of; parameters as there."""
    classes = checked_legend(legend, landcover, min_persistence)
    years, fill = layer_years(landcover), fill_value(landcover)
    km2, share = cell_km2(zones, geobox_of(landcover)), cell_shares(zones)
    values = space_last(landcover)
    lut = code_kinds(classes, fill)
    kinds = known_kinds(lut)
    present = np.zeros(256, np.bool_)
    strange = [np.empty(0, values.dtype)]
    sums = LandSums.empty(len(zones), years.size)
    # areas are rounded so that bands of rows add up to the same numbers as the whole
    for band in _bands(values):
        codes, outside = fixed_codes(values[:, band], fill)
        runs = zones.runs.in_rows(band)
        sums.add(sum_land(codes, kinds, min_persistence, runs, km2, share))
        present |= codes_present(flat_layers(codes))
        strange.append(outside)
    refuse(present, np.concatenate(strange), classes, lut, describe(landcover))
    return years, sums


def _bands(values: NDArray[Any]) -> Iterator[slice]:
    """Bands of rows: one for all if the kernels can read the codes as they are."""
    n_row = values.shape[1]
    step = max(1, n_row if values.dtype.itemsize == 1 else -(-n_row // _BANDS))
    return (slice(start, min(start + step, n_row)) for start in range(0, n_row, step))


@dataclass(frozen=True, eq=False)
class _Layers:
    """Land cover in memory, with what the tables need of it."""

    years: NDArray[np.int64]
    codes: Codes
    km2: NDArray[np.float64]
    """Area of every cell inside its site."""
    share: NDArray[np.float64]
    """Share of every cell inside its site."""


def _read(landcover: xr.DataArray, zones: Zones, legend: str | Legend) -> _Layers:
    classes = checked_legend(legend, landcover, 1)
    years = layer_years(landcover)
    km2 = cell_km2(zones, geobox_of(landcover))
    codes = as_codes(space_last(landcover), classes, fill_value(landcover), describe(landcover))
    return _Layers(years, codes, km2, cell_shares(zones))

"""What a cube was made from, year by year: two of one key hold the same numbers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import xarray as xr

from minetrace._version import __version__
from minetrace.errors import InputError

TIMELESS = ""
"""The year of a node that has no time."""


@dataclass(frozen=True)
class Identity:
    """Keys of a cube."""

    series: dict[str, str]
    """Node → key of all but its years: site, settings, legend, grid, variables."""
    years: dict[str, dict[str, str]]
    """Node → year → key of the items, dates and version it comes from."""

    @property
    def all_years(self) -> list[str]:
        """Years of any node, in order."""
        return sorted({year for years in self.years.values() for year in years})

    def only(self, year: str) -> Identity:
        """Keys of the part that lies in one year."""
        years = {node: {year: keys[year]} for node, keys in self.years.items() if year in keys}
        return Identity({node: self.series[node] for node in years}, years)


def identify(cube: xr.DataTree) -> Identity:
    """Keys of a cube; one without provenance (not of `open_cube`) is known by its values.

    Raises
    ------
    InputError
        A node has no grid.
    """
    if not cube.children:
        raise InputError("the cube has no nodes, so there is nothing to save")
    nodes = {n: c.to_dataset(inherit=False) for n, c in sorted(cube.children.items())}
    site = str(cube.attrs.get("site_id", ""))
    return Identity(
        {name: _series(name, ds, site) for name, ds in nodes.items()},
        {
            name: {year: _year(ds.isel(where), year) for year, where in split_years(ds).items()}
            for name, ds in nodes.items()
        },
    )


def split_years(ds: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Year → where along time it lies; a node without time has one year, `TIMELESS`."""
    if "time" not in ds.dims:
        return {TIMELESS: {}}
    years = ds["time"].dt.year.values
    return {f"{y:04d}": {"time": np.flatnonzero(years == y)} for y in np.unique(years)}


def _series(name: str, ds: xr.Dataset, site: str) -> str:
    box = ds.odc.geobox
    if box is None or box.crs is None:
        raise InputError(f"node {name!r} has no grid: x, y and spatial_ref are needed")
    # x and y, and not the affine, since a grid read back from them differs by rounding
    corners = [float(v) for n in ("x", "y") for v in np.round(ds[n].values[[0, -1]], 9)]
    settings = ds.attrs.get("series_hash", ds.attrs.get("recipe_hash"))
    return _hash(
        site, str(box.crs), list(box.shape), corners, settings, ds.attrs.get("legend_hash"),
        sorted((str(v.name), str(v.dtype), list(v.dims)) for v in ds.data_vars.values()),
    )  # fmt: skip


def _year(ds: xr.Dataset, year: str) -> str:
    items = ds.attrs.get("items_by_year", {}).get(year, ds.attrs.get("items_hash"))
    dates = [] if year == TIMELESS else [str(t) for t in ds["time"].values]
    return _hash(__version__, dates, items or dask.base.tokenize(ds.drop_attrs()))


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

"""Trace every surface mine on Earth through time.

Two ways in, one set of functions: explore one site in Jupyter (`open_cube` returns a lazy
`xarray.DataTree`), or run tens of thousands of sites (`run_sites`, ``minetrace run``).

Importing this package imports nothing heavy: each name loads its module on first use.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from minetrace._version import __version__

if TYPE_CHECKING:
    from minetrace import errors, report, schema
    from minetrace.catalog import build_catalog, open_source
    from minetrace.change import (
        bare_surface_percentage,
        class_areas,
        transition_areas,
        transitions,
    )
    from minetrace.composites import composite
    from minetrace.cubes import open_cube
    from minetrace.panel import site_panel, site_table
    from minetrace.run import run_sites
    from minetrace.simulate import simulate_mines
    from minetrace.sites import merge_sites, read_sites, site_rings
    from minetrace.status import classify_status
    from minetrace.store import load_cube, save_cube
    from minetrace.trends import (
        bare_soil_index,
        mann_kendall,
        nbr,
        ndvi,
        ndwi,
        sens_slope,
    )
    from minetrace.zones import zonal_shares, zonal_statistics

_HOME = {
    "read_sites": "sites", "merge_sites": "sites", "site_rings": "sites",
    "open_source": "catalog", "build_catalog": "catalog",
    "composite": "composites",
    "open_cube": "cubes",
    "save_cube": "store", "load_cube": "store",
    "mann_kendall": "trends", "sens_slope": "trends",
    "ndvi": "trends", "ndwi": "trends", "nbr": "trends", "bare_soil_index": "trends",
    "zonal_statistics": "zones", "zonal_shares": "zones",
    "transitions": "change", "transition_areas": "change",
    "bare_surface_percentage": "change", "class_areas": "change",
    "classify_status": "status",
    "site_panel": "panel", "site_table": "panel",
    "simulate_mines": "simulate",
    "run_sites": "run",
}  # fmt: skip
_MODULES = ("errors", "report", "schema")

__all__ = [
    "__version__", "bare_soil_index", "bare_surface_percentage", "build_catalog", "class_areas",
    "classify_status", "composite", "errors", "load_cube", "mann_kendall", "merge_sites", "nbr",
    "ndvi", "ndwi", "open_cube", "open_source", "read_sites", "report", "run_sites", "save_cube",
    "schema", "sens_slope", "simulate_mines", "site_panel", "site_rings", "site_table",
    "transition_areas", "transitions", "zonal_shares", "zonal_statistics",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"minetrace.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'minetrace' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"minetrace.{_HOME[name]}"), name)
    importlib.import_module("minetrace.accessor")
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if "xarray" in sys.modules:
    # otherwise ds.mine appears with the first name that is used
    importlib.import_module("minetrace.accessor")

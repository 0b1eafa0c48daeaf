"""What is installed here, and what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform

import pandas as pd
import rasterio
from rasterio.drivers import raster_driver_extensions

from minetrace._version import __version__
from minetrace.cli import console

_NEEDED = ("numpy", "numba", "xarray", "dask", "zarr", "rasterio", "odc-stac", "geopandas")
_OPTIONAL = {"torch": "segment", "segmentation_models_pytorch": "segment", "jupytext": "notebook"}


def diagnose() -> int:
    """Print versions, GDAL, cores and optional extras; 0 when everything needed is there."""
    rows = [("minetrace", __version__, ""), ("python", platform.python_version(), "")]
    rows += [(name, importlib.metadata.version(name), "") for name in _NEEDED]
    rows.append(("GDAL", rasterio.__gdal_version__, _formats()))
    rows.append(("cores", str(os.cpu_count()), "units run at a time"))
    for name, extra in _OPTIONAL.items():
        here = importlib.util.find_spec(name) is not None
        rows.append((name, "installed" if here else "absent", f"extra [{extra}]"))
    console.table(pd.DataFrame(rows, columns=["what", "version", "note"]), "minetrace doctor")
    return 0 if "tif" in raster_driver_extensions() else 1


def _formats() -> str:
    known = raster_driver_extensions()
    return "reads " + ", ".join(e for e in ("tif", "jp2", "nc") if e in known)

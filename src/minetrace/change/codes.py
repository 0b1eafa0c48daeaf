"""Class codes of a land-cover series, checked against its legend and its years."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from minetrace.errors import InputError
from minetrace.kernels.transitions import codes_present
from minetrace.schema import UNKNOWN, Kind, Legend, label, load_legend
from minetrace.trends import increasing_years

_FILL_CODE = 255


@dataclass(frozen=True, eq=False)
class Codes:
    """Class codes that the legend knows."""

    values: NDArray[np.uint8]
    lut: NDArray[np.uint8]
    """uint8 ``(256,)`` class code → `Kind`."""


def checked_legend(legend: str | Legend, landcover: xr.DataArray, min_persistence: int) -> Legend:
    """Load the legend, after the checks that need no pixel."""
    if landcover.dtype.kind not in "iu":
        raise InputError(
            f"{describe(landcover)} is {landcover.dtype}; class codes are integers: "
            "read them without masking or scaling (mask_and_scale=False)"
        )
    if min_persistence < 1:
        raise InputError(f"min_persistence is {min_persistence!r}; a state lasts 1 layer or more")
    return load_legend(legend)


def describe(landcover: xr.DataArray) -> str:
    """Say in messages which data are meant."""
    return label(landcover) if landcover.name is None else f"land cover {label(landcover)}"


def layer_years(landcover: xr.DataArray) -> NDArray[np.int64]:
    """Calendar year of every layer, one layer a year, increasing."""
    years = np.floor(increasing_years(landcover, "time")).astype(np.int64)
    twice = sorted({int(y) for y in years[1:][np.diff(years) == 0]})
    if twice:
        raise InputError(f"{describe(landcover)} has several layers in {twice}; give one a year")
    return years


def as_codes(values: NDArray[Any], legend: Legend, fill: float | None, where: str) -> Codes:
    """Codes as uint8, all of them known to the legend; a fill value it misses is no data."""
    lut = legend.lut
    if fill is not None:
        code = int(fill) if 0 <= fill <= _FILL_CODE else _FILL_CODE
        lut[code] = Kind.NODATA if lut[code] == UNKNOWN else lut[code]
    if values.dtype != np.uint8:
        outside = (values < 0) | (values >= _FILL_CODE)
        legend.require(np.setdiff1d(values[outside], [] if fill is None else [fill]), where)
        values = np.where(outside, _FILL_CODE, values).astype(np.uint8)
    found = np.flatnonzero(codes_present(values))
    legend.require(found[lut[found] == UNKNOWN], where)
    return Codes(values, lut)

"""Class codes of a land-cover series, checked against its legend and its years."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from minetrace.errors import InputError
from minetrace.kernels.follow import MAX_LAYERS
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
    present: NDArray[np.int64]
    """The codes that occur, in order."""


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
    if years.size > MAX_LAYERS:
        raise InputError(
            f"{describe(landcover)} has {years.size} layers; at most {MAX_LAYERS} can be followed: "
            "select years with .sel(time=slice(...))"
        )
    return years


def as_codes(values: NDArray[Any], legend: Legend, fill: float | None, where: str) -> Codes:
    """Codes ``(time, ...)`` as uint8, all of them known to the legend."""
    codes, outside = fixed_codes(values, fill)
    lut = code_kinds(legend, fill)
    present = codes_present(flat_layers(codes))
    refuse(present, outside, legend, lut, where)
    return Codes(codes, lut, np.flatnonzero(present))


def fixed_codes(
    values: NDArray[Any], fill: float | None
) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """As `narrow`, read-only: kernels are compiled once more for arrays that can be written to."""
    codes, outside = narrow(values, fill)
    codes = codes.view()
    codes.flags.writeable = False
    return codes, outside


def flat_layers(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes ``(time, ...)`` as a contiguous ``(time, pixel)``; a copy only where they are not."""
    return np.ascontiguousarray(codes).reshape(codes.shape[0], math.prod(codes.shape[1:]))


def code_kinds(legend: Legend, fill: float | None) -> NDArray[np.uint8]:
    """uint8 ``(256,)`` code → `Kind`; a fill value that the legend misses is no data."""
    lut = legend.lut
    if fill is not None:
        code = int(fill) if 0 <= fill <= _FILL_CODE else _FILL_CODE
        lut[code] = Kind.NODATA if lut[code] == UNKNOWN else lut[code]
    return lut


def known_kinds(lut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Kinds with no data for unknown codes, which are refused once all of them were met."""
    return np.where(lut == UNKNOWN, np.uint8(Kind.NODATA), lut)


def narrow(
    values: NDArray[Any], fill: float | None
) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """Codes as uint8, and the numbers that no code can be; a fill value becomes 255.

    What is uint8, or int8 without a negative number, is not copied.
    """
    nothing = np.empty(0, values.dtype)
    if values.dtype == np.uint8 or (values.dtype == np.int8 and values.min(initial=0) >= 0):
        return values.view(np.uint8), nothing
    codes = np.empty(values.shape, np.uint8)
    outside = [nothing]
    for layer, out in zip(values, codes, strict=True):
        np.copyto(out, layer, casting="unsafe")
        strange = (out != layer) | (out == _FILL_CODE)
        if strange.any():
            outside.append(np.unique(layer[strange]))
            out[strange] = _FILL_CODE
    found = np.unique(np.concatenate(outside))
    return codes, found[found != fill] if fill is not None else found


def refuse_unknown(codes: NDArray[np.uint8], legend: Legend) -> None:
    """Raise `LegendError` for codes ``(time, pixel)``, no data 0, that the legend misses."""
    refuse(codes_present(codes), np.empty(0, np.int64), legend, code_kinds(legend, 0), "land cover")


def refuse(
    present: NDArray[np.bool_],
    outside: NDArray[np.integer],
    legend: Legend,
    lut: NDArray[np.uint8],
    where: str,
) -> None:
    """Raise `LegendError` for codes present or outside uint8 that the legend misses."""
    unknown = np.flatnonzero(present & (lut == UNKNOWN))
    if outside.size:
        # 255 stands for all that lies outside
        legend.require([*unknown[unknown != _FILL_CODE], *outside], where)
    legend.require(unknown, where)

"""The nouns of a cube: which variables each node holds, and what an array says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from minetrace.errors import InputError


@dataclass(frozen=True)
class Variable:
    """One registered variable."""

    name: str
    dtype: str
    units: str
    long_name: str
    dims: tuple[str, ...] = ("time", "y", "x")

    @property
    def attrs(self) -> dict[str, str]:
        """CF attributes."""
        return {"long_name": self.long_name, "units": self.units}


_BAND = "surface reflectance, {}"
BANDS: tuple[str, ...] = ("blue", "green", "red", "nir", "swir16", "swir22")
"""Reflectance bands that the indices know; a recipe may add others."""

NODES: dict[str, dict[str, Variable]] = {
    "imagery": {
        **{b: Variable(b, "float32", "1", _BAND.format(b)) for b in BANDS},
        "n_obs": Variable("n_obs", "uint16", "1", "clear observations in the composite"),
        "month": Variable("month", "uint8", "1", "month of the composite, 0 = none"),
    },
    "landcover": {
        "landcover": Variable("landcover", "uint8", "1", "land-cover class"),
    },
    "lights": {
        "ntl": Variable("ntl", "float32", "nW cm-2 sr-1", "night-time radiance"),
        "n_months": Variable("n_months", "uint8", "1", "months in the annual mean"),
    },
    "terrain": {
        "elevation": Variable("elevation", "float32", "m", "height of the ground", ("y", "x")),
        "slope": Variable("slope", "float32", "degree", "steepness of the ground", ("y", "x")),
        "hillshade": Variable(
            "hillshade", "float32", "1", "cosine of the sun's angle to the ground", ("y", "x")
        ),
    },
    "rings": {
        "ring": Variable("ring", "uint8", "1", "distance class around the site", ("y", "x")),
    },
}
"""Cube nodes → variables. Every cube, store and report uses these names and no others. ``month``
is there for ``composite = "least_cloudy_month"`` only."""

PRODUCTS: tuple[str, ...] = ("imagery", "landcover", "lights")
"""Nodes with one layer a year; the others, dims ``(y, x)``, hold for all years."""

TREND: tuple[Variable, ...] = (
    Variable("trend", "int8", "1", "sign of the trend where significant", ("y", "x")),
    Variable("p", "float64", "1", "two-sided p-value", ("y", "x")),
    Variable("z", "float64", "1", "normalised test statistic", ("y", "x")),
    Variable("tau", "float64", "1", "Kendall's tau", ("y", "x")),
    Variable("s", "float64", "1", "Mann-Kendall score S", ("y", "x")),
    Variable("var_s", "float64", "1", "variance of S, corrected for ties", ("y", "x")),
    Variable("slope", "float64", "year-1", "Sen's slope", ("y", "x")),
    Variable("intercept", "float64", "1", "Sen line at the first time step", ("y", "x")),
    Variable("n", "int16", "1", "valid observations", ("y", "x")),
)
"""Variables of `minetrace.mann_kendall`; dims are those of the input without time."""

CHANGE: tuple[Variable, ...] = (
    Variable("first_development", "int16", "year", "first year of disturbance", ("y", "x")),
    Variable("last_development", "int16", "year", "last year of disturbance", ("y", "x")),
    Variable("first_reclamation", "int16", "year", "first year of reclamation", ("y", "x")),
    Variable("last_reclamation", "int16", "year", "last year of reclamation", ("y", "x")),
    Variable("n_development", "uint8", "1", "disturbance events", ("y", "x")),
    Variable("n_reclamation", "uint8", "1", "reclamation events", ("y", "x")),
)
"""Variables of `minetrace.transitions`."""


def label(da: xr.DataArray) -> str:
    """Say in messages which array is meant.

    Examples
    --------
    >>> label(xr.DataArray(0, name="ndvi")), label(xr.DataArray(0))
    ("'ndvi'", 'the array')
    """
    return "the array" if da.name is None else repr(da.name)


def fill_value(da: xr.DataArray) -> float | None:
    """Finite number of the data's type that marks gaps, from ``_FillValue`` or ``nodata``.

    Raises
    ------
    InputError
        An attribute that is not one number, as a number, a text or a list of one.

    Examples
    --------
    >>> counts = xr.DataArray(np.zeros(3, "uint8"), attrs={"_FillValue": -9999, "nodata": "255"})
    >>> fill_value(counts)
    255
    """
    for key in ("_FillValue", "nodata"):
        if da.attrs.get(key) is not None:
            fill = _in_type(_number(da, key), da.dtype)
            if fill is not None:
                return fill
    return None


def _number(da: xr.DataArray, key: str) -> float:
    """Attribute as a number; files hold it as a text or a list of one as well."""
    try:
        (value,) = np.ravel(da.attrs[key]).tolist()
        return value if isinstance(value, int) else float(value)
    except (TypeError, ValueError) as err:
        raise InputError(
            f"the attribute {key!r} of {label(da)} is {da.attrs[key]!r}; it marks gaps: give one "
            "number, or delete it"
        ) from err


def _in_type(number: float, dtype: np.dtype[Any]) -> float | None:
    """Number as data of this type hold it, or None where they cannot.

    Floats are rounded, as a file's -3.4e38 means the float32 next to it.
    """
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        whole = info.min <= number <= info.max and number == int(number)
        return int(number) if whole else None
    with np.errstate(over="ignore"):
        rounded = float(dtype.type(number))
    return rounded if np.isfinite(rounded) else None


def validate(cube: xr.DataTree) -> xr.DataTree:
    """Check a cube against the contract of `NODES` and return it unchanged.

    Only metadata is read: names, dims, dtypes and coordinates. Nothing is computed.

    Raises
    ------
    InputError
        Naming the node and variable that break the contract.
    """
    for name, node in cube.children.items():
        ds = node.to_dataset(inherit=False)
        if "spatial_ref" not in ds.coords:
            raise InputError(f"node {name!r} has no spatial_ref coordinate, so its CRS is unknown")
        for var in ds.data_vars.values():
            spec = NODES.get(name, {}).get(str(var.name))
            dims = ("y", "x") if name in NODES and name not in PRODUCTS else ("time", "y", "x")
            if var.dims != dims:
                raise InputError(f"{name}/{var.name} has dims {var.dims}, not {dims}")
            if spec is not None and var.dtype != np.dtype(spec.dtype):
                raise InputError(f"{name}/{var.name} is {var.dtype}, the contract is {spec.dtype}")
    return cube

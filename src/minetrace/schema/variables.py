"""The nouns of a cube: which variables each node holds, with dtype, units and gaps."""

from __future__ import annotations

from dataclasses import dataclass

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
    gap: str = "NaN"
    """What stands where nothing was observed."""

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
        "n_obs": Variable("n_obs", "uint16", "1", "clear observations in the composite", gap="0"),
    },
    "landcover": {
        "landcover": Variable("landcover", "uint8", "1", "land-cover class", gap="0"),
    },
    "lights": {
        "ntl": Variable("ntl", "float32", "nW cm-2 sr-1", "night-time radiance"),
        "n_months": Variable("n_months", "uint8", "1", "months in the annual mean", gap="0"),
    },
}
"""Cube nodes → variables. Every cube, store and report uses these names and no others."""

PRODUCTS: tuple[str, ...] = tuple(NODES)

TREND: tuple[Variable, ...] = (
    Variable("trend", "int8", "1", "sign of the trend where significant", ("y", "x"), "0"),
    Variable("p", "float64", "1", "two-sided p-value", ("y", "x")),
    Variable("z", "float64", "1", "normalised test statistic", ("y", "x")),
    Variable("tau", "float64", "1", "Kendall's tau", ("y", "x")),
    Variable("s", "float64", "1", "Mann-Kendall score S", ("y", "x")),
    Variable("var_s", "float64", "1", "variance of S, corrected for ties", ("y", "x")),
    Variable("slope", "float64", "year-1", "Sen's slope", ("y", "x")),
    Variable("intercept", "float64", "1", "Sen line at the first time step", ("y", "x")),
    Variable("n", "int16", "1", "valid observations", ("y", "x"), "0"),
)
"""Variables of `minetrace.mann_kendall`; dims are those of the input without time."""

CHANGE: tuple[Variable, ...] = (
    Variable("first_development", "int16", "year", "first year of disturbance", ("y", "x"), "0"),
    Variable("last_development", "int16", "year", "last year of disturbance", ("y", "x"), "0"),
    Variable("first_reclamation", "int16", "year", "first year of reclamation", ("y", "x"), "0"),
    Variable("last_reclamation", "int16", "year", "last year of reclamation", ("y", "x"), "0"),
    Variable("n_development", "uint8", "1", "disturbance events", ("y", "x"), "0"),
    Variable("n_reclamation", "uint8", "1", "reclamation events", ("y", "x"), "0"),
)
"""Variables of `minetrace.transitions`."""


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
            if var.dims != ("time", "y", "x"):
                raise InputError(f"{name}/{var.name} has dims {var.dims}, not (time, y, x)")
            if spec is not None and var.dtype != np.dtype(spec.dtype):
                raise InputError(f"{name}/{var.name} is {var.dtype}, the contract is {spec.dtype}")
    return cube

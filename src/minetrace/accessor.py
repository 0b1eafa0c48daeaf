"""``ds.mine``: the same functions, reached from a dataset.

The accessor keeps no state: it hands its dataset to the functions of `minetrace`.
"""

from __future__ import annotations

from typing import Any, Literal

import xarray as xr

from minetrace.errors import InputError


@xr.register_dataset_accessor("mine")  # type: ignore[no-untyped-call]
class MineAccessor:
    """Thin door to `minetrace` for a cube's node.

    Examples
    --------
    >>> import numpy as np, xarray as xr, minetrace
    >>> red = xr.DataArray(np.full((2, 2), 0.1, "float32"), dims=("y", "x"))
    >>> ds = xr.Dataset({"red": red, "nir": red * 3})
    >>> round(float(ds.mine.ndvi()[0, 0]), 6)
    0.5
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def ndvi(self) -> xr.DataArray:
        """See `minetrace.ndvi`."""
        from minetrace.trends import ndvi

        return ndvi(self._ds)

    def trend(self, name: str, **options: Any) -> xr.Dataset:
        """Mann-Kendall trend of one variable, see `minetrace.mann_kendall`."""
        from minetrace.trends import mann_kendall

        return mann_kendall(self._variable(name), **options)

    def transitions(self, **options: Any) -> xr.Dataset:
        """See `minetrace.transitions`; the legend is the node's own unless given."""
        from minetrace.change import transitions

        codes = self._variable("landcover")
        return transitions(codes, **({"legend": codes.attrs["legend"]} | options))

    def bsp(
        self, sites: Any, *, coverage: Literal["fraction", "centre"] = "fraction", **options: Any
    ) -> Any:
        """See `minetrace.bare_surface_percentage`; the legend is the node's own unless given."""
        from minetrace.change import bare_surface_percentage

        codes = self._variable("landcover")
        chosen = {"legend": codes.attrs["legend"]} | options
        return bare_surface_percentage(codes, sites, coverage=coverage, **chosen)

    def _variable(self, name: str) -> xr.DataArray:
        if name not in self._ds:
            raise InputError(
                f"the dataset has no variable {name!r}; it has {', '.join(map(str, self._ds))}"
            )
        return self._ds[name]

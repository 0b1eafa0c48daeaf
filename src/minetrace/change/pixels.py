"""Years of disturbance and reclamation of every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from minetrace.change.codes import as_codes, checked_legend, describe, layer_years
from minetrace.kernels.transitions import change_years
from minetrace.schema import CHANGE, Legend, fill_value
from minetrace.trends import as_dataset


def transitions(
    landcover: xr.DataArray, *, legend: str | Legend = "glc_fcs30d", min_persistence: int = 1
) -> xr.Dataset:
    """Years in which pixels were disturbed by mining and reclaimed.

    Parameters
    ----------
    landcover
        Integer class codes ``(time, y, x)``, one layer a year, gaps between years allowed. Codes
        of the legend's no-data classes, and ``_FillValue`` or ``nodata`` of the attributes where
        the legend does not name it, are gaps. A fill value outside the data's type is ignored.
        Dask data stay lazy and need time in one chunk.
    legend
        Name, file or `Legend` that sorts the codes into vegetated, mine and other.
    min_persistence
        Layers with data that a state must last; shorter runs are flicker.

    Returns
    -------
    Dataset
        ``first_development, last_development, first_reclamation, last_reclamation`` int16 year,
        0 for none; ``n_development, n_reclamation`` uint8. A change is dated at the layer where
        the new state is first seen.

    Raises
    ------
    LegendError
        The data hold a code that the legend misses (for lazy data: when computed).
    InputError
        Not integers, no yearly time axis, time in several chunks, a fill value that is no
        number, or ``min_persistence < 1``.

    Notes
    -----
    Layers without data are skipped pixel by pixel. A change is a mine run that follows a
    vegetated run, or the reverse; a run of other classes between them breaks the link. A last run
    shorter than ``min_persistence`` is not confirmed and makes no change.

    References
    ----------
    Xu et al., land disturbance and reclamation of surface mines 1985-2022: transition rule. The
    paper has no persistence rule (``min_persistence=1``).

    Examples
    --------
    >>> codes = xr.DataArray(np.array([[51], [200], [200], [130]], "uint8"),
    ...                      coords={"time": [1995, 2000, 2001, 2002]}, dims=("time", "x"))
    >>> found = transitions(codes)
    >>> int(found.first_development[0]), int(found.first_reclamation[0])
    (2000, 2002)
    """
    classes = checked_legend(legend, landcover, min_persistence)
    results = xr.apply_ufunc(
        _change_block,
        landcover,
        kwargs={
            "years": layer_years(landcover).astype(np.int16),
            "legend": classes,
            "fill": fill_value(landcover),
            "where": describe(landcover),
            "min_persistence": min_persistence,
        },
        input_core_dims=[["time"]],
        output_core_dims=[[]] * len(CHANGE),
        dask="parallelized",
        output_dtypes=[v.dtype for v in CHANGE],
        keep_attrs=True,
    )
    return as_dataset(results, CHANGE)


def _change_block(
    values: NDArray[Any],
    *,
    years: NDArray[np.int16],
    legend: Legend,
    fill: float | None,
    where: str,
    min_persistence: int,
) -> tuple[NDArray[Any], ...]:
    """Variables of `CHANGE` of a block ``(..., time)``."""
    shape = values.shape[:-1]
    series = np.ascontiguousarray(np.moveaxis(values, -1, 0).reshape(years.size, -1))
    codes = as_codes(series, legend, fill, where)
    when, count = change_years(codes.values, codes.lut, years, min_persistence)
    return tuple(a.reshape(shape) for a in (*when, *count))

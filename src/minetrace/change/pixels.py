"""Years of disturbance and reclamation of every pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from minetrace.change.codes import (
    checked_legend,
    code_kinds,
    describe,
    flat_layers,
    known_kinds,
    layer_years,
    narrow,
    refuse,
)
from minetrace.kernels.transitions import add_pixels, empty_account
from minetrace.schema import CHANGE, Legend, fill_value
from minetrace.trends import as_dataset

_BAND_VALUES = 2**20


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
    layers = landcover.transpose("time", ...)
    options: dict[str, Any] = {
        "years": layer_years(landcover).astype(np.int16),
        "legend": classes,
        "fill": fill_value(landcover),
        "where": describe(landcover),
        "min_persistence": min_persistence,
    }
    arrays: Sequence[Any]
    if layers.chunks is None:
        arrays = _change_block(layers.to_numpy(), **options)
    else:
        # not apply_ufunc: dask copies every block twice to bring a core dimension to its place
        stack = layers.data.map_blocks(
            _change_stack,
            chunks=((len(CHANGE),), *layers.data.chunks[1:]),
            dtype=np.int16,
            meta=np.empty((0,) * layers.ndim, np.int16),
            **options,
        )
        arrays = [stack[i].astype(v.dtype) for i, v in enumerate(CHANGE)]
    plane = layers.isel(time=0, drop=True)
    return as_dataset((plane.copy(data=a) for a in arrays), CHANGE)


def _change_stack(values: NDArray[Any], **options: Any) -> NDArray[np.int16]:
    return np.stack(_change_block(values, **options), dtype=np.int16)


def _change_block(
    values: NDArray[Any],
    *,
    years: NDArray[np.int16],
    legend: Legend,
    fill: float | None,
    where: str,
    min_persistence: int,
) -> tuple[NDArray[Any], ...]:
    """Variables of `CHANGE` of a block ``(time, ...)``."""
    shape = values.shape[1:]
    rows = values.reshape(years.size, *(shape or (1,)))
    lut = code_kinds(legend, fill)
    kinds = known_kinds(lut)
    account = empty_account(years.size, math.prod(shape))
    strange = [np.empty(0, values.dtype)]
    for band in _bands(rows):
        codes, outside = narrow(rows[:, band], fill)
        first = band.start * math.prod(rows.shape[2:])
        add_pixels(account, first, flat_layers(codes), kinds, years, min_persistence)
        strange.append(outside)
    refuse(account.present, np.concatenate(strange), legend, lut, where)
    return tuple(a.reshape(shape) for a in (*account.years, *account.counts))


def _bands(rows: NDArray[Any]) -> Iterator[slice]:
    """Parts of the second axis; one for all where the kernel can read the codes as they are."""
    n_time, n_row = rows.shape[:2]
    step = max(1, n_row)
    if rows.dtype != np.uint8 or not rows.flags.c_contiguous:
        # what has to be copied first is copied in parts
        step = max(1, _BAND_VALUES // max(1, n_time * math.prod(rows.shape[2:])))
    return (slice(start, start + step) for start in range(0, n_row, step))

"""Stacks of images as the kernels take them: packed numbers, gaps, flat parts of any layout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit


class Packing(NamedTuple):
    """How stored numbers stand for physical ones: ``stored * scale + offset``."""

    nodata: float | None = None
    """Stored number that marks gaps, one that the data's type can hold."""
    scale: float = 1.0
    offset: float = 0.0


PLAIN = Packing()

_PIECES = 16


def gaps(
    bands: NDArray[Any] | Sequence[NDArray[Any]],
    *,
    hidden: NDArray[np.bool_] | None = None,
    packings: Sequence[Packing] | None = None,
) -> NDArray[np.bool_]:
    """Observations to leave out: those hidden, and those of which any band is missing.

    Parameters as for `medoid_composite`.

    Returns
    -------
    ndarray
        bool ``(time, ...)``.

    Examples
    --------
    >>> gaps([np.array([[1.0], [np.nan]]), np.array([[2.0], [3.0]])]).tolist()
    [[False], [True]]
    """
    bands = list(bands)
    shape = bands[0].shape
    out = np.zeros((shape[0], math.prod(shape[1:])), np.bool_)
    for at, (*flat, hide) in pieces(bands, hidden):
        if hide.size:
            out[:, at] = hide
        for band, packing in zip(flat, packings or [PLAIN] * len(bands), strict=True):
            hide_gaps(band, 0, band.shape[1], nodata(band, packing), out, at.start)
    return out.reshape(shape)


def pieces(
    stacks: Sequence[NDArray[Any]], hidden: NDArray[np.bool_] | None
) -> Iterator[tuple[slice, list[NDArray[Any]]]]:
    """Pixels and their C-contiguous ``(time, pixel)`` parts of all stacks, ``hidden`` last.

    Views where the layout allows, otherwise copies of a few rows at a time. They are read-only,
    so that the kernels are compiled once a type.
    """
    every = [s[:, None] if s.ndim == 1 else s for s in (*stacks, *_or_none(hidden))]
    types = [_plain_type(s.dtype) for s in every]
    n_time, n_row, *rest = every[0].shape
    fit = all(s.flags.c_contiguous and s.dtype == t for s, t in zip(every, types, strict=True))
    step = max(1, n_row if fit else -(-n_row // _PIECES))
    for top in range(0, n_row, step):
        n_pixel = min(step, n_row - top) * math.prod(rest)
        start = top * math.prod(rest)
        parts = []
        for stack, dtype in zip(every, types, strict=True):
            part = np.ascontiguousarray(stack[:, top : top + step], dtype)
            parts.append(part.reshape(n_time, n_pixel))
            parts[-1].flags.writeable = False
        if hidden is None:
            parts.append(_NOTHING)
        yield slice(start, start + n_pixel), parts


_NOTHING: NDArray[np.bool_] = np.empty((0, 0), np.bool_)
_NOTHING.flags.writeable = False


def _or_none(hidden: NDArray[np.bool_] | None) -> tuple[NDArray[np.bool_], ...]:
    return () if hidden is None else (hidden,)


def _plain_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type in this machine's byte order; half floats, which do not compile, as float32."""
    return np.result_type(dtype, np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")


def nodata(values: NDArray[Any], packing: Packing) -> NDArray[Any]:
    """No number or one, in the type of the values."""
    return np.array([] if packing.nodata is None else [packing.nodata], values.dtype)


@jit
def hide_gaps(
    values: NDArray[Any],
    start: int,
    width: int,
    nodata: NDArray[Any],
    hidden: NDArray[np.bool_],
    at: int,
) -> None:
    """Hide gaps of ``width`` columns from ``start`` in the columns of ``hidden`` from ``at``."""
    for t in range(values.shape[0]):
        source, hide = values[t, start : start + width], hidden[t, at : at + width]
        for i in range(width):
            hide[i] |= not np.isfinite(source[i])
        if nodata.size > 0:
            for i in range(width):
                hide[i] |= source[i] == nodata[0]

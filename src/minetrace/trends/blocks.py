"""Functions of whole series over numpy or dask arrays, block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from dask.array import Array, asanyarray, blockwise


def map_series(
    *arrays: Any,
    function: Callable[..., tuple[Any, ...]],
    n_core: int,
    dtypes: Sequence[str],
) -> tuple[Any, ...]:
    """Results ``(...)`` of a function of series ``(..., *core)``, lazy if an array is.

    Dask blocks come as they are: xarray's ``dask="parallelized"`` copies each to join its one
    chunk along the core dims, and turns it, so that the kernels would copy it once more.
    """
    if not any(isinstance(a, Array) for a in arrays):
        return function(*arrays)
    n_dims = max(a.ndim for a in arrays)
    lead = tuple(range(n_dims - n_core))
    operands = [(asanyarray(a), tuple(range(n_dims - a.ndim, n_dims))) for a in arrays]
    # a block of this array is the tuple of all results
    together = blockwise(
        _of_whole_series, lead, *chain.from_iterable(operands), function=function, n_core=n_core,
        dtype=object, meta=np.empty((0,) * len(lead), object),
    )  # fmt: skip
    return tuple(
        together.map_blocks(itemgetter(i), dtype=dtype, meta=np.empty((0,) * len(lead), dtype))
        for i, dtype in enumerate(dtypes)
    )


def _of_whole_series(
    *series: Any, function: Callable[..., tuple[Any, ...]], n_core: int
) -> tuple[Any, ...]:
    for _ in range(n_core):
        series = tuple(chunks[0] for chunks in series)
    return function(*series)

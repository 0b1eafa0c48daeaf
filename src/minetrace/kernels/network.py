"""Sorting of many short columns at once by a network of comparators.

What is compared does not depend on the values, so one comparator sorts a whole row of columns
with two vector instructions and no branch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit


def comparators(n: int) -> NDArray[np.int32]:
    """Pairs of rows that sort ``n`` rows when compared and swapped in this order.

    Returns
    -------
    ndarray
        int32 ``(comparator, 2)``: Batcher's odd-even merge sort (1968,
        doi:10.1145/1468075.1468121) of the next power of two, without what lies beyond ``n``.

    Examples
    --------
    >>> comparators(3).tolist()
    [[0, 1], [0, 2], [1, 2]]
    """
    return _comparators(n).reshape(-1, 2).copy()


@lru_cache(maxsize=64)
def _comparators(n: int) -> NDArray[np.int32]:
    pairs = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(min(k, n - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        pairs.append((i + j, i + j + k))
            k //= 2
        p *= 2
    return np.array(pairs, np.int32)


@jit
def sort_columns(values: NDArray[Any], pairs: NDArray[np.int32]) -> None:
    """Sort every column of ``values`` ``(row, column)`` upwards, in place; it holds no NaN."""
    # Added to what is stored. Without it LLVM stores what has changed only, under a mask, which
    # processors with AVX2 but no AVX-512 do three to five times as slowly.
    nought = values.dtype.type(0)
    for k in range(pairs.shape[0]):
        upper, lower = values[pairs[k, 0]], values[pairs[k, 1]]
        for i in range(upper.size):
            a, b = upper[i], lower[i]
            upper[i] = min(a, b) + nought
            lower[i] = max(a, b) + nought

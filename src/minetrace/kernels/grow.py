"""Tables that grow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit


@jit
def room(table: NDArray[Any], n: int) -> NDArray[Any]:
    """The table, or where it has fewer than n rows a copy of twice its length or of n rows."""
    if n <= table.shape[0]:
        return table
    longer = np.empty((max(n, 2 * table.shape[0]), table.shape[1]), table.dtype)
    # a loop: assignment to a slice takes seconds to compile
    for i in range(table.shape[0]):
        for j in range(table.shape[1]):
            longer[i, j] = table[i, j]
    return longer

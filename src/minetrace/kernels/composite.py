"""Median composite of a stack of images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit
from minetrace.kernels.median import median


@jit
def median_composite(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.uint16]]:
    """Median of every pixel over the first axis, and the number of values that entered it."""
    n_time, n_y, n_x = values.shape
    middle = np.full((n_y, n_x), np.nan, values.dtype)
    count = np.zeros((n_y, n_x), np.uint16)
    buffer = np.empty(n_time, values.dtype)
    for y in range(n_y):
        for x in range(n_x):
            n = 0
            for t in range(n_time):
                value = values[t, y, x]
                if np.isfinite(value):
                    buffer[n] = value
                    n += 1
            count[y, x] = n
            if n > 0:
                middle[y, x] = median(buffer, n)
    return middle, count

"""The normal approximation of Mann-Kendall tests whose variance is not that of the plain test."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit

S, VAR_S, Z, P, TAU, SLOPE, INTERCEPT = range(7)
"""Places of the statistics in the results of the kernels, see `monotone.STATISTICS`."""


@jit
def approximate(statistics: NDArray[np.float64], continuity: float) -> None:
    """Fill z and p of every column from its s and var_s, in place.

    Parameters
    ----------
    statistics
        float64 ``(7, pixel)``. S = 0 gives z = 0 and p = 1 whatever its variance; a variance that
        is not above 0 gives NaN.
    continuity
        What brings s nearer to 0: 1 for tests with the correction for continuity, 0 without.
    """
    for pixel in range(statistics.shape[1]):
        s, var_s = statistics[S, pixel], statistics[VAR_S, pixel]
        z = np.nan
        if s == 0:
            z = 0.0
        elif var_s > 0:
            z = (s - continuity * np.sign(s)) / math.sqrt(var_s)
        statistics[Z, pixel] = z
        statistics[P, pixel] = math.erfc(abs(z) / math.sqrt(2.0))

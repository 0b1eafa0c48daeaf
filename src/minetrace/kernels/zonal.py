"""Weighted means of image layers over sparse zones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit


@jit
def zone_means(
    values: NDArray[Any],
    offsets: NDArray[np.int64],
    rows: NDArray[np.int32],
    cols: NDArray[np.int32],
    weight: NDArray[np.float64],
    share: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean of the observed values in every zone and layer.

    Parameters
    ----------
    values
        float ``(time, y, x)``; what is not finite was not observed.
    offsets, rows, cols
        The cells of zone i are ``rows[offsets[i]:offsets[i + 1]]`` and so on.
    weight
        Weight of each cell in the mean.
    share
        Share of each cell inside its zone, summed over the observed cells.

    Returns
    -------
    mean, n_pixels
        float64 ``(zone, time)``; NaN and 0 where nothing was observed.
    """
    n_zone, n_time = offsets.size - 1, values.shape[0]
    mean = np.full((n_zone, n_time), np.nan)
    n_pixels = np.zeros((n_zone, n_time))
    for zone in range(n_zone):
        for layer in range(n_time):
            total = 0.0
            norm = 0.0
            for cell in range(offsets[zone], offsets[zone + 1]):
                value = np.float64(values[layer, rows[cell], cols[cell]])
                if np.isfinite(value):
                    total += weight[cell] * value
                    norm += weight[cell]
                    n_pixels[zone, layer] += share[cell]
            if norm > 0.0:
                mean[zone, layer] = total / norm
    return mean, n_pixels

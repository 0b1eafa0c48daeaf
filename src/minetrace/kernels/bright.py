"""Bright ground that a cloud mask takes for cloud, told from cloud by its constancy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit

MIN_VIEWS = 6
"""Views that a pixel needs; fewer say nothing about what lasts."""
MASKED_SHARE = 0.5
"""Share of its views at least that the mask takes for cloud."""
LEVEL = 0.25
"""Quantile of a band's views that is the pixel's lasting level; cloud lies above it."""
BRIGHT = 0.15
"""Lasting reflectance at least, the mean of all bands."""
TOLERANCE, SLACK = 0.2, 0.02
"""How far a view may be from the level: this share of it, or this reflectance if more."""
STEADY_SHARE = 0.5
"""Share of its views at least that agree with the level, and of its clear views."""
LONE_SHARE = 0.75
"""The same where no view is clear, so that nothing but constancy speaks for ground."""


@jit
def restore_bright(bands: NDArray[np.float32], cloud: NDArray[np.bool_]) -> None:
    """Clear the cloud flag of views that show a pixel's own lasting brightness.

    A pixel is lasting bright ground if it has `MIN_VIEWS`, `MASKED_SHARE` of them flagged, a level
    of `BRIGHT`, and if `STEADY_SHARE` of all views, and of the clear ones, agree with the level in
    every band. Then its flagged views that agree are restored. Cloud is brighter than the level,
    and differs from date to date.

    Parameters
    ----------
    bands
        float32 ``(band, time, pixel)``, reflectance, NaN in all bands where nothing was seen.
    cloud
        bool ``(time, pixel)``, changed in place: True where the mask says cloud.
    """
    n_band, n_time, n_pixel = bands.shape
    levels = np.empty(n_band, np.float64)
    views = np.empty(n_time, np.float32)
    agrees = np.empty(n_time, np.bool_)
    for p in range(n_pixel):
        n_view, n_cloud = 0, 0
        for t in range(n_time):
            if not np.isnan(bands[0, t, p]):
                n_view += 1
                n_cloud += cloud[t, p]
        if n_view < MIN_VIEWS or n_cloud < MASKED_SHARE * n_view:
            continue
        total = 0.0
        for b in range(n_band):
            at = 0
            for t in range(n_time):
                if not np.isnan(bands[b, t, p]):
                    views[at] = bands[b, t, p]
                    at += 1
            levels[b] = _quantile(views[:at])
            total += levels[b]
        if total < BRIGHT * n_band:
            continue
        n_agree, n_clear_agree = 0, 0
        for t in range(n_time):
            agrees[t] = not np.isnan(bands[0, t, p])
            for b in range(n_band):
                limit = max(SLACK, TOLERANCE * levels[b])
                agrees[t] &= abs(bands[b, t, p] - levels[b]) <= limit
            n_agree += agrees[t]
            n_clear_agree += agrees[t] and not cloud[t, p]
        n_clear = n_view - n_cloud
        share = STEADY_SHARE if n_clear > 0 else LONE_SHARE
        if n_agree < share * n_view or n_clear_agree < STEADY_SHARE * n_clear:
            continue
        for t in range(n_time):
            if agrees[t]:
                cloud[t, p] = False


@jit
def _quantile(views: NDArray[np.float32]) -> float:
    """The `LEVEL` quantile, linear between the neighbours; sorts the views in place."""
    views.sort()
    place = LEVEL * (views.size - 1)
    low = int(place)
    high = min(low + 1, views.size - 1)
    return float(views[low] + (place - low) * (views[high] - views[low]))

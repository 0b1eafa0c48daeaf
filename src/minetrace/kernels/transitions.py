"""Disturbance and reclamation in series of land-cover classes, by pixel and by zone.

A lookup table turns class codes into kinds: 0 no data, 1-5 the vegetated cover types, 6 mine,
7 other. Layers without data are skipped, pixel by pixel. The rest is cut into runs of one state
(vegetated, mine, other); runs shorter than ``min_persistence`` layers are flicker and skipped
too. Where a mine run follows a vegetated run, the pixel is disturbed at the first layer of the
mine run, and the cover lost is that of the vegetated run's last layer. Reclamation is the
reverse, and the cover gained is that of the vegetated run's first layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit

NODATA, VEGETATED, MINE = 0, 5, 6
"""Kinds: no data, the last vegetated one, mine. Whatever is above is neither."""


@jit
def codes_present(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the 256 class codes occur."""
    present = np.zeros(256, np.bool_)
    for code in codes.flat:
        present[code] = True
    return present


@jit
def _find_events(
    codes: NDArray[np.uint8],
    lut: NDArray[np.uint8],
    min_persistence: int,
    events: NDArray[np.int8],
) -> None:
    """Mark each layer of one pixel: +cover lost, -cover regained, or 0."""
    before = -1  # state of the last confirmed run
    state = -1  # state, length, first layer and first kind of the run at hand
    length = 0
    start = 0
    first = 0
    cover = 0  # kind of the last layer of the last confirmed run
    for layer in range(codes.size):
        events[layer] = 0
        kind: Any = np.int64(lut[codes[layer]])
        if kind == NODATA:
            continue
        now = VEGETATED if kind <= VEGETATED else kind
        if now != state:
            state, length, start, first = now, 0, layer, kind
        length += 1
        if length == min_persistence:
            if before == VEGETATED and state == MINE:
                events[start] = cover
            elif before == MINE and state == VEGETATED:
                events[start] = -first
            before = state
        if length >= min_persistence:
            cover = kind


@jit
def change_years(
    codes: NDArray[np.uint8],
    lut: NDArray[np.uint8],
    years: NDArray[np.int16],
    min_persistence: int,
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """First and last year of disturbance and reclamation of every pixel, and how often.

    Parameters
    ----------
    codes
        uint8 ``(time, pixel)`` class codes.
    lut
        uint8 ``(256,)`` class code → kind.
    years
        int16 ``(time,)``.
    min_persistence
        Layers that a state must last.

    Returns
    -------
    years, counts
        int16 ``(4, pixel)``: first and last disturbance, first and last reclamation, 0 for none;
        uint8 ``(2, pixel)``: disturbances, reclamations.
    """
    n_time, n_pixel = codes.shape
    when = np.zeros((4, n_pixel), np.int16)
    count = np.zeros((2, n_pixel), np.uint8)
    events = np.empty(n_time, np.int8)
    for pixel in range(n_pixel):
        _find_events(codes[:, pixel], lut, min_persistence, events)
        for layer in range(n_time):
            if events[layer] != 0:
                way = 0 if events[layer] > 0 else 1
                if count[way, pixel] == 0:
                    when[2 * way, pixel] = years[layer]
                when[2 * way + 1, pixel] = years[layer]
                count[way, pixel] += 1
    return when, count


@jit
def zone_transitions(
    codes: NDArray[np.uint8],
    lut: NDArray[np.uint8],
    min_persistence: int,
    offsets: NDArray[np.int64],
    rows: NDArray[np.int32],
    cols: NDArray[np.int32],
    area: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Area disturbed and reclaimed in every zone, by layer and cover type.

    Parameters
    ----------
    codes
        uint8 ``(time, y, x)`` class codes.
    lut
        uint8 ``(256,)`` class code → kind.
    min_persistence
        Layers that a state must last.
    offsets, rows, cols
        The cells of zone i are ``rows[offsets[i]:offsets[i + 1]]`` and so on.
    area
        Area of each cell inside its zone.

    Returns
    -------
    ndarray
        float64 ``(zone, time, 5, 4)``: disturbed, reclaimed, and both again with only the first
        event of each pixel. Cells are added in the order given.
    """
    n_time = codes.shape[0]
    table = np.zeros((offsets.size - 1, n_time, VEGETATED, 4))
    events = np.empty(n_time, np.int8)
    for zone in range(offsets.size - 1):
        for cell in range(offsets[zone], offsets[zone + 1]):
            _find_events(codes[:, rows[cell], cols[cell]], lut, min_persistence, events)
            first_lost = True
            first_regained = True
            for layer in range(n_time):
                cover = events[layer]
                if cover > 0:
                    table[zone, layer, cover - 1, 0] += area[cell]
                    if first_lost:
                        table[zone, layer, cover - 1, 2] += area[cell]
                    first_lost = False
                elif cover < 0:
                    table[zone, layer, -cover - 1, 1] += area[cell]
                    if first_regained:
                        table[zone, layer, -cover - 1, 3] += area[cell]
                    first_regained = False
    return table


@jit
def zone_composition(
    codes: NDArray[np.uint8],
    lut: NDArray[np.uint8],
    n_bins: int,
    offsets: NDArray[np.int64],
    rows: NDArray[np.int32],
    cols: NDArray[np.int32],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Sum of weights in every zone and layer, by the bin that ``lut`` gives each code.

    Parameters
    ----------
    codes
        uint8 ``(time, y, x)`` class codes.
    lut
        uint8 ``(256,)`` class code → bin below ``n_bins``.
    n_bins
        Number of bins.
    offsets, rows, cols
        Cells of the zones, as for `zone_transitions`.
    weights
        float64 ``(k, cell)``: k weights of each cell, such as its area and its pixel share.

    Returns
    -------
    ndarray
        float64 ``(zone, time, n_bins, k)``.
    """
    n_time = codes.shape[0]
    n_weights = weights.shape[0]
    table = np.zeros((offsets.size - 1, n_time, n_bins, n_weights))
    for zone in range(offsets.size - 1):
        for layer in range(n_time):
            for cell in range(offsets[zone], offsets[zone + 1]):
                column = lut[codes[layer, rows[cell], cols[cell]]]
                for k in range(n_weights):
                    table[zone, layer, column, k] += weights[k, cell]
    return table

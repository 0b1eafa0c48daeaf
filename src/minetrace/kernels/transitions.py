"""Disturbance and reclamation in series of land-cover classes, by pixel and by zone.

A lookup table turns class codes into kinds: 0 no data, 1-5 the vegetated cover types, 6 mine,
7 other. Layers without data are skipped, pixel by pixel. The rest is cut into runs of one state
(vegetated, mine, other); runs shorter than ``min_persistence`` layers are flicker and skipped
too. Where a mine run follows a vegetated run, the pixel is disturbed at the first layer of the
mine run, and the cover lost is that of the vegetated run's last layer. Reclamation is the
reverse, and the cover gained is that of the vegetated run's first layer.

Pixels are followed eight at a time, the codes of eight neighbours read as one word: a word that
is the same in all layers is left out, and one that is the same as in the layer before is not
looked up again. Blocks of words then go through the rule together, layer by layer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.follow import (
    BLOCK,
    KINDS,
    VEGETATED,
    WORDS,
    Buffers,
    buffers,
    find_changed,
    follow,
)
from minetrace.kernels.jit import ZERO, jit
from minetrace.kernels.runs import Runs

_PIECE = 64


class PixelAccount(NamedTuple):
    """Land-cover changes of every pixel, and their counts by layer."""

    years: NDArray[np.int16]
    """int16 ``(4, pixel)``: first and last disturbance, first and last reclamation; 0 for none."""
    counts: NDArray[np.uint8]
    """uint8 ``(2, pixel)``: disturbances, reclamations."""
    pairs: NDArray[np.int64]
    """int64 ``(time, 8, 8)``: pixels by kind in the layer before (row) and in this one (column),
    no data included; before the first layer stands itself. Sums over rows are the composition."""
    events: NDArray[np.int64]
    """int64 ``(time, 5, 4)``: events by layer and cover: disturbed, reclaimed, and both again with
    only the first of each pixel."""
    present: NDArray[np.bool_]
    """bool ``(256,)``: class codes that occur, besides 0, which is no data in any legend."""


def change_years(
    codes: NDArray[np.uint8],
    lut: NDArray[np.uint8],
    years: NDArray[np.int16],
    min_persistence: int,
) -> PixelAccount:
    """Years of disturbance and reclamation of every pixel, and all changes counted by layer.

    Parameters
    ----------
    codes
        uint8 ``(time, pixel)`` class codes, contiguous; at most 255 layers.
    lut
        uint8 ``(256,)`` class code → kind, 0 to 7; code 0 is no data.
    years
        int16 ``(time,)``.
    min_persistence
        Layers that a state must last.

    Returns
    -------
    PixelAccount

    Examples
    --------
    >>> codes = np.array([[2, 2], [6, 2], [6, 6]], np.uint8)
    >>> kinds = np.arange(256, dtype=np.uint8) % 8
    >>> account = change_years(codes, kinds, np.array([1995, 2000, 2001], np.int16), 1)
    >>> account.years[0].tolist(), account.pairs[1, 2, [2, 6]].tolist()
    ([2000, 2001], [1, 1])
    """
    account = empty_account(*codes.shape)
    add_pixels(account, 0, codes, lut, years, min_persistence)
    return account


def empty_account(n_time: int, n_pixel: int) -> PixelAccount:
    """Account in which no pixel has been entered."""
    return PixelAccount(
        np.zeros((4, n_pixel), np.int16),
        np.zeros((2, n_pixel), np.uint8),
        np.zeros((n_time, KINDS, KINDS), np.int64),
        np.zeros((n_time, VEGETATED, 4), np.int64),
        np.zeros(256, np.bool_),
    )


def add_pixels(
    account: PixelAccount,
    start: int,
    codes: NDArray[np.uint8],
    lut: NDArray[np.uint8],
    years: NDArray[np.int16],
    min_persistence: int,
) -> None:
    """Enter the pixels of ``codes`` in an account, from its pixel ``start`` on.

    Parameters as for `change_years`: a large array needs not be converted at once.
    """
    # kernels are compiled once more for arrays that can be written to
    fixed = codes.view()
    fixed.flags.writeable = False
    n_time = codes.shape[0]
    pairs = np.zeros((n_time, 4, KINDS, KINDS), np.int64)
    events, looked_up = np.zeros((n_time, VEGETATED, 4)), np.zeros(256, np.bool_)
    first = np.zeros((4, 256), np.int64)
    _change_pixels(
        fixed, lut, years, min_persistence, start, buffers(), np.ones(BLOCK), pairs, events,
        looked_up, first, account.years, account.counts,
    )  # fmt: skip
    first = first.sum(axis=0)
    composition = np.zeros(KINDS, np.int64)
    np.add.at(composition, lut[first > 0], first[first > 0])
    account.pairs[...] += _with_the_still(pairs.sum(axis=1), composition)
    account.events[...] += events.astype(np.int64)
    account.present[1:] |= (looked_up | (first > 0))[1:]


def _with_the_still(moved: NDArray[np.int64], composition: NDArray[np.int64]) -> NDArray[np.int64]:
    """Complete pairs ``(time, 8, 8)`` that lack pixels whose kind stayed the same.

    ``composition`` counts the kinds of the first layer; what a kind does not lose stays.
    """
    pairs = moved.copy()
    pairs[:1] = 0
    gain = pairs.sum(axis=1) - pairs.sum(axis=2)
    before = composition + np.cumsum(gain, axis=0) - gain
    kind = np.arange(KINDS)
    pairs[:, kind, kind] += before - pairs.sum(axis=2)
    return pairs


@jit
def _change_pixels(
    codes: NDArray[np.uint8],
    lut: NDArray[np.uint8],
    years: NDArray[np.int16],
    min_persistence: int,
    place: int,
    buffer: Buffers,
    area: NDArray[np.float64],
    pairs: NDArray[np.int64],
    events: NDArray[np.float64],
    looked_up: NDArray[np.bool_],
    first: NDArray[np.int64],
    when: NDArray[np.int16],
    count: NDArray[np.uint8],
) -> None:
    """Fill ``when`` and ``count`` from ``place`` on, and count the rest of a `PixelAccount`.

    ``pairs`` and ``looked_up`` get those of the words that changed only, and ``first`` how often
    each code is in the first layer. Both counts come in four parts, to be added up.
    """
    n_pixel = codes.shape[1]
    for layer in codes[:1]:
        for i in range(n_pixel):
            first[i & 3, layer[i]] += 1
    for start in range(0, n_pixel, BLOCK):
        at = buffer.where[: find_changed(codes, start, buffer)]
        follow(codes, at, lut, min_persistence, buffer, at + place, area, years, pairs, looked_up,
                when, count, events)  # fmt: skip


def zone_transitions(
    codes: NDArray[np.uint8],
    lut: NDArray[np.uint8],
    min_persistence: int,
    runs: Runs,
    area: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Area disturbed and reclaimed in every zone, by layer and cover type.

    Parameters
    ----------
    codes
        uint8 ``(time, y, x)`` class codes, contiguous; at most 255 layers.
    lut
        uint8 ``(256,)`` class code → kind, 0 to 7; code 0 is no data.
    min_persistence
        Layers that a state must last.
    runs
        Cells of the zones.
    area
        Area of each cell inside its zone.

    Returns
    -------
    ndarray
        float64 ``(zone, time, 5, 4)``: disturbed, reclaimed, and both again with only the first
        event of each pixel. Nothing outside a zone enters its numbers.
    """
    n_time, n_y, n_x = codes.shape
    table = np.zeros((runs.offsets.size - 1, n_time, VEGETATED, 4))
    # what the pixels' account has besides; zones need none of it
    years, when = np.zeros(n_time, np.int16), np.empty((4, BLOCK), np.int16)
    pairs, looked_up = np.zeros((n_time, 4, KINDS, KINDS), np.int64), np.zeros(256, np.bool_)
    _change_zones(
        codes.reshape(n_time, n_y * n_x), n_x, lut, min_persistence, runs, area, buffers(),
        np.arange(0, BLOCK, 8), np.empty(BLOCK), years, pairs, looked_up, when,
        np.empty((2, BLOCK), np.uint8), table,
    )  # fmt: skip
    return table


@jit
def _change_zones(
    flat: NDArray[np.uint8],
    n_x: int,
    lut: NDArray[np.uint8],
    min_persistence: int,
    runs: Runs,
    area: NDArray[np.float64],
    buffer: Buffers,
    target: NDArray[np.int64],
    weight: NDArray[np.float64],
    years: NDArray[np.int16],
    pairs: NDArray[np.int64],
    looked_up: NDArray[np.bool_],
    when: NDArray[np.int16],
    count: NDArray[np.uint8],
    table: NDArray[np.float64],
) -> None:
    where = buffer.where
    for zone in range(table.shape[0]):
        run, column = runs.offsets[zone], ZERO
        while run < runs.offsets[zone + 1]:
            run, column, n = _next_words(runs, zone, run, column, n_x, area, where, weight)
            count[:] = 0
            follow(flat, where[:n], lut, min_persistence, buffer, target, weight, years, pairs,
                    looked_up, when, count, table[zone])  # fmt: skip


@jit
def _next_words(
    runs: Runs,
    zone: int,
    run: int,
    column: int,
    n_x: int,
    area: NDArray[np.float64],
    where: NDArray[np.int64],
    weight: NDArray[np.float64],
) -> tuple[int, int, int]:
    """List words of a zone from a column of a run on; return where the next block begins, and n.

    ``weight`` gets the area of every pixel, 0 for those of a word beyond the end of its run.
    """
    n = 0
    while run < runs.offsets[zone + 1] and n < WORDS:
        where[n] = np.int64(runs.row[run]) * n_x + runs.start[run] + column
        left = runs.stop[run] - runs.start[run] - column
        cell = runs.cell[run] + column
        for b in range(8):
            weight[8 * n + b] = area[cell + b] if b < left else 0.0
        n += 1
        column += 8
        if left <= 8:
            run, column = run + 1, 0
    return run, column, n


def zone_composition(
    codes: NDArray[np.uint8],
    lut: NDArray[np.uint8],
    n_bins: int,
    runs: Runs,
    area: NDArray[np.float64],
    share: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Area and pixels in every zone and layer, by the bin that ``lut`` gives each code.

    Parameters
    ----------
    codes
        uint8 ``(time, y, x)`` class codes.
    lut
        uint8 ``(256,)`` class code → bin below ``n_bins``.
    n_bins
        Number of bins.
    runs
        Cells of the zones.
    area, share
        float64 ``(cell,)``: area of each cell inside its zone, and share of it.

    Returns
    -------
    ndarray
        float64 ``(zone, time, n_bins, 2)``: sums of areas and of shares. Every layer is
        added up on its own, in the order of the cells: layers of one composition give the same
        sums to the last digit.
    """
    table = np.zeros((runs.offsets.size - 1, codes.shape[0], n_bins, 2))
    _compose(codes, lut, runs, area, share, np.empty((codes.shape[0], _PIECE), np.uint8), table)
    return table


@jit
def _compose(
    codes: NDArray[np.uint8],
    lut: NDArray[np.uint8],
    runs: Runs,
    area: NDArray[np.float64],
    share: NDArray[np.float64],
    bins: NDArray[np.uint8],
    table: NDArray[np.float64],
) -> None:
    n_time = codes.shape[0]
    for zone in range(runs.offsets.size - 1):
        out = table[zone]
        for run in range(runs.offsets[zone], runs.offsets[zone + 1]):
            for start in range(runs.start[run], runs.stop[run], _PIECE):
                stop = min(start + _PIECE, runs.stop[run])
                for t in range(n_time):
                    line = codes[t, runs.row[run], start:stop]
                    for i in range(line.size):
                        bins[t, i] = lut[line[i]]
                cell = runs.cell[run] + start - runs.start[run]
                # layers inside, so that no addition waits for the one before: 2 times faster
                for i in range(stop - start):
                    for t in range(n_time):
                        out[t, bins[t, i], 0] += area[cell + i]
                        out[t, bins[t, i], 1] += share[cell + i]


def codes_present(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the 256 class codes occur in ``codes`` ``(time, pixel)``, contiguous."""
    present = np.zeros(256, np.bool_)
    _note_codes(codes, buffers(), present)
    return present


@jit
def _note_codes(codes: NDArray[np.uint8], buffer: Buffers, present: NDArray[np.bool_]) -> None:
    n_pixel = codes.shape[1]
    for layer in codes[:1]:
        for i in range(n_pixel):
            present[layer[i]] = True
    for start in range(0, n_pixel, BLOCK):
        at = buffer.where[: find_changed(codes, start, buffer)]
        for layer in codes[1:]:
            for i in at:
                for code in layer[i : i + 8]:
                    present[code] = True

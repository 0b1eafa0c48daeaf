"""The rule of disturbance and reclamation, applied to words of eight pixels at a time.

See `minetrace.kernels.transitions` for the rule.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import EIGHT, jit, jit_inline

NODATA, VEGETATED, MINE, KINDS = 0, 5, 6, 8
"""Kinds: no data, the last vegetated one, mine, and how many there are. 7 is neither."""

MAX_LAYERS = 255
"""Layers are counted in uint8, so that a vector instruction takes 32 pixels."""

# from 2048 to 8192 the time is the same; the state of a block fits the first-level cache
BLOCK = 4096
"""Pixels that go through the layers together."""
WORDS = BLOCK // 8


class Buffers(NamedTuple):
    """What a block needs while it goes through the layers."""

    words: NDArray[np.uint64]
    """uint64 ``(WORDS,)``: the codes of the words, eight pixels each."""
    pixels: NDArray[np.uint8]
    """The same memory, as uint8 ``(BLOCK,)``."""
    state: NDArray[np.uint8]
    """uint8 ``(6 * BLOCK,)``, see `_advance`."""
    events: NDArray[np.uint64]
    """Words of the last block of ``state``."""
    busy: NDArray[np.int64]
    """int64 ``(BLOCK + 1,)``: pixels with an event."""
    where: NDArray[np.int64]
    """int64 ``(WORDS + 1,)``: first pixel of each word."""


def buffers() -> Buffers:
    """Buffers of one block."""
    words, state = np.empty(WORDS, np.uint64), np.empty(6 * BLOCK, np.uint8)
    return Buffers(
        words, words.view(np.uint8), state, state.view(np.uint64)[5 * WORDS :],
        np.empty(BLOCK + 1, np.int64), np.empty(WORDS + 1, np.int64),
    )  # fmt: skip


@jit
def find_changed(codes: NDArray[np.uint8], start: int, buffer: Buffers) -> int:
    """List the words of a block that are not the same in all layers; return how many."""
    words, differs, where = buffer.words, buffer.pixels, buffer.where
    words[:] = 0
    for t in range(1, codes.shape[0]):
        layer, first = codes[t, start : start + BLOCK], codes[0, start : start + BLOCK]
        for i in range(layer.size):
            differs[i] |= layer[i] ^ first[i]
    found = 0
    for w in range(WORDS):
        where[found] = start + 8 * w
        found += int(words[w] != 0)
    return found


@jit
def follow(
    codes: NDArray[np.uint8],
    where: NDArray[np.int64],
    lut: NDArray[np.uint8],
    min_persistence: int,
    buffer: Buffers,
    target: NDArray[np.int64],
    area: NDArray[np.float64],
    years: NDArray[np.int16],
    pairs: NDArray[np.int64],
    looked_up: NDArray[np.bool_],
    when: NDArray[np.int16],
    count: NDArray[np.uint8],
    events: NDArray[np.float64],
) -> None:
    """Take up to a block of words through all layers.

    ``where`` has the first pixel of every word, ``target`` its place in ``when`` and ``count``,
    and ``area`` what each of its pixels adds to ``events``.
    """
    n, state = 8 * where.size, buffer.state
    buffer.words[:] = 0
    state[:] = 0
    # a run as long as the series has none before it to change from
    lasting = np.uint8(min(min_persistence, MAX_LAYERS))
    for t in range(codes.shape[0]):
        _look_up(codes[t], where, lut, buffer.words, state, pairs[t], looked_up)
        _advance(state, np.uint8(t), lasting, n)
        _record(buffer, n, target, area, years, when, count, events)


@jit_inline
def _look_up(
    layer: NDArray[np.uint8],
    where: NDArray[np.int64],
    lut: NDArray[np.uint8],
    raw: NDArray[np.uint64],
    kind: NDArray[np.uint8],
    pairs: NDArray[np.int64],
    looked_up: NDArray[np.bool_],
) -> None:
    """Bring the kinds of the words up to this layer, and count the pairs of those that changed."""
    for w in range(where.size):
        at, left = where[w], layer.size - where[w]
        word = _read_word(layer, at, EIGHT) if left >= EIGHT else _read_word(layer, at, left)
        if word == raw[w]:
            continue
        raw[w] = word
        for j in range(8 * w, 8 * w + 8):
            code = word & np.uint64(255)
            word >>= np.uint64(8)
            now = lut[code]
            looked_up[code] = True
            # four tables in turn: one would wait for its own last addition
            pairs[j & 3, kind[j], now] += 1
            kind[j] = now


@jit_inline
def _read_word(layer: NDArray[np.uint8], at: int, size: int) -> Any:
    """Up to eight codes as one number; with a constant ``size`` of 8 LLVM makes it one load."""
    word = np.uint64(0)
    first = np.uint64(at)
    for b in range(size):
        word |= np.uint64(layer[first + np.uint64(b)]) << np.uint64(8 * b)
    return word


@jit_inline
def _advance(state: NDArray[np.uint8], layer: int, lasting: int, n: int) -> None:
    """Apply the rule to one layer of ``n`` pixels, without a branch.

    ``state`` holds one block after the other: the kind now; first kind, first layer and length of
    the run at hand; kind of the last layer of the last run that lasted; the event of this layer:
    cover lost, or 8 + cover gained, or 0. They are one array since LLVM would not vectorise over
    six, any two of which might overlap.
    """
    for j in range(n):
        kind = state[j]
        first = state[BLOCK + j]
        begin = state[2 * BLOCK + j]
        length = state[3 * BLOCK + j]
        cover = state[4 * BLOCK + j]
        seen = kind != NODATA
        # before the first run ``first`` is 0, as if vegetated: that run makes no event anyway
        fresh = seen & (max(kind, np.uint8(VEGETATED)) != max(first, np.uint8(VEGETATED)))
        first = kind if fresh else first
        begin = layer if fresh else begin
        length = np.uint8(0) if fresh else length
        length = np.uint8(length + np.uint8(seen))
        lasts = seen & (length == lasting)
        lost = lasts & (kind == MINE) & (cover != NODATA) & (cover <= VEGETATED)
        gained = lasts & (kind <= VEGETATED) & (cover == MINE)
        event = cover if lost else np.uint8(0)
        event = np.uint8(first | np.uint8(8)) if gained else event
        state[BLOCK + j] = first
        state[2 * BLOCK + j] = begin
        state[3 * BLOCK + j] = length
        state[4 * BLOCK + j] = kind if seen & (length >= lasting) else cover
        state[5 * BLOCK + j] = event


@jit_inline
def _record(
    buffer: Buffers,
    n: int,
    target: NDArray[np.int64],
    area: NDArray[np.float64],
    years: NDArray[np.int16],
    when: NDArray[np.int16],
    count: NDArray[np.uint8],
    events: NDArray[np.float64],
) -> None:
    """Enter the events of one layer in the results."""
    words, state, busy = buffer.events, buffer.state, buffer.busy
    found = 0
    for w in range(n // 8):
        if words[w] != 0:
            # listed without a branch, which would be mispredicted at every other event
            for j in range(8 * w, 8 * w + 8):
                busy[found] = j
                found += int(state[5 * BLOCK + j] != 0)
    for j in busy[:found]:
        event = np.int64(state[5 * BLOCK + j])
        way, cover, begin = event >> 3, (event & 7) - 1, np.int64(state[2 * BLOCK + j])
        pixel = target[j >> 3] + (j & 7)
        fresh = count[way, pixel] == 0
        events[begin, cover, way] += area[j]
        events[begin, cover, way + 2] += area[j] if fresh else 0.0
        when[2 * way, pixel] = years[begin] if fresh else when[2 * way, pixel]
        when[2 * way + 1, pixel] = years[begin]
        count[way, pixel] += np.uint8(1)

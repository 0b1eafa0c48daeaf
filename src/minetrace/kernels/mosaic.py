"""Scenes of one day laid over each other: the first of the best views of each pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minetrace.kernels.jit import jit


@jit
def hide_codes(
    codes: NDArray[Any], gaps: NDArray[Any], state: NDArray[np.uint8], hidden: int
) -> None:
    """Set the state of pixels that store one of ``gaps``, or no finite number, to ``hidden``.

    ``gaps`` are of the type of the codes.
    """
    for i in range(codes.size):
        if not np.isfinite(codes[i]):
            state[i] = hidden
    for gap in gaps:
        for i in range(codes.size):
            if codes[i] == gap:
                state[i] = hidden


@jit
def judge(codes: NDArray[Any], verdicts: NDArray[np.uint8], state: NDArray[np.uint8]) -> None:
    """Raise each pixel's state to the verdict on its code.

    ``codes`` are unsigned, ``verdicts`` holds one entry for each of their values.
    """
    for i in range(codes.size):
        state[i] = max(state[i], verdicts[codes[i]])


@jit
def take_better(
    state: NDArray[np.uint8], best: NDArray[np.uint8], chosen: NDArray[np.bool_]
) -> None:
    """Choose the pixels whose state is below the best so far, and lower that."""
    for i in range(state.size):
        chosen[i] = state[i] < best[i]
        best[i] = min(state[i], best[i])


@jit
def lay_over(
    codes: NDArray[Any],
    scale: float,
    offset: float,
    chosen: NDArray[np.bool_],
    first: bool,
    out: NDArray[np.float32],
) -> None:
    """Write ``code * scale + offset`` of the chosen pixels, float64 rounded once to float32.

    The ``first`` view of a day writes NaN to all others.
    """
    for i in range(codes.size):
        value = np.float32(np.float64(codes[i]) * scale + offset)
        out[i] = value if chosen[i] else np.float32(np.nan) if first else out[i]

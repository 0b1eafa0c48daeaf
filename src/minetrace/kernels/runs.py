"""Cells of zones as runs along the rows of a grid."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Runs(NamedTuple):
    """The runs of zone i are ``offsets[i]:offsets[i + 1]``, row by row from the left.

    The cells of all runs, one after the other, are the order of every array of weights.
    """

    offsets: NDArray[np.int64]
    """int64 ``(zone + 1,)``."""
    row: NDArray[np.int32]
    """int32 ``(run,)``."""
    start: NDArray[np.int32]
    """int32 ``(run,)``: first column."""
    stop: NDArray[np.int32]
    """int32 ``(run,)``: column after the last."""
    cell: NDArray[np.int64]
    """int64 ``(run,)``: place of the run's first cell among all cells."""

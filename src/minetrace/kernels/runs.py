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

    def in_rows(self, rows: slice) -> Runs:
        """Runs of a band of rows, of which the first becomes row 0."""
        inside = (rows.start <= self.row) & (self.row < rows.stop)
        before = np.append(0, np.cumsum(inside, dtype=np.int64))
        return Runs(
            before[self.offsets], self.row[inside] - np.int32(rows.start), self.start[inside],
            self.stop[inside], self.cell[inside],
        )  # fmt: skip

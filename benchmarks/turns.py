"""Timing of calls that take turns, so that other work on the machine hits all of them alike."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter, process_time

import numpy as np


def seconds(repeats, **calls):
    """Least time of each call."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(repeats):
        for name, call in calls.items():
            start = perf_counter()
            call()
            least[name] = min(least[name], perf_counter() - start)
    return least


def processor_ratio(repeats, call, peer):
    """Processor time of a call as a multiple of a peer's: the median of pairs one after the other.

    What else runs on the machine hardly counts, unlike in `seconds`.
    """

    def spent(do):
        start = process_time()
        do()
        return process_time() - start

    return median(spent(call) / spent(peer) for _ in range(repeats))


def in_two_threads(call, values, axis=-1):
    """Call with each half of the values, contiguous, on two threads."""
    halves = [np.ascontiguousarray(half) for half in np.array_split(values, 2, axis=axis)]

    def run():
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(call, halves))

    return run


PEAK = """
def peak():
    # of this process alone: ru_maxrss starts at that of the process which started it
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
"""
"""Source of ``peak()``, the largest memory a process on Linux has held so far, in bytes."""

_GROWTH = (
    PEAK
    + """
{setup}
before = peak()
{call}
print(peak() - before)
"""
)


def peak_bytes(setup, call):
    """Growth of the peak memory of a fresh process by ``call``, after ``setup``, both source code.

    The set-up compiles, and must touch all of its input.
    """
    code = _GROWTH.format(setup=setup, call=call)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(done.stdout)

"""Slow, obvious answers that share no code with the package."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations, groupby, pairwise, permutations
from statistics import median

import numpy as np
import pymannkendall
import shapely

# ---- monotone trends -----------------------------------------------------------------


def sign(x):
    return (x > 0) - (x < 0)


def observed(y, t):
    return [(float(a), float(b)) for a, b in zip(y, t, strict=True) if math.isfinite(a)]


def mann_kendall_by_hand(y, t):
    """All statistics of one series, as the textbook writes them; needs two valid values."""
    pairs = observed(y, t)
    n = len(pairs)
    s = sum(sign(b[0] - a[0]) for a, b in combinations(pairs, 2))
    groups = Counter(value for value, _ in pairs).values()
    var_s = (n * (n - 1) * (2 * n + 5) - sum(g * (g - 1) * (2 * g + 5) for g in groups)) / 18
    z = 0.0 if s == 0 else (s - sign(s)) / math.sqrt(var_s)
    slope = median([(b[0] - a[0]) / (b[1] - a[1]) for a, b in combinations(pairs, 2)])
    middle = median(v for v, _ in pairs) - slope * (median(u for _, u in pairs) - float(t[0]))
    return {
        "s": s,
        "var_s": var_s,
        "z": z,
        "p": math.erfc(abs(z) / math.sqrt(2)),
        "tau": 2 * s / (n * (n - 1)),
        "slope": slope,
        "intercept": middle,
        "n": n,
    }


def pymannkendall_original(y):
    """The same by pymannkendall, for annual steps."""
    r = pymannkendall.original_test(y)
    return {"s": r.s, "var_s": r.var_s, "z": r.z, "p": r.p, "tau": r.Tau, "slope": r.slope,
            "intercept": r.intercept}  # fmt: skip


def exact_p_by_permutation(y):
    """Share of all orders of the values whose score is as far from 0."""

    def score(values):
        return sum(sign(b - a) for a, b in combinations(values, 2))

    reached = abs(score(y))
    scores = [abs(score(order)) for order in permutations(y)]
    return sum(s >= reached for s in scores) / len(scores)


# ---- land-cover transitions ----------------------------------------------------------


def state(kind):
    return "vegetated" if 1 <= kind <= 5 else {6: "mine", 7: "other"}[kind]


def events_by_runs(kinds, min_persistence=1):
    """(layer, "development" or "reclamation", cover kind) of one pixel, from its runs."""
    valid = [(layer, int(kind)) for layer, kind in enumerate(kinds) if kind != 0]
    runs = [list(run) for _, run in groupby(valid, key=lambda item: state(item[1]))]
    lasting = [run for run in runs if len(run) >= min_persistence]
    events = []
    for before, after in pairwise(lasting):
        states = state(before[0][1]), state(after[0][1])
        if states == ("vegetated", "mine"):
            events.append((after[0][0], "development", before[-1][1]))
        if states == ("mine", "vegetated"):
            events.append((after[0][0], "reclamation", after[0][1]))
    return events


def zone_table_by_runs(kinds, cells, min_persistence=1):
    """``(time, 5, 4)`` areas of one zone; ``cells`` are (row, col, area)."""
    table = np.zeros((kinds.shape[0], 5, 4))
    for row, col, area in cells:
        seen = set()
        for layer, what, cover in events_by_runs(kinds[:, row, col], min_persistence):
            column = 0 if what == "development" else 1
            table[layer, cover - 1, column] += area
            if what not in seen:
                table[layer, cover - 1, column + 2] += area
            seen.add(what)
    return table


# ---- polygons on grids ---------------------------------------------------------------


def shapely_coverage(polygon, geobox):
    """Share of every cell inside a polygon of the grid's CRS, by one intersection a cell."""
    t = geobox.affine
    cols, rows = np.meshgrid(np.arange(geobox.shape[1]), np.arange(geobox.shape[0]))
    left, top = t.c + cols * t.a, t.f + rows * t.e
    boxes = shapely.box(left, top + t.e, left + t.a, top)
    return shapely.area(shapely.intersection(polygon, boxes)) / abs(t.a * t.e)

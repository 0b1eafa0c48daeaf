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


def all_slopes(y, t):
    """Slopes of all pairs of valid values, in float64."""
    seen = np.isfinite(y)
    y, t = y[seen].astype(np.float64), t[seen]
    with np.errstate(over="ignore"):
        parts = [(y[i + 1 :] - y[i]) / (t[i + 1 :] - t[i]) for i in range(y.size - 1)]
    return np.concatenate([np.empty(0), *parts])


def median_slopes(values, t):
    """Median slope of every column, NaN for fewer than two valid values."""
    found = [all_slopes(y, t) for y in values.T]
    return np.array([np.median(s) if s.size else np.nan for s in found])


def slope_limits(y, t, quantile, var_s, ordered=None):
    """Limits by ranks (N - C) / 2 and (N + C) / 2 + 1, as Gilbert (1987, 16.5) writes them."""
    ordered = np.sort(all_slopes(y, t)) if ordered is None else ordered
    n, c = ordered.size, quantile * math.sqrt(var_s)
    ranks = (n - c) / 2, (n + c) / 2 + 1
    if ranks[0] < 1 or ranks[1] > n:
        return math.nan, math.nan
    return tuple(np.interp(ranks, np.arange(1, n + 1), ordered))


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


def pairs_by_counting(kinds):
    """``(time, 8, 8)`` pixels by kind in the layer before and in this one."""
    table = np.zeros((len(kinds), 8, 8), int)
    for layer, now in enumerate(kinds):
        before = kinds[max(layer - 1, 0)]
        for a, b in zip(before.ravel(), now.ravel(), strict=True):
            table[layer, a, b] += 1
    return table


# ---- polygons on grids ---------------------------------------------------------------


def shapely_coverage(polygon, geobox):
    """Share of every cell inside a polygon of the grid's CRS, by one intersection a cell."""
    t = geobox.affine
    cols, rows = np.meshgrid(np.arange(geobox.shape[1]), np.arange(geobox.shape[0]))
    left, top = t.c + cols * t.a, t.f + rows * t.e
    boxes = shapely.box(left, top + t.e, left + t.a, top)
    return shapely.area(shapely.intersection(polygon, boxes)) / abs(t.a * t.e)


# ---- composites ----------------------------------------------------------------------


def seen_values(values, hidden, packing):
    """bool of the same shape: finite, not nodata, not hidden."""
    seen = np.isfinite(values.astype(np.float64)) & ~hidden
    return seen if packing.nodata is None else seen & (values != packing.nodata)


def percentile_by_numpy(values, percentile, hidden, packing):
    """float64 percentile of every pixel by one call a pixel; 50 by the median's own function."""
    seen = seen_values(values, hidden, packing)
    out = np.full(values.shape[1:], np.nan)
    for at in np.ndindex(out.shape):
        series = values[:, *at][seen[:, *at]].astype(np.float64)
        if series.size:
            middle = np.median(series) if percentile == 50 else np.percentile(series, percentile)
            out[at] = middle * packing.scale + packing.offset
    return out, seen.sum(axis=0)


def physical_values(band, packing):
    return [float(v) * packing.scale + packing.offset for v in band]


def medoid_by_hand(bands, seen, packings):
    """Time of one pixel's medoid, or -1: bands are series, ``seen`` says which dates count."""
    series = [physical_values(b, p) for b, p in zip(bands, packings, strict=True)]
    dates = [t for t in range(len(seen)) if seen[t]]

    def total(t):
        distances = 0.0
        for u in dates:
            squares = 0.0
            for s in series:
                squares += (s[t] - s[u]) ** 2
            distances += math.sqrt(squares)
        return distances

    return min(dates, key=total, default=-1)


def largest_by_hand(index, seen, packing):
    """Time of the largest physical value of one pixel's index, or -1; of equals the first."""
    values = physical_values(index, packing)
    return max((t for t in range(len(seen)) if seen[t]), key=values.__getitem__, default=-1)


# ---- the Mann-Kendall family -----------------------------------------------------------

SERIAL = {
    "hamed_rao": pymannkendall.hamed_rao_modification_test,
    "yue_wang": pymannkendall.yue_wang_modification_test,
    "pre_whitening": pymannkendall.pre_whitening_modification_test,
    "trend_free_pre_whitening": pymannkendall.trend_free_pre_whitening_modification_test,
}


def pymannkendall_results(result):
    """A result of pymannkendall under the names of the package; what it warns of is NaN."""
    names = {"s": "s", "var_s": "var_s", "z": "z", "p": "p", "tau": "Tau", "slope": "slope",
             "intercept": "intercept"}  # fmt: skip
    return {ours: float(getattr(result, its)) for ours, its in names.items()}


def autocorrelation(x, lag):
    """The usual estimate, with n in both denominators; that of equal values is 0."""
    if len(set(x)) == 1:
        return 0.0
    mean = math.fsum(x) / len(x)
    products = math.fsum((a - mean) * (b - mean) for a, b in zip(x, x[lag:], strict=False))
    return products / math.fsum((a - mean) ** 2 for a in x)


def whitened_by_hand(y, t, slope=None):
    """Valid values less r times the one before; with a slope, its line is off meanwhile."""
    pairs = observed(y, t)
    rise = [0.0 if slope is None else (b - pairs[0][1]) * slope for _, b in pairs]
    ahead = 0.0 if slope is None else slope
    x = [a - (up + ahead) for (a, _), up in zip(pairs, rise, strict=True)]
    r = autocorrelation(x, 1)
    return [b - a * r + up for (a, b), up in zip(pairwise(x), rise[1:], strict=True)]


def variance_factor_by_hand(y, t, slope, method, lags, bound):
    """Hamed-Rao and Yue-Wang on true dates, by the formulas of the papers."""
    pairs = observed(y, t)
    x = [a - (b - pairs[0][1] + 1) * slope for a, b in pairs]
    n = len(x)
    every = range(1, min(lags, n - 1) + 1)
    if method == "yue_wang":
        return 1 + 2 * math.fsum((1 - k / n) * autocorrelation(x, k) for k in every)
    ranks = [sum(b < a for b in x) + (sum(b == a for b in x) + 1) / 2 for a in x]
    r = {k: autocorrelation(ranks, k) for k in every}
    terms = [(n - k) * (n - k - 1) * (n - k - 2) * r[k] for k in every
             if abs(r[k]) > bound / math.sqrt(n)]  # fmt: skip
    return 1 + 2 / (n * (n - 1) * (n - 2)) * math.fsum(terms)


def seasonal_by_hand(y, season, cycle):
    """S, its variance and all slopes within seasons."""
    s, var_s, slopes = 0, 0.0, []
    for one in sorted(set(season)):
        own = [(v, c) for v, k, c in zip(y, season, cycle, strict=True)
               if k == one and math.isfinite(v)]  # fmt: skip
        values = [v for v, _ in own]
        n = len(own)
        s += sum(sign(b - a) for a, b in combinations(values, 2))
        ties = sum(g * (g - 1) * (2 * g + 5) for g in Counter(values).values())
        var_s += (n * (n - 1) * (2 * n + 5) - ties) / 18
        slopes += [(b[0] - a[0]) / (b[1] - a[1]) for a, b in combinations(own, 2)]
    return {"s": s, "var_s": var_s, "tau": s / len(slopes), "slope": median(slopes)}


# ---- layers under polygons -----------------------------------------------------------


def zonal_by_hand(values, share, area):
    """Statistics of one layer from ``(y, x)`` values, pixel shares and covered areas."""
    cells = [
        (float(v), float(s), float(a))
        for v, s, a in zip(values.flat, share.flat, area.flat, strict=True)
        if s > 0 and math.isfinite(v)
    ]
    if not cells:
        return dict.fromkeys(("sum", "mean", "min", "max"), math.nan) | {"count": 0.0}
    seen = [v for v, _, _ in cells]
    return {
        "sum": math.fsum(v * s for v, s, _ in cells),
        "mean": math.fsum(v * a for v, _, a in cells) / math.fsum(a for _, _, a in cells),
        "count": math.fsum(s for _, s, _ in cells),
        "min": min(seen),
        "max": max(seen),
    }

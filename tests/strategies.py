"""What hypothesis draws: series with gaps and ties, class stacks, polygons."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

GAPS = (np.nan, np.inf, -np.inf)


def numbers():
    """Few distinct numbers, so that ties are common, or any of a tame range."""
    tied = st.integers(-3, 3).map(float)
    return st.one_of(tied, st.floats(-1e6, 1e6, width=32, allow_subnormal=False))


@st.composite
def series(draw, *, min_valid=0, max_size=14, gaps=GAPS):
    """One float64 series with at least ``min_valid`` finite values."""
    valid = draw(st.lists(numbers(), min_size=min_valid, max_size=max_size))
    n_gaps = draw(st.integers(0, 4)) if gaps else 0
    values = list(valid)
    for _ in range(n_gaps):
        values.insert(draw(st.integers(0, len(values))), draw(st.sampled_from(gaps)))
    if not values:
        values = [np.nan]
    return np.array(values, np.float64)


@st.composite
def blocks(draw, *, max_time=8, max_pixel=6):
    """float64 ``(time, pixel)``, gaps and ties included."""
    shape = draw(st.tuples(st.integers(1, max_time), st.integers(1, max_pixel)))
    return draw(hnp.arrays(np.float64, shape, elements=st.one_of(numbers(), st.just(np.nan))))


@st.composite
def uneven_years(draw, size):
    """Increasing decimal years with uneven steps."""
    steps = draw(st.lists(st.integers(1, 24), min_size=size, max_size=size))
    return 1985.0 + np.cumsum(steps) / 12


def kind_series(*, max_size=14):
    """Kinds 0-7 of one pixel; vegetated, mine and gaps are common."""
    kinds = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 6, 6, 7])
    return st.lists(kinds, min_size=1, max_size=max_size).map(lambda k: np.array(k, np.uint8))


def kind_stacks(*, max_time=9, max_side=4):
    """Kinds of a small stack ``(time, y, x)``."""
    side = st.integers(1, max_side)
    shapes = st.tuples(st.integers(1, max_time), side, side)
    return hnp.arrays(np.uint8, shapes, elements=st.sampled_from([0, 1, 2, 3, 4, 5, 6, 6, 6, 7]))


@st.composite
def star_polygons(draw, *, extent=20.0, max_radius=12.0, holes=True):
    """Simple polygons around a centre that may lie near or off the edge of ``extent``."""
    x, y = (draw(st.floats(-2, extent + 2)) for _ in range(2))
    n = draw(st.integers(3, 12))
    jitter = draw(hnp.arrays(np.float64, n, elements=st.floats(0.05, 0.95)))
    radius = draw(hnp.arrays(np.float64, n, elements=st.floats(0.3, 1.0)))
    angle = 2 * np.pi * (np.arange(n) + jitter) / n
    scale = draw(st.floats(0.05, max_radius))
    ring = np.c_[x + scale * radius * np.cos(angle), y + scale * radius * np.sin(angle)]
    polygon = shapely.make_valid(shapely.Polygon(ring))
    if holes and draw(st.booleans()):
        polygon = polygon.difference(shapely.Point(x, y).buffer(0.2 * scale, quad_segs=3))
    return polygon


@st.composite
def image_stacks(draw, dtype, *, n_bands=1, max_time=9):
    """Bands ``(time, y, x)`` of small numbers with ties, gaps and the odd extreme value."""
    shape = draw(st.tuples(st.integers(1, max_time), st.integers(1, 3), st.integers(1, 4)))
    if np.dtype(dtype).kind == "f":
        values = st.one_of(numbers(), st.sampled_from(GAPS)).map(lambda v: dtype_limit(v, dtype))
    else:
        info = np.iinfo(dtype)
        values = st.one_of(st.integers(0, 9), st.sampled_from([info.min, info.max]))
    return [draw(hnp.arrays(dtype, shape, elements=values)) for _ in range(n_bands)]


def dtype_limit(value, dtype):
    """The number nearest to the value that the float type holds, at most 60,000 in size."""
    return float(np.dtype(dtype).type(np.clip(value, -6e4, 6e4) if np.isfinite(value) else value))

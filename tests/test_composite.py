"""Composites: kernels beside numpy and plain Python, and the face over a Dataset."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import oracles
from minetrace.composites import composite
from minetrace.errors import InputError
from minetrace.kernels.composite import (
    max_index_composite,
    median_composite,
    medoid_composite,
    percentile_composite,
)
from minetrace.kernels.network import comparators
from minetrace.kernels.stacks import Packing, gaps, pieces
from strategies import image_stacks

NAN = np.nan
DTYPES = ("f4", "f8", "u1", "u2", "i2")
ODD_DTYPES = ("f2", ">f4", ">i2", "i4")


def packings(dtype):
    """With and without nodata, scale and offset."""
    nodata = [None, 0, 3] if np.dtype(dtype).kind == "f" else [None, 0, np.iinfo(dtype).max]
    return st.builds(
        Packing,
        st.sampled_from(nodata),
        st.sampled_from([1.0, 1e-4, 2.75e-5]),
        st.sampled_from([0.0, -0.2]),
    )


def masks(shape):
    return st.one_of(st.none(), hnp.arrays(bool, shape))


def no_mask(hidden, shape):
    return np.zeros(shape, bool) if hidden is None else hidden


def scenes(n_time, n_y, n_x, dtype="f4", seed=0):
    """Seeded stack with a tenth of gaps (0 in integers)."""
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 200, (n_time, n_y, n_x)).astype(dtype)
    values[rng.random(values.shape) < 0.1] = NAN if values.dtype.kind == "f" else 0
    return values


# ---- median and percentiles ----------------------------------------------------------


@pytest.mark.parametrize("dtype", [*DTYPES, *ODD_DTYPES])
@settings(max_examples=30)
@given(data=st.data())
def test_percentiles_equal_numpy(dtype, data):
    (values,) = data.draw(image_stacks(dtype))
    packing = data.draw(packings(dtype))
    hidden = data.draw(masks(values.shape))
    percentile = data.draw(st.one_of(st.sampled_from([0, 25, 50, 90, 100]), st.floats(0, 100)))
    found, count = percentile_composite(values, percentile, hidden=hidden, packing=packing)
    expected, n = oracles.percentile_by_numpy(
        values, percentile, no_mask(hidden, values.shape), packing
    )
    assert (found.dtype, count.dtype) == ("f8" if dtype == "f8" else "f4", np.uint16)
    np.testing.assert_array_equal(count, n)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=30)
@given(data=st.data())
def test_the_median_is_numpys_to_the_last_bit(dtype, data):
    (values,) = data.draw(image_stacks(dtype))
    packing = data.draw(packings(dtype))
    found, _ = median_composite(values, packing=packing)
    expected, _ = oracles.percentile_by_numpy(values, 50, no_mask(None, values.shape), packing)
    np.testing.assert_array_equal(found, expected.astype(found.dtype))


def test_the_median_of_two_integers_is_between_them():
    stored = np.array([[[255]], [[254]]], np.uint8)
    assert median_composite(stored)[0] == 254.5
    assert median_composite(np.array([[32767], [-32768]], np.int16))[0] == -0.5


def test_half_way_between_float64_is_their_mean_to_the_last_bit():
    pairs = np.random.default_rng(0).lognormal(sigma=9, size=(2, 500))
    np.testing.assert_array_equal(median_composite(pairs)[0], pairs.sum(axis=0) / 2)


@pytest.mark.parametrize(
    ("percentile", "value"), [(0, 1.0), (10, 1.4), (50, 3.0), (90, 4.6), (100, 5.0)]
)
def test_percentiles_by_hand(percentile, value):
    stack = np.array([5, NAN, 1, 3, 2, NAN, 4], np.float64)
    assert percentile_composite(stack, percentile) == (pytest.approx(value), 5)


@pytest.mark.parametrize("n_time", [1, 2, 3, 16, 17, 40, 365])
@pytest.mark.parametrize("dtype", ["f4", "i2"])
def test_any_length_and_more_pixels_than_a_strip(n_time, dtype):
    stack = scenes(n_time, 31, 43, dtype)
    found, count = median_composite(stack, packing=Packing(nodata=0))
    seen = np.isfinite(stack) & (stack != 0)
    np.testing.assert_array_equal(count, seen.sum(axis=0))
    some = count > 0
    expected = np.nanmedian(np.where(seen, stack, NAN)[:, some], axis=0)
    np.testing.assert_array_equal(found[some], expected.astype("f4"))
    assert np.isnan(found[~some]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_equal_to_the_filler_of_gaps_count(dtype):
    top = np.finfo(dtype).max if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    stack = np.array([top, 0, top, 7, 0], dtype)
    found, count = percentile_composite(stack, 100, packing=Packing(nodata=0))
    assert (found, count) == (top, 3)


@given(image_stacks("f4"), st.randoms(use_true_random=False))
def test_the_order_of_dates_does_not_matter(bands, random):
    order = random.sample(range(len(bands[0])), len(bands[0]))
    for a, b in zip(median_composite(bands[0]), median_composite(bands[0][order]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_sorting_networks_sort():
    for n in range(1, 34):
        rows = list(np.random.default_rng(n).integers(0, 9, (n, 50)))
        sorted_rows = np.sort(rows, axis=0)
        for a, b in comparators(n):
            rows[a], rows[b] = np.minimum(rows[a], rows[b]), np.maximum(rows[a], rows[b])
        np.testing.assert_array_equal(rows, sorted_rows)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_a_sorting_network_is_as_small_as_batchers(k):
    assert len(comparators(2**k)) == (k * k - k + 4) * 2**k // 4 - 1


# ---- one observation -----------------------------------------------------------------


@pytest.mark.parametrize("method", ["medoid", "max_index"])
@pytest.mark.parametrize("dtype", [*DTYPES, ">f4"])
@settings(max_examples=30)
@given(data=st.data())
def test_the_chosen_observation_is_that_of_plain_python(method, dtype, data):
    *bands, index = data.draw(image_stacks(dtype, n_bands=data.draw(st.integers(2, 4))))
    codes = [data.draw(packings(dtype)) for _ in (*bands, index)]
    hidden = data.draw(masks(index.shape))
    clear = np.ones(index.shape, bool)
    for band, code in zip(bands, codes, strict=False):
        clear &= oracles.seen_values(band, no_mask(hidden, index.shape), code)
    if method == "medoid":
        values, chosen, count = medoid_composite(bands, hidden=hidden, packings=codes[:-1])
    else:
        values, chosen, count = max_index_composite(
            bands, index, hidden=hidden, packings=codes[:-1], index_packing=codes[-1]
        )
        clear &= oracles.seen_values(index, ~clear, codes[-1])
    assert (values.dtype, chosen.dtype, count.dtype) == (np.float32, np.int16, np.uint16)
    np.testing.assert_array_equal(count, clear.sum(axis=0))
    for at in np.ndindex(chosen.shape):
        series = [b[:, *at] for b in bands]
        expected = (
            oracles.medoid_by_hand(series, clear[:, *at], codes[:-1])
            if method == "medoid"
            else oracles.largest_by_hand(index[:, *at], clear[:, *at], codes[-1])
        )
        assert chosen[at] == expected
        for k, (band, code) in enumerate(zip(series, codes, strict=False)):
            value = oracles.physical_values(band, code)[expected] if expected >= 0 else NAN
            np.testing.assert_array_equal(values[k, *at], np.float32(value))


def test_of_equals_the_first_is_chosen():
    same = np.full((4, 1), 2.0)
    same[0] = NAN
    assert medoid_composite([same, same])[1] == 1
    assert max_index_composite([same], same)[1] == 1


def test_a_lone_outlier_is_no_medoid():
    red, nir = np.array([[0.1, 0.2, 0.9], [0.5, 0.4, 0.1]])
    assert medoid_composite([red, nir])[1] == 1


def test_bands_of_several_types_and_more_pixels_than_a_strip():
    """Distances are physical ones: the stored numbers of the second band weigh 1/100."""
    a, b = scenes(40, 30, 61, "f4"), scenes(40, 30, 61, "u1", seed=1)
    codes = [Packing(), Packing(0, 0.01, 5.0)]
    values, chosen, count = medoid_composite([a, b], packings=codes)
    plain = np.where(b == 0, NAN, b * 0.01 + 5.0)
    again = medoid_composite(np.stack([a.astype("f8"), plain]))
    for found, expected in zip((values, chosen, count), again, strict=True):
        np.testing.assert_array_equal(found, expected)
    seen = np.isfinite(a) & (b != 0)
    for y, x in ((0, 0), (17, 44), (29, 60)):
        series = [a[:, y, x], b[:, y, x]]
        assert chosen[y, x] == oracles.medoid_by_hand(series, seen[:, y, x], codes)


# ---- all kernels ---------------------------------------------------------------------


def every_composite(a, b, hidden=None):
    """Results of all composites on two bands."""
    return [
        *percentile_composite(a, 30, hidden=hidden),
        *percentile_composite(b, 30, hidden=hidden, packing=Packing(0, 1e-4)),
        *medoid_composite([a, b], hidden=hidden, packings=[Packing(), Packing(0)]),
        *max_index_composite([b], a, hidden=hidden, packings=[Packing(0)]),
        gaps([a, b], hidden=hidden, packings=[Packing(), Packing(0)]),
    ]


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@given(st.integers(1, 9), st.integers(1, 9))
def test_any_tiling_gives_the_same_answer(n_rows, n_cols):
    a, b = scenes(6, 9, 9), scenes(6, 9, 9, "u2", seed=1)
    whole = every_composite(a, b)
    for top in range(0, 9, n_rows):
        for left in range(0, 9, n_cols):
            tile = np.s_[..., top : top + n_rows, left : left + n_cols]
            assert_same(every_composite(a[tile], b[tile]), [part[tile] for part in whole])


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 2, 0), (2, 1, 0)])
def test_any_layout_gives_the_same_answer(order):
    a, b = scenes(6, 37, 9), scenes(6, 37, 9, "u2", seed=1)
    hidden = np.random.default_rng(2).random(a.shape) < 0.2
    back = np.argsort(order)
    turned = [v.transpose(order).copy().transpose(back) for v in (a, b, hidden)]
    assert_same(every_composite(*turned), every_composite(a, b, hidden))
    assert_same(every_composite(a, b, turned[2]), every_composite(a, b, hidden))
    assert a.flags.writeable


def test_stacks_that_fit_are_not_copied_and_others_a_part_at_a_time():
    a = scenes(3, 32, 5)
    ((_, (flat, _)),) = pieces([a], None)
    assert np.shares_memory(flat, a)
    assert not flat.flags.writeable
    for other in (a.astype(">f4"), a[:, :, ::2]):
        assert [at.stop - at.start for at, _ in pieces([other], None)] == [2 * other.shape[2]] * 16


@pytest.mark.parametrize("shape", [(3, 0, 4), (3, 4, 0), (0, 2, 2), (3,), (3, 5), (2, 3, 2, 2)])
def test_any_shape_is_kept(shape):
    a, b = np.ones(shape, "f4"), np.ones(shape, "u1")
    p, n, q, _, m, chosen, count, *_, gap = every_composite(a, b, np.zeros(shape, bool))
    assert p.shape == n.shape == q.shape == chosen.shape == count.shape == shape[1:]
    assert (m.shape, gap.shape) == ((2, *shape[1:]), shape)
    if shape[0] == 0:
        assert np.isnan(p).all()
        assert (chosen == -1).all()


@pytest.mark.parametrize("method", ["median", "medoid", "max_index"])
def test_peak_memory_is_at_most_half_of_the_input(method):
    a = scenes(24, 200, 200)
    ds = xr.Dataset({"a": (("time", "y", "x"), a), "b": (("time", "y", "x"), a)},
                    coords={"time": np.arange(24)})  # fmt: skip
    index = ds.a if method == "max_index" else None
    composite(ds.isel(x=[0]), method=method, index=None if index is None else index.isel(x=[0]))
    tracemalloc.start()
    try:
        composite(ds, method=method, index=index)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.5 * ds.nbytes


_WITHOUT_COMPILER = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_composite import every_composite, scenes
a, b = scenes(5, 4, 6), scenes(5, 4, 6, "u2", seed=1)
a[:, 0, 0] = np.nan
np.savez(sys.argv[2], *every_composite(a, b, a == 7))
"""


def test_kernels_are_plain_python_too(tmp_path):
    out = tmp_path / "plain.npz"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", _WITHOUT_COMPILER, os.path.dirname(__file__), out],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        check=True,
    )
    a, b = scenes(5, 4, 6), scenes(5, 4, 6, "u2", seed=1)
    a[:, 0, 0] = NAN
    with np.load(out) as plain:
        assert_same([plain[k] for k in plain.files], every_composite(a, b, a == 7))


# ---- the face ------------------------------------------------------------------------


def dataset(chunks=None):
    """Two packed bands with a CRS coordinate, five dates."""
    time = np.array([f"2020-0{m}-01" for m in range(1, 6)], "datetime64[ns]")
    packed = {"nodata": 0, "scale_factor": "0.01", "add_offset": [-0.5], "units": "1"}
    ds = xr.Dataset(
        {
            "red": (("time", "y", "x"), scenes(5, 6, 7, "u2"), packed),
            "nir": (("time", "y", "x"), scenes(5, 6, 7, "u1", seed=1), {"_FillValue": 0}),
        },
        coords={"time": time, "y": np.arange(6.0), "x": np.arange(7.0), "spatial_ref": 0},
        attrs={"source": "simulated"},
    )
    ds.y.attrs["units"] = "m"
    return ds if chunks is None else ds.chunk(chunks)


def options(method, ds):
    extra = {"max_index": {"index": ds.nir}, "percentile": {"percentile": 20}}.get(method, {})
    mask = ds.red % 7 == 3
    return {"method": method, "mask": mask, **extra}


METHODS = ("median", "medoid", "max_index", "percentile")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chunks", [{"y": 6, "x": 7}, {"y": 4, "x": 3}, {"y": 1, "x": 2}])
def test_dask_gives_the_same_and_is_lazy(method, chunks, no_compute):
    lazy_ds, ds = dataset(chunks), dataset()
    lazy = composite(lazy_ds, **options(method, lazy_ds))
    assert all(v.chunks for v in lazy.data_vars.values())
    expected = composite(ds, **options(method, ds))
    computed = lazy.compute(scheduler="synchronous")
    xr.testing.assert_identical(computed, expected)
    for name, var in lazy.data_vars.items():
        assert var.dtype == computed[name].dtype


@pytest.mark.parametrize("method", METHODS)
def test_the_face_is_the_kernels(method):
    ds = dataset()
    opts = options(method, ds)
    found = composite(ds, **opts)
    red, nir, hidden = ds.red.values, ds.nir.values, opts["mask"].values
    codes = [Packing(0, 0.01, -0.5), Packing(0)]
    clear = (red != 0) & (nir != 0) & ~hidden
    np.testing.assert_array_equal(found.n_obs, clear.sum(axis=0))
    if method in ("median", "percentile"):
        bands = [
            percentile_composite(v, opts.get("percentile", 50), hidden=~clear, packing=c)[0]
            for v, c in zip((red, nir), codes, strict=True)
        ]
    elif method == "medoid":
        bands, chosen, _ = medoid_composite([red, nir], hidden=hidden, packings=codes)
    else:
        bands, chosen, _ = max_index_composite([red, nir], nir, hidden=~clear, packings=codes)
    np.testing.assert_array_equal(found.red, bands[0])
    np.testing.assert_array_equal(found.nir, bands[1])
    if "chosen" in found:
        dates = np.where(chosen < 0, np.datetime64("NaT"), ds.time.values[chosen])
        np.testing.assert_array_equal(found.chosen, dates)


def test_names_attributes_and_coordinates():
    found = composite(dataset(), method="medoid")
    assert list(found.data_vars) == ["red", "nir", "n_obs", "chosen"]
    assert [v.dtype for v in found.data_vars.values()] == ["f4", "f4", "u2", "M8[ns]"]
    assert (found.red.attrs, found.nir.attrs) == ({"units": "1"}, {})
    assert found.n_obs.attrs["long_name"] == "clear observations in the composite"
    assert found.attrs == {"source": "simulated"}
    assert set(found.coords) == {"y", "x", "spatial_ref"}
    assert found.y.attrs == {"units": "m"}


def test_one_band_keeps_its_own_gaps():
    band = xr.DataArray([[1.0, NAN], [3.0, NAN]], dims=("time", "x"))
    found = composite(band.to_dataset(name="red"))
    assert found.red.values.tolist()[0] == 2.0
    assert found.n_obs.values.tolist() == [2, 0]


def test_a_series_alone_and_a_mask_of_whole_dates():
    series = xr.Dataset({"red": ("time", [1.0, 2.0, 9.0])})
    assert composite(series).red == 2.0
    mask = xr.DataArray([False, False, True], dims="time")
    wide = series.expand_dims(y=[0, 1, 2], axis=1)
    assert composite(wide, mask=mask).red.values.tolist() == [1.5] * 3
    order = wide.transpose("y", "time")
    assert composite(order, mask=mask).red.values.tolist() == [1.5] * 3


def test_years_as_dates():
    ds = xr.Dataset({"red": (("time", "x"), [[NAN, 1.0], [NAN, 5.0]])}, {"time": [2000, 2001]})
    found = composite(ds, method="max_index", index=ds.red)
    np.testing.assert_array_equal(found.chosen, [NAN, 2001.0])


DS = dataset()


@pytest.mark.parametrize(
    ("ds", "opts", "message"),
    [
        (DS, {"method": "mean"}, "method is 'mean'"),
        (DS, {"method": "max_index"}, "'max_index' needs 'index'"),
        (DS, {"index": DS.nir}, "'median' does not use 'index'"),
        (DS, {"method": "percentile"}, "needs 'percentile'"),
        (DS, {"method": "medoid", "percentile": 5}, "does not use 'percentile'"),
        (DS, {"method": "percentile", "percentile": 101}, "between 0 and 100"),
        (DS, {"method": "percentile", "percentile": -0.1}, "between 0 and 100"),
        (DS, {"method": "percentile", "percentile": NAN}, "between 0 and 100"),
        (DS, {"mask": DS.red}, "the mask is uint16"),
        (DS, {"mask": DS.red[:, :3] > 5}, "does not lie on the pixels and dates"),
        (DS, {"mask": DS.red[0] > 5}, r"expected 'time' and others"),
        (DS, {"mask": (DS.red > 5).expand_dims(z=2)}, r"expected 'time' and others"),
        (DS, {"method": "max_index", "index": DS.red > 5}, "'red' is bool"),
        (DS, {"dim": "year"}, "expected 'year'"),
        (DS.chunk(time=2), {}, r"'red' has 3 chunks along 'time'.*\.chunk\(\{'time': -1\}\)"),
        (DS, {"mask": (DS.red > 5).chunk(time=2)}, "3 chunks along 'time'"),
        (DS[[]], {}, "no bands"),
        (DS.assign(n_obs=DS.red), {}, r"\['n_obs'\].*drop_vars"),
        (DS.assign(mean=DS.red[0]), {}, "'mean' has dims"),
        (DS.astype(complex), {}, "complex128"),
        (DS.astype(bool), {}, "bool"),
        (DS.isel(time=[]), {}, "0 steps"),
        (DS.drop_vars("time"), {"method": "medoid"}, "no dates"),
        (DS.assign_coords(time=list("abcde")), {"method": "medoid"}, "no dates"),
        (DS.assign(red=DS.red.assign_attrs(scale_factor=-1)), {}, "above 0"),
        (DS.assign(red=DS.red.assign_attrs(scale_factor=0)), {}, "above 0"),
        (DS.assign(red=DS.red.assign_attrs(add_offset="x")), {}, "'add_offset' of 'red' is 'x'"),
        (DS.assign(red=DS.red.assign_attrs(add_offset=[1, 2])), {}, "give one number"),
        (DS.assign(red=DS.red.assign_attrs(add_offset=np.inf)), {}, "give a finite number"),
    ],
)
def test_what_makes_no_composite_is_refused(ds, opts, message):
    with pytest.raises(InputError, match=message):
        composite(ds, **opts)

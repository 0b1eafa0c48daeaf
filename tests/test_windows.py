"""Windows that sites share, strips of them, and the class codes read in them."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin
from shapely.geometry import box

import minetrace as mt
from minetrace.cubes.landcover import landcover_node
from minetrace.cubes.lattice import native_grid
from minetrace.cubes.windows import read_codes
from minetrace.grid import lattice_window
from minetrace.run.windows import blocks_of, count_blocks, share_windows, strips
from minetrace.schema import load_legend, load_recipe

BLOCK = (16, 16)
RECTS = st.lists(
    st.tuples(st.integers(-50, 400), st.integers(1, 40), st.integers(-50, 400), st.integers(1, 40)),
    min_size=1, max_size=25,
).map(lambda rows: np.array([(r, r + h, c, c + w) for r, h, c, w in rows], np.int64))  # fmt: skip


@given(RECTS)
def test_every_site_lies_in_its_window_and_windows_are_tight(rects):
    owner, windows = share_windows(rects, BLOCK)
    assert set(owner.tolist()) == set(range(len(windows)))
    for k, window in enumerate(windows):
        mine = rects[owner == k]
        assert window.tolist() == [
            mine[:, 0].min(), mine[:, 1].max(), mine[:, 2].min(), mine[:, 3].max()
        ]  # fmt: skip
        assert len(mine) == 1 or count_blocks(window[None], BLOCK) <= 2 * count_blocks(mine, BLOCK)


@given(RECTS)
def test_sites_that_are_not_parted_share_no_block_with_others(rects):
    """A block is read twice only where sharing all of a chain would double what is read."""
    owner, windows = share_windows(rects, BLOCK)
    together = [set(map(tuple, blocks_of(rects[owner == k], BLOCK)[1].tolist()))
                for k in range(len(windows))]  # fmt: skip
    for a in range(len(windows)):
        for b in range(a):
            if together[a] & together[b]:
                both = rects[(owner == a) | (owner == b)]
                hull = [both[:, 0].min(), both[:, 1].max(), both[:, 2].min(), both[:, 3].max()]
                chain = _chain_of(rects, np.flatnonzero((owner == a) | (owner == b)))
                whole = rects[chain]
                hull = np.array([whole[:, 0].min(), whole[:, 1].max(),
                                 whole[:, 2].min(), whole[:, 3].max()])  # fmt: skip
                assert count_blocks(hull[None], BLOCK) > 2 * count_blocks(whole, BLOCK)


def _chain_of(rects, start):
    """All sites that are linked to some by blocks in common, by brute force."""
    blocks = [set(map(tuple, blocks_of(r[None], BLOCK)[1].tolist())) for r in rects]
    chain = set(start.tolist())
    while True:
        seen = set().union(*(blocks[i] for i in chain))
        more = {i for i in range(len(rects)) if blocks[i] & seen}
        if more == chain:
            return sorted(chain)
        chain = more


@given(RECTS, st.integers(1, 3000))
def test_strips_cut_windows_into_rows_without_loss(windows, most):
    seen = [np.zeros((w[1] - w[0], w[3] - w[2]), int) for w in windows]
    for pieces in strips(windows, most):
        sizes = (pieces.rects[:, 1] - pieces.rects[:, 0]) * (
            pieces.rects[:, 3] - pieces.rects[:, 2]
        )
        assert sizes.sum() <= most or len(sizes) == 1
        assert (np.diff(pieces.window) >= 0).all()
        for (top, bottom, left, right), window in zip(pieces.rects, pieces.window, strict=True):
            w = windows[window]
            assert (left, right) == (w[2], w[3])
            seen[window][top - w[0] : bottom - w[0]] += 1
    assert all((s == 1).all() for s in seen)


# ---- reading ---------------------------------------------------------------------------------

STEP = 0.001


def tiles(folder, *, interleave="band"):
    """Two tiles side by side, three years in the bands of one file each; 0 and 250 are gaps."""
    rng = np.random.default_rng(0)
    files = []
    for k, name in enumerate(("west", "east")):
        codes = rng.choice(np.array([0, 61, 200, 250], np.uint8), (3, 64, 64))
        path = folder / f"{name}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", width=64, height=64, count=3, dtype="uint8", nodata=0,
            crs="EPSG:4326", transform=from_origin(10 + k * 48 * STEP, 50, STEP, STEP),
            tiled=True, blockxsize=16, blockysize=16, interleave=interleave,
            compress="deflate",
        ) as file:  # fmt: skip
            file.write(codes)
        files.append(path)
    catalog = mt.build_catalog(
        files, folder / "catalog", product="landcover", variable="landcover",
        times=2 * ["2000-01-01", "2001-01-01", "2002-01-01"], link=True,
    )  # fmt: skip
    return mt.open_source(catalog.parent), files


def recipe(folder):
    path = folder / "recipe.toml"
    path.write_text(
        'years = [2000, 2002]\n[landcover]\nsource = "catalog"\nlegend = "glc_fcs30d"\n'
    )
    return load_recipe(path)


@pytest.mark.parametrize("room", [0, 10, 10**6])
@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_windows_hold_what_a_cube_of_the_place_holds(tmp_path, interleave, room):
    """Tiles overlap by 16 columns, with gaps in both; windows reach past their ends, too."""
    source, _ = tiles(tmp_path, interleave=interleave)
    legend, plan = load_legend("glc_fcs30d"), recipe(tmp_path)
    places = [box(10.01, 49.95, 10.03, 49.97), box(10.04, 49.96, 10.07, 49.99),
              box(9.99, 49.93, 10.005, 49.95), box(10.1, 49.99, 10.12, 50.01)]  # fmt: skip
    items = list(source.items)
    native = native_grid(items, "landcover")
    grids, expected = [], []
    for place in places:
        node = landcover_node(source, items, place, plan, legend, chunks=None)
        with dask.config.set(scheduler="synchronous"):
            expected.append(node["landcover"].to_numpy())
        grid = node["landcover"].odc.geobox
        col, row = (round(v) for v in native.wld2pix(grid.affine.c, grid.affine.f))
        ny, nx = grid.shape
        grids.append(lattice_window(native, (row, row + ny), (col, col + nx)))
    # what memory held before does not show
    into = np.full(room, 77, np.uint8) if room else None
    read = read_codes(source, items, legend, grids, into=into)
    assert (into is not None and np.shares_memory(read.codes, into)) == (room == 10**6)
    assert (read.years.tolist(), read.lost) == ([2000, 2001, 2002], ())
    flat = np.concatenate([e.reshape(3, -1) for e in expected], axis=1)
    np.testing.assert_array_equal(read.codes, flat)
    assert 61 in flat
    assert 250 not in flat


@pytest.mark.parametrize("k", [0, 1])
def test_a_damaged_block_costs_its_window_alone(tmp_path, k):
    source, files = tiles(tmp_path)
    data = bytearray(files[k].read_bytes())
    with rasterio.open(files[k]) as file:
        at = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    data[at : at + 8] = b"\xff" * 8
    files[k].write_bytes(data)
    west = [item for item in source.items if "west" in item.assets["landcover"].href]
    native = native_grid(west, "landcover")
    grids = [lattice_window(native, (r, r + 10), (c, c + 10))
             for r, c in ((0, 48 * k), (40, 48 * k + 20))]  # fmt: skip
    into = np.full(10**4, 77, np.uint8)
    read = read_codes(source, source.items, load_legend("glc_fcs30d"), grids, into=into)
    assert read.lost == (0,)
    assert not read.codes[:, :100].any()
    with rasterio.open(files[k]) as file:
        stored = file.read(window=rasterio.windows.Window(20, 40, 10, 10)).reshape(3, -1)
    np.testing.assert_array_equal(read.codes[:, 100:], np.where(stored == 250, 0, stored))


def test_a_window_is_the_same_from_every_corner():
    one = GeoBox.from_bbox((10, 49, 11, 50), "EPSG:4326", resolution=STEP)
    other = one[100:300, 250:400]
    a = lattice_window(one, (120, 140), (260, 300))
    b = lattice_window(other, (20, 40), (10, 50))
    assert a == b
    assert a.affine[:6] == b.affine[:6]

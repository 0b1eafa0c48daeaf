"""Sites on grids: shares, centres, means."""

from __future__ import annotations

import exactextract
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio.features
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr
from pyproj import Geod, Transformer
from shapely.geometry import MultiPolygon, Point, Polygon, box

import oracles
from minetrace.errors import GridError, InputError, SiteError
from minetrace.grid import pixel_areas
from minetrace.kernels.composite import median_composite
from minetrace.zones import cell_km2, cover, mean_in_zones, zonal_mean
from strategies import star_polygons

UTM = "EPSG:32622"
GRID = GeoBox.from_bbox((500000, 0, 500020, 20), UTM, shape=(20, 20))


def on(geometries, crs=UTM, shift=(500000.0, 0.0)):
    geometries = [
        None if g is None else shapely.transform(g, lambda xy: xy + shift) for g in geometries
    ]
    return gpd.GeoDataFrame({"site_id": [f"s{i}" for i in range(len(geometries))]},
                            geometry=geometries, crs=crs)  # fmt: skip


def dense(zones, i=0):
    cells = slice(zones.offsets[i], zones.offsets[i + 1])
    out = np.zeros(zones.shape)
    out[zones.rows[cells], zones.cols[cells]] = zones.weight[cells]
    return out


@given(star_polygons())
def test_shares_equal_one_intersection_a_cell(polygon):
    sites = on([polygon])
    found = dense(cover(sites, GRID))
    expected = oracles.shapely_coverage(sites.geometry[0], GRID)
    np.testing.assert_allclose(found, expected, atol=2e-9)


@given(star_polygons(max_radius=8.0))
def test_shares_equal_exactextract_to_its_float32(polygon):
    sites = on([polygon])
    source = exactextract.raster.NumPyRasterSource(
        np.zeros(GRID.shape), 500000, 0, 500020, 20, srs_wkt=sites.crs.to_wkt()
    )
    rows = exactextract.exact_extract(source, sites, ["cell_id", "coverage"], output="pandas")
    expected = np.zeros(400)
    if len(rows) and rows.cell_id[0] is not None:
        expected[np.asarray(rows.cell_id[0], int)] = rows.coverage[0]
    np.testing.assert_allclose(dense(cover(sites, GRID)).ravel(), expected, atol=2e-7)


@given(star_polygons())
def test_centres_equal_rasterio(polygon):
    sites = on([polygon])
    outside = (
        rasterio.features.geometry_mask(
            [sites.geometry[0]], GRID.shape, GRID.affine, all_touched=False, invert=False
        )
        if not polygon.is_empty
        else np.ones(GRID.shape, bool)
    )
    np.testing.assert_array_equal(dense(cover(sites, GRID, coverage="centre")), ~outside)


def test_half_a_pixel_all_around():
    zones = cover(on([box(0.5, 0.5, 2.5, 2.5)]), GRID)
    expected = [[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]]
    assert dense(zones)[17:, :3].tolist() == expected
    assert zones.weight.sum() == 4.0


def test_holes_and_parts_count_once():
    ring = box(1, 1, 9, 9).difference(box(3, 3, 7, 7))
    zones = cover(on([MultiPolygon([ring, box(4, 4, 6, 6)])]), GRID)
    assert zones.weight.sum() == pytest.approx(64 - 16 + 4, abs=1e-12)
    assert dense(zones)[20 - 4, 3] == 0.0


def test_cells_run_row_by_row_from_the_top():
    zones = cover(on([box(1, 1, 4, 3)]), GRID)
    assert zones.rows.tolist() == [17, 17, 17, 18, 18, 18]
    assert zones.cols.tolist() == [1, 2, 3, 1, 2, 3]


def test_touching_sites_split_a_pixel_and_overlapping_sites_share_none():
    west, east = box(0, 0, 2.49, 5), box(2.49, 0, 5, 5)
    zones = cover(on([west, east, west]), GRID)
    assert dense(zones, 0)[16, 2] == pytest.approx(0.49, abs=1e-9)
    np.testing.assert_allclose((dense(zones, 0) + dense(zones, 1))[15:, :5], 1.0, atol=1e-12)
    np.testing.assert_array_equal(dense(zones, 0), dense(zones, 2))


def voronoi(n, bounds, seed):
    """A partition of a box into n cells."""
    rng = np.random.default_rng(seed)
    west, south, east, north = bounds
    points = shapely.multipoints(rng.uniform((west, south), (east, north), (n, 2)))
    cells = shapely.voronoi_polygons(points, extend_to=box(*bounds))
    return [c.intersection(box(*bounds)) for c in cells.geoms]


@pytest.mark.parametrize("grid", [
    GRID,
    GeoBox.from_bbox((500000, 0, 500020, 20), UTM, shape=(3, 2)),
    GeoBox.from_bbox((500000, 0, 500020, 20), UTM, shape=(2000, 1999)),
    GeoBox.from_bbox((499990.3, -10.7, 500031, 27), UTM, shape=(177, 191)),
], ids=["20", "3", "2000", "unaligned"])  # fmt: skip
def test_a_partition_adds_up_to_the_whole(grid):
    bounds = (0.3, 0.1, 19.7, 18.9)
    parts = cover(on(voronoi(40, bounds, 1)), grid)
    whole = cover(on([box(*bounds)]), grid)
    total = np.zeros(grid.shape)
    np.add.at(total, (parts.rows, parts.cols), parts.weight)
    np.testing.assert_allclose(total, dense(whole), atol=1e-9)
    assert parts.weight.sum() == pytest.approx(whole.weight.sum(), rel=1e-9)


def test_a_partition_in_degrees_adds_up_on_a_projected_grid():
    bounds = (-51.62, 2.20, -51.40, 2.41)
    cells = voronoi(25, bounds, 2)
    outline = shapely.union_all(cells)
    grid = GeoBox.from_bbox((425000, 235000, 465000, 275000), UTM, resolution=30)
    flat = {"crs": "EPSG:4326", "shift": (0, 0)}
    parts, whole = cover(on(cells, **flat), grid), cover(on([outline], **flat), grid)
    assert parts.weight.sum() == pytest.approx(whole.weight.sum(), rel=1e-9)
    km2 = cell_km2(whole, grid).sum()
    # edges straight in degrees are no geodesics: follow them closely to measure the truth
    exact = abs(Geod(ellps="WGS84").geometry_area_perimeter(outline.segmentize(0.001))[0]) / 1e6
    assert km2 == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("corner", [(-51.6, 2.2), (20.0, 69.0), (-70.0, -45.0)])
def test_long_straight_edges_in_degrees_stay_true(corner):
    west, south = corner
    site = box(west, south, west + 0.5, south + 0.25)
    zone = int((west + 180) // 6) + 1
    crs = f"EPSG:{(32600 if south >= 0 else 32700) + zone}"
    forward = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    fine = shapely.transform(
        site.segmentize(1e-4), lambda xy: np.c_[forward.transform(xy[:, 0], xy[:, 1])]
    )
    grid = GeoBox.from_bbox(fine.bounds, crs, resolution=300)
    found = cover(on([site], crs="EPSG:4326", shift=(0, 0)), grid)
    true = cover(on([fine], crs=crs, shift=(0, 0)), grid)
    np.testing.assert_allclose(dense(found), dense(true), atol=1e-3)
    assert found.weight.sum() == pytest.approx(true.weight.sum(), rel=1e-5)


def test_a_site_does_not_depend_on_its_company():
    sites = on(voronoi(9, (-51.62, 2.20, -51.40, 2.41), 4), crs="EPSG:4326", shift=(0, 0))
    grid = GeoBox.from_bbox((425000, 235000, 465000, 275000), UTM, resolution=100)
    together = cover(sites, grid)
    for i in range(len(sites)):
        alone = cover(sites.iloc[[i]], grid)
        cells = slice(together.offsets[i], together.offsets[i + 1])
        np.testing.assert_array_equal(together.weight[cells], alone.weight)
        np.testing.assert_array_equal(together.rows[cells], alone.rows)


@given(star_polygons(holes=False), st.integers(0, 10), st.integers(0, 10))
def test_a_window_of_the_grid_gives_the_same_shares(polygon, row, col):
    sites = on([polygon])
    whole = dense(cover(sites, GRID))[row : row + 9, col : col + 8]
    window = dense(cover(sites, GRID[row : row + 9, col : col + 8]))
    np.testing.assert_allclose(window, whole, atol=1e-9)


def test_a_site_larger_than_the_buffer(monkeypatch):
    sites = on([box(0.3, 0.4, 19.1, 18.2).difference(box(5.1, 5.2, 9, 9))])
    whole = cover(sites, GRID)
    monkeypatch.setattr("minetrace.zones.coverage._WINDOW_CELLS", 50)
    banded = cover(sites, GRID)
    np.testing.assert_array_equal(dense(whole), dense(banded))


BOWTIE = Polygon([(0.5, 0.5), (4.5, 4.5), (4.5, 0.5), (0.5, 4.5)])


@pytest.mark.parametrize("coverage", ["fraction", "centre"])
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_unusable_geometries_get_no_cells_and_stop_nothing(coverage):
    nan = Polygon([(0, 0), (np.nan, 4), (4, 0)])
    infinite = Polygon([(0, 0), (np.inf, 4), (4, 0)])
    far = box(100, 100, 104, 104)
    shapes = [None, Polygon(), box(1, 1, 3, 3), nan, infinite, far, Point(1, 1), BOWTIE]
    zones = cover(on(shapes), GRID, coverage=coverage)
    counts = np.diff(zones.offsets)
    assert len(zones) == 8
    assert counts[[0, 1, 3, 4, 5, 6]].tolist() == [0] * 6
    assert counts[2] == 4
    tolerance = 1e-9 if coverage == "fraction" else 2
    assert zones.weight[zones.offsets[7] :].sum() == pytest.approx(8.0, abs=tolerance)


def test_a_polygon_beyond_the_projection_stops_nothing():
    world = gpd.GeoDataFrame(
        {"site_id": ["pole", "near"]},
        geometry=[box(-170, -89.9999, 170, 90), box(-51.001, 0.0, -50.9999, 0.0001)],
        crs="EPSG:4326",
    )
    counts = np.diff(cover(world, GRID).offsets)
    assert counts[1] > 0


def test_no_sites_at_all():
    zones = cover(on([box(0, 0, 1, 1)]).iloc[:0], GRID)
    assert (len(zones), zones.offsets.tolist(), zones.rows.size) == (0, [0], 0)
    assert (zones.rows.dtype, zones.weight.dtype) == (np.int32, np.float64)


@pytest.mark.parametrize("grid", [
    GeoBox((4, 4), GRID.affine.rotation(30), UTM),
    GRID.flipy(),
    GRID.flipx(),
    GeoBox((4, 4), GRID.affine, None),
], ids=["rotated", "south-up", "mirrored", "no-crs"])  # fmt: skip
def test_other_grids_are_refused(grid):
    with pytest.raises(GridError, match="grid"):
        cover(on([box(0, 0, 1, 1)]), grid)


def test_bad_site_tables_are_refused():
    sites = on([box(0, 0, 1, 1), box(1, 0, 2, 1)])
    with pytest.raises(SiteError, match="site_id"):
        cover(sites.drop(columns="site_id"), GRID)
    with pytest.raises(SiteError, match=r"\['a'\] are given more than once"):
        cover(sites.assign(site_id="a"), GRID)
    with pytest.raises(SiteError, match="no CRS"):
        cover(sites.set_crs(None, allow_override=True), GRID)
    with pytest.raises(InputError, match="'all'"):
        cover(sites, GRID, coverage="all")


def image(values, times=("2020",)):
    values = np.broadcast_to(np.asarray(values, np.float32), (len(times), *GRID.shape))
    return wrap_xr(np.ascontiguousarray(values), GRID, time=list(times)).rename("ndvi")


def test_a_mean_weighs_by_share_and_area():
    columns = image(np.arange(20.0))
    table = zonal_mean(columns, on([box(0, 0, 1.25, 1)]))
    area = pixel_areas(GRID)[19, :2] * [1.0, 0.25]
    assert table.value[0] == pytest.approx(area[1] / area.sum(), rel=1e-12)
    assert table.n_pixels[0] == pytest.approx(1.25, abs=1e-12)


def test_gaps_leave_the_mean_and_empty_layers_are_missing():
    stack = image(1.0, ("2020", "2021")).copy()
    stack[0, 19, 0] = np.nan
    stack[0, 19, 1] = 5.0
    stack[1] = np.nan
    table = zonal_mean(stack, on([box(0, 0, 2, 1), None]))
    assert table.site_id.tolist() == ["s0", "s0", "s1", "s1"]
    assert table.n_pixels.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert table.value[0] == 5.0
    assert table.value[1:].isna().all()
    assert (table.time == pd.to_datetime(["2020", "2021"] * 2)).all()


def test_a_mean_of_lazy_data_is_the_same_in_any_chunks():
    rng = np.random.default_rng(0)
    stack = image(rng.random(GRID.shape), ("2020", "2021"))
    zones = cover(on([box(0.5, 0.5, 9.2, 17.7)]), GRID)
    for chunks in ({"time": 1}, {"y": 7, "x": 3}):
        pd.testing.assert_frame_equal(
            mean_in_zones(stack.chunk(chunks), zones), mean_in_zones(stack, zones)
        )


def test_what_has_no_mean_is_refused():
    sites = on([box(0, 0, 1, 1)])
    with pytest.raises(InputError, match="int64"):
        zonal_mean(image(1.0).astype("int64"), sites)
    with pytest.raises(InputError, match="dims"):
        zonal_mean(image(1.0).isel(time=0), sites)
    with pytest.raises(GridError, match="no pixel grid"):
        zonal_mean(xr.DataArray(np.zeros((1, 2, 2)), dims=("time", "y", "x")), sites)
    zones = cover(sites, GRID[:5])
    with pytest.raises(InputError, match=r"\(5, 20\)"):
        mean_in_zones(image(1.0), zones)


@given(st.integers(1, 9), st.sampled_from(["f4", "f8"]), st.randoms(use_true_random=False))
def test_composite_equals_numpy(n_time, dtype, random):
    rng = np.random.default_rng(random.randint(0, 2**32))
    stack = rng.integers(-3, 4, (n_time, 5, 6)).astype(dtype) / 8
    stack[rng.random(stack.shape) < 0.4] = np.nan
    stack[:, 2, 3] = np.nan
    middle, count = median_composite(stack)
    assert (middle.dtype, count.dtype) == (dtype, np.uint16)
    np.testing.assert_array_equal(count, np.isfinite(stack).sum(axis=0))
    seen = count > 0
    np.testing.assert_array_equal(middle[seen], np.nanmedian(stack[:, seen], axis=0))
    assert np.isnan(middle[~seen]).all()

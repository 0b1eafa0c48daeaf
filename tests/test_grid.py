from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Point, Polygon, box
from shapely.ops import transform

from doubles import position_image
from minetrace.errors import GridError
from minetrace.grid import (
    area_spline,
    crop_native,
    crosses_antimeridian,
    pixel_areas,
    same_lattice,
    site_geobox,
    utm_crs,
)

SITE = box(-51.61, 2.30, -51.60, 2.31)
ACROSS = MultiPolygon([box(179.99, -17, 180, -16.99), box(-180, -17, -179.99, -16.99)])
GEOD = Geod(ellps="WGS84")


def project(shape, crs):
    return transform(Transformer.from_crs(4326, crs, always_xy=True).transform, shape)


# ---- zones --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [
        (-51.6, 2.3, 32622), (-180, 1, 32601), (179.99, 1, 32660), (180, -1, 32760), (0, 0, 32631),
        (6, 50, 32632), (25, 84.5, 32661), (25, -80.5, 32761), (25, 83.9, 32635),
        (25, -79.9, 32735),
    ],
)  # fmt: skip
def test_zone_of_a_point(lon, lat, epsg):
    assert utm_crs(Point(lon, lat)).to_epsg() == epsg


def test_a_site_across_180_has_the_last_zone():
    assert crosses_antimeridian(ACROSS)
    assert utm_crs(ACROSS).to_epsg() == 32760


@pytest.mark.parametrize(
    "shape", [SITE, box(-179, 0, 179, 1), MultiPolygon([box(-170, 0, -169, 1), box(-10, 0, 9, 1)])]
)
def test_wide_is_not_across(shape):
    assert not crosses_antimeridian(shape)


# ---- grids --------------------------------------------------------------------------------------


@given(
    st.floats(-179, 179), st.floats(-70, 70), st.floats(1e-4, 0.05),
    st.sampled_from([10.0, 30.0, 250.0]), st.sampled_from([0.0, 500.0]),
)  # fmt: skip
def test_site_grids_are_snapped_and_cover_the_site(lon, lat, side, resolution, buffer_m):
    site = box(lon, lat, lon + side, lat + side / 2)
    grid = site_geobox(site, crs="utm", resolution=resolution, buffer_m=buffer_m)
    a = grid.affine
    assert (a.a, a.e, a.b, a.d) == (resolution, -resolution, 0, 0)
    edges = np.array([a.c, a.f]) / resolution
    np.testing.assert_allclose(edges, np.round(edges), atol=1e-6)
    outline = project(site.segmentize(side / 50), str(grid.crs))
    slack = 1e-5 * resolution
    left, bottom, right, top = grid.boundingbox.bbox
    west, south, east, north = outline.bounds
    assert left - slack <= west - buffer_m
    assert east + buffer_m <= right + slack
    assert bottom - slack <= south - buffer_m
    assert north + buffer_m <= top + slack
    # and no more than a pixel on each side
    assert right - left < east - west + 2 * (buffer_m + resolution) + slack
    assert top - bottom < north - south + 2 * (buffer_m + resolution) + slack


def test_grids_of_neighbours_line_up():
    a = site_geobox(SITE, crs=32622, resolution=30)
    b = site_geobox(box(-51.7, 2.5, -51.69, 2.51), crs=32622, resolution=30)
    assert same_lattice(a, b)


# 0.3 / 0.1 is just below 3, 2.1 / 0.3 just above 7
@pytest.mark.parametrize(("low", "high", "step", "side"), [(0.3, 0.8, 0.1, 5), (0, 2.1, 0.3, 7)])
def test_a_site_on_pixel_edges_gets_no_extra_pixels(low, high, step, side):
    grid = site_geobox(box(low, low, high, high), crs="EPSG:4326", resolution=step)
    assert tuple(grid.shape) == (side, side)


def test_a_site_across_180_has_a_small_grid_in_utm():
    grid = site_geobox(ACROSS, crs="utm", resolution=30)
    assert grid.shape.x * 30 == pytest.approx(0.02 * 111_320 * np.cos(np.radians(17)), rel=0.05)


def test_a_site_outside_the_projection_is_refused():
    with pytest.raises(GridError, match="no finite extent"):
        site_geobox(box(0, -11, 1, -10), crs="+proj=gnom +lat_0=90 +type=crs", resolution=30)


def test_an_absurd_resolution_is_refused():
    with pytest.raises(GridError, match="pixels was asked for"):
        site_geobox(box(0, 0, 2, 2), crs="EPSG:32631", resolution=0.001)


# ---- windows of a source's lattice --------------------------------------------------------------

NATIVE = {
    "degrees": GeoBox.from_bbox((-53.3, 1.1, -50.2, 4.2), 4326, resolution=0.00026949),
    "utm": GeoBox((4000, 5000), Affine(30, 0, 380_015, 0, -30, 300_007), "EPSG:32622"),
    "south up": GeoBox((4000, 5000), Affine(30, 0, 380_015, 0, 30, 200_007), "EPSG:32622"),
}


TURNED = GeoBox(
    (4000, 5000),
    Affine.translation(430_000, 255_000) @ Affine.rotation(20) @ Affine.scale(30, -30),
    "EPSG:32622",
)


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("buffer_m", [0.0, 300.0])
def test_a_window_keeps_the_lattice_and_covers_the_site(name, buffer_m):
    native = NATIVE[name]
    window = crop_native(native, SITE, buffer_m=buffer_m)
    assert same_lattice(window, native)
    assert window.shape.x * window.shape.y < 40_000
    outline = project(SITE.buffer(buffer_m / 112_000), str(native.crs))
    assert Polygon(window.extent.exterior.points).buffer(1e-6).contains(outline)


@pytest.mark.parametrize("name", NATIVE)
def test_windows_of_one_lattice_are_bit_equal_wherever_they_come_from(name):
    """A window derived from a neighbouring tile, or from a window, is the same to the last bit."""
    native = NATIVE[name]
    window = crop_native(native, SITE)
    assert crop_native(window, SITE) == window
    for col, row in ((3600, 0), (-3600, 3600), (7, 11)):
        assert crop_native(native.translate_pix(col, row), SITE) == window


def test_windows_of_a_crooked_lattice_are_bit_equal_too():
    """Steps and origins with many digits, as reprojected products have: rounding shows there."""
    step_x, step_y = 29.87712682461916, -29.87712682461914
    native = GeoBox(
        (4000, 4000), Affine(step_x, 0, 409829.46921261575, 0, step_y, 276306.314636201), 32622
    )
    for k in range(1, 40):
        site = translate(SITE, xoff=0.003 * k, yoff=-0.002 * k)
        window = crop_native(native, site)
        assert crop_native(native.translate_pix(97 * k, 61 * k), site) == window
        assert crop_native(window.translate_pix(-k, k), site) == window


def test_a_turned_lattice_is_refused():
    with pytest.raises(GridError, match="rotated"):
        crop_native(TURNED, SITE)


def test_pixels_of_a_window_know_where_they_are():
    native = GeoBox((500, 500), Affine(30, 0, 425_005, 0, -30, 262_007), "EPSG:32622")
    window = crop_native(native, SITE)
    whole, part = position_image(native), position_image(window)
    same = whole.sel(x=part.x, y=part.y, method="nearest", tolerance=0.01)
    np.testing.assert_array_equal(part["easting"], same["easting"])
    np.testing.assert_array_equal(part["northing"], same["northing"])
    np.testing.assert_allclose(part["easting"], part.x.broadcast_like(part["easting"]))


def test_a_window_may_leave_its_tile():
    window = crop_native(NATIVE["utm"], box(-53.8, 2.3, -53.7, 2.31))
    assert window.boundingbox.left < NATIVE["utm"].boundingbox.left
    assert same_lattice(window, NATIVE["utm"])


def test_sites_across_180_need_a_projected_lattice():
    degrees = GeoBox.from_bbox((-180, -20, 180, 20), 4326, resolution=0.01)
    with pytest.raises(GridError, match=r"crosses 180°.*utm"):
        crop_native(degrees, ACROSS)
    fiji = GeoBox.from_bbox((700_000, 8e6, 1_000_000, 8.2e6), "EPSG:32760", resolution=30)
    assert crop_native(fiji, ACROSS).shape.x < 100


def test_a_lattice_without_crs_is_refused():
    grid = GeoBox((10, 10), Affine(1, 0, 0, 0, -1, 10), None)
    with pytest.raises(GridError, match="no CRS"):
        crop_native(grid, SITE)
    with pytest.raises(GridError, match="no CRS"):
        pixel_areas(grid)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (Affine.translation(7, -3), True),
        (Affine.translation(0.5, 0), False),
        (Affine.translation(0, 0.1), False),
        (Affine.scale(2), False),
        (Affine.scale(1.0000001), False),
        (Affine.rotation(1), False),
    ],
)
def test_same_lattice(change, same):
    grid = NATIVE["utm"]
    other = GeoBox((10, 10), grid.affine @ change, grid.crs)
    assert same_lattice(grid, other) is same
    assert not same_lattice(grid, GeoBox((10, 10), grid.affine, "EPSG:32623"))


# ---- areas --------------------------------------------------------------------------------------


def outline_area(grid, steps=1000):
    """Geodesic area of a grid's outline, its edges densified in the grid's own CRS."""
    ny, nx = grid.shape
    t = np.linspace(0, 1, steps, endpoint=False)
    cols = np.concatenate([t * nx, 0 * t + nx, nx - t * nx, 0 * t])
    rows = np.concatenate([0 * t, t * ny, 0 * t + ny, ny - t * ny])
    to_lonlat = Transformer.from_crs(str(grid.crs), 4326, always_xy=True)
    lon, lat = to_lonlat.transform(*(grid.affine @ (cols, rows)))
    return abs(GEOD.polygon_area_perimeter(lon, lat)[0])


def grid_at(lon, lat, crs, resolution, shape=(700, 900)):
    x, y = project(Point(lon, lat), crs).coords[0]
    return GeoBox(shape, Affine(resolution, 0, x, 0, -resolution, y), crs)


GRIDS = {
    "degrees at the equator": grid_at(20, 0.1, "EPSG:4326", 0.0003),
    "degrees at 70°": grid_at(20, 70, "EPSG:4326", 0.0003),
    "degrees, coarse": grid_at(20, 40, "EPSG:4326", 0.01),
    "utm": grid_at(-51.6, 2.3, "EPSG:32622", 30),
    "utm at the zone's edge": grid_at(-48.2, -30, "EPSG:32722", 30),
    "utm at 75°": grid_at(25, 75, "EPSG:32635", 30),
    "european equal-area": grid_at(25, 66, "EPSG:3035", 30),
    "web mercator": grid_at(10, 55, "EPSG:3857", 30),
    "polar stereographic": grid_at(15, 80, "EPSG:3413", 30),
    "sinusoidal": grid_at(-60, -20, "ESRI:54008", 500),
    "utm across 180°": grid_at(179.95, -17, "EPSG:32760", 30),
    "a grid of another datum": grid_at(-51.6, -2.3, "EPSG:31982", 30),
}


@pytest.mark.parametrize("name", GRIDS)
def test_pixel_areas_sum_to_the_outline(name):
    grid = GRIDS[name]
    areas = pixel_areas(grid)
    assert areas.shape == tuple(grid.shape)
    assert areas.dtype == np.float64
    assert areas.sum() == pytest.approx(outline_area(grid), rel=1e-8)


def local_areas(grid, rows, cols):
    """Areas of single pixels in an equal-area plane centred on each of them."""
    to_lonlat = Transformer.from_crs(str(grid.crs), 4326, always_xy=True)
    for row, col in zip(rows, cols, strict=True):
        t = np.linspace(0, 1, 20, endpoint=False)
        ring_c = col + np.concatenate([t, 0 * t + 1, 1 - t, 0 * t])
        ring_r = row + np.concatenate([0 * t, t, 0 * t + 1, 1 - t])
        lon, lat = to_lonlat.transform(*(grid.affine @ (ring_c, ring_r)))
        plane = f"+proj=laea +lat_0={lat[0]} +lon_0={lon[0]} +ellps=WGS84"
        xy = Transformer.from_crs(4326, plane, always_xy=True).transform(lon, lat)
        yield Polygon(np.transpose(xy)).area


@pytest.mark.parametrize("name", GRIDS)
def test_each_pixel_has_its_own_area(name):
    grid = GRIDS[name]
    ny, nx = grid.shape
    places = list(itertools.product((0, 17, ny // 2, ny - 1), (0, 29, nx // 2, nx - 1)))
    rows, cols = np.transpose(places)
    expected = list(local_areas(grid, rows, cols))
    np.testing.assert_allclose(pixel_areas(grid)[rows, cols], expected, rtol=1e-8)


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (5, 3), (17, 18), (2, 3000)])
def test_narrow_grids_have_areas_too(shape):
    grid = grid_at(20, 60, "EPSG:4326", 0.001, shape=shape)
    areas = pixel_areas(grid)
    assert areas.shape == shape
    rows, cols = np.array([0, shape[0] // 2, shape[0] - 1]), np.array([0, 0, shape[1] - 1])
    np.testing.assert_allclose(areas[rows, cols], list(local_areas(grid, rows, cols)), rtol=1e-8)


@pytest.mark.parametrize("name", GRIDS)
def test_single_pixels_of_the_spline_are_those_of_the_grid(name):
    grid = GRIDS[name]
    spline, areas = area_spline(grid), pixel_areas(grid)
    for row, col in itertools.product((0, 1, 350, 699), (0, 29, 450, 899)):
        terms = [
            spline.factor[row, i] * spline.columns[spline.first[row] + i, col] for i in range(4)
        ]
        assert areas[row, col] == sum(terms)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (17, 18), (18, 1)])
def test_small_grids_have_splines_of_the_same_form(shape):
    grid = grid_at(20, 60, "EPSG:4326", 0.001, shape=shape)
    columns, first, factor = area_spline(grid)
    assert (first.shape, factor.shape) == ((shape[0],), (shape[0], 4))
    lines = [factor[r] @ columns[first[r] : first[r] + 4] for r in range(shape[0])]
    np.testing.assert_allclose(lines, pixel_areas(grid), rtol=1e-15)


def test_turned_and_south_up_grids_have_positive_areas():
    for grid in (NATIVE["south up"], TURNED):
        part = GeoBox((300, 400), grid.affine, grid.crs)
        assert pixel_areas(part).min() > 0
        assert pixel_areas(part).sum() == pytest.approx(outline_area(part), rel=1e-8)


def test_a_grid_in_degrees_may_pass_180():
    grid = GeoBox.from_bbox((179, -1, 181, 1), 4326, resolution=0.01)
    twin = GeoBox.from_bbox((9, -1, 11, 1), 4326, resolution=0.01)
    np.testing.assert_allclose(pixel_areas(grid), pixel_areas(twin), rtol=1e-9)


WIDE = {
    "20° at 0.05°": GeoBox.from_bbox((10, 30, 30, 50), 4326, resolution=0.05),
    "to the pole": GeoBox.from_bbox((10, 70, 110, 90), 4326, resolution=0.1),
    "the whole earth": GeoBox.from_bbox((-180, -90, 180, 90), 4326, resolution=0.25),
    "a meridian": GeoBox((3600, 1), Affine(0.05, 0, 5, 0, -0.05, 90), 4326),
    "a parallel": GeoBox((1, 9000), Affine(0.04, 0, -180, 0, -0.04, 50), 4326),
}


@pytest.mark.parametrize("name", WIDE)
def test_wide_grids_have_areas_as_exact_as_small_ones(name):
    grid = WIDE[name]
    ny, nx = grid.shape
    # the area of an ellipsoid between two parallels, in closed form
    minor, e = 6_356_752.314245, 0.081819190842622
    s = np.sin(np.radians(grid.affine.f + grid.affine.e * np.arange(ny + 1)))
    zone = s / (1 - e**2 * s**2) + np.arctanh(e * s) / e
    band = minor**2 / 2 * -np.diff(zone) * math.radians(grid.affine.a)
    expected = np.broadcast_to(band[:, None], (ny, nx))
    np.testing.assert_allclose(pixel_areas(grid), expected, rtol=5e-9)


def test_the_whole_earth_has_its_area():
    grid = GeoBox.from_bbox((-180, -90, 180, 90), 4326, resolution=0.5)
    assert pixel_areas(grid).sum() == pytest.approx(510_065_621_724_089, rel=1e-6)


def test_a_grid_that_leaves_its_projection_is_refused():
    far = GeoBox((5, 5), Affine(1e7, 0, 1e9, 0, -1e7, 1e9), "EPSG:32622")
    with pytest.raises(GridError, match="leaves the domain"):
        pixel_areas(far)

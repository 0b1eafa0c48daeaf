"""Rings as polygons: their areas by formula, and the same ground as the rings of a cube."""

from __future__ import annotations

import math

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.xr import wrap_xr
from pyproj import Geod, Transformer
from shapely.geometry import MultiPolygon, Polygon, box

import minetrace as mt
from minetrace.cubes.rings import rings_node
from minetrace.errors import InputError, SiteError
from minetrace.grid import crosses_antimeridian, pixel_areas, site_geobox
from minetrace.schema import RingsRecipe
from minetrace.sites import geodesic_area_km2

NOTCHED = Polygon([(9, 47), (9.01, 47), (9.01, 47.01), (9.005, 47.002), (9, 47.01)])


def frame(*shapes, crs=4326):
    ids = [f"s{i}" for i in range(len(shapes))]
    return gpd.GeoDataFrame({"site_id": ids}, geometry=list(shapes), crs=crs)


@settings(max_examples=15)
@given(st.floats(-179, 178), st.floats(-80, 80), st.floats(200, 4000), st.floats(10, 6000))
def test_areas_are_those_of_the_formula(lon, lat, first, more):
    """Ground within d of a convex outline of length P: P d + π d²."""
    wide = 0.01 / math.cos(math.radians(lat))
    site = shapely.orient_polygons(box(lon, lat, lon + wide, lat + 0.01))
    made = mt.site_rings(frame(site), distances_m=(first, first + more))
    _, perimeter = Geod(ellps="WGS84").geometry_area_perimeter(site)
    around = [perimeter * d + math.pi * d**2 for d in (0, first, first + more)]
    areas = geodesic_area_km2(made.geometry).to_numpy() * 1e6
    np.testing.assert_allclose(areas, np.diff(around), rtol=0.005)
    assert made.geometry.is_valid.all()


def test_rings_hold_the_same_ground_as_those_of_a_cube():
    distances = (300.0, 900.0)
    grid = site_geobox(NOTCHED, crs="utm", resolution=10, buffer_m=1000)
    ring = rings_node(NOTCHED, RingsRecipe(distances_m=distances), grid, chunks=None)["ring"]
    areas = pixel_areas(grid)
    polygons = mt.site_rings(frame(NOTCHED), distances_m=distances)
    layer = wrap_xr(np.stack([ring == 1, ring == 2]).astype("f4"), grid, time=["2020", "2021"])
    found = mt.zonal_statistics(layer, polygons, statistics=["mean"])
    # pixels on an outline lie in two rings
    shares = found["mean"].to_numpy().reshape(2, 2)
    np.testing.assert_allclose(shares, [[1, 0], [0, 1]], atol=0.02)
    for i, km2 in enumerate(geodesic_area_km2(polygons.geometry), 1):
        assert areas[ring.values == i].sum() / 1e6 == pytest.approx(km2, rel=2e-3)


def test_rings_on_a_grid_of_another_zone():
    """The plane of the distances is the site's, not the grid's."""
    grid = site_geobox(NOTCHED, crs="EPSG:32633", resolution=30, buffer_m=1200)
    part = RingsRecipe(distances_m=(300.0, 900.0))
    ring = rings_node(NOTCHED, part, grid, chunks=None)["ring"]
    to_lonlat = Transformer.from_crs(32633, 4326, always_xy=True)
    lon, lat = to_lonlat.transform(*np.meshgrid(ring.x, ring.y))
    to_plane = Transformer.from_crs(4326, 32632, always_xy=True)
    site = shapely.transform(NOTCHED, lambda xy: np.column_stack(to_plane.transform(*xy.T)))
    apart = shapely.distance(site, shapely.points(*to_plane.transform(lon, lat)))
    sure = np.abs(apart[..., None] - [0, 300, 900]).min(axis=-1) > 1
    expected = np.select([apart == 0, apart <= 300, apart <= 900], [0, 1, 2], 255)
    assert sure.mean() > 0.7
    np.testing.assert_array_equal(ring.values[sure], expected[sure])


def test_rings_leave_the_site_and_each_other_out():
    made = mt.site_rings(frame(NOTCHED, box(20, 0, 20.01, 0.01)), distances_m=(500, 1500))
    assert made["around"].tolist() == ["s0", "s0", "s1", "s1"]
    assert made["ring"].tolist() == [1, 2, 1, 2]
    site, first, second = NOTCHED, *made.geometry[:2]
    for a, b in ((site, first), (site, second), (first, second)):
        assert a.intersection(b).area < 1e-6 * a.area
    whole = shapely.union_all([site, first, second])
    assert len(getattr(whole.buffer(1e-7), "interiors", [])) == 0


def test_rings_across_180_degrees_are_split_there():
    fiji = MultiPolygon([box(179.99, -17.01, 180, -17), box(-180, -17.01, -179.99, -17)])
    near = box(179.9, -17.01, 179.92, -17)
    made = mt.site_rings(frame(fiji, near), distances_m=(1000, 15000))
    moved = box(176.99, -17.01, 177.01, -17), box(176.9, -17.01, 176.92, -17)
    elsewhere = mt.site_rings(frame(*moved), distances_m=(1000, 15000))
    assert [crosses_antimeridian(g) for g in made.geometry] == [True, True, False, True]
    assert made.total_bounds[0] == -180
    assert made.total_bounds[2] == 180
    np.testing.assert_allclose(
        geodesic_area_km2(made.geometry), geodesic_area_km2(elsewhere.geometry), rtol=3e-3
    )


@pytest.mark.parametrize("distances", [[], [0, 100], [500, 200], [-5], [100, 100], [math.inf]])
def test_odd_distances_are_refused(distances):
    with pytest.raises(InputError, match="increasing metres above 0"):
        mt.site_rings(frame(NOTCHED), distances_m=distances)


def test_odd_sites_are_refused():
    with pytest.raises(SiteError, match=r"to_crs\(4326\)"):
        mt.site_rings(frame(NOTCHED, crs=3857))
    with pytest.raises(
        SiteError, match="'s0': the ring to 30000 m is a ring that runs round a pole"
    ):
        mt.site_rings(frame(box(10, 89.9, 30, 89.95)), distances_m=(30000,))
    assert mt.site_rings(frame()).empty

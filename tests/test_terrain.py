"""Terrain and rings: slopes by hand, no seams between chunks, distances by brute force."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer
from scipy.ndimage import map_coordinates
from shapely.geometry import Polygon, box

import minetrace as mt
from minetrace.cubes import build_cube
from minetrace.cubes.rings import BEYOND, distance_classes, rings_node
from minetrace.errors import InputError, RecipeError
from minetrace.grid import site_geobox
from minetrace.schema import ImageryRecipe, Recipe, RingsRecipe, TerrainRecipe, load_recipe
from minetrace.simulate.stac import Layer
from worlds import catalog, item, positions

GRID = GeoBox((60, 80), Affine(30, 0, 300000, 0, -30, 5000010), "EPSG:32632")
SITE = GRID[20:40, 25:50].geographic_extent.geom


def dem(folder, name, grid, heights, *, nodata=-9999.0, when="2011-05-01"):
    layer = Layer(heights, nodata)
    return item(folder / "s", name, when, grid, {"dem": layer})


def opened(folder, items, where=SITE, *, chunks=None, more="", imagery=None, **recipe):
    source = catalog(folder, items, f'[bands]\nelevation = "dem"\n{more}')
    options = {"years": (2019, 2020), "terrain": TerrainRecipe(source=str(source), resolution=30)}
    if imagery is not None:
        options["imagery"] = ImageryRecipe(source=str(imagery))
    recipe = Recipe(name="t", **(options | recipe))
    return mt.open_cube(where, recipe, chunks=chunks)


def rough(shape=GRID.shape, seed=0, dtype="f4"):
    smooth = np.add.outer(np.arange(shape[0]) * 7.0, np.arange(shape[1]) * -3.0)
    return (500 + smooth + np.random.default_rng(seed).normal(0, 40, shape)).astype(dtype)


def horn(z, step):
    """Derivatives to east and north by Horn's weights, edges lost."""
    z = z.astype(float)
    e, w = z[:-2, 2:] + 2 * z[1:-1, 2:] + z[2:, 2:], z[:-2, :-2] + 2 * z[1:-1, :-2] + z[2:, :-2]
    n, s = z[:-2, :-2] + 2 * z[:-2, 1:-1] + z[:-2, 2:], z[2:, :-2] + 2 * z[2:, 1:-1] + z[2:, 2:]
    return (e - w) / (8 * step), (n - s) / (8 * step)


def shaded(east, north):
    """Cosine between the ground's normal and the sun, in the north-west at 45°."""
    azimuth, height = math.radians(315), math.radians(45)
    sun = (
        math.sin(azimuth) * math.cos(height), math.cos(azimuth) * math.cos(height),
        math.sin(height),
    )  # fmt: skip
    cosine = (sun[2] - east * sun[0] - north * sun[1]) / np.sqrt(1 + east**2 + north**2)
    return np.maximum(cosine, 0)


def window(node, grid=GRID):
    """Rows and columns of a grid that a node covers."""
    row, col = (
        round((grid.affine.f - float(node.y[0])) // 30),
        round((float(node.x[0]) - grid.affine.c) // 30),
    )
    return np.s_[row : row + node.sizes["y"], col : col + node.sizes["x"]]


def test_terrain_is_what_plain_numpy_gives(tmp_path):
    """The site's own zone and pixel: heights are the file's; its edges have neighbours too."""
    heights = rough()
    node = opened(tmp_path, [dem(tmp_path, "a", GRID, heights)])["terrain"].to_dataset()
    assert node.sizes.keys() == {"y", "x"}
    assert {v.dtype.name for v in node.data_vars.values()} == {"float32"}
    node = node.compute()
    rows, cols = window(node)
    assert rows.start > 1
    np.testing.assert_array_equal(node.elevation, heights[rows, cols])
    east, north = horn(heights[rows.start - 1 : rows.stop + 1, cols.start - 1 : cols.stop + 1], 30)
    slope = np.degrees(np.arctan(np.hypot(east, north)))
    assert slope.max() > 40
    np.testing.assert_allclose(node.slope, slope, atol=1e-3)
    # np.gradient, which xarray-spatial shades by, takes the four neighbours
    z = heights.astype(float)
    mid = np.s_[rows.start - 1 : rows.stop + 1, cols.start - 1 : cols.stop + 1]
    east = (z[mid][1:-1, 2:] - z[mid][1:-1, :-2]) / 60
    north = (z[mid][:-2, 1:-1] - z[mid][2:, 1:-1]) / 60
    np.testing.assert_allclose(node.hillshade, shaded(east, north), atol=1e-5)
    assert node.hillshade.min() == 0


@pytest.mark.parametrize(("east", "north"), [(0.5, 0.0), (0.0, -0.3), (-0.2, 0.9), (0.0, 0.0)])
def test_a_plane_has_one_slope_and_one_shade(tmp_path, east, north):
    x, y = np.meshgrid(np.arange(80) * 30.0, -np.arange(60) * 30.0)
    heights = (1000 + east * x + north * y).astype("f4")
    node = opened(tmp_path, [dem(tmp_path, "a", GRID, heights)])["terrain"].to_dataset().compute()
    np.testing.assert_allclose(
        node.slope, math.degrees(math.atan(math.hypot(east, north))), atol=0.01
    )
    np.testing.assert_allclose(
        node.hillshade, shaded(np.float64(east), np.float64(north)), atol=1e-4
    )


@pytest.mark.parametrize("chunks", [{"y": 7, "x": 11}, {"y": 64, "x": 5}])
def test_chunks_leave_no_seams(tmp_path, chunks, no_compute):
    import dask

    items = [dem(tmp_path, "a", GRID, rough())]
    whole = opened(tmp_path, items)["terrain"].to_dataset()
    tiled = opened(tmp_path, items, chunks=chunks)["terrain"].to_dataset()
    again = opened(tmp_path, items)["terrain"].to_dataset()
    assert tiled.slope.data.npartitions > whole.slope.data.npartitions == 1
    assert all(whole[v].data.name == again[v].data.name for v in whole)
    with dask.config.set(scheduler="synchronous"):
        xr.testing.assert_identical(tiled.compute(), whole.compute())


def test_blocks_of_a_large_grid_leave_no_seams(tmp_path, monkeypatch):
    items = [dem(tmp_path, "a", GRID, rough())]
    whole = opened(tmp_path, items)["terrain"].to_dataset().compute()
    monkeypatch.setattr("minetrace.cubes.terrain.CHUNK", 9)
    tiled = opened(tmp_path, items)["terrain"].to_dataset()
    assert tiled.slope.data.npartitions > 4
    xr.testing.assert_identical(tiled.compute(), whole)


def test_a_model_in_degrees_is_interpolated_between_its_heights(tmp_path):
    """One arc-second, whole metres: terraces of nearest or rounded heights would be steps."""
    west, south, east, north = SITE.buffer(0.003).bounds
    grid = GeoBox.from_bbox((west, south, east, north), "EPSG:4326", resolution=1 / 3600)
    lon, lat = np.meshgrid(grid.coords["longitude"].values, grid.coords["latitude"].values)
    x, y = Transformer.from_crs(4326, 32632, always_xy=True).transform(lon, lat)
    heights = np.round(0.1 * (x - 300000) + 0.05 * (y - 5000000)).astype("i2")
    items = [dem(tmp_path, "a", grid, heights, nodata=-32768)]
    node = opened(tmp_path, items)["terrain"].to_dataset()
    tiled = opened(tmp_path, items, chunks={"y": 9, "x": 13})["terrain"].to_dataset().compute()
    node = node.compute()
    xr.testing.assert_identical(node, tiled)
    assert node.odc.geobox.crs.to_epsg() == 32632
    ex, ny = np.meshgrid(node.x, node.y)
    at = Transformer.from_crs(32632, 4326, always_xy=True).transform(ex, ny)
    col, row = grid.wld2pix(*at)
    # the four stored heights around a point, weighted by nearness
    between = map_coordinates(heights.astype(float), [row - 0.5, col - 0.5], order=1)
    np.testing.assert_allclose(node.elevation, between, atol=0.005)
    plane = 0.1 * (ex - 300000) + 0.05 * (ny - 5000000)
    np.testing.assert_allclose(node.elevation, plane, atol=0.55)
    assert (node.elevation.values != np.round(node.elevation.values)).mean() > 0.9
    steep = math.degrees(math.atan(math.hypot(0.1, 0.05)))
    np.testing.assert_allclose(node.slope, steep, atol=1.2)


def test_no_height_is_no_number(tmp_path):
    heights = rough()
    heights[30, 35] = -9999
    node = opened(tmp_path, [dem(tmp_path, "a", GRID, heights)])["terrain"].to_dataset().compute()
    rows, cols = window(node)
    y, x = 30 - rows.start, 35 - cols.start
    assert np.argwhere(np.isnan(node.elevation.values)).tolist() == [[y, x]]
    gap = np.zeros(node.slope.shape, bool)
    gap[y - 1 : y + 2, x - 1 : x + 2] = True
    np.testing.assert_array_equal(np.isnan(node.slope), gap)
    assert np.isnan(node.hillshade.values[y, x - 1])
    # and off the end of the model there is none
    edge = GRID[0:4, 0:4].geographic_extent.geom
    node = opened(tmp_path, [dem(tmp_path, "a", GRID, rough())], edge)["terrain"].to_dataset()
    assert np.isnan(node.slope.compute()[:, 0]).all()


def test_tiles_of_a_model_are_joined_whatever_their_dates_and_types(tmp_path):
    heights = rough(dtype="i2")
    left, right = np.s_[:, :40], np.s_[:, 38:]
    items = [
        dem(tmp_path, "left", GRID[left], heights[left], nodata=-32768),
        dem(tmp_path, "right", GRID[right], (heights[right] + 1).astype("f4"), when="2014-01-01"),
    ]
    node = opened(tmp_path, items)["terrain"].to_dataset().compute()
    rows, cols = window(node)
    expected = heights.astype("f4")
    # the older tile first, the younger only where it is alone
    expected[:, 40:] += 1
    np.testing.assert_array_equal(node.elevation, expected[rows, cols])
    assert node.attrs["item_ids"] == ["left", "right"]
    source = mt.open_source(tmp_path)
    recipe = Recipe(name="t", years=(2019, 2020), terrain=TerrainRecipe(source=str(tmp_path)))
    for order in (source.items, source.items[::-1]):
        cube = build_cube("", SITE, recipe, {"terrain": source}, {"terrain": list(order)})
        np.testing.assert_array_equal(cube["terrain/elevation"], node.elevation)


def test_terrain_lies_on_the_imagery_where_that_is_in_metres(tmp_path):
    fine = GeoBox((150, 200), Affine(10, 0, 300200, 0, -10, 4999600), "EPSG:32632")
    degrees = GeoBox.from_bbox(SITE.buffer(0.01).bounds, "EPSG:4326", resolution=0.0002)
    for name, grid, shared in (("metres", fine, True), ("degrees", degrees, False)):
        scene = item(tmp_path / name, name, "2020-06-01", grid, positions(grid))
        imagery = catalog(tmp_path / f"{name}_cat", [scene])
        site = fine[50:60, 50:60].geographic_extent.geom
        cube = opened(
            tmp_path, [dem(tmp_path, "a", GRID, rough())], site, imagery=imagery,
            rings=RingsRecipe(distances_m=(50,)), buffer_m=60,
        )  # fmt: skip
        own, other = (
            cube["terrain"].to_dataset().odc.geobox,
            cube["imagery"].to_dataset().odc.geobox,
        )
        assert (own == other) == shared
        assert own.resolution.x == (10 if shared else 30)
        assert cube["rings"].to_dataset().odc.geobox == own


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "xrspatial" else found(name, *a),
    )
    with pytest.raises(InputError, match=r"pip install 'minetrace\[terrain\]'"):
        opened(tmp_path, [dem(tmp_path, "a", GRID, rough())])


# ---- rings --------------------------------------------------------------------------------------

PIT = Polygon([(9, 47), (9.01, 47), (9.01, 47.01), (9.005, 47.002), (9, 47.01)])
"""A site with a notch, whose ring is nearer than its convex hull says."""


def rings(where=PIT, distances=(300.0, 900.0), *, chunks=None, tmp_path, **options):
    west, south, east, north = where.buffer(0.05).bounds
    grid = GeoBox.from_bbox((west, south, east, north), "EPSG:4326", resolution=0.01)
    cube = opened(
        tmp_path, [dem(tmp_path, "a", grid, rough(grid.shape))], where, chunks=chunks,
        buffer_m=1000, rings=RingsRecipe(distances_m=distances, resolution=30), **options,
    )  # fmt: skip
    return cube["rings/ring"]


def test_rings_are_classes_of_the_true_distance(tmp_path):
    """The oracle walks the outline in small steps on the ellipsoid."""
    ring = rings(tmp_path=tmp_path).compute()
    assert ring.dims == ("y", "x")
    assert ring.dtype == np.uint8
    assert set(np.unique(ring)) == {0, 1, 2, BEYOND}
    assert ring.attrs["flag_values"].tolist() == [0, 1, 2, 255]
    assert ring.attrs["flag_meanings"] == "site within_300_m within_900_m beyond"
    outline = shapely.segmentize(PIT.exterior, 0.00005).coords[:]
    on = np.array(outline)
    rng = np.random.default_rng(2)
    to_lonlat = Transformer.from_crs(ring.odc.geobox.crs, 4326, always_xy=True)
    geod, checked = Geod(ellps="WGS84"), 0
    for r, c in zip(*(rng.integers(0, n, 300) for n in ring.shape), strict=True):
        lon, lat = to_lonlat.transform(float(ring.x[c]), float(ring.y[r]))
        _, _, along = geod.inv(np.full(len(on), lon), np.full(len(on), lat), on[:, 0], on[:, 1])
        distance = 0.0 if PIT.contains(shapely.Point(lon, lat)) else along.min()
        # UTM is true to 0.1 %, the steps of the walk to a few metres
        if min(abs(distance - d) for d in (0, 300, 900)) < 8 and distance:
            continue
        expected = 0 if distance == 0 else 1 if distance <= 300 else 2 if distance <= 900 else 255
        assert ring[r, c] == expected, distance
        checked += 1
    assert checked > 250


def test_a_cube_of_terrain_and_rings_is_saved_and_read_back(tmp_path):
    items = [dem(tmp_path / "dem", "dem", GRID, rough())]
    cube = opened(tmp_path, items, buffer_m=60, rings=RingsRecipe(distances_m=(60.0,)))
    mt.save_cube(cube, tmp_path / "store")
    back = mt.load_cube(tmp_path / "store")
    for path in ("terrain/elevation", "terrain/slope", "terrain/hillshade", "rings/ring"):
        xr.testing.assert_equal(back[path].drop_vars("spatial_ref").compute(),
                                cube[path].drop_vars("spatial_ref").compute())  # fmt: skip
    # a second save finds all of it there
    written = (tmp_path / "store" / "zarr.json").stat().st_mtime_ns
    mt.save_cube(cube, tmp_path / "store")
    assert (tmp_path / "store" / "zarr.json").stat().st_mtime_ns == written


def test_rings_are_lazy_and_the_same_in_any_chunks(tmp_path, no_compute):
    import dask

    whole, again = rings(tmp_path=tmp_path), rings(tmp_path=tmp_path)
    other = rings(tmp_path=tmp_path, distances=(300.0, 901.0))
    tiled = rings(tmp_path=tmp_path, chunks={"y": 17, "x": 23})
    assert whole.data.name == again.data.name != other.data.name
    assert tiled.data.npartitions > 1
    with dask.config.set(scheduler="synchronous"):
        xr.testing.assert_identical(whole.compute(), tiled.compute())


def test_rings_around_a_site_across_180_degrees(tmp_path):
    fiji = shapely.MultiPolygon(
        [box(179.997, -17.003, 180, -17), box(-180, -17.003, -179.997, -17)]
    )
    part = RingsRecipe(distances_m=(500.0,), resolution=30)
    grid = site_geobox(fiji, crs="utm", resolution=30, buffer_m=600)
    ring = rings_node(fiji, part, grid, chunks=None)["ring"].compute()
    one = box(179.997, -17.003, 180.003, -17)
    x, y = np.meshgrid(ring.x, ring.y)
    lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(x, y)
    inside = shapely.contains_xy(one, lon % 360, lat)
    np.testing.assert_array_equal(ring == 0, inside)
    assert (ring == 1).any()
    assert ring.sizes["x"] < 100


@given(
    st.floats(1, 50), st.floats(1, 50),
    st.lists(st.floats(0.5, 60), min_size=1, max_size=4, unique=True), st.integers(0, 1000),
)  # fmt: skip
def test_distance_classes_of_a_box_by_its_formula(w, h, distances, seed):
    distances = tuple(sorted(distances))
    x, y = np.random.default_rng(seed).uniform(-100, 150, (2, 50))
    dx, dy = np.maximum(np.maximum(-x, x - w), 0), np.maximum(np.maximum(-y, y - h), 0)
    true = np.hypot(dx, dy)
    expected = np.array(
        [next((i for i, d in enumerate((0, *distances)) if t <= d), BEYOND) for t in true]
    )
    np.testing.assert_array_equal(distance_classes(box(0, 0, w, h), x, y, distances), expected)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("buffer_m = 9000\n[rings]", "rings reach 10000 m .* buffer_m = 9000.*enlarge buffer_m"),
        ("buffer_m = 9000\n[rings]\ndistances_m = [5000, 1000]", "distances increase"),
        ("buffer_m = 9000\n[rings]\ndistances_m = []", r"rings\.distances_m"),
        ("buffer_m = 9000\n[rings]\ndistances_m = [0, 100]", r"rings\.distances_m"),
        ('[terrain]\nsource = "s"\nresolution = -3', r"terrain\.resolution"),
    ],
)
def test_faulty_recipes_name_the_key(tmp_path, text, fault):
    path = tmp_path / "mine.toml"
    path.write_text(f"years = [2019, 2020]\n{text}\n")
    with pytest.raises(RecipeError, match=fault):
        load_recipe(path)


def test_a_recipe_of_terrain_alone_is_one(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('years = [2019, 2020]\n[terrain]\nsource = "s"\n')
    recipe = load_recipe(path)
    assert recipe.products == ()
    assert recipe.annual.terrain is None

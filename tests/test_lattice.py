"""The grid of a cube: no resampling where the source has the pixels, whatever the place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer
from shapely.geometry import MultiPolygon, Point, box

import minetrace as mt
from minetrace.cubes import site_grid
from minetrace.cubes.lattice import grid_outline, is_metric, node_grid
from minetrace.errors import GridError, InputError
from minetrace.grid import crosses_antimeridian, surroundings
from worlds import catalog, imagery_recipe, item, positions

GEOD = Geod(ellps="WGS84")


def grid_of(x: float, y: float, crs: str, resolution: float, n: int = 40) -> GeoBox:
    return GeoBox((n, n), Affine(resolution, 0, x, 0, -resolution, y), crs)


def scene(folder: Path, name: str, grid: GeoBox, **options):
    when = options.pop("when", "2020-06-01T10:00")
    return item(folder / "s", name, when, grid, positions(grid), **options)


def opened(source, where, *, grid=None, chunks=None, **options) -> xr.Dataset:
    recipe = imagery_recipe(source, (2020, 2020), **options)
    cube = mt.open_cube(where, recipe, chunks=chunks, grid=grid)
    return cube["imagery"].to_dataset().isel(time=0).compute()


def assert_pixels_are_their_own(image: xr.Dataset, *, everywhere: bool = True) -> None:
    """Every observed pixel holds its own coordinates, exactly."""
    seen = image.n_obs.values == 1
    assert seen.all() if everywhere else seen.any()
    x, y = np.meshgrid(image.x, image.y)
    np.testing.assert_array_equal(image.red.values[seen], x[seen])
    np.testing.assert_array_equal(image.nir.values[seen], y[seen])


# Sentinel-2: edges at multiples of 10 (tiles start at 20 and 60 too); Landsat: centres at 30
LATTICES = [
    (grid_of(399960, 4600020, "EPSG:32632", 10), 10),
    (grid_of(399960, 4600020, "EPSG:32632", 60), 60),
    (grid_of(399945, 4600005, "EPSG:32632", 30), 30),
    (grid_of(600007.5, 6999990, "EPSG:32734", 15), 15),
]


@pytest.mark.parametrize(("grid", "resolution"), LATTICES)
@pytest.mark.parametrize("crs", ["utm", "native", "code"])
def test_pixels_of_the_sites_zone_are_not_resampled(tmp_path, grid, resolution, crs):
    source = catalog(tmp_path, [scene(tmp_path, "a", grid)])
    where = grid[9:21, 11:25].geographic_extent.geom
    own = {"crs": str(grid.crs) if crs == "code" else crs}
    own |= {} if crs == "native" else {"resolution": resolution}
    image = opened(source, where, **own)
    assert_pixels_are_their_own(image)
    assert image.odc.geobox.crs == grid.crs


def test_the_lattice_of_most_items_is_taken_in_any_order(tmp_path):
    half = grid_of(399960, 4600020, "EPSG:32632", 30)
    landsat = [grid_of(399945 + 300 * i, 4600005, "EPSG:32632", 30) for i in range(2)]
    items = [
        scene(tmp_path, f"i{n}", g, when=f"2020-0{n + 1}-01T10:00")
        for n, g in enumerate([half, *landsat])
    ]
    where = half[15:25, 15:25].geographic_extent.geom
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        grid = site_grid([items[i] for i in order], "red", where, crs="utm", resolution=30)
        assert grid.affine.c % 30 == 15
        assert grid.affine.f % 30 == 15
    # alone, and at a pixel that nobody has, edges are multiples
    assert site_grid(items[:1], "red", where, crs="utm", resolution=30).affine.c % 30 == 0
    assert site_grid(items, "red", where, crs="utm", resolution=20).affine.c % 20 == 0


def test_native_is_the_finest_of_the_bands(tmp_path):
    fine, coarse = (grid_of(500000, 4600020, "EPSG:32632", r) for r in (10, 20))
    one = scene(tmp_path, "a", fine)
    other = scene(tmp_path, "b", coarse)
    one.assets["nir"] = other.assets["nir"]
    one.assets["nir"].extra_fields |= {
        "proj:shape": list(coarse.shape), "proj:transform": list(coarse.affine)[:6],
    }  # fmt: skip
    where = fine[5:20, 5:20].geographic_extent.geom
    for keys in (["red", "nir"], ["nir", "red"]):
        assert site_grid([one], keys, where).resolution.x == 10


# ---- two zones ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_zones(tmp_path_factory):
    """Scenes of zones 32 and 33 on two days, about 12° E: the west one, the east one."""
    folder = tmp_path_factory.mktemp("zones")
    (x32, y32), (x33, y33) = (
        Transformer.from_crs(4326, code, always_xy=True).transform(12.0, 47.0)
        for code in (32632, 32633)
    )
    west = grid_of(x32 // 20 * 20 - 600, y32 // 20 * 20 + 400, "EPSG:32632", 20, 60)
    east = grid_of(x33 // 20 * 20 - 600, y33 // 20 * 20 + 400, "EPSG:32633", 20, 60)
    scenes = [
        scene(folder, "west", west, when="2020-06-01T10:00"),
        scene(folder, "east", east, when="2020-06-03T10:00"),
    ]
    return catalog(folder, scenes), west, east


def test_items_of_another_zone_are_taken_to_the_nearest_pixel(two_zones):
    source, west, east = two_zones
    where = box(11.9975, 46.9985, 12.0021, 47.0009)
    both = mt.open_cube(where, imagery_recipe(source, (2020, 2020), crs="utm", resolution=20))
    grid = node_grid(both["imagery"].to_dataset())
    assert grid.crs == west.crs
    for months, own in (((1, 12), 2), ((6, 6), 2)):
        recipe = imagery_recipe(source, (2020, 2020), crs="utm", resolution=20, months=months)
        assert (mt.open_cube(where, recipe)["imagery/n_obs"] == own).all()
    # the west item alone keeps its pixels, the east one its nearest
    alone = opened_items(source, where, {"west"})
    assert_pixels_are_their_own(alone)
    other = opened_items(source, where, {"east"}, grid=grid)
    x, y = np.meshgrid(other.x, other.y)
    ex, ny = Transformer.from_crs(32632, 32633, always_xy=True).transform(x, y)
    np.testing.assert_allclose(other.red, ex, atol=10.001)
    np.testing.assert_allclose(other.nir, ny, atol=10.001)
    # stored values, none in between
    assert np.isin(other.red.values % 20, [(east.affine.c + 10) % 20]).all()


def opened_items(source, where, names, **options):
    whole = mt.open_source(source)
    kept = tuple(i for i in whole.items if i.id in names)
    part = type(whole)(whole.config, whole.folder, kept)
    recipe = imagery_recipe(source, (2020, 2020), crs="utm", resolution=20)
    cube = mt.open_cube(where, recipe, sources=part, **options)
    return cube["imagery"].to_dataset().isel(time=0).compute()


def test_another_zone_gives_the_same_pixels_in_any_chunks(two_zones):
    source, _, _ = two_zones
    where = box(11.9975, 46.9985, 12.0021, 47.0009)
    options = {"crs": "utm", "resolution": 7.0, "composite": "medoid"}
    whole = opened(source, where, **options)
    tiled = opened(source, where, chunks={"y": 13, "x": 17}, **options)
    xr.testing.assert_identical(whole, tiled)


def test_native_refuses_two_zones_and_says_what_to_do(two_zones):
    source, _, _ = two_zones
    with pytest.raises(GridError, match=r"another pixel lattice.*crs = 'utm'"):
        opened(source, box(11.9975, 46.9985, 12.0021, 47.0009))


# ---- a grid of the user's -----------------------------------------------------------------------


def test_a_users_grid_is_taken_as_it_is(tmp_path):
    tile = grid_of(500000, 4600020, "EPSG:32632", 10)
    second = grid_of(500400, 4600020, "EPSG:32632", 10)
    source = catalog(tmp_path, [scene(tmp_path, "a", tile), scene(tmp_path, "b", second)])
    where = tile[15:20, 15:20].geographic_extent.geom
    # the grid reaches into a tile that the site does not touch
    mine = grid_of(500100, 4600000, "EPSG:32632", 10, 38)[:, 20:]
    image = opened(source, where, grid=mine)
    assert node_grid(image) == mine
    assert_pixels_are_their_own(image, everywhere=False)
    covered = image.n_obs == 1
    np.testing.assert_array_equal(covered, True)
    with pytest.raises(GridError, match="rotated"):
        opened(source, where, grid=mine.rotate(20))
    with pytest.raises(InputError, match="engine is 'rioxarray'; use one of odc, stackstac"):
        mt.open_cube(where, imagery_recipe(source, (2020, 2020)), engine="rioxarray")
    with pytest.raises(GridError, match="has no CRS"):
        opened(source, where, grid=GeoBox((3, 3), Affine(10, 0, 0, 0, -10, 0), None))


def test_a_neighbouring_tile_fills_the_margin(tmp_path):
    tiles = [grid_of(500000 + 400 * i, 4600020, "EPSG:32632", 10) for i in range(2)]
    source = catalog(tmp_path, [scene(tmp_path, f"t{i}", g) for i, g in enumerate(tiles)])
    where = tiles[0][18:22, 20:24].geographic_extent.geom
    image = opened(source, where, crs="utm", resolution=10, buffer_m=180)
    assert float(image.x.max()) > 500400
    assert_pixels_are_their_own(image)


# ---- the poles and 180° -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crs", "own", "x", "y"),
    [
        ("EPSG:32661", "utm", 2000000, 1700010),
        ("EPSG:32761", "utm", 2000400, 2900010),
        ("EPSG:3413", "native", 400, 500010),
        ("EPSG:3031", "EPSG:3031", -300, 300),
    ],
)
def test_polar_sites(tmp_path, crs, own, x, y):
    grid = grid_of(x, y, crs, 30)
    source = catalog(tmp_path, [scene(tmp_path, "a", grid, outline=grid_outline(grid))])
    ox, oy = grid.pix2wld(18, 18)
    lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(ox, oy)
    where = Point(lon, lat).buffer(0.0004)
    image = opened(source, where, crs=own, **({} if own == "native" else {"resolution": 30}))
    assert image.odc.geobox.crs.to_epsg() == int(crs[5:])
    assert_pixels_are_their_own(image)


def test_a_site_across_180_degrees(tmp_path):
    """Fiji: the east end of zone 60 and the west end of zone 1, each with its own scene."""
    x60, y60 = Transformer.from_crs(4326, 32760, always_xy=True).transform(180.0, -17.0)
    x01, y01 = Transformer.from_crs(4326, 32701, always_xy=True).transform(-180.0, -17.0)
    last = grid_of(x60 // 10 * 10 - 1000, y60 // 10 * 10 + 600, "EPSG:32760", 10, 120)
    first = grid_of(x01 // 10 * 10 - 200, y01 // 10 * 10 + 600, "EPSG:32701", 10, 120)
    scenes = [
        scene(tmp_path, "last", last, outline=grid_outline(last)),
        scene(tmp_path, "first", first, outline=grid_outline(first)),
    ]
    assert crosses_antimeridian(grid_outline(last))
    source = catalog(tmp_path, scenes)
    fiji = MultiPolygon([box(179.997, -17.002, 180, -17), box(-180, -17.002, -179.997, -17)])
    image = opened(source, fiji, crs="utm", resolution=10)
    assert image.odc.geobox.crs.to_epsg() == 32760
    assert (image.n_obs == 1).all()
    x, y = np.meshgrid(image.x, image.y)
    ex, ny = Transformer.from_crs(32760, 32701, always_xy=True).transform(x, y)
    exact = (image.red.values == x) & (image.nir.values == y)
    near = (abs(image.red.values - ex) < 5.001) & (abs(image.nir.values - ny) < 5.001)
    assert (exact | near).all()
    # each reaches a little past 180°; beyond that the other is alone
    assert exact[x < last.boundingbox.right - 410].all()
    assert near[x > last.boundingbox.right].all()
    assert exact.any()
    assert near.any()


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (grid_of(500000, 4600020, "EPSG:32632", 10), False),
        (grid_of(817000, 8120000, "EPSG:32760", 100), True),
    ],
)
def test_the_outline_of_a_grid_is_split_at_180(grid, expected):
    outline = grid_outline(grid)
    assert crosses_antimeridian(outline) == expected
    lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(
        *grid.pix2wld(*np.random.default_rng(1).uniform(0, 40, (2, 200)))
    )
    assert all(outline.buffer(1e-9).contains(Point(p)) for p in zip(lon, lat, strict=True))


def test_the_outline_of_a_grid_round_the_pole_holds_the_pole():
    outline = grid_outline(grid_of(-600, 600, "EPSG:3031", 30))
    assert outline.bounds[:2] == (-180, -90)
    assert outline.bounds[2] == 180
    assert -90 < outline.bounds[3] < -89.98


@given(
    st.floats(-180, 179.9), st.floats(-88, 87.9), st.floats(1, 20000), st.floats(0, 360),
)  # fmt: skip
def test_surroundings_hold_all_ground_within_the_distance(lon, lat, distance, azimuth):
    site = box(lon, lat, lon + 0.05, lat + 0.02)
    around = surroundings(site, distance)
    for x, y in site.exterior.coords:
        east, north, _ = GEOD.fwd(x, y, azimuth, distance)
        assert around.buffer(1e-9).intersects(Point(east, north))


@pytest.mark.parametrize(
    ("grid", "metric"),
    [
        (grid_of(500000, 4600020, "EPSG:32632", 10), True),
        (grid_of(0, 6000000, "EPSG:3857", 10), False),
        (GeoBox.from_bbox((10, 50, 11, 51), "EPSG:4326", resolution=0.1), False),
        (grid_of(0, -1900000, "EPSG:3413", 30), True),
    ],
)
def test_which_grids_are_in_metres(grid, metric):
    assert is_metric(grid) == metric

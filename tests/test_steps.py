import datetime as dt

import numpy as np
import pystac
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox, GeoboxTiles

from cogs import grid
from minetrace.cubes.claims import Claim
from minetrace.cubes.steps import reached_chunks, time_steps
from minetrace.errors import InputError

HERE = grid(256)


def item_at(name: str, moment: str, geometry: object = None) -> pystac.Item:
    shape = shapely.box(-180, -90, 180, 90) if geometry is None else geometry
    when = dt.datetime.fromisoformat(moment)
    return pystac.Item(name, shapely.geometry.mapping(shape), [*shape.bounds], when, {})


def claim_of(box: GeoBox | None) -> Claim:
    if box is None:
        return Claim("i", "red", "x.tif", None, None, None, None, None)
    return Claim(
        "i", "red", "x.tif", tuple(box.shape), tuple(box.affine)[:6], str(box.crs), None, None
    )


def reached(
    box: GeoBox | None, tiles: GeoboxTiles, footprint: object = None
) -> set[tuple[int, int]]:
    item = item_at("a", "2020-01-01T00:00:00Z", footprint)
    return {(y, x) for _, y, x in reached_chunks([item], [[claim_of(box)]], [[0]], tiles)}


def test_items_of_one_moment_day_or_number_share_a_step():
    items = [
        item_at("c", "2020-01-02T00:00:00Z"),
        item_at("b", "2020-01-01T12:00:00Z"),
        item_at("a", "2020-01-01T12:00:00+00:00"),
        item_at("d", "2020-01-01T13:00:00Z"),
    ]
    times, steps = time_steps(items, "time", HERE)
    assert steps == [[2, 1], [3], [0]]
    assert times.astype("M8[h]").astype(str).tolist() == [
        "2020-01-01T12", "2020-01-01T13", "2020-01-02T00",
    ]  # fmt: skip
    assert time_steps(items, "id", HERE)[1] == [[0], [1], [2], [3]]
    assert time_steps(items, lambda item, i: item.id > "b", HERE)[1] == [[2, 1], [3, 0]]


def test_the_day_is_that_of_the_sun():
    east = GeoBox.from_bbox((175, 0, 176, 1), "EPSG:4326", shape=(4, 4))
    # noon of the second and of the third day at 175° E
    items = [item_at("a", "2020-01-01T23:00:00Z"), item_at("b", "2020-01-02T01:00:00Z"),
             item_at("c", "2020-01-02T23:00:00Z")]  # fmt: skip
    assert time_steps(items, "solar_day", east)[1] == [[0, 1], [2]]


def test_the_day_of_the_sun_begins_earlier_in_the_east():
    east = GeoBox.from_bbox((90, 0, 91, 1), "EPSG:4326", shape=(4, 4))
    # six hours ahead: 17:00 and 19:00 lie on two days there
    items = [item_at("a", "2020-01-01T17:00:00Z"), item_at("b", "2020-01-01T19:00:00Z")]
    assert time_steps(items, "solar_day", east)[1] == [[0], [1]]


def test_files_that_only_touch_a_chunk_do_not_reach_it():
    tiles = GeoboxTiles(HERE, (64, 64))
    assert reached(HERE[64:128, 64:128], tiles) == {(1, 1)}


def test_a_file_between_the_places_that_are_looked_up_is_reached():
    """Along a parallel a chunk bulges beyond all its own corners."""
    tiles = GeoboxTiles(HERE, (256, 256))
    outline = HERE.extent.to_crs("EPSG:4326").boundingbox
    step = 1e-6
    inside = HERE[100:101, 255:256].extent.to_crs("EPSG:4326").boundingbox
    assert inside.right <= outline.right
    speck = GeoBox.from_bbox(
        (outline.right + step, inside.bottom, outline.right + 2 * step, inside.top),
        "EPSG:4326",
        resolution=step,
    )
    assert reached(speck, tiles) == {(0, 0)}


def test_moments_are_in_utc():
    times, _ = time_steps([item_at("a", "2020-01-01T05:00:00+06:00")], "time", HERE)
    assert times[0] == np.datetime64("2019-12-31T23:00:00")


def test_an_unknown_grouping_is_refused():
    with pytest.raises(InputError, match="grouped by time, solar_day, id, not by 'platform'"):
        time_steps([item_at("a", "2020-01-01T00:00:00Z")], "platform", HERE)


@given(
    st.integers(-300, 300), st.integers(-300, 300), st.integers(1, 300), st.integers(1, 300),
    st.sampled_from([1.0, 0.5, 3.0]),
)  # fmt: skip
def test_chunks_with_pixels_of_a_file_are_reached_and_no_others(left, top, width, height, step):
    tiles = GeoboxTiles(HERE, (64, 100))
    moved = HERE.translate_pix(left, top).affine
    scale = moved.scale(step)
    at = [moved.a * scale.a, 0, moved.c, 0, moved.e * scale.e, moved.f]
    box = GeoBox((height, width), type(moved)(*at), HERE.crs)
    west, east = left, left + width * step
    north, south = top, top + height * step
    expected = {
        (y, x)
        for y in range(4)
        for x in range(3)
        if west < min(256, 100 * x + 100) and east > 100 * x
        and north < 64 * y + 64 and south > 64 * y
    }  # fmt: skip
    assert reached(box, tiles) == expected


def test_chunks_of_a_file_in_another_crs_are_reached():
    tiles = GeoboxTiles(HERE, (64, 64))
    world = GeoBox.from_bbox((-180, -90, 180, 90), "EPSG:4326", shape=(1800, 3600))
    assert len(reached(world, tiles)) == 16
    elsewhere = GeoBox.from_bbox((20, -40, 30, -30), "EPSG:4326", shape=(100, 100))
    assert reached(elsewhere, tiles) == set()
    # half of the grid, in its neighbour zone
    bounds = HERE[:, :128].extent.to_crs("EPSG:32631").boundingbox
    west = GeoBox.from_bbox(bounds.bbox, "EPSG:32631", resolution=10)
    found = reached(west, tiles)
    assert {(y, x) for y in range(4) for x in range(2)} <= found
    assert not any(x == 3 for _, x in found)


@pytest.mark.parametrize("crs", ["EPSG:3413", "EPSG:3995"])
def test_a_chunk_around_the_pole_reaches_what_covers_it(crs):
    pole = GeoBox.from_bbox((-5e5, -5e5, 5e5, 5e5), crs, shape=(100, 100))
    cap = GeoBox.from_bbox((-180, 89, 180, 90), "EPSG:4326", shape=(10, 3600))
    assert reached(cap, GeoboxTiles(pole, (100, 100))) == {(0, 0)}


def test_a_chunk_across_180_degrees_reaches_both_sides():
    fiji = GeoBox.from_bbox((700_000, 8_000_000, 900_000, 8_100_000), "EPSG:32760", shape=(50, 100))
    tiles = GeoboxTiles(fiji, (50, 100))
    for west, east in ((178, 180), (-180, -178)):
        side = GeoBox.from_bbox((west, -19, east, -16), "EPSG:4326", shape=(30, 20))
        assert reached(side, tiles) == {(0, 0)}


def test_a_file_without_a_place_in_its_own_crs_is_looked_into():
    """Mercator has no place for the pole; what lies around it may be in the file all the same."""
    pole = GeoBox.from_bbox((-5e5, -5e5, 5e5, 5e5), "EPSG:3413", shape=(100, 100))
    mercator = GeoBox.from_bbox((-2e7, 1e7, 2e7, 3e7), "EPSG:3857", shape=(100, 100))
    assert reached(mercator, GeoboxTiles(pole, (100, 100))) == {(0, 0)}


def test_a_wide_grid_of_many_chunks():
    wide = GeoBox.from_bbox((0, 0, 102_400, 102_400), "EPSG:32632", resolution=1)
    tiles = GeoboxTiles(wide, (1024, 1024))
    part = wide[5000:7000, 99_000:101_000]
    away = GeoBox.from_bbox((11.0, 0.2, 11.2, 0.3), "EPSG:4326", resolution=0.001)
    expected = {(y, x) for y in range(4, 7) for x in range(96, 99)}
    assert reached(part, tiles) == expected
    assert reached(away, tiles) == set()


def test_an_item_that_is_silent_reaches_its_footprint():
    tiles = GeoboxTiles(HERE, (128, 128))
    part = HERE[10:40, 10:40].extent.to_crs("EPSG:4326").geom
    assert reached(None, tiles, part) == {(0, 0)}
    assert len(reached(None, tiles)) == 4


def test_each_asset_of_an_item_counts():
    tiles = GeoboxTiles(HERE, (128, 128))
    claims = [claim_of(HERE[:20, :20]), claim_of(HERE[200:, 200:])]
    item = item_at("a", "2020-01-01T00:00:00Z")
    assert {k[1:] for k in reached_chunks([item], [claims], [[0]], tiles)} == {(0, 0), (1, 1)}

from __future__ import annotations

import itertools
import json
import warnings
from struct import pack

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from geopandas import GeoDataFrame
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from pyproj import Geod
from shapely import wkt
from shapely.affinity import translate
from shapely.geometry import (
    GeometryCollection,
    LineString,
    MultiPolygon,
    Point,
    Polygon,
    box,
)

from minetrace.errors import InputError, SiteError
from minetrace.panel import write_geoparquet
from minetrace.schema import SITES, check_table
from minetrace.sites import SiteWarning, geodesic_area_km2, merge_sites, read_sites

SQUARE = box(10, 50, 10.01, 50.01)
BOWTIE = wkt.loads("POLYGON ((0 0, 0.02 0.02, 0.02 0, 0 0.02, 0 0))")
CONTRACT = ["site_id", "geometry", "area_km2", "source", "country"]


def written(folder, geometries, file="mines.gpkg", crs=4326, **columns):
    path = folder / file
    frame = GeoDataFrame(columns or {"n": range(len(geometries))}, geometry=geometries, crs=crs)
    if file.endswith("parquet"):
        frame.to_parquet(path)
    else:
        frame.to_file(path)
    return path


def read_quietly(path, **options):
    """Read a file whose left-out rows are looked at in another test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SiteWarning)
        return read_sites(path, **options)


# ---- the contract -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.gpkg", "m.geojson", "m.shp", "m.fgb", "m.parquet"])
def test_every_format_gives_the_contract(tmp_path, name):
    sites = read_sites(written(tmp_path, [SQUARE], name))
    assert list(sites.columns) == [*CONTRACT, "n"]
    assert sites.crs.to_epsg() == 4326
    assert sites["source"].tolist() == ["m"]
    assert sites["country"].isna().all()
    assert sites.attrs == {"read": 1, "rejected": [], "repaired": []}
    assert sites.geometry[0].equals(SQUARE)
    expected = Geod(ellps="WGS84").geometry_area_perimeter(SQUARE)[0] / 1e6
    assert sites["area_km2"][0] == pytest.approx(expected, rel=1e-9)


def test_a_read_table_reads_back_the_same(tmp_path):
    path = written(tmp_path, [SQUARE, BOWTIE], name=["a", "b"], iso3=["GHA", "-99"], score=[1, 2])
    sites = read_sites(path)
    again = read_sites(write_geoparquet(sites, tmp_path / "again.parquet"))
    once = sites.sort_values("site_id", ignore_index=True)
    again.attrs = once.attrs = {}
    assert_frame_equal(again, once)


def test_an_id_column_gives_the_ids_and_stays(tmp_path):
    path = written(tmp_path, [SQUARE, BOWTIE], title=[7, 8])
    sites = read_sites(path, id_column="title")
    assert sites["site_id"].tolist() == ["7", "8"]
    assert sites["title"].tolist() == [7, 8]


def test_whole_numbers_held_as_reals_are_whole_ids(tmp_path):
    sites = read_sites(written(tmp_path, [SQUARE, BOWTIE], fid_=[7.0, 8.0]), id_column="fid_")
    assert sites["site_id"].tolist() == ["7", "8"]


def test_a_unique_site_id_column_is_used_unasked(tmp_path):
    sites = read_sites(written(tmp_path, [SQUARE, BOWTIE], site_id=["p", "q"]))
    assert sites["site_id"].tolist() == ["p", "q"]
    assert "site_id_file" not in sites


def test_a_site_id_column_that_is_no_id_is_kept_aside(tmp_path):
    path = written(tmp_path, [SQUARE, BOWTIE], site_id=["p", "p"])
    with pytest.warns(SiteWarning, match="'site_id' is not unique"):
        sites = read_sites(path)
    assert sites["site_id_file"].tolist() == ["p", "p"]
    assert sites["site_id"].is_unique


def test_own_columns_that_say_something_else_get_a_suffix(tmp_path):
    path = written(
        tmp_path, [SQUARE, BOWTIE],
        area_km2=[3.0, 4.0], country=["Ghana", "GHA"], source=["osm", None],
    )  # fmt: skip
    sites = read_sites(path)
    assert sites["area_km2_file"].tolist() == [3.0, 4.0]
    assert sites["country_file"].tolist() == ["Ghana", "GHA"]
    assert [None if pd.isna(c) else c for c in sites["country"]] == [None, "GHA"]
    assert sites["source"].tolist() == ["osm", "mines"]


@pytest.mark.parametrize("column", ["country", "iso3", "ISO3_CODE"])
def test_country_codes_are_found(tmp_path, column):
    path = written(tmp_path, [SQUARE, BOWTIE], **{column: ["BRA", "-99"]})
    country = read_sites(path)["country"]
    assert country[0] == "BRA"
    assert pd.isna(country[1])


# ---- hash ids -----------------------------------------------------------------------------------


def spellings(polygon):
    """One outline: other start, other direction, as a multi, with z, with rounding noise."""
    ring = list(polygon.exterior.coords)[:-1]
    yield Polygon(ring[2:] + ring[:2])
    yield Polygon(ring[::-1])
    yield MultiPolygon([polygon])
    yield Polygon([(x, y, 5.0) for x, y in ring])
    yield Polygon([(x + 2e-11, y - 2e-11) for x, y in ring])


def test_the_hash_is_of_the_outline_not_of_its_spelling(tmp_path):
    expected = read_sites(written(tmp_path, [SQUARE]))["site_id"][0]
    assert len(expected) == 12
    for i, other in enumerate(spellings(SQUARE)):
        path = written(tmp_path, [other], f"s{i}.gpkg")
        assert read_sites(path)["site_id"][0] == expected
    moved = written(tmp_path, [translate(SQUARE, 2e-9)], "moved.gpkg")
    assert read_sites(moved)["site_id"][0] != expected


def test_rows_with_one_outline_become_one_site(tmp_path):
    path = written(tmp_path, [SQUARE, BOWTIE, *spellings(SQUARE)][:4], source=["b", "x", "a", "b"])
    sites = read_sites(path)
    assert sites["source"].tolist() == ["a;b", "x"]
    joined = [r for r in sites.attrs["repaired"] if r["repair"] == "same outline as another"]
    assert [r["row"] for r in joined] == [2, 3]
    assert {r["site_id"] for r in joined} == {sites["site_id"][0]}


def test_ids_of_the_file_keep_twins_apart(tmp_path):
    path = written(tmp_path, [SQUARE, SQUARE], name=["a", "b"])
    assert read_sites(path, id_column="name")["site_id"].tolist() == ["a", "b"]


# ---- rows that cannot be used -------------------------------------------------------------------


def with_coordinate(value):
    """A triangle with one odd coordinate."""
    with np.errstate(invalid="ignore"):
        return Polygon([(0, 0), (0, value), (1, 1)])


BAD = {
    "no geometry": None,
    "an empty geometry": Polygon(),
    "coordinates that are not finite": with_coordinate(np.nan),
    "coordinates that are not finite ": with_coordinate(np.inf),
    "a latitude beyond 90°": box(0, 89, 1, 91),
    "a longitude beyond 360°": box(400, 0, 401, 1),
    "a Point": Point(1, 1),
    "a LineString": LineString([(0, 0), (1, 1)]),
    "no area": Polygon([(0, 0), (1, 1), (2, 2), (0, 0)]),
    "no area ": GeometryCollection([LineString([(0, 0), (1, 1)])]),
    "a ring that runs round a pole: cut it at 180°": Polygon(
        [(-170, 80), (-60, 80), (60, 80), (170, 80)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_left_out_and_the_rest_stay(tmp_path, reason):
    path = written(tmp_path, [SQUARE, BAD[reason], BOWTIE], "m.parquet", name=["a", "bad", "b"])
    with pytest.warns(SiteWarning, match="1 of 3 features left out: row 1: ") as caught:
        sites = read_sites(path, id_column="name")
    assert len(caught) == 1
    assert sites["site_id"].tolist() == ["a", "b"]
    expected = {"site_id": "bad", "row": 1, "reason": reason.strip()}
    assert sites.attrs["rejected"] == [expected]


def test_many_bad_rows_make_one_warning(tmp_path):
    path = written(tmp_path, [*BAD.values(), SQUARE], "m.parquet")
    with pytest.warns(SiteWarning) as caught:
        sites = read_sites(path)
    assert len(caught) == 1
    assert len(sites) == 1
    assert len(sites.attrs["rejected"]) == len(BAD)
    assert sites.attrs["rejected"][0]["site_id"] is None
    json.dumps(sites.attrs)


def test_a_ring_that_cannot_be_built_costs_only_its_row(tmp_path):
    open_ring = bytearray(SQUARE.wkb)
    open_ring[-8:] = pack("<d", 50.5)
    path = tmp_path / "broken.gpkg"
    pyogrio.raw.write(
        path, np.array([SQUARE.wkb, bytes(open_ring)], object), [], [],
        geometry_type="Polygon", crs="EPSG:4326",
    )  # fmt: skip
    with pytest.warns(SiteWarning, match="row 1: no geometry"):
        assert len(read_sites(path)) == 1


# ---- repair -------------------------------------------------------------------------------------


def test_a_crossed_outline_keeps_both_lobes(tmp_path):
    sites = read_sites(written(tmp_path, [BOWTIE]))
    shape = sites.geometry[0]
    assert shape.is_valid
    assert shape.area == pytest.approx(0.0002)
    repair = sites.attrs["repaired"]
    assert [r["row"] for r in repair] == [0]
    assert "Self-intersection" in repair[0]["repair"]


def test_only_the_polygons_of_a_collection_stay(tmp_path):
    parts = [SQUARE, translate(SQUARE, 1), LineString([(0, 0), (1, 1)])]
    sites = read_sites(written(tmp_path, [GeometryCollection(parts)], "m.parquet"))
    assert sites.geometry[0].geom_type == "MultiPolygon"
    assert sites.geometry[0].area == pytest.approx(2 * SQUARE.area)
    assert sites.attrs["repaired"][0]["repair"] == "lines and points dropped"


def test_height_is_dropped_and_rings_are_oriented(tmp_path):
    ring = [(0, 0, 9), (0, 1, 9), (1, 1, 9), (1, 0, 9)]
    sites = read_sites(written(tmp_path, [Polygon(ring)]))
    assert not sites.geometry[0].has_z
    assert sites.geometry[0].exterior.is_ccw
    assert sites.attrs["repaired"] == []


ACROSS = {
    "unsplit": Polygon([(179.9, 0), (-179.9, 0), (-179.9, 0.1), (179.9, 0.1)]),
    "unsplit from the west": Polygon([(-179.9, 0), (-179.9, 0.1), (179.9, 0.1), (179.9, 0)]),
    "beyond 180": box(179.9, 0, 180.1, 0.1),
    "beyond -180": box(-180.1, 0, -179.9, 0.1),
    "already split": MultiPolygon([box(179.9, 0, 180, 0.1), box(-180, 0, -179.9, 0.1)]),
}


@pytest.mark.parametrize("kind", ACROSS)
def test_the_antimeridian_splits_a_site(tmp_path, kind):
    sites = read_sites(written(tmp_path, [ACROSS[kind]], "m.parquet"))
    expected = ACROSS["already split"]
    assert sites.geometry[0].symmetric_difference(expected).area < 1e-12
    assert sites.geometry[0].geom_type == "MultiPolygon"
    notes = [r["repair"] for r in sites.attrs["repaired"]]
    assert notes == ([] if kind == "already split" else ["split at 180°"])


def test_a_hole_across_the_antimeridian_stays_a_hole(tmp_path):
    shell = [(179.8, 0), (-179.8, 0), (-179.8, 0.4), (179.8, 0.4)]
    hole = [(-179.9, 0.1), (179.9, 0.1), (179.9, 0.3), (-179.9, 0.3)]
    sites = read_sites(written(tmp_path, [Polygon(shell, [hole])]))
    assert sites.geometry[0].area == pytest.approx(0.4 * 0.4 - 0.2 * 0.2)


def test_a_site_wholly_beyond_180_is_brought_back(tmp_path):
    sites = read_sites(written(tmp_path, [box(190, 0, 190.1, 0.1)]))
    expected = box(-170, 0, -169.9, 0.1)
    assert sites.geometry[0].symmetric_difference(expected).area < 1e-12


# ---- projected files ----------------------------------------------------------------------------


@pytest.mark.parametrize("crs", [32633, 3857, 3035, 2264])
def test_edges_of_a_projected_file_stay_true(tmp_path, crs):
    corner, metre = (Point(10, 50), 1.0) if crs != 2264 else (Point(-80, 35), 3937 / 1200)
    x, y, *_ = gpd.GeoSeries([corner], crs=4326).to_crs(crs).total_bounds
    triangle = Polygon([(x, y), (x + 9000 * metre, y + 500 * metre), (x, y + 7000 * metre)])
    sites = read_sites(written(tmp_path, [triangle], crs=crs))
    # 100 m edges, in a grid of feet too
    assert len(sites.geometry[0].exterior.coords) < triangle.length / metre / 100 + 10
    back = sites.geometry.segmentize(0.0002).to_crs(crs)[0]
    # densified edges may bend by a millimetre; a plain reprojection bends by metres
    assert back.hausdorff_distance(triangle) < 0.002 * metre
    assert back.symmetric_difference(triangle).area < 1e-6 * triangle.area


def test_a_projected_site_across_the_antimeridian_is_split(tmp_path):
    # the Fiji grid has 180° in its middle
    fiji = GeoDataFrame(geometry=[Point(180, -17)], crs=4326).to_crs(3460).geometry[0]
    pit = fiji.buffer(3000, cap_style="square")
    sites = read_sites(written(tmp_path, [pit], crs=3460))
    assert sites.geometry[0].geom_type == "MultiPolygon"
    assert sites["area_km2"][0] == pytest.approx(36.0, rel=0.002)


def test_coordinates_outside_the_projection_cost_the_row(tmp_path):
    far = box(1e12, 0, 1e12 + 1, 1)
    good = box(500_000, 5e6, 501_000, 5.001e6)
    stray = Polygon([(500_000, 5e6), (1e16, 5e6), (500_000, 5.1e6)])
    path = written(tmp_path, [far, good, stray], crs=32633)
    with pytest.warns(SiteWarning, match="outside the domain of WGS 84 / UTM zone 33N"):
        assert len(read_sites(path)) == 1


# ---- files that cannot be used ------------------------------------------------------------------


def test_no_such_file(tmp_path):
    with pytest.raises(SiteError, match=r"no site file .*nowhere\.gpkg"):
        read_sites(tmp_path / "nowhere.gpkg")


@pytest.mark.parametrize("name", ["text.gpkg", "text.geojson", "text.parquet"])
def test_a_file_that_is_no_vector_file(tmp_path, name):
    (tmp_path / name).write_text("not a map")
    with pytest.raises(SiteError, match="cannot be read"):
        read_sites(tmp_path / name)


@pytest.mark.parametrize("name", ["v.vrt", "v.gpkg"])
def test_a_virtual_file_is_refused(tmp_path, name):
    hidden = written(tmp_path, [SQUARE], "hidden.geojson")
    (tmp_path / name).write_text(
        '<OGRVRTDataSource><OGRVRTLayer name="hidden">'
        f"<SrcDataSource>{hidden}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
    )
    with pytest.raises(SiteError, match=rf"{name} is a OGR_VRT file.*ogr2ogr"):
        read_sites(tmp_path / name)


def test_kept_sites_are_counted(tmp_path):
    path = written(tmp_path, [SQUARE, Point(0, 0), SQUARE, BOWTIE])
    attrs = read_quietly(path).attrs
    # a point is left out, twins are one site
    assert (attrs["read"], len(attrs["rejected"])) == (2, 1)


def test_a_table_that_is_no_site_table_says_where_sites_come_from():
    with pytest.raises(InputError, match=r"area_km2[\s\S]*read sites with minetrace\.read_sites$"):
        check_table(pd.DataFrame({"site_id": ["a"]}), SITES)


def test_a_parquet_table_without_geometry(tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(SiteError, match="cannot be read as polygons"):
        read_sites(tmp_path / "plain.parquet")


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_no_crs(tmp_path):
    with pytest.raises(SiteError, match=r"no CRS.*a_srs"):
        read_sites(written(tmp_path, [SQUARE], "m.shp", crs=None))


def test_no_features(tmp_path):
    with pytest.raises(SiteError, match="no features"):
        read_sites(written(tmp_path, [], "m.parquet"))


def test_no_polygon_at_all(tmp_path):
    path = written(tmp_path, [Point(0, 0), Point(1, 1)])
    with pytest.raises(SiteError, match=r"none of its 2 features.*row 0: a Point"):
        read_sites(path)


def test_layers_are_named(tmp_path):
    path = written(tmp_path, [SQUARE])
    GeoDataFrame(geometry=[BOWTIE], crs=4326).to_file(path, layer="other")
    with pytest.raises(SiteError, match=r"2 layers .*mines.*other.*layer="):
        read_sites(path)
    with pytest.raises(SiteError, match=r"no layer 'pits'.*mines"):
        read_sites(path, layer="pits")
    assert read_sites(path, layer="other").attrs["repaired"]


def test_a_table_beside_the_layer_is_no_choice(tmp_path):
    path = written(tmp_path, [SQUARE])
    pyogrio.write_dataframe(pd.DataFrame({"a": [1]}), path, layer="notes")
    assert len(read_sites(path)) == 1


@pytest.mark.parametrize(
    ("values", "column", "fault"),
    [
        (["a", "b"], "code", r"no column 'code'; it has \['name'\]"),
        (["a", "a"], "name", r"not unique: 1 repeated ids, \['a'\]"),
        (["a", None], "name", "empty in 1 rows"),
    ],
)
def test_faulty_id_columns(tmp_path, values, column, fault):
    path = written(tmp_path, [SQUARE, BOWTIE], name=values)
    with pytest.raises(SiteError, match=fault):
        read_sites(path, id_column=column)


# ---- area ---------------------------------------------------------------------------------------


def test_area_subtracts_holes_and_ignores_orientation():
    shell, hole = box(0, 0, 0.3, 0.3), box(0.1, 0.1, 0.2, 0.2)
    geod = Geod(ellps="WGS84")
    a, b = (abs(geod.geometry_area_perimeter(s)[0]) / 1e6 for s in (shell, hole))
    ring = hole.exterior.coords[:]
    areas = geodesic_area_km2(
        gpd.GeoSeries(
            [
                Polygon(shell.exterior.coords, [ring]),
                Polygon(shell.exterior.coords[::-1], [ring[::-1]]),
                Polygon(shell.exterior.coords, [ring[::-1]]),
                MultiPolygon([shell, translate(shell, 1)]),
                Polygon(),
                None,
            ],
            crs=4326,
        )
    )
    np.testing.assert_allclose(areas, [a - b, a - b, a - b, 2 * a, 0.0, np.nan], rtol=1e-9)


def test_area_matches_an_equal_area_projection_on_a_fine_outline():
    pit = Point(25, 66).buffer(0.05).segmentize(0.0005)
    plane = gpd.GeoSeries([pit], crs=4326).to_crs("+proj=cea +ellps=WGS84").area[0] / 1e6
    found = geodesic_area_km2(gpd.GeoSeries([pit], crs=4326))[0]
    assert found == pytest.approx(plane, rel=1e-8)


def test_area_needs_longitude_and_latitude():
    with pytest.raises(SiteError, match="EPSG:4326, not in WGS 84 / Pseudo-Mercator"):
        geodesic_area_km2(gpd.GeoSeries([SQUARE], crs=3857))


# ---- merging ------------------------------------------------------------------------------------


def table(shapes, prefix="", **columns):
    ids = [f"{prefix}{i}" for i in range(len(shapes))]
    base = {"site_id": ids, "area_km2": 0.0, "source": prefix or "s", "country": None}
    return GeoDataFrame({**base, **columns}, geometry=list(shapes), crs=4326)


def test_nothing_overlapping_loses_nothing():
    a = table([box(0, 0, 1, 1), box(5, 0, 6, 1)], "a", depth=[3, 4])
    b = table([box(10, 0, 11, 1)], "b")
    merged = merge_sites(a, b)
    assert merged["site_id"].tolist() == ["a0", "a1", "b0"]
    assert merged["depth"].tolist()[:2] == [3, 4]
    assert merged["depth"].dtype == "Int64"
    assert merged.geometry.geom_equals(gpd.GeoSeries([*a.geometry, *b.geometry], crs=4326)).all()
    assert merged.attrs["merged"] == {}


@pytest.mark.parametrize(
    "other", [box(0.5, 0.5, 2, 2), box(1, 0, 2, 1), box(1, 1, 2, 2)], ids=["over", "edge", "corner"]
)
def test_overlap_and_touch_merge(other):
    merged = merge_sites(table([box(0, 0, 1, 1)], "b", country="PER"),
                         table([other], "a", country="PER"))  # fmt: skip
    assert merged["source"].tolist() == ["a;b"]
    assert merged["country"].tolist() == ["PER"]
    assert merged.geometry[0].area == pytest.approx(box(0, 0, 1, 1).union(other).area)
    assert merged.attrs["merged"] == {merged["site_id"][0]: ["a0", "b0"]}
    assert len(merged["site_id"][0]) == 12


def test_a_chain_merges_and_bystanders_keep_their_columns():
    chain = table([box(i, 0, i + 1.2, 1) for i in range(4)], "c", name=list("wxyz"))
    alone = table([box(50, 0, 51, 1)], "l", name=["lone"], flag=[True])
    merged = merge_sites(chain, alone)
    assert len(merged) == 2
    lone = merged.set_index("site_id").loc["l0"]
    assert lone["name"] == "lone"
    assert merged.loc[merged["site_id"] != "l0", "name"].isna().all()
    assert merged["flag"].dtype == "boolean"


def test_countries_that_disagree_are_null():
    merged = merge_sites(table([SQUARE], "a", country="PER"), table([SQUARE], "b", country="BOL"))
    assert merged["country"].isna().all()


def test_touching_at_180_is_touching():
    merged = merge_sites(table([box(179, 0, 180, 1)], "e"), table([box(-180, 0, -179, 1)], "w"))
    assert len(merged) == 1
    assert merged.geometry[0].area == pytest.approx(2.0)


def test_the_merged_area_is_measured_anew():
    merged = merge_sites(table([SQUARE, translate(SQUARE, 0.005)]))
    expected = geodesic_area_km2(gpd.GeoSeries([SQUARE.union(translate(SQUARE, 0.005))], crs=4326))
    assert merged["area_km2"][0] == pytest.approx(expected[0], rel=1e-9)


def test_empty_tables_are_harmless():
    some = table([SQUARE], "a", n=[1])
    assert merge_sites(some, some.iloc[:0])["site_id"].tolist() == ["a0"]
    nothing = merge_sites(some.iloc[:0], some.iloc[:0])
    assert len(nothing) == 0
    assert list(nothing.columns) == [*CONTRACT, "n"]


def test_one_id_for_two_places_is_refused():
    with pytest.raises(SiteError, match=r"\['s0'\] name several separate sites"):
        merge_sites(table([SQUARE], "s"), table([BOWTIE.buffer(0)], "s"))


@pytest.mark.parametrize(
    ("frames", "fault"),
    [
        ([], "at least one"),
        ([table([SQUARE]).drop(columns="source")], r"table 0 has no columns \['source'\]"),
        ([table([SQUARE]), table([SQUARE]).to_crs(3857)], "table 1: sites must be in EPSG:4326"),
    ],
)
def test_tables_that_are_no_site_tables(frames, fault):
    with pytest.raises(SiteError, match=fault):
        merge_sites(*frames)


squares = st.lists(
    st.builds(
        lambda x, y, w: box(x / 4, y / 4, x / 4 + w / 4, y / 4 + w / 4),
        st.integers(0, 30), st.integers(0, 30), st.integers(1, 6),
    ),
    min_size=1, max_size=8,
)  # fmt: skip


@given(squares, st.randoms(use_true_random=False))
def test_laws_of_merging(shapes, random):
    frame = table(shapes, "m")
    merged = merge_sites(frame)
    union = shapely.union_all(shapes)
    assert merged.geometry.union_all().symmetric_difference(union).area < 1e-9
    for a, b in itertools.combinations(merged.geometry, 2):
        assert not a.intersects(b)
    members = [m for group in merged.attrs["merged"].values() for m in group]
    assert sorted(members + [i for i in merged["site_id"] if i.startswith("m")]) == sorted(
        frame["site_id"]
    )
    order = list(range(len(shapes)))
    random.shuffle(order)
    cut = random.randint(0, len(shapes))
    parts = frame.iloc[order[:cut]], frame.iloc[order[cut:]]
    again = merge_sites(*parts)
    assert_frame_equal(again, merged)
    assert again.geometry.geom_equals_exact(merged.geometry, 0).all()
    twice = merge_sites(merged)
    assert twice["site_id"].tolist() == merged["site_id"].tolist()


# ---- real files ---------------------------------------------------------------------------------


@pytest.mark.real
def test_lames_sectors_are_repaired_and_their_site_id_is_no_id(real_data):
    path = real_data("vector/lames_chile/Chile_LSM_sectors.geojson")
    with pytest.warns(SiteWarning, match="not unique"):
        sectors = read_sites(path)
    crossed = [r for r in sectors.attrs["repaired"] if "outline" not in r["repair"]]
    # the provider's note counts 10 invalid outlines among 1,204
    assert len(crossed) == 10
    assert sectors.geometry.is_valid.all()
    assert sectors["area_km2"].sum() == pytest.approx(390, rel=0.01)
    assert "site_id_file" in sectors


@pytest.mark.real
def test_chile_merges_to_the_known_number_of_sites(real_data):
    folder = "vector/lames_chile/"
    sites = read_sites(real_data(folder + "Chile_LSM_sites_Maus_et_al_subset.geojson"))
    sectors = read_quietly(real_data(folder + "Chile_LSM_sectors.geojson"))
    merged = merge_sites(sites, sectors)
    assert len(merged) == 227
    assert merged["area_km2"].sum() == pytest.approx(3773, rel=0.005)
    parts = merge_sites(sectors[sectors["class"].astype(str) != "0"]).geometry.count_geometries()
    # a separate planar program cut its unions of the 1,203 classed sectors into 1,148 polygons
    assert parts.sum() == 1148
    assert set(sites["country"]) == {"CHL"}


@pytest.mark.real
def test_mine_titles_in_an_equal_area_grid_keep_their_area(real_data):
    path = real_data("vector/brazil_amapa_sigmine/AP_mineracao_equalarea.gpkg")
    titles = read_quietly(path, layer="sigmine_AP_2021_poly")
    plane = titles.to_crs("+proj=cea +ellps=WGS84").area.sum() / 1e6
    assert titles["area_km2"].sum() == pytest.approx(plane, rel=1e-6)

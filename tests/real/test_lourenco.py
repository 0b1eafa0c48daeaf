"""A real gold district from plain rasters to the report, against plain Python."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from lourenco import (
    KINDS,
    SHORT,
    YEARS,
    District,
    Reference,
    extract,
    follow_pixels,
    minetrace,
    read_district,
    read_mines,
    split_box,
    touched,
)
from shapely.geometry import MultiPolygon, Polygon, box

import minetrace as mt
import realdata
from minetrace.errors import LegendError, RecipeError, RunError, SourceError
from minetrace.panel import read_geoparquet, read_table
from minetrace.schema import (
    FAILURES,
    SITE_PANEL,
    SITE_TABLE,
    TRANSITION_AREAS,
    Recipe,
    check_table,
    load_recipe,
)
from minetrace.sites import SiteWarning

pytestmark = pytest.mark.real

RECIPE = """
years = [1985, 2022]
[landcover]
source = "catalog"
legend = "mapbiomas_c8"
[status]
years = [2018, 2022]
"""


@pytest.fixture(scope="module")
def raster(real_data) -> Path:
    return real_data(realdata.LOURENCO)


@pytest.fixture(scope="module")
def district(raster) -> District:
    return read_district(raster)


@pytest.fixture(scope="module")
def reference(district) -> Reference:
    return follow_pixels(district)


@pytest.fixture(scope="module")
def place(raster, tmp_path_factory) -> Path:
    """A folder with the catalogue, built by the command, and the recipe."""
    folder = tmp_path_factory.mktemp("lourenco")
    done = minetrace("catalog", "build", raster, "--out", folder / "catalog", "--legend",
                     "mapbiomas_c8")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "lourenco.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def recipe(place) -> Recipe:
    return load_recipe(place / "lourenco.toml")


@pytest.fixture(scope="module")
def sites(real_data, district, place) -> gpd.GeoDataFrame:
    """Read back from the file that the run reads, so that both have the same outlines."""
    read_mines(
        real_data(realdata.TITLES), realdata.TITLES_LAYER, real_data(realdata.DETECTIONS), district
    ).to_file(place / "sites.gpkg")
    return mt.read_sites(place / "sites.gpkg", id_column="site_id")


@pytest.fixture(scope="module")
def run(place, sites) -> Path:
    """Output of the command over all sites; some lie partly or wholly outside the raster."""
    done = minetrace("run", "--sites", place / "sites.gpkg", "--id-column", "site_id",
                     "--recipe", place / "lourenco.toml", "--out", place / "run")  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    return place / "run"


@pytest.fixture(scope="module")
def codes(district, recipe) -> xr.DataArray:
    """Land cover of the whole box through the engine, computed."""
    return mt.open_cube(district.lonlat(), recipe)["landcover/landcover"].compute()


@pytest.fixture(scope="module")
def inside(codes, district) -> tuple[slice, slice]:
    """Rows and columns of the cube that are the raster's pixels."""
    t, (_, ny, nx) = district.transform, district.codes.shape
    row, col = np.argmin(abs(codes.y.values - t.f - t.e / 2)), np.argmin(
        abs(codes.x.values - t.c - t.a / 2)
    )  # fmt: skip
    return slice(int(row), int(row) + ny), slice(int(col), int(col) + nx)


# ---- the whole box -------------------------------------------------------------------


def test_the_function_builds_the_same_catalogue(raster, place, tmp_path):
    mt.build_catalog([raster], tmp_path / "catalog", legend="mapbiomas_c8")
    mine, theirs = (
        {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
        for root in (tmp_path / "catalog", place / "catalog")
    )
    assert len([name for name in mine if name.suffix == ".tif"]) == YEARS.size
    assert mine == theirs


def test_every_pixel_passes_unchanged(codes, inside, district):
    np.testing.assert_array_equal(codes.values[:, *inside], district.codes)
    assert np.count_nonzero(codes) == np.count_nonzero(district.codes)


def test_mining_pixels_are_those_of_the_publisher(codes, district):
    for coverage, exact in (("centre", 0), ("fraction", 1e-9)):
        found = mt.class_areas(codes, district.whole, legend="mapbiomas_c8", coverage=coverage)
        mining = found[found.code == 30].set_index("year")["n_pixels"]
        assert mining.loc[[1985, 2022]].tolist() == pytest.approx([9756, 20235], rel=exact)
        by_numpy = (district.codes == 30).sum(axis=(1, 2))
        np.testing.assert_allclose(mining.loc[YEARS], by_numpy, rtol=exact)


def test_areas_of_change_equal_the_slow_reference(codes, district, reference):
    found = mt.transition_areas(codes, district.whole, legend="mapbiomas_c8", coverage="centre")
    found = found.set_index(["year", "cover"])
    expected = reference.areas().reindex(found.index, fill_value=0.0)
    assert (expected["development_km2"].groupby("year").sum() > 0).sum() > 25
    np.testing.assert_allclose(found[expected.columns], expected, rtol=1e-9, atol=0)
    assert set(found.index) == {(y, c) for y in YEARS[1:] for c in mt.schema.COVERS}


def test_years_of_change_equal_the_slow_reference(codes, inside, district, reference):
    found = mt.transitions(codes, legend="mapbiomas_c8")
    for what in ("development", "reclamation"):
        events = reference.events[reference.events["what"] == what]
        pixels = events.groupby(["row", "col"])["year"].agg(["min", "max", "size"])
        at = tuple(np.array(pixels.index.tolist()).T)
        for name, column in ((f"first_{what}", "min"), (f"last_{what}", "max"),
                             (f"n_{what}", "size")):  # fmt: skip
            expected = np.zeros(district.codes.shape[1:], np.int64)
            expected[at] = pixels[column]
            values = found[name].values[inside]
            np.testing.assert_array_equal(values[reference.changed], expected[reference.changed])
            assert not values[~reference.changed].any()


@pytest.mark.parametrize("coverage", ["fraction", "centre"])
def test_ragged_parts_of_the_box_add_up(codes, district, coverage):
    parts = split_box(district, pieces=7, seed=3)
    # their union has every corner of theirs: an edge is bent onto the grid between its corners
    whole = gpd.GeoDataFrame({"site_id": ["box"]}, geometry=[parts.union_all()], crs=4326)
    options = {"legend": "mapbiomas_c8", "coverage": coverage}
    for measure, key in ((mt.class_areas, "code"), (mt.transition_areas, "cover")):
        pieces, total = (
            measure(codes, frame, **options)
            .groupby(["year", key])
            .sum(numeric_only=True)
            .filter(regex="km2|n_pixels")
            for frame in (parts, whole)
        )
        assert len(total) == len(pieces)
        np.testing.assert_allclose(pieces, total, rtol=1e-9, atol=1e-12)


# ---- the sites -----------------------------------------------------------------------


def test_tables_keep_their_contracts(run, sites):
    table = check_table(read_geoparquet(run / "site_table.parquet"), SITE_TABLE)
    panel = check_table(read_geoparquet(run / "site_panel.parquet"), SITE_PANEL)
    moves = check_table(read_table(run / "transition_areas.parquet"), TRANSITION_AREAS)
    assert len(table) == 174
    assert set(panel.site_id) == set(moves.site_id) == set(table.site_id) < set(sites.site_id)
    assert len(panel) == len(table) * YEARS.size
    assert table[["ndvi_trend", "ntl_trend"]].isna().all(axis=None)
    assert panel[["ndvi", "ntl"]].isna().all(axis=None)
    assert (table.n_years_bsp == 5).all()


def test_sites_beyond_the_raster_are_rows_of_the_failures(run, sites, district):
    failures = check_table(read_table(run / "failures.parquet"), FAILURES)
    table = read_geoparquet(run / "site_table.parquet").set_index("site_id")
    read = sites.set_index("site_id").to_crs(district.crs).geometry
    share = read.intersection(district.seen).area / read.area
    outside, partly = share.index[share == 0], share.index[(share > 0) & (share < 0.99)]
    assert (len(outside), len(partly)) == (8, 19)
    assert set(failures.site_id) == {*outside, *partly}
    assert set(table.index) == set(share.index[share > 0])
    np.testing.assert_allclose(table["observed_share"], share[table.index], rtol=0, atol=2e-5)
    reasons = failures.set_index("site_id")["reason"]
    assert reasons[partly].str.contains("% of the site is covered by land cover").all()
    assert reasons[outside].str.contains("outside the data|no item here").all()


def test_the_report_says_what_is_missing_and_what_counts_twice(run, sites):
    page = (run / "report.html").read_text()
    table = read_geoparquet(run / "site_table.parquet")
    most = table.loc[table["development_km2"].idxmax(), "site_id"]
    rows = page[page.index('id="site-table"') :]
    assert most == min(table.site_id, key=lambda site_id: rows.index(f">{site_id}<"))
    pairs = table[["site_id", "area_km2", "geometry"]].to_crs("EPSG:6933")
    shared = gpd.overlay(pairs, pairs, keep_geom_type=True)
    shared = shared[shared.site_id_1 != shared.site_id_2]
    shared = shared[shared.area / 1e6 > 1e-3 * shared.area_km2_1]
    assert f"of which {shared.site_id_1.nunique()} overlap" in page
    for said in ("Imagery (NDVI): no data.", "Night lights: no data.",
                 "8 sites could not be analysed", "legend mapbiomas_c8", "174 sites"):  # fmt: skip
        assert said in page


def test_sites_alone_give_the_numbers_of_the_run(run, sites, recipe):
    panel = read_geoparquet(run / "site_panel.parquet").set_index("site_id")
    moves = read_table(run / "transition_areas.parquet").set_index("site_id")
    table = read_geoparquet(run / "site_table.parquet").set_index("site_id")
    chosen = [
        *table["development_km2"].nlargest(6).index,
        *table["observed_share"].nsmallest(4).index,
    ]
    for site_id in chosen:
        row = sites[sites.site_id == site_id]
        cover = mt.open_cube(row, recipe)["landcover/landcover"]
        alone = mt.bare_surface_percentage(cover, row, legend="mapbiomas_c8")
        np.testing.assert_array_equal(panel.loc[site_id, "bsp"], alone["bsp"])
        alone = mt.transition_areas(cover, row, legend="mapbiomas_c8").set_index("site_id")
        pd.testing.assert_frame_equal(moves.loc[[site_id]], alone, check_exact=True)


def test_bare_surface_changes_only_where_pixels_do(run, sites, district):
    """Rounding alone must never look like a trend: five values decide a site's status."""
    panel = read_geoparquet(run / "site_panel.parquet").set_index(["site_id", "year"])["bsp"]
    recent = panel.unstack().loc[:, 2018:2022]
    mine = KINDS[district.codes[-5:]] == 6
    busy = (mine != mine[0]).any(axis=0)
    ground = sites.to_crs(district.crs).set_index("site_id").geometry[recent.index]
    calm = [not busy[touched(shape, district)].any() for shape in ground]
    assert 100 < sum(calm) < 174
    assert (recent[calm].nunique(axis=1) == 1).all()
    assert (recent[np.invert(calm)].nunique(axis=1) > 1).any()


def test_site_areas_equal_exactextract(run, sites, codes, district, reference):
    table = read_geoparquet(run / "site_table.parquet").set_index("site_id")
    busy = table[(table["observed_share"] > 0.99) & (table["development_km2"] > 0)]
    chosen = sites[sites.site_id.isin(busy.sample(20, random_state=1).index)]
    events = reference.events
    first = events[(events["what"] == "development") & events["first"]]
    disturbed = np.zeros(district.codes.shape[1:])
    disturbed[first["row"], first["col"]] = 1
    theirs = extract(disturbed, chosen, district)
    # an edge may stray by 1/1000 pixel, so to compare a few pixels give both the same corners
    unique = table.loc[theirs.index, "development_unique_km2"]
    assert (abs(unique - theirs) < 1e-6 * table.loc[theirs.index, "area_km2"]).all()
    cut = chosen.assign(geometry=chosen.segmentize(SHORT))
    found = mt.class_areas(codes, cut, legend="mapbiomas_c8")
    found = found.pivot(index="site_id", columns=["year", "code"], values="area_km2").fillna(0.0)
    for year, code in ((2022, 30), (1985, 3), (1985, 30)):
        theirs = extract(district.codes[year - 1985] == code, cut, district)
        assert (theirs > 0).sum() >= 10
        np.testing.assert_allclose(found.loc[theirs.index, (year, code)], theirs, rtol=1e-6)


def test_one_site_stays_lazy_until_asked(sites, recipe, no_compute):
    cube = mt.open_cube(sites.iloc[[0]], recipe)
    landcover = cube["landcover/landcover"]
    assert landcover.chunks is not None
    assert landcover.sizes["time"] == YEARS.size
    changes = mt.transitions(landcover, legend="mapbiomas_c8")
    assert changes["first_development"].chunks is not None
    with pytest.raises(AssertionError, match="computed"):
        changes.load()


def test_a_saved_cube_opens_anywhere_with_the_same_values(sites, recipe, tmp_path):
    cube = mt.open_cube(sites.iloc[[0]], recipe)
    mt.save_cube(cube, tmp_path / "site.zarr")
    with xr.open_datatree(tmp_path / "site.zarr", engine="zarr", mask_and_scale=False) as again:
        landcover = again["landcover/landcover"]
        xr.testing.assert_equal(landcover.drop_attrs().load(),
                                cube["landcover/landcover"].drop_attrs().compute())  # fmt: skip
        assert landcover.dtype == np.uint8


# ---- other forms, and bad input ------------------------------------------------------


def test_yearly_files_of_the_older_collection(real_data, tmp_path):
    """36 uint16 files with 65535 and 0 for no data, left where they are."""
    files = sorted(real_data(realdata.LOURENCO_ANNUAL).glob("*.tif"))
    catalog = mt.build_catalog(files, tmp_path / "c6", legend="mapbiomas_c8", link=True)
    recipe = Recipe.model_validate(
        {"name": "c6", "years": (1985, 2020),
         "landcover": {"source": str(catalog), "legend": "mapbiomas_c8"}}
    )  # fmt: skip
    first = read_district(files[0])
    cube = mt.open_cube(first.lonlat(), recipe)
    found = mt.class_areas(cube["landcover/landcover"], first.whole, legend="mapbiomas_c8",
                           coverage="centre")  # fmt: skip
    mining = found[found.code == 30].set_index("year")["n_pixels"]
    counts = {int(f.stem[-4:]): int((read_district(f).codes == 30).sum()) for f in files}
    assert len(counts) == 36
    assert mining.to_dict() == counts
    assert set(found.code) <= {0, 3, 4, 11, 12, 15, 30, 33, 41}


def test_a_raster_without_crs_is_refused(raster, tmp_path):
    bare = tmp_path / "bare_2000.tif"
    with rasterio.open(raster) as src:
        profile = {**src.profile, "crs": None, "count": 1}
        with rasterio.open(bare, "w", **profile) as dst:
            dst.write(src.read(1), 1)
    with pytest.raises(SourceError, match=r"bare_2000\.tif has no CRS"):
        mt.build_catalog([bare], tmp_path / "catalog")
    assert not (tmp_path / "catalog").exists()


def test_a_legend_of_another_product_is_refused(raster, tmp_path):
    with pytest.raises(LegendError, match=r"\[3, 6, 11, 12, 15, .*'esa_worldcover'"):
        mt.build_catalog([raster], tmp_path / "catalog", legend="esa_worldcover")
    assert not list(tmp_path.iterdir())


def test_bad_outlines_are_rows_while_others_finish(recipe, tmp_path):
    bow_tie = Polygon([(-51.66, 2.30), (-51.64, 2.32), (-51.64, 2.30), (-51.66, 2.32)])
    fiji = MultiPolygon([box(179.9, -17, 180, -16.9), box(-180, -17, -179.9, -16.9)])
    shapes = {"good": box(-51.66, 2.32, -51.65, 2.33), "none": None, "empty": Polygon(),
              "bow tie": bow_tie, "fiji": fiji, "africa": box(20, 5, 20.1, 5.1)}  # fmt: skip
    odd = gpd.GeoDataFrame({"site_id": list(shapes)}, geometry=list(shapes.values()), crs=4326)
    odd.to_file(tmp_path / "odd.gpkg")
    with pytest.warns(SiteWarning, match="2 of 6 features left out"):
        read = mt.read_sites(tmp_path / "odd.gpkg", id_column="site_id")
    assert not mt.run_sites(read, recipe, tmp_path / "out").complete
    table = read_geoparquet(tmp_path / "out" / "site_table.parquet").set_index("site_id")
    assert set(table.index) == {"good", "bow tie"}
    assert table.loc["bow tie", "area_km2"] == pytest.approx(2.457, abs=0.01)
    reasons = read_table(tmp_path / "out" / "failures.parquet").set_index("site_id")["reason"]
    assert set(reasons.index) == {"none", "empty", "fiji", "africa"}
    assert reasons.str.len().gt(10).all()
    assert not list((tmp_path / "out").rglob("*.part"))


def test_recipes_that_cannot_be_met(place, sites, tmp_path):
    (tmp_path / "odd.toml").write_text(RECIPE + "alhpa = 0.1\n")
    with pytest.raises(RecipeError, match=r"odd\.toml: status\.alhpa: unknown key"):
        mt.open_cube(sites.iloc[[0]], tmp_path / "odd.toml")
    (place / "future.toml").write_text(RECIPE.replace("[1985, 2022]", "[2030, 2040]"))
    with pytest.raises(SourceError, match="no item here in 2030-2040"):
        mt.open_cube(sites.iloc[[0]], place / "future.toml")
    with pytest.raises(RunError, match=r"none of 2 sites gave a result: .*2030-2040"):
        mt.run_sites(sites.iloc[:2], place / "future.toml", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*table.parquet"))

"""The simulation against plain numpy, rasterio and pymannkendall: never against minetrace."""

import filecmp
import json
from itertools import pairwise
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pymannkendall
import pystac
import pystac.validation
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask
from shapely import unary_union

from minetrace.errors import InputError
from minetrace.schema import load_legend, load_recipe
from minetrace.simulate import MARKER, simulate_mines
from minetrace.simulate.ground import make_ground
from minetrace.simulate.plane import UTM, lonlat_grid
from minetrace.simulate.products import landcover_layers, light_months, scenes
from minetrace.simulate.scenario import (
    FOREST_NDVI,
    SCRIPTS,
    make_mines,
    scene_bounds,
    unsteady,
)
from minetrace.simulate.truth import trend, truth_table

LAYERS = [1985, 1990, 1995, *range(2000, 2023)]
BARE = [183, 190, 200, 201, 202, 210]
CLOUDED = [0, 1, 3, 8, 9, 10, 11]
WINDOW = range(2018, 2023)
PRODUCTS = {"landcover": LAYERS, "imagery": list(WINDOW), "lights": list(range(2013, 2023))}
# kind: status, stage, trends of bare surface, NDVI, night lights
EXPECTED = {
    "growing_pit": ("active", "expanding", 1, -1, 1),
    "reclaimed": ("closed", "shrinking", -1, 1, -1),
    "forest": ("undefined", "stable", 0, 0, 0),
    "desert": ("undefined", "stable", 0, 0, 0),
    "lit_plant": ("active", "stable", 0, 0, 1),
    "abandoned": ("closed", "stable", 0, 1, 0),
    "old_pit": ("active", "expanding", 1, -1, 1),
    "five_year_start": ("closed", "stable", 0, 0, -1),
}
TRENDS = ["bsp_trend", "ndvi_trend", "ntl_trend"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("simulate") / "demo"
    catalog, truth = simulate_mines(out)
    assert catalog == out / "catalog.json"
    return out, truth


def read(path):
    with rasterio.open(path) as src:
        return src.read(1), src.transform, src.crs


def item(out, name):
    return json.loads((out / name).read_text(encoding="utf-8"))


def inside(table, shape, transform, crs):
    return [geometry_mask([g], shape, transform, invert=True) for g in table.geometry.to_crs(crs)]


def bare_shares(codes, masks):
    return [np.isin(codes[m & (codes > 0)], BARE).mean() for m in masks]


def mann_kendall_sign(series):
    result = pymannkendall.original_test(series)
    return int(np.sign(result.s)) if result.p < 0.05 else 0


def annual_ndvi(stack, masks):
    """Site means of the NDVI of the median composite; ``stack`` is (date, [red, nir, scl])."""
    clear = np.array([~np.isin(scl, CLOUDED) for _, _, scl in stack])
    red, nir = (np.where(clear, np.array([s[i] for s in stack]), np.nan) for i in (0, 1))
    seen = clear.any(axis=0)
    red, nir = (np.nanmedian(b[:, seen], axis=0) for b in (red, nir))
    ndvi = np.full(seen.shape, np.nan)
    ndvi[seen] = (nir - red) / (nir + red)
    return [np.nanmean(ndvi[m]) for m in masks]


# ---------------------------------------------------------------- truth, without rasters


@pytest.mark.parametrize("seed", range(6))
def test_every_kind_has_the_status_its_script_means(seed):
    truth = truth_table(make_mines(16, seed), WINDOW, PRODUCTS)
    found = truth.set_index("kind")[["status", "stage", *TRENDS]]
    assert len(found) == 16
    for kind, row in found.iterrows():
        assert tuple(row) == EXPECTED[kind]


def test_first_five_sites_are_the_promised_ones():
    kinds = [m.script.kind for m in make_mines(5, 0)]
    assert kinds == ["growing_pit", "reclaimed", "forest", "desert", "lit_plant"]


def test_first_disturbance_of_each_kind():
    truth = truth_table(make_mines(8, 0), WINDOW, PRODUCTS).set_index("kind")
    year, layer = truth["first_disturbance_year"], truth["first_disturbance_layer"]
    assert year[["forest", "desert"]].isna().all()
    assert layer[["forest", "desert"]].isna().all()
    for kind in ("growing_pit", "reclaimed", "lit_plant"):
        assert year[kind] == layer[kind]
    assert (year["five_year_start"], layer["five_year_start"]) == (1992, 1995)
    assert layer["abandoned"] == 1995
    assert year["old_pit"] < 1985 < layer["old_pit"] == 1990


@pytest.mark.parametrize("seed", [0, 5])
def test_forty_sites_are_apart_of_the_promised_size_and_hold_their_pits(seed):
    mines = make_mines(40, seed)
    outlines = [m.outline for m in mines]
    assert all(1e6 < o.area < 4e6 and o.is_valid for o in outlines)
    total = unary_union([o.buffer(60) for o in outlines]).area
    assert total == pytest.approx(sum(o.buffer(60).area for o in outlines))
    for mine in mines:
        for pit in mine.pits.values():
            assert mine.outline.buffer(-30).contains(pit)


@pytest.mark.parametrize("mine", make_mines(16, 3), ids=lambda m: f"{m.number}-{m.script.kind}")
def test_pits_and_greened_cores_are_strictly_nested(mine):
    pits = [mine.pits[y] for y in sorted(mine.pits)]
    cores = [mine.cores[y] for y in sorted(mine.cores)]
    for small, large in [*pairwise(pits), *pairwise(cores[::-1])]:
        assert large.buffer(1e-6).contains(small)
        assert large.area - small.area > 4000, "less than five land-cover pixels"


@pytest.mark.parametrize("seed", range(4))
def test_trends_are_beyond_doubt_or_out_of_the_question(seed):
    for mine in make_mines(16, seed):
        series = [(mine.bsp, 0.01), (mine.ndvi, 0.01), (mine.radiance, 0.8)]
        for (curve, step), expected in zip(series, EXPECTED[mine.script.kind][2:], strict=True):
            values = np.array([curve(y) for y in WINDOW])
            if expected:
                assert (expected * np.diff(values)).min() > step
            else:
                assert abs(pymannkendall.original_test(values).s) <= 2


@pytest.mark.parametrize("first", range(2000, 2019))
def test_the_swing_has_no_trend_in_any_five_years(first):
    values = [unsteady(y) for y in range(first, first + 5)]
    assert abs(pymannkendall.original_test(values).s) <= 6
    assert sorted(values) == [-2, -1, 0, 1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_trend_rule_is_mann_kendalls_at_five_percent(seed):
    rng = np.random.default_rng(seed)
    for series in rng.integers(0, 6, (300, 5)):
        if np.ptp(series):
            assert trend(series) == mann_kendall_sign(series), series


def test_ndvi_of_a_half_bare_site_lies_between():
    mine = make_mines(1, 0)[0]
    share = mine.bsp(2022)
    assert mine.ndvi(2022) == pytest.approx(share * 0.08 + (1 - share) * FOREST_NDVI)


# ---------------------------------------------------------------- rasters against the truth


def test_bare_share_of_every_layer_is_the_analytic_one(demo):
    out, truth = demo
    for year in LAYERS:
        codes, transform, crs = read(out / f"landcover/landcover_{year}.tif")
        found = bare_shares(codes, inside(truth, codes.shape, transform, crs))
        np.testing.assert_allclose(found, truth[f"bsp_{year}"], atol=0.02)


def test_written_rasters_have_the_true_trends(demo):
    out, truth = demo
    series = {"bsp_trend": [], "ndvi_trend": [], "ntl_trend": []}
    for year in WINDOW:
        codes, transform, crs = read(out / f"landcover/landcover_{year}.tif")
        masks = inside(truth, codes.shape, transform, crs)
        series["bsp_trend"].append(bare_shares(codes, masks))
        stack = [decoded(out, path) for path in sorted(out.glob(f"imagery/*_{year}????.json"))]
        assert len(stack) == 6
        _, transform, crs = read(next(out.glob("imagery/*_scl.tif")))
        masks = inside(truth, stack[0][0].shape, transform, crs)
        series["ndvi_trend"].append(annual_ndvi(stack, masks))
        months = [read(p) for p in sorted(out.glob(f"lights/*_{year}??.tif"))]
        assert len(months) == 12
        masks = inside(truth, months[0][0].shape, *months[0][1:])
        seen = [m[0] for m in months if not np.isnan(m[0]).all()]
        series["ntl_trend"].append([np.mean(seen, axis=0)[m].mean() for m in masks])
    for name, table in series.items():
        found = [mann_kendall_sign(column) for column in np.transpose(table)]
        assert found == truth[name].tolist(), name


def decoded(out, path):
    """Red and near-infrared reflectance and the scene classes of one item."""
    assets = item(out, path)["assets"]
    bands = []
    for key in ("red", "nir"):
        counts, *_ = read(path.parent / assets[key]["href"])
        code = assets[key]["raster:bands"][0]
        bands.append(np.where(counts == 0, np.nan, counts * code["scale"] + code["offset"]))
    return (*bands, read(path.parent / assets["scl"]["href"])[0])


@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_and_kinds_reach_their_trends_in_the_arrays(seed):
    mines = make_mines(8, seed)
    plane = GeoBox.from_bbox(scene_bounds(8), UTM, resolution=20)
    degrees, coarse = lonlat_grid(plane, 0.00026949), lonlat_grid(plane, 15 / 3600)
    outlines = gpd.GeoDataFrame(geometry=[m.outline for m in mines], crs=UTM)
    on = {id(g): inside(outlines, g.shape, g.affine, str(g.crs)) for g in (plane, degrees, coarse)}
    ground = make_ground(mines, degrees, seed)
    bsp = [
        bare_shares(codes, on[id(degrees)])
        for _, codes in landcover_layers(mines, degrees, ground, WINDOW, seed)
    ]
    true = [[m.bsp(y) for m in mines] for y in WINDOW]
    np.testing.assert_allclose(bsp, true, atol=0.02)
    by_year = {y: [] for y in WINDOW}
    for s in scenes(mines, plane, make_ground(mines, plane, seed), WINDOW, seed):
        red, nir = (s.bands[b] * 1e-4 + s.offset for b in ("red", "nir"))
        by_year[s.time.year].append((red, nir, s.scl))
    ndvi = [annual_ndvi(stack, on[id(plane)]) for stack in by_year.values()]
    months = list(light_months(mines, coarse, WINDOW, seed))
    ntl = [
        [np.nanmean([n[m].mean() for t, n in months if t.year == y]) for m in on[id(coarse)]]
        for y in WINDOW
    ]
    for i, table in enumerate((bsp, ndvi, ntl)):
        found = [mann_kendall_sign(column) for column in np.transpose(table)]
        assert found == [EXPECTED[s.kind][2 + i] for s in SCRIPTS]


def test_noise_between_sister_classes_never_looks_like_mining(demo):
    out, truth = demo
    legend = load_legend("glc_fcs30d")
    codes = [read(out / f"landcover/landcover_{y}.tif") for y in LAYERS]
    stack = np.array([c for c, *_ in codes])
    legend.require(np.unique(stack).tolist(), "the simulation")
    (forest,) = inside(truth[truth.kind == "forest"], stack[0].shape, *codes[0][1:])
    pixels = stack[:, forest]
    assert (pixels != pixels[0]).any(), "no noise at all"
    kinds = legend.lut[pixels]
    assert (kinds == kinds[0]).all()


# ---------------------------------------------------------------- products as promised


def test_landcover_has_the_layers_of_the_product_and_one_scan_gap_off_the_sites(demo):
    out, truth = demo
    files = sorted(out.glob("landcover/*.tif"))
    assert [int(f.stem[-4:]) for f in files] == LAYERS
    gaps = {}
    for file in files:
        codes, transform, crs = read(file)
        gaps[file.stem] = codes == 0
        assert codes.dtype == np.uint8
    assert sum(g.any() for g in gaps.values()) == 1
    gap = next(g for g in gaps.values() if g.any())
    near = gpd.GeoDataFrame(geometry=truth.to_crs(UTM).buffer(60))
    assert not any((gap & m).any() for m in inside(near, gap.shape, transform, crs))


def test_scenes_change_their_offset_with_the_processing_baseline(demo):
    out, _ = demo
    for path in sorted(out.glob("imagery/imagery_*.json")):
        scene = item(out, path)
        new = scene["properties"]["datetime"] >= "2022-01-25"
        for key in ("blue", "green", "red", "nir"):
            (band,) = scene["assets"][key]["raster:bands"]
            assert band["offset"] == (-0.1 if new else 0.0)
            assert (band["scale"], band["nodata"], band["data_type"]) == (0.0001, 0, "uint16")
    assert item(out, "imagery/collection.json")["extent"]["temporal"]["interval"][0][0] < "2018-02"
    last = sorted(out.glob("imagery/imagery_2022*.json"))
    assert item(out, last[0])["properties"]["datetime"] < "2022-01-25"
    red, nir, scl = decoded(out, last[-1])
    forest = scl == 4
    right = np.median((nir - red)[forest] / (nir + red)[forest])
    wrong = np.median((nir - red)[forest] / (nir + red + 0.2)[forest])
    assert right > 0.7
    assert right - wrong > 0.2


def test_scenes_hold_cloud_shadow_and_a_swath_edge(demo):
    out, _ = demo
    classes, shares = set(), []
    for path in sorted(out.glob("imagery/imagery_*.json")):
        red, _, scl = decoded(out, path)
        classes |= set(np.unique(scl))
        cloud = np.isin(scl, [8, 9])
        shares.append(item(out, path)["properties"]["eo:cloud_cover"])
        assert shares[-1] == pytest.approx(100 * cloud.mean(), abs=1)
        assert np.isnan(red[scl == 0]).all()
        assert red[cloud].min() > 0.4
        assert item(out, path)["properties"]["datetime"].endswith("T10:30:00Z")
    assert classes == {0, 3, 4, 5, 6, 8, 9}
    assert min(shares) < 2
    assert max(shares) > 35


def test_lights_miss_a_month_and_dip_below_zero(demo):
    out, _ = demo
    months = {f.stem[-6:]: read(f)[0] for f in sorted(out.glob("lights/*.tif"))}
    assert list(months) == [f"{y}{m:02d}" for y in range(2013, 2023) for m in range(1, 13)]
    missing = [name for name, ntl in months.items() if np.isnan(ntl).all()]
    assert [name[:4] for name in missing] == [str(y) for y in range(2013, 2023)]
    seen = np.array([ntl for name, ntl in months.items() if name not in missing])
    assert not np.isnan(seen).any()
    assert 0 < (seen < 0).mean() < 0.05
    assert seen.min() > -0.5
    assert np.median(seen) == pytest.approx(0.2, abs=0.05)


def test_rasters_are_cloud_optimised(demo):
    out, _ = demo
    for path in [*out.glob("landcover/*.tif"), *out.glob("imagery/*_2020*.tif"),
                 *out.glob("lights/*_2020*.tif")]:  # fmt: skip
        with rasterio.open(path) as src:
            assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert src.block_shapes == [(256, 256)]
            assert src.compression.name == "deflate"
            assert max(src.shape) <= 512 or src.overviews(1)


def test_catalogue_is_valid_whole_and_self_contained(demo):
    out, _ = demo
    catalog = pystac.Catalog.from_file(out / "catalog.json")
    assert [c.id for c in catalog.get_children()] == ["landcover", "imagery", "lights"]
    for node in [catalog, *catalog.get_children(), *catalog.get_items(recursive=True)]:
        # core schemas are part of pystac; those of extensions would need the network
        pystac.validation.validate_dict(node.to_dict(include_self_link=False), extensions=[])
        for asset in getattr(node, "assets", {}).values():
            assert Path(asset.get_absolute_href()).is_file()
    for path in out.rglob("*.json"):
        assert str(out.parent) not in path.read_text(encoding="utf-8")


def test_items_describe_the_grid_of_their_files(demo):
    out, _ = demo
    for name in ("landcover/landcover_2000", "imagery/imagery_20180114", "lights/lights_202001"):
        described = item(out, f"{name}.json")
        for asset in described["assets"].values():
            with rasterio.open((out / name).parent / asset["href"]) as src:
                band = asset["raster:bands"][0]
                assert described["properties"]["proj:code"] == src.crs.to_string()
                assert described["properties"]["proj:shape"] == list(src.shape)
                assert described["properties"]["proj:transform"] == list(src.transform)[:6]
                assert band["data_type"] == src.dtypes[0]
                assert float(band["nodata"]) == pytest.approx(src.nodata, nan_ok=True)


def test_tables_and_recipe_say_what_was_returned(demo):
    out, truth = demo
    sites = gpd.read_file(out / "sites.gpkg", layer="sites")
    assert sites.columns.tolist() == ["site_id", "name", "kind", "geometry"]
    assert sites.crs == truth.crs == "EPSG:4326"
    assert sites.geometry.geom_equals(truth.geometry).all()
    stored = pd.read_csv(out / "truth.csv", dtype=truth.drop(columns="geometry").dtypes.to_dict())
    pd.testing.assert_frame_equal(stored, pd.DataFrame(truth.drop(columns="geometry")))
    assert gpd.read_file(out / "truth.gpkg").shape == truth.shape
    recipe = load_recipe(out / "recipe.toml")
    assert (recipe.name, recipe.years, recipe.status.years) == ("demo", (1985, 2022), (2018, 2022))
    assert recipe.imagery.mask == "scl"
    assert recipe.lights.band == "ntl"


def test_the_whole_stays_small(demo):
    out, _ = demo
    assert sum(p.stat().st_size for p in out.rglob("*")) < 40e6


# ---------------------------------------------------------------- options and refusals


def test_same_arguments_same_bytes_and_another_seed_differs(tmp_path):
    years = [1990, 2000, 2021, 2022]
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        simulate_mines(tmp_path / name, sites=2, years=years, seed=seed)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) > 100
    same, differ, errors = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)
    assert (len(same), differ, errors) == (len(files), [], [])
    _, differ, _ = filecmp.cmpfiles(tmp_path / "a", tmp_path / "c", files, shallow=False)
    assert Path("truth.csv") in differ
    assert Path("landcover/landcover_2022.tif") in differ


def test_years_before_the_sensors_have_no_such_products(tmp_path):
    catalog, truth = simulate_mines(tmp_path / "early", sites=2, years=range(1990, 2011))
    assert not (catalog.parent / "imagery").exists()
    recipe = load_recipe(catalog.parent / "recipe.toml")
    assert (recipe.imagery, recipe.lights) == (None, None)
    assert recipe.status.years == (2006, 2010)
    assert truth["ndvi_trend"].isna().all()
    assert truth["ntl_trend"].isna().all()
    assert truth[["status", "stage"]].to_numpy().tolist() == [["active", "expanding"]] * 2
    assert [c for c in truth if c.startswith("bsp_1")] == ["bsp_1990", "bsp_1995"]


def test_a_rerun_replaces_and_leaves_nothing_behind(tmp_path):
    out = tmp_path / "demo"
    simulate_mines(out, sites=1, years=[2000, 2001])
    simulate_mines(out, sites=1, years=[2001])
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]
    assert [p.name for p in sorted(out.glob("landcover/*.tif"))] == ["landcover_2001.tif"]
    assert json.loads((out / MARKER).read_text())["years"] == [2001]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sites": 0}, "0 sites"),
        ({"sites": 401}, "401 sites"),
        ({"years": []}, "none of the years"),
        ({"years": [1986, 2030]}, "none of the years"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        simulate_mines(tmp_path / "demo", **options)
    assert list(tmp_path.iterdir()) == []


def test_folders_of_others_are_never_replaced(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        simulate_mines(file, sites=1, years=[2000])
    with pytest.raises(InputError, match="no simulation wrote"):
        simulate_mines(tmp_path, sites=1, years=[2000])
    assert file.read_text() == "mine"

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from minetrace.errors import InputError, LegendError, RecipeError
from minetrace.schema import (
    COVERS,
    FAILURES,
    GROUPS,
    NODES,
    SITE_PANEL,
    SITE_TABLE,
    SITES,
    TRANSITION_AREAS,
    UNKNOWN,
    Kind,
    Recipe,
    check_table,
    load_legend,
    load_recipe,
    validate,
)
from minetrace.schema.shipped import shipped_names

# ---- legends ------------------------------------------------------------------------------------

GOOD = """
name = "mine"
title = "My legend"
[[class]]
code = 0
name = "none"
group = "nodata"
[[class]]
code = 7
name = "Forest"
group = "dense"
cover = "forest"
color = "#00aa00"
[[class]]
code = 9
name = "Pit"
group = "mine"
"""


def legend_file(folder, text):
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["glc_fcs30d", "mapbiomas_c8", "esa_worldcover", "io_lulc"])
def test_shipped_legends_load_and_have_every_account(name):
    legend = load_legend(name)
    assert legend.name == name
    assert {c.cover for c in legend.classes} - {None} <= set(COVERS)
    groups = {c.group for c in legend.classes}
    assert {"mine", "cropland", "dense", "nodata"} <= groups <= set(GROUPS)
    assert all(len(c.color) == 7 and c.color[0] == "#" for c in legend.classes)
    assert load_legend(legend) is legend


GLC = {
    Kind.NODATA: (0, 250),
    Kind.CROPLAND: (10, 11, 12, 20),
    Kind.FOREST: (51, 52, 61, 62, 71, 72, 81, 82, 91, 92, 181, 185),
    Kind.SHRUBLAND: (120, 121, 122),
    Kind.GRASSLAND: (130, 182, 186),
    Kind.SPARSE: (140, 150, 152, 153),
    Kind.MINE: (183, 190, 200, 201, 202, 210),
    Kind.OTHER: (184, 187, 220),
}
"""The groups of Xu et al., and the choices made where the paper is silent."""


def test_glc_fcs30d_has_the_published_groups():
    legend = load_legend("glc_fcs30d")
    expected = {code: kind for kind, codes in GLC.items() for code in codes}
    assert {c.code: c.kind for c in legend.classes} == {
        code: kind for code, kind in expected.items() if code in legend.codes
    }
    assert set(expected) - set(legend.codes) <= {250}


def test_mapbiomas_mining_is_mine_related():
    assert load_legend("mapbiomas_c8").by_code(30).group == "mine"


def test_a_users_legend_and_its_table(tmp_path):
    legend = load_legend(legend_file(tmp_path, GOOD))
    assert legend.codes == (0, 7, 9)
    assert legend.nodata_codes == (0,)
    assert legend.lut.dtype == np.uint8
    assert legend.lut.shape == (256,)
    assert legend.lut[[0, 7, 9, 8]].tolist() == [Kind.NODATA, Kind.FOREST, Kind.MINE, UNKNOWN]
    assert legend.by_code(9).color == "#808080"


def test_codes_that_the_legend_misses_are_named():
    legend = load_legend("esa_worldcover")
    legend.require([10, 20], "here")
    with pytest.raises(LegendError, match=r"cube 4 holds class codes \[7, 30\d?\].*esa_worldcover"):
        legend.require(np.array([[10, 7], [300, 7]]), "cube 4")
    with pytest.raises(LegendError, match="no class 77"):
        legend.by_code(77)


def row(**changes):
    fields = {"code": 1, "name": '"a"', "group": '"dense"', "cover": '"forest"', **changes}
    lines = [f"{k} = {v}" for k, v in fields.items() if v is not None]
    return "[[class]]\n" + "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name = [", "not valid TOML"),
        ('name = "x"', r"no \[\[class\]\]"),
        ('nmae = "x"\n' + row(), r"unknown keys \['nmae'\]"),
        (row(colour='"#000000"'), r"unknown keys \['colour'\] in class 1"),
        (row() + "\n" + row(), r"codes \[1\] are given more than once"),
        (row(code=255), "255 is not an integer from 0 to 254"),
        (row(code=-1), "-1 is not an integer"),
        (row(code='"1"'), "'1' is not an integer"),
        (row(code="true"), "True is not an integer"),
        (row(code=None), "None is not an integer"),
        (row(code=0), "class 0 is 'dense', but 0 is the cube's own no-data value; map the"),
        (row(code=0, group='"mine"', cover=None), "class 0 is 'mine', but 0 is"),
        (row(code=0, group='"other"', cover=None), "class 0 is 'other', but 0 is"),
        (row(group='"vegetation"'), "group 'vegetation'; use one of"),
        (row(group=None), "group None; use one of"),
        (row(cover=None), "its cover is one of .'forest', 'shrubland', 'grassland'"),
        (row(cover='"sparse"'), "not 'sparse'"),
        (row(group='"mine"'), "is 'mine' and can have no cover"),
        (row(name=None), "class 1 has no name"),
        (row(color='"green"'), "color 'green'"),
        ("class = 3", "class"),
        ("class = [3]", "class"),
    ],
)  # fmt: skip
def test_faulty_legends_say_what_is_wrong(tmp_path, text, fault):
    path = legend_file(tmp_path, text)
    with pytest.raises(LegendError, match=fault) as caught:
        load_legend(path)
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("load", "error"), [(load_legend, LegendError), (load_recipe, RecipeError)]
)
def test_a_file_that_is_no_text(tmp_path, load, error):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(error, match="not valid TOML"):
        load(path)


def test_an_unknown_legend_lists_the_shipped_ones():
    with pytest.raises(LegendError, match=r"no legend 'glc'.*esa_worldcover, glc_fcs30d"):
        load_legend("glc")


# ---- recipes ------------------------------------------------------------------------------------

MINIMAL = """
years = [1990, 2000]
[landcover]
source = "catalog.json"
legend = "glc_fcs30d"
"""


def recipe_file(folder, text):
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_takes_its_name_and_folder_from_its_file(tmp_path):
    recipe = load_recipe(recipe_file(tmp_path, MINIMAL))
    assert recipe.name == "mine"
    assert recipe.folder == tmp_path.resolve()
    assert recipe.years == (1990, 2000)
    assert recipe.imagery is None
    assert load_recipe(recipe) is recipe


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("years = [", "not valid TOML"),
        ("yaers = [1, 2]\n" + MINIMAL, "yaers: unknown key"),
        (MINIMAL + "resample = 1", r"landcover\.resample: unknown key"),
        (MINIMAL.replace("[1990, 2000]", "[2000, 1990]"), "year 2000 is after last year 1990"),
        (MINIMAL.replace("[1990, 2000]", "[1990]"), "years"),
        ("years = [1990, 2000]", "names no product"),
        (MINIMAL + "[change]\nmin_persistence = 0", r"change\.min_persistence: .*greater"),
        (MINIMAL + '[change]\ncoverage = "touch"', r"change\.coverage: .*'fraction' or 'centre'"),
        (MINIMAL + "[status]\nalpha = 5", r"status\.alpha: .*less than 1"),
        (MINIMAL + "[status]\nyears = [2023, 2018]", r"status\.years: .*2023 is after .*2018"),
        (MINIMAL + '[imagery]\nsource = "s"\nresolution = 0', r"imagery\.resolution: .*greater"),
        (MINIMAL + '[imagery]\nbands = ["red"]', r"imagery\.source: Field required"),
        (MINIMAL + '[imagery]\nsource = "s"\ncrs = "utm"', "resolution"),
        ("landcover = 3\nyears = [1990, 2000]", "landcover"),
    ],
)
def test_faulty_recipes_name_the_key(tmp_path, text, fault):
    path = recipe_file(tmp_path, text)
    with pytest.raises(RecipeError, match=fault) as caught:
        load_recipe(path)
    assert "mine.toml" in str(caught.value)


def test_an_unknown_recipe_lists_the_shipped_ones():
    with pytest.raises(RecipeError, match=r"no recipe 'x'.*landcover_only"):
        load_recipe("x")


def test_the_fingerprint_is_of_the_settings_alone(tmp_path):
    recipe = load_recipe(recipe_file(tmp_path, MINIMAL))
    (tmp_path / "elsewhere").mkdir()
    same = load_recipe(recipe_file(tmp_path / "elsewhere", "# a comment\n" + MINIMAL))
    assert same.fingerprint == recipe.fingerprint
    for text in (
        MINIMAL.replace("2000", "2001"),
        MINIMAL + "[change]\nmin_persistence = 2",
        MINIMAL + "[status]\nalpha = 0.1",
    ):
        assert load_recipe(recipe_file(tmp_path, text)).fingerprint != recipe.fingerprint


@pytest.mark.parametrize("name", shipped_names("cubes"))
def test_shipped_recipes_load_and_name_shipped_sources(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    for product in (*recipe.products, *(["terrain"] if recipe.terrain else [])):
        source = getattr(recipe, product).source
        assert source in shipped_names("catalogs") or source.endswith("catalog.json")


def test_recipes_cannot_be_changed(tmp_path):
    recipe = load_recipe(recipe_file(tmp_path, MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        recipe.years = (1, 2)
    assert isinstance(recipe, Recipe)


# ---- cubes --------------------------------------------------------------------------------------


def landcover_node(dtype="uint8", dims=("time", "y", "x"), name="landcover", crs=True):
    data = xr.Dataset({name: (dims, np.zeros((1, 2, 3), dtype))})
    return data.assign_coords(spatial_ref=0) if crs else data


def test_a_lawful_cube_passes_unread(no_compute):
    lazy = landcover_node().chunk()
    cube = xr.DataTree.from_dict({"/landcover": lazy})
    assert validate(cube) is cube


@pytest.mark.parametrize(
    ("node", "fault"),
    [
        (landcover_node(crs=False), "'landcover' has no spatial_ref"),
        (landcover_node(dtype="int16"), "landcover/landcover is int16, the contract is uint8"),
        (landcover_node(dims=("y", "x", "time")), r"has dims \('y', 'x', 'time'\)"),
    ],
)
def test_unlawful_cubes_are_refused(node, fault):
    with pytest.raises(InputError, match=fault):
        validate(xr.DataTree.from_dict({"/landcover": node}))


def test_what_holds_for_all_years_has_no_time():
    still = landcover_node(dtype="float32", name="slope").isel(time=0)
    assert validate(xr.DataTree.from_dict({"/terrain": still}))
    with pytest.raises(InputError, match=r"terrain/slope has dims \('time', 'y', 'x'\), not"):
        validate(xr.DataTree.from_dict({"/terrain": landcover_node(dtype="float32", name="slope")}))
    ring = landcover_node(dtype="int16", name="ring").isel(time=0)
    with pytest.raises(InputError, match="rings/ring is int16, the contract is uint8"):
        validate(xr.DataTree.from_dict({"/rings": ring}))


def test_a_recipe_may_add_bands():
    node = landcover_node(dtype="float32", name="rededge")
    assert validate(xr.DataTree.from_dict({"/imagery": node}))


def test_registered_variables_agree_with_their_keys():
    for variables in NODES.values():
        for name, variable in variables.items():
            assert variable.name == name
            assert np.dtype(variable.dtype).name == variable.dtype
            assert set(variable.attrs) == {"long_name", "units"}


# ---- tables -------------------------------------------------------------------------------------

TABLES = {
    "sites": (SITES, {"site_id": ["a"], "area_km2": [1.0], "source": ["s"], "country": [None]}),
    "panel": (
        SITE_PANEL,
        {
            "site_id": ["a"], "year": [2000], "bsp": [0.5], "reclamation_rate": [0.5],
            "ndvi": [np.nan], "ntl": [-0.1], "development_km2": [np.nan],
            "reclamation_km2": [0.0], "n_pixels": [3.5],
        },
    ),
    "table": (
        SITE_TABLE,
        {
            "site_id": ["a"], "area_km2": [1.0], "country": ["GHA"],
            "bsp_trend": pd.array([1], "Int8"), "ndvi_trend": pd.array([None], "Int8"),
            "ntl_trend": pd.array([0], "Int8"), "stage": [None], "status": ["active"],
            "conflict": [False], "n_years_bsp": [5], "n_years_ndvi": [0], "n_years_ntl": [5],
        },
    ),
    "moves": (
        TRANSITION_AREAS,
        {
            "site_id": ["a"], "year": [1990], "interval_years": [5], "cover": ["forest"],
            "development_km2": [0.1], "reclamation_km2": [0.0],
            "development_unique_km2": [0.1], "reclamation_unique_km2": [0.0],
        },
    ),
    "failures": (
        FAILURES,
        {"site_id": ["a"], "item": [None], "asset": [None], "window": [None], "reason": ["r"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_lawful_tables_pass(name):
    schema, columns = TABLES[name]
    assert len(check_table(pd.DataFrame(columns), schema)) == 1
    assert len(check_table(pd.DataFrame(columns).iloc[:0], schema)) == 0


def test_a_null_text_stays_null():
    schema, columns = TABLES["sites"]
    assert check_table(pd.DataFrame(columns), schema)["country"].isna().all()


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("sites", {"site_id": ["a", "a"]}, "site_id"),
        ("sites", {"area_km2": [-1.0]}, "area_km2"),
        ("sites", {"source": [None]}, "source"),
        ("panel", {"bsp": [1.1]}, "bsp"),
        ("panel", {"n_pixels": [np.nan]}, "n_pixels"),
        ("panel", {"year": [2000.0]}, "year"),
        ("panel", {"site_id": ["a", "a"]}, "site_id"),
        ("table", {"status": ["dormant"]}, "status"),
        ("table", {"stage": ["growing"]}, "stage"),
        ("table", {"bsp_trend": pd.array([2], "Int8")}, "bsp_trend"),
        ("moves", {"cover": ["swamp"]}, "cover"),
        ("moves", {"interval_years": [0]}, "interval_years"),
        ("moves", {"extra": [1]}, "extra"),
        ("failures", {"why": ["x"]}, "why"),
    ],
)
def test_unlawful_tables_name_the_column(name, change, fault):
    schema, columns = TABLES[name]
    length = max(len(v) for v in change.values())
    frame = pd.DataFrame(columns)
    frame = pd.concat([frame] * length, ignore_index=True).assign(**change)
    with pytest.raises(InputError, match=fault) as caught:
        check_table(frame, schema)
    assert "breaks its contract" in str(caught.value)


def test_a_missing_column_is_named():
    schema, columns = TABLES["panel"]
    with pytest.raises(InputError, match="ntl"):
        check_table(pd.DataFrame(columns).drop(columns="ntl"), schema)

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pymannkendall
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pandas.testing import assert_frame_equal
from shapely.geometry import box

from minetrace.change import land_account
from minetrace.errors import InputError
from minetrace.panel import (
    read_geoparquet,
    read_table,
    site_panel,
    site_table,
    write_geoparquet,
    write_table,
)
from minetrace.schema import SITE_PANEL, SITE_TABLE, ChangeRecipe, StatusRecipe
from minetrace.sites import geodesic_area_km2
from minetrace.zones import cover

LAYERS = (1990, 1995, 2000, 2001, 2002, 2003, 2004)
STATUS = StatusRecipe(years=(2000, 2004), alpha=0.05, min_valid=4, p_value="exact")
CHANGE = ChangeRecipe(first_disturbance_share=0.1)


def site_frame(*names):
    outlines = [box(i, 0, i + 0.1, 0.1) for i in range(len(names))]
    columns = {"site_id": list(names), "area_km2": 10.0, "source": "test", "country": None}
    return gpd.GeoDataFrame(columns, geometry=outlines, crs=4326)


def composition_of(site_id, bsp, observed_km2=8.0):
    return pd.DataFrame(
        {
            "site_id": site_id,
            "year": LAYERS,
            "bsp": bsp,
            "observed_km2": np.where(np.isnan(bsp), 0.0, observed_km2),
            "n_pixels": np.where(np.isnan(bsp), 0.0, 100.5),
        }
    )


def moves_of(site_id, development, unique=None, reclamation=0.0):
    """Transition rows over forest and cropland: 3/4 and 1/4 of each layer's area."""
    rows = []
    for i, year in enumerate(LAYERS[1:]):
        for name, part in (("cropland", 0.25), ("forest", 0.75)):
            rows.append(
                {
                    "site_id": site_id,
                    "year": year,
                    "interval_years": year - LAYERS[i],
                    "cover": name,
                    "development_km2": part * development[i],
                    "reclamation_km2": part * reclamation,
                    "development_unique_km2": part * (unique or development)[i],
                    "reclamation_unique_km2": 0.0,
                }
            )
    return pd.DataFrame(rows)


def yearly(site_id, values, first=2000):
    years = range(first, first + len(values))
    return pd.DataFrame({"site_id": site_id, "year": years, "value": values})


RISING = [0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def one_site():
    return {
        "composition": composition_of("a", np.array(RISING)),
        "transitions": moves_of("a", [0.0, 0.4, 0.3, 0.2, 0.0, 1.0], reclamation=0.5),
        "ndvi": yearly("a", [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]),
        "ntl": None,
    }


def table_of(sites, layers, **options):
    panel = site_panel(sites, **layers)
    recipe = {"status": STATUS, "change": CHANGE, **options}
    land = {k: layers[k] for k in ("composition", "transitions")}
    return site_table(panel, sites, **land, **recipe)


def test_the_panel_has_the_union_of_years_and_its_gaps():
    panel = site_panel(site_frame("a"), **one_site()).set_index("year")
    assert panel.index.tolist() == [*LAYERS, 2005]
    assert panel["reclamation_rate"].iloc[:7].tolist() == [1 - b for b in RISING]
    assert np.isnan(panel.loc[2005, ["bsp", "reclamation_rate", "development_km2"]]).all()
    assert panel["n_pixels"].tolist() == [100.5] * 7 + [0.0]
    assert np.isnan(panel.loc[1995, "ndvi"])
    assert panel.loc[2005, "ndvi"] == 0.4
    assert panel["ntl"].isna().all()


def test_areas_are_summed_over_covers_and_unknown_before_the_second_layer():
    panel = site_panel(site_frame("a"), **one_site()).set_index("year")
    assert np.isnan(panel.loc[1990, ["development_km2", "reclamation_km2"]]).all()
    expected = [0.0, 0.4, 0.3, 0.2, 0.0, 1.0]
    np.testing.assert_allclose(panel.loc[list(LAYERS[1:]), "development_km2"], expected)
    np.testing.assert_allclose(panel.loc[list(LAYERS[1:]), "reclamation_km2"], 0.5)


def test_a_layer_without_data_has_no_areas():
    layers = one_site()
    layers["composition"].loc[3, ["bsp", "n_pixels"]] = [np.nan, 0.0]
    panel = site_panel(site_frame("a"), **layers).set_index("year")
    assert np.isnan(panel.loc[LAYERS[3], ["development_km2", "reclamation_km2"]]).all()
    assert panel.loc[LAYERS[4], "development_km2"] == pytest.approx(0.2)


def test_sites_keep_their_own_rows_and_geometry_whatever_the_order():
    sites = site_frame("b", "a")
    ndvi = pd.concat([yearly("b", [0.1, 0.2]), yearly("a", [0.3])])
    panel = site_panel(sites, composition=None, transitions=None, ndvi=ndvi, ntl=None)
    assert panel[["site_id", "year"]].values.tolist() == [["a", 2000], ["b", 2000], ["b", 2001]]
    assert panel["ndvi"].tolist() == [0.3, 0.1, 0.2]
    assert panel.geometry.tolist() == [sites.geometry[1], sites.geometry[0], sites.geometry[0]]
    assert panel.crs == sites.crs
    assert list(panel.columns) == [*SITE_PANEL.columns, "geometry"]


def test_no_layers_and_no_sites_give_an_empty_panel_and_a_full_table():
    nothing = {"composition": None, "transitions": None, "ndvi": None, "ntl": None}
    assert len(site_panel(site_frame("a"), **nothing)) == 0
    table = table_of(site_frame("a"), nothing)
    assert table.loc[0, ["status", "conflict", "n_years_bsp"]].tolist() == ["undefined", False, 0]
    assert table.loc[0, ["bsp_trend", "stage", "first_disturbance_year"]].isna().all()
    assert table.loc[0, ["development_km2", "observed_share", "bsp_p"]].isna().all()
    empty = table_of(site_frame("a").iloc[:0], nothing)
    assert len(empty) == 0
    assert list(empty.columns) == list(table.columns)


@pytest.mark.parametrize("layer", ["composition", "ndvi", "transitions"])
def test_unknown_sites_are_named(layer):
    with pytest.raises(InputError, match=r"(composition|transitions|ndvi).*\['a'\]"):
        site_panel(site_frame("z"), **{**one_site(), "composition": None, layer: one_site()[layer]})


def test_repeated_site_years_are_refused():
    layers = one_site()
    layers["ndvi"] = pd.concat([layers["ndvi"], layers["ndvi"].iloc[[2]]])
    with pytest.raises(InputError, match=r"ndvi table repeats .*2002"):
        site_panel(site_frame("a"), **layers)


def test_a_missing_column_is_named():
    layers = one_site()
    layers["ndvi"] = layers["ndvi"].rename(columns={"value": "mean"})
    with pytest.raises(InputError, match=r"ndvi table has no columns \['value'\]"):
        site_panel(site_frame("a"), **layers)
    with pytest.raises(InputError, match="observed_km2"):
        table_of(site_frame("a"), {**one_site(), "composition": one_site()["composition"]
                                   .rename(columns={"observed_km2": "x"})})  # fmt: skip


def test_trends_of_the_table_are_those_of_an_independent_program():
    values = [0.3, 0.35, 0.32, 0.5, 0.6]
    table = table_of(
        site_frame("a"),
        {"composition": None, "transitions": None, "ndvi": yearly("a", values), "ntl": None},
        status=STATUS.model_copy(update={"p_value": "normal", "alpha": 0.1}),
    )
    peer = pymannkendall.original_test(values, alpha=0.1)
    row = table.iloc[0]
    assert row["ndvi_p"] == pytest.approx(peer.p, abs=1e-12)
    assert row["ndvi_slope"] == pytest.approx(peer.slope, abs=1e-12)
    assert row["ndvi_trend"] == {"increasing": 1, "decreasing": -1}.get(peer.trend, 0)


def test_only_the_status_years_enter_the_trends():
    layers = {**one_site(), "ntl": yearly("a", [1.0, 2.0, 3.0, 2.5, 4.0, 5.0, 6.0], first=1998)}
    row = table_of(site_frame("a"), layers).iloc[0]
    assert row[["n_years_bsp", "n_years_ndvi", "n_years_ntl"]].tolist() == [5, 5, 5]
    # 2000-2004: 3, 2.5, 4, 5, 6 has one inversion, so S = 8; exact p = 2 * 5 / 120
    assert row["ntl_p"] == pytest.approx(10 / 120)
    assert row["ntl_trend"] == 0


def test_status_follows_the_tree_and_keeps_all_trends():
    row = table_of(site_frame("a"), one_site()).iloc[0]
    assert row[["status", "stage", "conflict"]].tolist() == ["active", "expanding", False]
    assert row[["bsp_trend", "ndvi_trend"]].tolist() == [1, -1]
    assert row["ntl_trend"] is pd.NA
    assert row["n_years_ntl"] == 0
    assert row["bsp_slope"] == pytest.approx(0.1)
    # five strictly rising values: 2 of 120 orders are as extreme
    assert row["bsp_p"] == pytest.approx(2 / 120)


def test_too_few_years_give_a_null_trend_with_their_number():
    layers = {**one_site(), "composition": None, "transitions": None}
    layers["ndvi"] = yearly("a", [0.9, 0.8, 0.7])
    row = table_of(site_frame("a"), layers).iloc[0]
    assert row["ndvi_trend"] is pd.NA
    assert row["n_years_ndvi"] == 3
    assert row["status"] == "undefined"


def test_first_disturbance_is_when_the_unique_area_reaches_the_share():
    # 0.1 × 8 km² observed = 0.8; unique ground so far: 0, 0.3, 0.3, 0.8, 0.8, 1.8
    layers = one_site()
    layers["transitions"] = moves_of(
        "a", development=[2.0, 0.5, 0.5, 0.5, 0.0, 1.0], unique=[0.0, 0.3, 0.0, 0.5, 0.0, 1.0]
    )
    row = table_of(site_frame("a"), layers).iloc[0]
    assert row["first_disturbance_year"] == 2002
    assert row["first_disturbance_interval"] == 1
    assert row["development_km2"] == pytest.approx(4.5)
    assert row["development_unique_km2"] == pytest.approx(1.8)


def test_a_first_disturbance_before_2000_keeps_its_interval():
    layers = one_site()
    layers["transitions"] = moves_of("a", [0.9, 0, 0, 0, 0, 0])
    row = table_of(site_frame("a"), layers).iloc[0]
    assert row[["first_disturbance_year", "first_disturbance_interval"]].tolist() == [1995, 5]


def test_below_the_share_there_is_no_first_disturbance():
    layers = one_site()
    layers["transitions"] = moves_of("a", [0.79, 0, 0, 0, 0, 0])
    table = table_of(site_frame("a"), layers)
    assert table["first_disturbance_year"].dtype == "Int64"
    assert table["first_disturbance_year"].isna().all()
    assert table.loc[0, "development_km2"] == pytest.approx(0.79)


def test_the_share_is_of_the_largest_observed_area():
    layers = one_site()
    layers["composition"].loc[6, "observed_km2"] = 9.0
    assert table_of(site_frame("a"), layers).loc[0, "observed_share"] == pytest.approx(0.9)


def test_a_site_never_observed_has_no_areas_and_no_start():
    sites = site_frame("a", "dark")
    gap = composition_of("dark", np.full(7, np.nan))
    layers = one_site()
    layers["composition"] = pd.concat([layers["composition"], gap])
    layers["transitions"] = pd.concat([layers["transitions"], moves_of("dark", [0.0] * 6)])
    row = table_of(sites, layers).set_index("site_id").loc["dark"]
    areas = ["development_km2", "reclamation_km2", "development_unique_km2"]
    assert row[[*areas, "first_disturbance_year"]].isna().all()
    assert row["observed_share"] == 0
    assert row["n_years_bsp"] == 0


def test_the_table_has_the_rows_of_the_sites_in_their_order():
    layers = one_site()
    table = table_of(site_frame("c", "a", "b"), layers)
    assert table["site_id"].tolist() == ["c", "a", "b"]
    assert table["status"].tolist() == ["undefined", "active", "undefined"]
    assert list(table.columns[:12]) == list(SITE_TABLE.columns)


def account_of(layers, years, sites):
    grid = GeoBox.from_bbox((0, 0, 1, 0.5), 4326, resolution=0.05)
    data = np.broadcast_to(np.asarray(layers, np.uint8)[:, None, None], (len(layers), *grid.shape))
    coords = {**xr_coords(grid), "time": [np.datetime64(f"{y}-01-01", "ns") for y in years]}
    dims = ("time", *grid.dimensions)
    codes = xr.DataArray(data, coords=coords, dims=dims, name="landcover")
    account = land_account(codes, cover(sites, grid), legend="glc_fcs30d", min_persistence=1)
    return {"composition": account.composition, "transitions": account.transitions,
            "ndvi": None, "ntl": None}  # fmt: skip


def test_the_accounts_of_land_cover_fit():
    shape = box(0.12, 0.11, 0.43, 0.38)
    outline = shape.segmentize(0.001)
    sites = gpd.GeoDataFrame(
        {"site_id": ["a"], "area_km2": 1.0, "source": "s", "country": None},
        geometry=[shape], crs=4326,
    )  # fmt: skip
    sites["area_km2"] = geodesic_area_km2(gpd.GeoSeries([outline], crs=4326))
    # a pixel cut by the outline counts by its share in degrees: 1e-7 off on these 5 km pixels
    # forest → bare ground → no data → forest
    layers = account_of([51, 200, 0, 51], [2000, 2001, 2002, 2003], sites)
    panel = site_panel(sites, **layers).set_index("year")
    area = sites["area_km2"][0]
    np.testing.assert_allclose(panel["bsp"], [0, 1, np.nan, 0])
    np.testing.assert_allclose(panel["development_km2"], [np.nan, area, np.nan, 0], rtol=1e-6)
    np.testing.assert_allclose(panel["reclamation_km2"], [np.nan, 0, np.nan, area], rtol=1e-6)
    row = table_of(sites, layers).iloc[0]
    assert row["first_disturbance_year"] == 2001
    assert row["observed_share"] == pytest.approx(1, rel=1e-6)


def test_a_single_layer_gives_composition_but_no_change():
    sites = site_frame("a")
    layers = account_of([200], [2000], sites)
    panel = site_panel(sites, **layers)
    assert panel["bsp"].tolist() == [1.0]
    assert panel["development_km2"].isna().all()
    row = table_of(sites, layers).iloc[0]
    assert row[["first_disturbance_year", "development_km2"]].isna().all()


def test_geoparquet_round_trip_and_metadata(tmp_path):
    panel = site_panel(site_frame("a"), **one_site())
    path = write_geoparquet(panel.sample(frac=1, random_state=1), tmp_path / "p.parquet")
    assert_frame_equal(read_geoparquet(path), panel)
    geo = pq.read_schema(path).metadata[b"geo"].decode()
    assert '"version": "1.1.0"' in geo
    assert '"covering": {"bbox"' in geo
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    assert [p.name for p in tmp_path.iterdir()] == ["p.parquet"]


def test_the_site_table_survives_a_round_trip(tmp_path):
    table = table_of(site_frame("a"), one_site())
    assert_frame_equal(read_geoparquet(write_geoparquet(table, tmp_path / "t.parquet")), table)


def test_equal_tables_give_equal_bytes(tmp_path):
    panel = site_panel(site_frame("a"), **one_site())
    a = write_geoparquet(panel, tmp_path / "a.parquet")
    b = write_geoparquet(panel.iloc[::-1], tmp_path / "b.parquet")
    assert a.read_bytes() == b.read_bytes()
    moves = one_site()["transitions"]
    c, d = (write_table(moves, tmp_path / name) for name in ("c.parquet", "d.parquet"))
    assert c.read_bytes() == d.read_bytes()
    assert_frame_equal(read_table(c), moves)


def test_an_empty_table_is_written_and_read(tmp_path):
    empty = table_of(site_frame("a"), one_site()).iloc[:0]
    back = read_geoparquet(write_geoparquet(empty, tmp_path / "e.parquet"))
    assert len(back) == 0
    assert list(back.columns) == list(empty.columns)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = write_table(pd.DataFrame({"site_id": ["a"]}), tmp_path / "t.parquet")
    before = path.read_bytes()
    with pytest.raises(ValueError):
        write_geoparquet(gpd.GeoDataFrame({"bbox": [1]}, geometry=[box(0, 0, 1, 1)]), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


@pytest.mark.parametrize("read", [read_geoparquet, read_table])
def test_files_that_are_no_tables_are_refused(tmp_path, read):
    with pytest.raises(InputError, match="no table"):
        read(tmp_path / "absent.parquet")
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="no readable"):
        read(damaged)


def test_a_plain_table_is_no_geoparquet(tmp_path):
    path = write_table(pd.DataFrame({"site_id": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="no readable GeoParquet"):
        read_geoparquet(path)


def test_rounding_is_no_trend():
    """A monotone series of rounding differences, or of unequal pixels swapped, is no change."""
    for step in (1e-17, 1e-10):
        bsp = [0.3 + i * step for i in range(5)]
        frame = pd.DataFrame({"year": range(2000, 2005), "bsp": bsp, "n_pixels": 10.0})
        composition = frame.assign(site_id="a", observed_km2=8.0)
        sites = site_frame("a")
        panel = site_panel(sites, composition=composition, transitions=None, ndvi=None, ntl=None)
        table = site_table(
            panel, sites, composition=composition, transitions=None, status=STATUS, change=CHANGE
        )
        assert table.bsp_trend[0] == 0
        assert table.status[0] == "undefined"

"""The report: what it shows is what the run's tables and maps say, and it shows all of it."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import geopandas as gpd
import matplotlib as mpl
import numpy as np
import pandas as pd
import pymannkendall
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import StepPatch
from rasterio.transform import from_origin
from shapely.geometry import MultiPolygon, Point, box

from minetrace.errors import InputError
from minetrace.report import figures, load_run, page, write_report
from minetrace.report.maps import frame_around, index_maps, read_maps
from minetrace.report.style import STATUS_MARKS, to_png, to_svg
from minetrace.schema import COVERS
from report_folder import LAYERS, LEGEND, expected_statuses, make_run_folder

NASTY = {"Untouched": "<script>alert(1)</script>", "Lagoa": "{{7*7}} & $x^2$ \"'"}
VOID = {"meta", "img", "input"}


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    return make_run_folder(tmp_path_factory.mktemp("run") / "out", rename=NASTY)


@pytest.fixture
def scratch(run_folder, tmp_path) -> Path:
    """A copy of the folder to break."""
    return Path(shutil.copytree(run_folder, tmp_path / "out"))


@pytest.fixture
def bare(monkeypatch) -> pytest.MonkeyPatch:
    """Reports without their overview and cards, which take most of the time."""
    monkeypatch.setattr(page, "_MOST_CARDS", 0)
    monkeypatch.setattr(page, "_overview", lambda *_: None)
    return monkeypatch


@pytest.fixture(scope="session")
def html(run_folder, tmp_path_factory) -> str:
    expected = expected_statuses().replace({"site_id": NASTY})
    path = tmp_path_factory.mktemp("page") / "page.html"
    assert write_report(run_folder, path=path, expected=expected) == path
    return path.read_text(encoding="utf-8")


class Document(HTMLParser):
    """Elements with their attributes, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


# ---- the page -----------------------------------------------------------------------------


def test_page_asks_for_nothing_outside_itself(html):
    document = Document(html)
    assert document.open == []
    for _, attributes in document.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/")), attributes
    policy = document.all("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'; img-src data:")
    assert "@import" not in html
    assert "url(" not in html


def test_names_from_data_are_text_and_never_markup_or_template(html):
    document = Document(html)
    assert len(document.all("script")) == 1
    for name in NASTY.values():
        assert name in document.text
    assert "49 &" not in document.text


def test_page_can_be_read_without_seeing_it(html):
    document = Document(html)
    assert document.all("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in document.all("img"))
    assert all(cell["scope"] in ("row", "col") for cell in document.all("th"))
    levels = [int(tag[1]) for tag, _ in document.elements if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = [a["id"] for _, a in document.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for link in document.all("a"):
        assert link["href"][1:] in ids


def test_page_says_every_number_of_the_tables(html, run_folder):
    document, run = Document(html), load_run(run_folder)
    words = " ".join(document.text.split())
    table = run.table
    for status, n in table["status"].value_counts().items():
        assert f"{n} {status}" in words
    for column in ("development_km2", "reclamation_km2"):
        assert f"{table[column].sum():.2f} km², sum of events" in words
    assert "1985, 1990, 1995, 2000–2022" in words
    assert "1 site with contradicting trends" in words
    assert "the block at row 128 could not be decoded" in words
    assert "1 site could not be analysed (no row below): Broken." in words
    assert "7 of 8 sites agree" in words
    assert "Not as expected: Lightless (expected undefined, found active)." in words
    assert len(document.all("article")) == len(table)


def test_page_marks_a_status_by_shape_and_word_too(html):
    assert len({mark.marker for mark in STATUS_MARKS.values()}) == len(STATUS_MARKS)
    for drawing in ("M6 1 11.4 11H.6z", "M1.3 1.3h9.4v9.4H1.3z", "<circle"):
        assert drawing in html


@pytest.mark.usefixtures("bare")
def test_missing_layer_is_said_plainly(tmp_path):
    folder = make_run_folder(tmp_path / "out", lights=False)
    words = " ".join(Document(write_report(folder).read_text(encoding="utf-8")).text.split())
    assert "no data: this run had no such layer" in words
    assert "Night lights: no data. The run had no such layer" in words


def test_many_sites_get_cards_for_the_most_disturbed(scratch, bare):
    bare.setattr(page, "_MOST_CARDS", 2)
    bare.setattr(page, "_MOST_ROWS", 4)
    document = Document(write_report(scratch).read_text(encoding="utf-8"))
    table = load_run(scratch).table
    largest = table["development_km2"].nlargest(2).index
    cards = {a["id"] for a in document.all("article")}
    assert cards == {f"site-{i + 1}" for i in largest}
    assert "The 2 sites with the largest disturbed area, of 9." in document.text
    assert "The 4 sites with the largest disturbed area; site_table.parquet" in document.text
    rows = [a for a in document.all("tr") if not a]
    assert len(rows) == 3 + 1 + 2 + 1 + 1 + 4  # layers, failures and sites, each with a heading


def test_equal_folders_give_equal_pages(scratch, monkeypatch):
    monkeypatch.setattr(page, "_MOST_CARDS", 1)
    first = write_report(scratch).read_bytes()
    assert write_report(scratch).read_bytes() == first


def test_a_failed_report_leaves_the_old_one_and_no_rest(scratch, bare):
    old = write_report(scratch).read_bytes()
    before = sorted(scratch.iterdir())

    def break_off(*_: object) -> None:
        raise OSError("disk full")

    bare.setattr(page.os, "replace", break_off)
    with pytest.raises(OSError, match="disk full"):
        write_report(scratch, title="newer")
    assert (scratch / "report.html").read_bytes() == old
    assert sorted(scratch.iterdir()) == before


@pytest.mark.usefixtures("bare")
def test_title_is_given_or_made(scratch):
    assert "<h1>Surface mines, 1985–2022</h1>" in write_report(scratch).read_text("utf-8")
    made = write_report(scratch, title="A & B", path=scratch / "new" / "r.html")
    assert "<h1>A &amp; B</h1>" in made.read_text("utf-8")


# ---- bad input ----------------------------------------------------------------------------

FILES = ("run.json", "site_table.parquet", "site_panel.parquet", "transition_areas.parquet",
         "failures.parquet")  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named_with_the_command_that_writes_it(scratch, name):
    (scratch / name).unlink()
    with pytest.raises(InputError, match=rf"{name} is missing\. `minetrace run` writes it"):
        write_report(scratch)
    assert not (scratch / "report.html").exists()


@pytest.mark.parametrize("name", [*FILES, "maps/north.tif"])
def test_damaged_file_is_named(scratch, name):
    whole = (scratch / name).read_bytes()
    (scratch / name).write_bytes(whole[: len(whole) // 3])
    with pytest.raises(InputError, match=f"{name} is damaged"):
        write_report(scratch)


def test_folder_that_is_none(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "report.html").mkdir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"missing": ["radar"]}, "names products .*radar"),
        ({"years": "all"}, "run.json is damaged"),
    ],
)
def test_run_json_that_makes_no_sense(scratch, change, message):
    info = json.loads((scratch / "run.json").read_text())
    (scratch / "run.json").write_text(json.dumps(info | change))
    with pytest.raises(InputError, match=message):
        load_run(scratch)


@pytest.mark.usefixtures("bare")
def test_a_users_own_legend_travels_with_the_run(scratch):
    info = json.loads((scratch / "run.json").read_text())
    pit = {"code": 201, "name": "my pit", "group": "mine", "cover": None, "color": "#102030"}
    own = {"name": "my_own", "title": "Mine alone", "classes": [pit]}
    (scratch / "run.json").write_text(json.dumps(info | {"legend": own}))
    assert load_run(scratch).legend.by_code(201).name == "my pit"
    assert "legend my_own;" in write_report(scratch).read_text("utf-8")


def test_site_table_without_a_column_of_the_run(scratch):
    table = gpd.read_parquet(scratch / "site_table.parquet")
    table.drop(columns="ntl_slope").to_parquet(scratch / "site_table.parquet")
    with pytest.raises(InputError, match=r"lacks the columns .*ntl_slope"):
        load_run(scratch)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"site_id": ["nobody"], "status": ["active"]}, "does not have: .*nobody"),
        ({"site_id": ["Lightless"], "status": ["busy"]}, "busy"),
        ({"site_id": ["Lightless"] * 2, "status": ["active"] * 2}, "more than once"),
        ({"site_id": ["Lightless"]}, "lack the columns .*status"),
    ],
)
def test_expected_statuses_are_checked(scratch, rows, message):
    with pytest.raises(InputError, match=message):
        write_report(scratch, expected=pd.DataFrame(rows))


# ---- charts -------------------------------------------------------------------------------

_steps = st.lists(st.integers(1, 6), min_size=1, max_size=6)
_km2 = st.floats(0, 1e4)


@st.composite
def transition_areas(draw) -> pd.DataFrame:
    """Sites whose layers need not agree."""
    rows = []
    for site in range(draw(st.integers(1, 3))):
        year = 1985
        for step in draw(_steps):
            year += step
            for cover in draw(st.sets(st.sampled_from(COVERS), min_size=1)):
                rows.append((f"s{site}", year, step, cover, draw(_km2), draw(_km2)))
    columns = ["site_id", "year", "interval_years", "cover", "development_km2", "reclamation_km2"]
    return pd.DataFrame(rows, columns=columns)


@given(transition_areas())
def test_bars_hold_the_event_sums(areas):
    rates = figures.change_rates(areas)
    sums = areas["development_km2"].sum(), areas["reclamation_km2"].sum()
    assert rates.total == pytest.approx(sums, rel=1e-9, abs=1e-9)


@given(transition_areas())
def test_rates_of_each_year_in_plain_python(areas):
    rates = figures.change_rates(areas)
    for i, (start, end) in enumerate(zip(rates.edges[:-1], rates.edges[1:], strict=True)):
        for c, cover in enumerate(COVERS):
            slow = sum(
                r.development_km2 / r.interval_years
                for r in areas.itertuples()
                if r.cover == cover and r.year - r.interval_years < end and r.year > start
            )
            assert rates.development[c, i] == pytest.approx(slow, rel=1e-9, abs=1e-9)


def test_drawn_bars_are_as_large_as_the_change():
    areas = pd.DataFrame(
        {
            "site_id": "a",
            "year": [1990, 1990, 1991],
            "interval_years": [5, 5, 1],
            "cover": ["forest", "cropland", "forest"],
            "development_km2": [10.0, 5.0, 4.0],
            "reclamation_km2": [0.0, 0.0, 2.0],
        }
    )
    ax = figures.annual_change(areas).axes[0]
    bars = [p.get_data() for p in ax.patches if isinstance(p, StepPatch) and p.get_fill()]
    drawn = sum(float(np.sum((b.values - b.baseline) * np.diff(b.edges))) for b in bars)
    assert drawn == pytest.approx(10 + 5 + 4 - 2)
    assert {e for b in bars for e in b.edges} == {1985.5, 1990.5, 1991.5}


def test_years_that_no_interval_covers_stay_empty():
    areas = pd.DataFrame(
        {
            "year": [2001, 2005],
            "interval_years": [1, 1],
            "cover": "forest",
            "development_km2": 1.0,
            "reclamation_km2": 0.0,
        }
    )
    rates = figures.change_rates(areas)
    assert rates.edges.tolist() == [2000, 2001, 2004, 2005]
    assert np.isnan(rates.development[:, 1]).all()
    assert not np.isnan(rates.development[:, [0, 2]]).any()


def test_only_the_seam_is_hatched():
    areas = pd.DataFrame(
        {
            "year": [1995, 2000, 2001],
            "interval_years": [5, 5, 1],
            "cover": "forest",
            "development_km2": 1.0,
            "reclamation_km2": 0.0,
        }
    )
    hatched = [
        p
        for p in figures.annual_change(areas, seam=(1995, 2000)).axes[0].patches
        if p.get_hatch() and p.get_height() != 0
    ]
    assert [(p.get_x(), p.get_width()) for p in hatched] == [(1995.5, 5)]


def site(values: dict[int, float], *, trend: int | None, p: float, slope: float):
    panel = pd.DataFrame(
        {
            "site_id": "a",
            "year": list(values),
            "bsp": list(values.values()),
            "ndvi": np.nan,
            "ntl": np.nan,
        }
    )
    return panel, {"site_id": "a", "bsp_trend": trend, "bsp_p": p, "bsp_slope": slope}


def joined_years(line) -> set[tuple[float, float]]:
    x, y = line.get_xdata(), line.get_ydata()
    return {
        (a, b)
        for a, b, u, v in zip(x, x[1:], y, y[1:], strict=False)
        if np.isfinite(u) and np.isfinite(v)
    }


def test_line_joins_consecutive_layers_and_nothing_else():
    values = {1985: 0.1, 1988: np.nan, 1990: 0.2, 2000: 0.2, 2001: np.nan, 2002: 0.3}
    panel, row = site(values, trend=None, p=np.nan, slope=np.nan)
    layers = {"landcover": [1985, 1990, 2000, 2001, 2002]}
    line = figures.site_series(panel, row, layers=layers).axes[0].lines[0]
    assert joined_years(line) == {(1985, 1990), (1990, 2000)}
    line = figures.site_series(panel, row).axes[0].lines[0]
    assert joined_years(line) == {(1990, 2000)}


@pytest.mark.parametrize(("p", "style"), [(0.01, "-"), (0.05, "--"), (0.3, "--")])
def test_sen_line_is_solid_only_if_significant(p, style):
    y = [0.10, 0.16, 0.13, 0.21, 0.25]
    years = range(2018, 2023)
    test = pymannkendall.original_test(y)
    before = {2010 + i: 0.9 for i in range(8)}
    panel, row = site(before | dict(zip(years, y, strict=True)), trend=1, p=p, slope=test.slope)
    ax = figures.site_series(panel, row, status_years=(2018, 2022)).axes[0]
    line = ax.lines[-1]
    assert line.get_linestyle() == style
    assert list(line.get_xdata()) == [2018, 2022]
    ends = [test.intercept, test.intercept + 4 * test.slope]
    assert line.get_ydata() == pytest.approx([100 * e for e in ends])
    assert "n = 5" in ax.get_title(loc="right")


def test_no_sen_line_where_no_trend_could_be_computed():
    panel, row = site({2018: 0.1, 2019: 0.2}, trend=None, p=np.nan, slope=np.nan)
    ax = figures.site_series(panel, row, status_years=(2018, 2022)).axes[0]
    assert len(ax.lines) == 2
    assert ax.get_title(loc="right") == "no trend 2018–2022"
    assert figures.site_series(panel, row).axes[1].texts[0].get_text() == "no data"


def test_figures_leave_no_trace():
    before = dict(mpl.rcParams)
    panel, row = site({2018: 0.1, 2019: 0.2}, trend=None, p=np.nan, slope=np.nan)
    figure = figures.site_series(panel, row)
    assert to_svg(figure) == to_svg(figure)
    assert dict(mpl.rcParams) == before


# ---- maps ---------------------------------------------------------------------------------


def write_map(path: Path, bands: np.ndarray, crs: str, transform) -> Path:
    profile = {
        "driver": "GTiff",
        "count": 4,
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": "int16",
        "nodata": 0,
        "crs": crs,
        "transform": transform,
    }
    with rasterio.open(path, "w", **profile) as out:
        out.write(bands.astype(np.int16))
    return path


@pytest.mark.parametrize("crs", ["EPSG:32733", "EPSG:4326", "EPSG:3035", "ESRI:54009"])
def test_map_pixels_lie_where_they_are_on_earth(tmp_path, crs):
    """One marked pixel, found again at its own longitude and latitude."""
    place = gpd.GeoSeries([Point(15.3, 48.2)], crs="EPSG:4326").to_crs(crs).iloc[0]
    step = 0.0005 if crs == "EPSG:4326" else 40.0
    bands = np.zeros((4, 81, 81))
    bands[2:] = 10
    bands[0, 40, 40] = 2004
    corner = from_origin(place.x - 40.5 * step, place.y + 40.5 * step, step, step)
    path = write_map(tmp_path / "m.tif", bands, crs, corner)
    frame = frame_around([box(15.29, 48.19, 15.31, 48.21)])
    rows, cols = np.nonzero(read_maps([path], frame)[0] == 2004)
    x = frame.left + (cols.mean() + 0.5) / 420 * frame.width
    y = frame.top - (rows.mean() + 0.5) / 420 * frame.height
    found = gpd.GeoSeries([Point(x, y)], crs=frame.crs).to_crs("EPSG:4326").iloc[0]
    assert found.x == pytest.approx(15.3, abs=step / 4 if crs == "EPSG:4326" else 8e-5)
    assert found.y == pytest.approx(48.2, abs=step / 4 if crs == "EPSG:4326" else 8e-5)


def test_a_small_disturbance_survives_on_a_coarse_map(tmp_path):
    bands = np.zeros((4, 400, 400))
    bands[2:] = 10
    bands[0, 201, 203], bands[0, 202, 203] = 1999, 1991
    path = write_map(tmp_path / "m.tif", bands, "EPSG:4326", from_origin(10, 50, 1e-3, 1e-3))
    seen = read_maps([path], frame_around([box(10, 49.6, 10.4, 50)]), longest=40)
    assert set(np.unique(seen[0])) == {0, 1991}
    assert set(np.unique(seen[2])) <= {0, 10}


def test_neighbouring_maps_make_one_sheet(tmp_path):
    bands = np.full((4, 50, 50), 7)
    paths = [
        write_map(tmp_path / f"{i}.tif", bands + i, "EPSG:4326", from_origin(i / 2, 1, 0.01, 0.01))
        for i in range(2)
    ]
    index = index_maps(paths)
    assert index.touching(box(0.4, 0.7, 0.6, 0.8)) == tuple(paths)
    assert index.touching(box(0.6, 0.7, 0.7, 0.8)) == (paths[1],)
    sheet = read_maps(paths, frame_around([box(0.3, 0.6, 0.7, 0.9)], margin=0.0))
    assert set(np.unique(sheet)) == {7, 8}
    assert (sheet[3][:, :200] == 7).all()
    assert (sheet[3][:, 220:] == 8).all()


def test_map_without_its_bands_is_refused(tmp_path):
    path = tmp_path / "m.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        height=4,
        width=4,
        dtype="int16",
        crs="EPSG:4326",
        transform=from_origin(0, 1, 0.1, 0.1),
    ):
        pass
    with pytest.raises(InputError, match="no map of a run: it needs a CRS and the bands"):
        index_maps([path])


def test_frame_holds_a_site_across_180_degrees_in_one_piece():
    parts = MultiPolygon([box(179.9, -17.0, 180.0, -16.9), box(-180.0, -17.0, -179.95, -16.9)])
    frame = frame_around([parts], margin=0.0)
    assert abs(frame.lon) == pytest.approx(179.975)
    assert frame.width == pytest.approx(0.15 * 111_195 * np.cos(np.radians(16.95)), rel=1e-3)


@given(st.floats(-179, 178), st.floats(-75, 74), st.floats(0.001, 0.9))
def test_frame_holds_what_it_is_around(lon, lat, size):
    shape = box(lon, lat, lon + size, lat + size)
    frame = frame_around([shape], margin=0.0)
    shapes = gpd.GeoSeries([shape], crs="EPSG:4326")
    left, bottom, right, top = frame.project(shapes).total_bounds
    slack = 1e-6 * frame.width
    assert frame.left - slack <= left <= right <= frame.right + slack
    assert frame.bottom - slack <= bottom <= top <= frame.top + slack
    assert frame.width == pytest.approx(frame.height)


def test_status_map_numbers_few_sites_and_marks_all(run_folder):
    table = load_run(run_folder).table
    ax = figures.status_map(table).axes[0]
    numbers = {t.get_text() for t in ax.texts} & {str(i) for i in range(1, 10)}
    assert numbers == {str(i) for i in range(1, len(table) + 1)}
    marks = [line for line in ax.lines if line.get_marker() in "^so"]
    assert sum(len(line.get_xdata()) for line in marks) == len(table)


def test_site_maps_show_the_codes_in_the_legend_s_colours(run_folder):
    run = load_run(run_folder)
    figure = figures.site_maps(
        run.table.geometry.iloc[0],
        index_maps(run.maps),
        legend=LEGEND,
        layers=LAYERS,
        years=(1985, 2022),
    )
    titles = [ax.get_title(loc="left") for ax in figure.axes[:3]]
    assert titles == ["Land cover, 1985", "Land cover, 2022", "First disturbance, year"]
    last = np.unique(figure.axes[1].images[0].get_array().reshape(-1, 3), axis=0)
    known = {tuple(np.round(mpl.colors.to_rgb(c.color), 6)) for c in LEGEND.classes}
    assert {tuple(np.round(rgb, 6)) for rgb in last} <= known
    assert to_png(figure).startswith(b"\x89PNG")


def test_site_off_every_map_has_no_map(run_folder):
    run = load_run(run_folder)
    assert (
        figures.site_maps(
            box(10, 50, 10.1, 50.1),
            index_maps(run.maps),
            legend=LEGEND,
            layers=LAYERS,
            years=(1985, 2022),
        )
        is None
    )

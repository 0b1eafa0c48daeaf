"""The report in a real browser, opened from a file with nothing else around it."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import NAMES, Page, find_chromium

from minetrace.report import write_report
from report_folder import expected_statuses, make_run_folder

_COLUMN = "Array.from(document.querySelectorAll('#site-table tbody tr:not([hidden])'))"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = make_run_folder(
        tmp_path_factory.mktemp("run") / "out", rename={"Untouched": "<img src=x onerror=alert(1)>"}
    )
    expected = expected_statuses().iloc[:5]
    return write_report(folder, expected=expected)


@pytest.fixture
def page(report, tmp_path):
    binary = find_chromium()
    if binary is None:
        pytest.skip(f"needs one of {', '.join(NAMES)} on the path")
    with Page(binary, tmp_path / "profile") as page:
        page.resize(1100)
        page.open(report)
        yield page
        assert page.complaints == []


def column(page: Page, number: int) -> list[str]:
    return page.evaluate(f"{_COLUMN}.map(r => r.cells[{number}].firstChild.textContent.trim())")


def test_page_loads_alone_and_every_figure_appears(page, report):
    broken = "Array.from(document.images).filter(i => !i.complete || i.naturalWidth === 0).length"
    assert page.evaluate(broken) == 0
    assert page.evaluate("document.images.length") > 10
    outside = [u for u in page.requests if not u.startswith(("data:", report.as_uri()))]
    assert outside == []


def test_headings_sort_by_click_and_by_key_with_gaps_last(page):
    click = "document.querySelectorAll('#site-table thead button')[{}].click()"
    page.evaluate(click.format(5))
    disturbed = column(page, 5)
    assert disturbed[-1] == "no data"
    assert disturbed[:-1] == sorted(disturbed[:-1], key=float)
    page.evaluate("document.querySelectorAll('#site-table thead button')[5].focus()")
    page.press("Enter", 13)
    backwards = column(page, 5)
    assert backwards[-1] == "no data"
    assert backwards[:-1] == sorted(disturbed[:-1], key=float, reverse=True)
    assert page.evaluate("document.querySelectorAll('[aria-sort=descending]').length") == 1


def test_filter_shows_what_contains_the_words(page):
    page.evaluate(
        "const box = document.getElementById('filter'); box.value = 'RIO'; "
        "box.dispatchEvent(new Event('input'))"
    )
    assert column(page, 1) == ["Rio Verde"]
    assert page.evaluate("document.getElementById('shown').textContent") == "1 of 9 rows"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_its_ground(page, scheme):
    page.media(scheme=scheme)
    script = """(() => {
      const light = c => c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const ground = light(getComputedStyle(document.body).backgroundColor);
      return ['p', 'figcaption', 'a', 'td small', '.facts', 'th'].map(name => {
        const ink = light(getComputedStyle(document.querySelector('main ' + name)).color);
        return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
      });
    })()"""
    assert min(page.evaluate(script)) >= 4.5


@pytest.mark.parametrize("width", [400, 700, 1100])
def test_page_never_scrolls_sideways(page, width):
    page.resize(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width

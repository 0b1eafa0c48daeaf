"""What the README and the pages show can be run, and names what the code has."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from minetrace.catalog import FilePattern, Radiometry, Sign, SourceConfig
from minetrace.schema import (
    FAILURES,
    SITE_PANEL,
    SITE_TABLE,
    TRANSITION_AREAS,
    Recipe,
    load_legend,
    load_recipe,
)

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(page, language):
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def the_block(page, language, holding):
    (found,) = (b for b in blocks(page, language) if holding in b)
    return found


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for number, code in enumerate(blocks(page, "python"), 1):
        exec(compile(code, f"{page}, block {number}", "exec"), names)
    plt.close("all")
    assert {"cube", "trend", "areas"} <= names.keys()


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md", "docs/data.md"])
def test_recipes_are_valid(page, tmp_path):
    found = [b for b in blocks(page, "toml") if "years = [" in b]
    assert found
    for number, text in enumerate(found):
        path = tmp_path / f"recipe_{number}.toml"
        path.write_text(text, encoding="utf-8")
        assert load_recipe(path).products


def line_of(text, key):
    (line,) = (line for line in text.splitlines() if line.startswith(f"{key} = "))
    return line


def test_the_recipe_reference_has_every_key_with_its_default():
    text = the_block("docs/data.md", "toml", "min_persistence")
    shown = tomllib.loads(text)
    for name, field in Recipe.model_fields.items():
        if not field.exclude:
            assert name in shown
    sections = {name: type(getattr(Recipe(**shown), name)) for name in shown}
    sections = {n: kind for n, kind in sections.items() if hasattr(kind, "model_fields")}
    assert set(sections) == {
        "landcover", "imagery", "lights", "terrain", "rings", "change", "status",
    }  # fmt: skip
    for name, kind in sections.items():
        assert shown[name].keys() == kind.model_fields.keys()
        for key, field in kind.model_fields.items():
            if not field.is_required() and field.default is not None:
                value = shown[name][key]
                same = (tuple(value) if isinstance(value, list) else value) == field.default
                # options that exclude each other cannot all have their default
                assert same or f"default {json.dumps(field.default)}" in line_of(text, key)


def test_the_source_reference_has_every_key():
    shown = tomllib.loads(the_block("docs/data.md", "toml", "hosts ="))
    files = tomllib.loads(the_block("docs/data.md", "toml", "[[files]]"))
    assert shown.keys() | files.keys() == SourceConfig.model_fields.keys()
    for block in (shown, files):
        SourceConfig(**block)
    assert shown["radiometry"].keys() == Radiometry.model_fields.keys()
    assert shown["sign"].keys() == Sign.model_fields.keys()
    told = {key for pattern in files["files"] for key in pattern} | {"times"}
    assert told == FilePattern.model_fields.keys()


def test_the_legend_example_is_valid(tmp_path):
    path = tmp_path / "legend.toml"
    path.write_text(the_block("docs/data.md", "toml", "[[class]]"), encoding="utf-8")
    assert load_legend(path).classes


@pytest.mark.parametrize("schema", [SITE_PANEL, SITE_TABLE, TRANSITION_AREAS, FAILURES])
def test_every_column_is_described(schema):
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    assert [c for c in schema.columns if f"`{c}`" not in text] == []


@pytest.mark.parametrize("name", ["glc_fcs30d", "mapbiomas_c8"])
def test_the_mapping_tables_of_decisions_are_those_of_the_legends(name):
    text = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")
    table = text.split(f"<!-- legend: {name} -->")[1].split("<!-- end -->")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.strip().splitlines()]
    legend = load_legend(name)
    told = set()
    for codes, _, group, cover, *_ in rows[2:]:
        for code in map(int, codes.split(",")):
            entry = legend.by_code(code)
            assert (entry.group, entry.cover or "–") == (group, cover), code
            told.add(code)
    if name == "mapbiomas_c8":
        assert told == set(legend.codes)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda p: p.name)
def test_links_to_files_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []

"""What the key of a unit stands for, and what it does not."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pystac
import pytest
from shapely.affinity import translate
from shapely.geometry import box, mapping

from minetrace.catalog import Source, SourceConfig
from minetrace.run import plan_units
from minetrace.run.keys import unit_keys
from minetrace.schema import ImageryRecipe, LandcoverRecipe, Recipe
from worlds import moment

RECIPE = Recipe(
    name="t", years=(2000, 2002),
    landcover=LandcoverRecipe(source="l", legend="glc_fcs30d"), imagery=ImageryRecipe(source="i"),
)  # fmt: skip
SITES = gpd.GeoDataFrame(
    {"site_id": ["a", "b"]}, geometry=[box(10, 0, 10.01, 0.01), box(20, 0, 20.01, 0.01)], crs=4326
)


def item(name: str, lon: float, **properties) -> pystac.Item:
    square = box(lon, -1, lon + 2, 1)
    made = pystac.Item(
        name, mapping(square), list(square.bounds), moment("2000-01-01"), properties
    )  # fmt: skip
    made.add_asset("landcover", pystac.Asset("https://host.example/a.tif"))
    return made


def source(*items: pystac.Item, **more) -> Source:
    config = SourceConfig(name="s", kind="static", href="catalog.json", **more)
    return Source(config, folder=Path("/"), items=items)


WEST, EAST = item("west", 9), item("east", 19)


def keys(sites=SITES, recipe=RECIPE, landcover=None, imagery=None) -> dict[tuple[str, str], str]:
    """Key by product and site."""
    sources = {
        "landcover": landcover or source(WEST, EAST), "imagery": imagery or source(WEST, EAST)
    }  # fmt: skip
    units = plan_units(sites, recipe, sources)
    found = unit_keys(sites, units, recipe, sources)
    return {(u.product, sites["site_id"].iloc[u.rows[0]]): found[u.id] for u in units}


KEYS = keys()


def changed(**how) -> set[tuple[str, str]]:
    other = keys(**how)
    assert other.keys() == KEYS.keys()
    return {unit for unit in KEYS if KEYS[unit] != other[unit]}


def test_units_differ_by_product_and_place():
    assert len(KEYS) == len(set(KEYS.values())) == 6


def test_the_order_of_items_and_sites_does_not_count():
    assert not changed(landcover=source(EAST, WEST))
    assert not changed(sites=SITES.iloc[::-1].reset_index(drop=True))


@pytest.mark.parametrize(
    "more", [item("west", 9, version=2), item("new", 8), item("west", 9.5)], ids=str
)
def test_an_item_counts_where_it_lies(more):
    items = [EAST, more] if more.id == "west" else [EAST, WEST, more]
    assert changed(landcover=source(*items)) == {("landcover", "a"), ("maps", "a")}


def test_a_product_knows_its_own_settings_only():
    other = RECIPE.model_copy(update={"imagery": ImageryRecipe(source="i", bands=("red",))})
    assert changed(recipe=other) == {("imagery", "a"), ("imagery", "b")}
    lights = source(WEST, EAST, bands={"red": "B4"})
    assert changed(imagery=lights) == {("imagery", "a"), ("imagery", "b")}
    assert len(changed(recipe=RECIPE.model_copy(update={"years": (2000, 2003)}))) == 6


def test_a_moved_outline_counts():
    moved = SITES.copy()
    moved.geometry = [translate(SITES.geometry[0], 1e-9), SITES.geometry[1]]
    assert changed(sites=moved) == {(p, "a") for p in ("landcover", "imagery", "maps")}


def test_a_buffer_reaches_items_that_the_site_does_not():
    near = item("near", 10.02)
    far = RECIPE.model_copy(update={"buffer_m": 5000.0})
    assert not changed(landcover=source(WEST, EAST, near))
    assert keys(recipe=far) != keys(recipe=far, landcover=source(WEST, EAST, near))

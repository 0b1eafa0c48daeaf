"""Lazy cubes: recipe + items + grid → DataTree."""

from minetrace.cubes.cube import (
    Site,
    Sources,
    build_cube,
    find_items,
    layer_years,
    open_cube,
    open_legend,
    open_sources,
    product_items,
    site_geometry,
)
from minetrace.cubes.gaps import failures
from minetrace.cubes.lattice import crop_node, native_grid, node_grid, site_grid
from minetrace.cubes.layers import load_layers

__all__ = [
    "Site", "Sources", "build_cube", "crop_node", "failures", "find_items", "layer_years",
    "load_layers", "native_grid", "node_grid", "open_cube", "open_legend", "open_sources",
    "product_items", "site_geometry", "site_grid",
]  # fmt: skip

"""Lazy cubes: recipe + items + grid → DataTree."""

from minetrace.cubes.cube import (
    Site,
    Sources,
    build_cube,
    find_items,
    open_cube,
    open_legend,
    open_sources,
    site_geometry,
)
from minetrace.cubes.layers import crop_node, load_layers, native_grid, node_grid, site_grid

__all__ = [
    "Site", "Sources", "build_cube", "crop_node", "find_items", "load_layers", "native_grid",
    "node_grid", "open_cube", "open_legend", "open_sources", "site_geometry", "site_grid",
]  # fmt: skip

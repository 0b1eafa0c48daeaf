"""From a site to a pixel grid, and the exact area of that grid's pixels."""

from minetrace.grid.areas import AreaSpline, area_spline, pixel_areas
from minetrace.grid.lattice import (
    MAX_PIXELS,
    crop_native,
    crosses_antimeridian,
    lattice_window,
    lonlat_box,
    middle,
    same_lattice,
    site_geobox,
    surroundings,
    to_pixels,
    transformer,
    utm_crs,
)

__all__ = [
    "MAX_PIXELS", "AreaSpline", "area_spline", "crop_native", "crosses_antimeridian",
    "lattice_window", "lonlat_box", "middle", "pixel_areas", "same_lattice", "site_geobox",
    "surroundings", "to_pixels", "transformer", "utm_crs",
]  # fmt: skip

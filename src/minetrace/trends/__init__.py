"""Trends of yearly and seasonal series, and the spectral indices they are computed from."""

from minetrace.trends.axis import decimal_years, increasing_years
from minetrace.trends.columns import as_dataset
from minetrace.trends.indices import bare_soil_index, nbr, ndvi, ndwi
from minetrace.trends.monotone import mann_kendall, sens_slope

__all__ = [
    "as_dataset",
    "bare_soil_index",
    "decimal_years",
    "increasing_years",
    "mann_kendall",
    "nbr",
    "ndvi",
    "ndwi",
    "sens_slope",
]

"""Sites on a pixel grid: which cells each one covers, and what layers hold there."""

from minetrace.zones.coverage import Coverage, Zones, cell_km2, cell_shares, cover
from minetrace.zones.layers import geobox_of, space_last
from minetrace.zones.statistics import mean_in_zones, zonal_mean, zonal_shares, zonal_statistics

__all__ = [
    "Coverage", "Zones", "cell_km2", "cell_shares", "cover", "geobox_of", "mean_in_zones",
    "space_last", "zonal_mean", "zonal_shares", "zonal_statistics",
]  # fmt: skip

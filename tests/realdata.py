"""Where the real data lie: tests, benchmarks and notebooks all ask here.

The folder is the one that ``MINETRACE_REAL_DATA`` names, else ``shared/data`` beside the checkout.
"""

from __future__ import annotations

import os
from pathlib import Path

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"

LOURENCO = "raster/mapbiomas_amapa_mines/lorenco_85a22.tif"
"""MapBiomas Collection 8, Garimpo do Lourenço, Amapá: one band a year, 1985-2022."""
LOURENCO_ANNUAL = "raster/mapbiomas_amapa_mines/lourenco_annual"
"""MapBiomas Collection 6 of the same box: one file a year, 1985-2020."""
DETECTIONS = "raster/mapbiomas_amapa_mines/amazon_mining_watch_2018_2025_clip.geojson"
"""Amazon Mining Watch polygons of the box, all periods."""
TITLES = "vector/brazil_amapa_sigmine/AP_mineracao_equalarea.gpkg"
TITLES_LAYER = "sigmine_AP_2021_poly"
"""SIGMINE mining titles of Amapá, 2021."""


def find(relative: str) -> Path:
    """Path of a real file or folder, or `FileNotFoundError` saying where it was looked for."""
    folder = Path(os.environ.get("MINETRACE_REAL_DATA", _BESIDE))
    path = folder / relative
    if not path.exists():
        raise FileNotFoundError(
            f"needs the real data {relative} under {folder} (or $MINETRACE_REAL_DATA)"
        )
    return path

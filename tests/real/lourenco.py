"""The gold district of Lourenço: its sites, and what plain Python says happened there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import rasterio
import rasterio.features
import shapely
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from shapely.geometry import box

import minetrace as mt
from oracles import events_by_runs

YEARS = np.arange(1985, 2023)
KINDS = np.zeros(256, np.uint8)
"""MapBiomas code → oracle kind, written by hand: 1 crop, 2 forest, 4 grass, 6 mine-related."""
KINDS[[41, 3, 6, 11, 12, 15, 24, 30, 33]] = [1, 2, 2, 4, 4, 4, 6, 6, 6]
SHORT = 5e-4
"""Degrees; an edge of this length strays by a few micrometres from a straight one."""
COVER_OF = {1: "cropland", 2: "forest", 4: "grassland"}


def minetrace(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    command = [sys.executable, "-c", "from minetrace.cli import main; main()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@dataclass(frozen=True)
class District:
    """The raster as it is on disk; no data is 0."""

    codes: np.ndarray
    transform: rasterio.Affine
    crs: str
    outline: shapely.Polygon
    """The raster's box in its own CRS."""

    @property
    def whole(self) -> gpd.GeoDataFrame:
        """The box as one site."""
        return gpd.GeoDataFrame({"site_id": ["box"]}, geometry=[self.outline], crs=self.crs)

    def lonlat(self, buffer_m: float = 0.0) -> shapely.Polygon:
        """The box, or a wider one, in longitude and latitude with its edges bent."""
        wide = gpd.GeoSeries([self.outline.buffer(buffer_m, join_style="mitre")], crs=self.crs)
        return wide.segmentize(500).to_crs(4326).iloc[0]

    @property
    def seen(self) -> shapely.Geometry:
        """Pixels with data in any year: the raster has a margin without."""
        mask = (self.codes > 0).any(axis=0)
        shapes = rasterio.features.shapes(mask.view(np.uint8), mask, transform=self.transform)
        return shapely.union_all([shapely.geometry.shape(s) for s, _ in shapes])

    @cached_property
    def km2(self) -> np.ndarray:
        """``(y, x)``, on the ellipsoid, by the areal scale of PROJ at the pixels' centres."""
        t, (_, ny, nx) = self.transform, self.codes.shape
        x, y = np.meshgrid(t.c + (np.arange(nx) + 0.5) * t.a, t.f + (np.arange(ny) + 0.5) * t.e)
        projection = pyproj.Proj(self.crs)
        scale = projection.get_factors(*projection(x, y, inverse=True)).areal_scale
        return abs(t.a * t.e) / np.asarray(scale) / 1e6


def read_district(path: Path) -> District:
    with rasterio.open(path) as src:
        codes = src.read()
        codes[codes == src.nodata] = 0
        return District(codes, src.transform, src.crs.to_string(), box(*src.bounds))


def read_mines(titles: Path, layer: str, detections: Path, district: District) -> gpd.GeoDataFrame:
    """Mining titles of the box and up to 3 km beyond, and detections of all periods, merged."""
    granted = mt.read_sites(titles, layer=layer)
    granted = granted[granted.intersects(district.lonlat(3000))]
    seen = mt.read_sites(detections)
    seen = mt.merge_sites(seen[seen.intersects(district.lonlat())])
    columns = ["site_id", "source", "geometry"]
    return gpd.GeoDataFrame(pd.concat([granted[columns], seen[columns]], ignore_index=True))


@dataclass(frozen=True)
class Reference:
    """Every event of the district, one pixel at a time."""

    events: pd.DataFrame
    """``row, col, year, what, cover, km2, first`` (the pixel's first event of its kind)."""
    changed: np.ndarray
    """bool ``(y, x)``: pixels whose class ever changed; only these are followed."""

    def areas(self) -> pd.DataFrame:
        """Areas by year and cover type, columns as those of the transition areas."""
        events = self.events.assign(unique=self.events["km2"].where(self.events["first"], 0.0))
        sums = events.groupby(["year", "cover", "what"])[["km2", "unique"]].sum().unstack("what")
        names = {"km2": "{}_km2", "unique": "{}_unique_km2"}
        sums.columns = [names[column].format(what) for column, what in sums.columns]
        return sums.fillna(0.0)


def follow_pixels(district: District) -> Reference:
    """Runs of every pixel that ever changed, in plain Python."""
    kinds = KINDS[district.codes]
    changed = (district.codes != district.codes[0]).any(axis=0)
    found = []
    for row, col in np.argwhere(changed):
        seen: set[str] = set()
        for layer, what, cover in events_by_runs(kinds[:, row, col].tolist()):
            found.append((row, col, YEARS[layer], what, COVER_OF[cover], what not in seen))
            seen.add(what)
    events = pd.DataFrame(found, columns=["row", "col", "year", "what", "cover", "first"])
    km2 = district.km2[events["row"], events["col"]]
    return Reference(events.assign(km2=km2), changed)


def touched(shape: shapely.Geometry, district: District) -> np.ndarray:
    """bool ``(y, x)``: pixels that a polygon in the raster's CRS touches."""
    return rasterio.features.geometry_mask(
        [shape], district.codes.shape[1:], district.transform, all_touched=True, invert=True
    )


def extract(layer: np.ndarray, shapes: gpd.GeoDataFrame, district: District) -> pd.Series:
    """Sum of ``layer × area`` in every site by exactextract, km²; edges are straight in degrees.

    exactextract takes edges as straight in the raster's CRS, so they are cut short first.
    """
    bent = shapes.assign(geometry=shapes.segmentize(SHORT)).to_crs(district.crs)
    source = NumPyRasterSource(
        layer * district.km2, *district.outline.bounds, srs_wkt=bent.crs.to_wkt()
    )
    found = exact_extract(source, bent, ["sum"], include_cols=["site_id"], output="pandas")
    return found.set_index("site_id")["sum"]


def split_box(district: District, pieces: int, seed: int) -> gpd.GeoDataFrame:
    """Cut the box into ragged polygons in longitude and latitude that share their edges."""
    rng = np.random.default_rng(seed)
    whole = district.lonlat()
    west, south, east, north = whole.bounds
    points = rng.uniform((west, south), (east, north), (400, 2))
    hearts = rng.uniform((west, south), (east, north), (pieces, 2))
    cells = np.array(shapely.voronoi_polygons(
        shapely.multipoints(points), extend_to=whole.buffer(0.1), ordered=True
    ).geoms)  # fmt: skip
    nearest = np.argmin(np.linalg.norm(points[:, None] - hearts, axis=2), axis=1)
    parts = [
        shapely.intersection(shapely.union_all(cells[nearest == k]), whole) for k in range(pieces)
    ]
    return gpd.GeoDataFrame({"site_id": [f"part{k}" for k in range(pieces)]}, geometry=parts,
                            crs=4326)  # fmt: skip

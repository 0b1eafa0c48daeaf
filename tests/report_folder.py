"""A run's output folder made by hand: two small districts of pits on simulated land cover.

The tables are counted from the rasters pixel by pixel here, so the report has something
consistent to show without the engine.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pymannkendall
import rasterio
from rasterio.features import geometry_mask
from rasterio.transform import Affine, from_origin
from scipy.ndimage import gaussian_filter
from shapely.geometry import Point

from minetrace.schema import COVERS, Kind, load_legend

LAYERS = (1985, 1990, 1995, *range(2000, 2023))
STATUS_YEARS = (2018, 2022)
PIXEL_KM2 = 0.0009
LEGEND = load_legend("glc_fcs30d")
_FOREST, _GRASS, _CROPS, _SHRUB, _BARE = 52, 130, 10, 120, 201


@dataclass(frozen=True)
class Pit:
    """A pit in unit coordinates of its district, grown and reclaimed by calendar year."""

    name: str
    x: float
    y: float
    opens: float
    full: float
    """Year at which it stops growing."""
    closes: float = 9999.0
    """Year from which it is reclaimed from the outside in, over eight years."""
    size: float = 0.07
    lights: bool = True
    status: str = "undefined"

    def radius(self, year: float) -> float:
        grown = np.clip((year - self.opens) / max(self.full - self.opens, 1), 0, 1)
        left = np.clip(1 - (year - self.closes) / 8, 0, 1)
        return float(self.size * np.sqrt(grown * left))


DISTRICTS: dict[str, tuple[Pit, ...]] = {
    "north": (
        Pit("Serra Alta", 0.22, 0.75, 1986, 2023, status="active"),
        Pit("Rio Verde", 0.52, 0.70, 1992, 2005, closes=2014.5, status="closed"),
        Pit("Morro do Ouro", 0.80, 0.78, 2003, 2024, size=0.09, status="active"),
        Pit("Quiet Hill", 0.25, 0.30, 1988, 1999),
        Pit("Lightless", 0.55, 0.28, 2009, 2021, lights=False),
        Pit("Untouched", 0.82, 0.30, 3000, 3001),
    ),
    "south": (
        Pit("Lagoa", 0.30, 0.60, 1996, 2010, closes=2012.5, status="closed"),
        Pit("Pedra Branca", 0.70, 0.40, 2011, 2024, size=0.10, status="active"),
    ),
}
_PLACES: dict[str, tuple[str, Affine]] = {
    "north": ("EPSG:32622", from_origin(430000, 260000, 30, 30)),
    "south": ("EPSG:4326", from_origin(-51.60, 2.20, 0.00027, 0.00027)),
}


def make_run_folder(
    folder: Path, *, lights: bool = True, size: int = 260, rename: dict[str, str] | None = None
) -> Path:
    """Write the folder and return it; ``rename`` gives sites other names."""
    (folder / "maps").mkdir(parents=True)
    panels, tables, areas = [], [], []
    for seed, (district, pits) in enumerate(DISTRICTS.items()):
        crs, transform = _PLACES[district]
        stack = _land_cover(pits, size, seed)
        _write_map(folder / "maps" / f"{district}.tif", stack, crs, transform)
        for pit in pits:
            x = transform.c + pit.x * size * transform.a
            y = transform.f + (1 - pit.y) * size * transform.e
            shape = Point(x, y).buffer(1.15 * pit.size * size * transform.a, quad_segs=6)
            inside = ~geometry_mask([shape], (size, size), transform)
            lonlat = gpd.GeoSeries([shape], crs=crs).to_crs("EPSG:4326").iloc[0]
            name = (rename or {}).get(pit.name, pit.name)
            panel, change = _site_rows(name, pit, stack[:, inside], lights=lights)
            panels.append(panel.assign(geometry=lonlat))
            areas.append(change)
            tables.append(_table_row(name, pit, panel, change, inside.sum()) | {"geometry": lonlat})
    blank = _blank_site("Beyond the tiles")
    panels.append(blank[0])
    tables.append(blank[1])
    _write_tables(folder, panels, tables, areas)
    _write_info(folder, lights=lights)
    return folder


def expected_statuses() -> pd.DataFrame:
    """Truth of the simulated pits."""
    pits = [pit for group in DISTRICTS.values() for pit in group]
    return pd.DataFrame({"site_id": [p.name for p in pits], "status": [p.status for p in pits]})


def _land_cover(pits: tuple[Pit, ...], size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    relief = gaussian_filter(rng.standard_normal((size, size)), size / 18)
    cuts = np.quantile(relief, [0.55, 0.75, 0.9])
    base = np.choose(np.digitize(relief, cuts), [_FOREST, _SHRUB, _GRASS, _CROPS])
    rough = 1 + 0.35 * gaussian_filter(rng.standard_normal((size, size)), 6) / 0.05
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    stack = np.repeat(base[None].astype(np.uint8), len(LAYERS), axis=0)
    for pit in pits:
        distance = np.hypot(x - pit.x, (1 - y) - pit.y) * np.clip(rough, 0.75, 1.4)
        was_bare = np.zeros((size, size), bool)
        for k, year in enumerate(LAYERS):
            bare = distance < pit.radius(year)
            stack[k][was_bare & ~bare] = _GRASS
            stack[k][bare] = _BARE
            was_bare |= bare
    return stack


def _changes(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Development and reclamation between consecutive layers, from the second on."""
    kind = LEGEND.lut[codes]
    green, mine = (kind >= Kind.CROPLAND) & (kind <= Kind.SPARSE), kind == Kind.MINE
    return green[:-1] & mine[1:], mine[:-1] & green[1:]


def _write_map(path: Path, stack: np.ndarray, crs: str, transform: Affine) -> None:
    years = np.array(LAYERS[1:])[:, None, None]
    bands = [
        np.where(change.any(axis=0), years[change.argmax(axis=0), 0, 0], 0)
        for change in _changes(stack)
    ]
    bands += [stack[0], stack[-1]]
    names = ("first_development", "first_reclamation", "landcover_1985", "landcover_2022")
    profile = {
        "driver": "GTiff",
        "width": stack.shape[2],
        "height": stack.shape[1],
        "count": 4,
        "dtype": "int16",
        "nodata": 0,
        "crs": crs,
        "transform": transform,
    }
    with rasterio.open(path, "w", **profile) as out:
        out.write(np.stack(bands).astype(np.int16))
        out.descriptions = names


def _site_rows(
    name: str, pit: Pit, codes: np.ndarray, *, lights: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(len(name))
    bsp = (LEGEND.lut[codes] == Kind.MINE).mean(axis=1)
    development, reclamation = _changes(codes)
    has_imagery = np.array(LAYERS) >= 2013
    has_imagery &= np.array(LAYERS) != 2016  # one year of cloud
    ndvi = np.where(has_imagery, 0.82 - 0.6 * bsp + rng.normal(0, 0.012, bsp.size), np.nan)
    has_lights = (np.array(LAYERS) >= 2014) & lights & pit.lights
    ntl = np.where(has_lights, 0.4 + 6 * bsp + rng.normal(0, 0.15, bsp.size), np.nan)
    panel = pd.DataFrame(
        {
            "site_id": name,
            "year": LAYERS,
            "bsp": bsp,
            "reclamation_rate": 1 - bsp,
            "ndvi": ndvi,
            "ntl": ntl,
            "development_km2": [np.nan, *(development.sum(axis=1) * PIXEL_KM2)],
            "reclamation_km2": [np.nan, *(reclamation.sum(axis=1) * PIXEL_KM2)],
            "n_pixels": float(codes.shape[1]),
        }
    )
    seen = [np.zeros(codes.shape[1], bool), np.zeros(codes.shape[1], bool)]
    rows = []
    for k, (year, before) in enumerate(zip(LAYERS[1:], LAYERS[:-1], strict=True)):
        events = (development[k], reclamation[k])
        kinds = (LEGEND.lut[codes[k]], LEGEND.lut[codes[k + 1]])
        for number, cover in enumerate(COVERS, 1):
            hits = [e & (kind == number) for e, kind in zip(events, kinds, strict=True)]
            km2 = [h.sum() * PIXEL_KM2 for h in hits]
            km2 += [(h & ~s).sum() * PIXEL_KM2 for h, s in zip(hits, seen, strict=True)]
            rows.append((name, year, year - before, cover, *km2))
        seen = [s | e for s, e in zip(seen, events, strict=True)]
    columns = [
        "site_id",
        "year",
        "interval_years",
        "cover",
        "development_km2",
        "reclamation_km2",
        "development_unique_km2",
        "reclamation_unique_km2",
    ]
    return panel, pd.DataFrame(rows, columns=columns)


def _table_row(
    name: str, pit: Pit, panel: pd.DataFrame, change: pd.DataFrame, pixels: int
) -> dict[str, object]:
    row: dict[str, object] = {
        "site_id": name,
        "area_km2": pixels * PIXEL_KM2,
        "country": "BRA",
        "conflict": name == "Quiet Hill",
        "observed_share": 1.0,
    }
    used = panel[panel["year"].between(*STATUS_YEARS)]
    for column in ("bsp", "ndvi", "ntl"):
        values = used[column].dropna().to_numpy()
        row |= {
            f"{column}_trend": pd.NA,
            f"{column}_p": np.nan,
            f"{column}_slope": np.nan,
            f"n_years_{column}": values.size,
        }
        if values.size >= 4:
            test = pymannkendall.original_test(values)
            sign = {"increasing": 1, "decreasing": -1, "no trend": 0}[test.trend]
            row |= {f"{column}_trend": sign, f"{column}_p": test.p, f"{column}_slope": test.slope}
    signs = (row["bsp_trend"], row["ndvi_trend"], row["ntl_trend"])
    votes = [0 if pd.isna(s) else s * w for s, w in zip(signs, (1, -1, 1), strict=True)]
    first = next((v for v in votes if v), 0)
    row["status"] = {1: "active", -1: "closed", 0: "undefined"}[first]
    row["stage"] = {1: "expanding", -1: "shrinking", 0: "stable"}[votes[0]]
    started = change.loc[change["development_km2"] > 0]
    row["first_disturbance_year"] = pd.NA if started.empty else started["year"].iloc[0]
    row["first_disturbance_interval"] = (
        pd.NA if started.empty else started["interval_years"].iloc[0]
    )
    return row | {c: change[c].sum() for c in change.columns[4:]}


def _blank_site(name: str) -> tuple[pd.DataFrame, dict[str, object]]:
    """A site that no layer covers: every value is missing."""
    where = Point(-51.5, 2.22).buffer(0.004)
    panel = pd.DataFrame({"site_id": name, "year": LAYERS, "geometry": where})
    numbers = ("bsp", "reclamation_rate", "ndvi", "ntl", "development_km2", "reclamation_km2")
    panel = panel.assign(**dict.fromkeys(numbers, np.nan), n_pixels=0.0)
    row: dict[str, object] = {
        "site_id": name,
        "area_km2": 0.62,
        "country": None,
        "stage": None,
        "status": "undefined",
        "conflict": False,
        "observed_share": 0.0,
        "first_disturbance_year": pd.NA,
        "geometry": where,
        "first_disturbance_interval": pd.NA,
    }
    for column in ("bsp", "ndvi", "ntl"):
        row |= {
            f"{column}_trend": pd.NA,
            f"{column}_p": np.nan,
            f"{column}_slope": np.nan,
            f"n_years_{column}": 0,
        }
    areas = (
        "development_km2",
        "reclamation_km2",
        "development_unique_km2",
        "reclamation_unique_km2",
    )
    return panel, row | dict.fromkeys(areas, np.nan)


def _write_tables(
    folder: Path,
    panels: list[pd.DataFrame],
    tables: list[dict[str, object]],
    areas: list[pd.DataFrame],
) -> None:
    panel = gpd.GeoDataFrame(pd.concat(panels, ignore_index=True), crs="EPSG:4326")
    panel.astype({"year": "int64"}).to_parquet(folder / "site_panel.parquet")
    table = gpd.GeoDataFrame(tables, crs="EPSG:4326")
    whole = {f"{c}_trend": "Int8" for c in ("bsp", "ndvi", "ntl")}
    whole |= {f"first_disturbance_{c}": "Int64" for c in ("year", "interval")}
    table.astype(whole).to_parquet(folder / "site_table.parquet")
    pd.concat(areas, ignore_index=True).to_parquet(folder / "transition_areas.parquet")
    pd.DataFrame(
        {
            "site_id": ["Broken", "Beyond the tiles"],
            "item": ["lc_2004", None],
            "asset": ["map", None],
            "window": ["0:260, 0:260", None],
            "reason": [
                "the block at row 128 could not be decoded",
                "no land-cover layer touches it",
            ],
        }
    ).to_parquet(folder / "failures.parquet")


def _write_info(folder: Path, *, lights: bool) -> None:
    info = {
        "recipe": "annual_status",
        "legend": asdict(LEGEND),
        "years": [1985, 2022],
        "layers": {
            "landcover": LAYERS,
            "imagery": [y for y in LAYERS if y >= 2013],
            "lights": [y for y in LAYERS if y >= 2014] if lights else [],
        },
        "missing": [] if lights else ["lights"],
        "version": "0.1.0",
        "items": 58,
        "status": {"years": STATUS_YEARS, "alpha": 0.05, "p_value": "exact"},
        "coverage": "fraction",
    }
    (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")

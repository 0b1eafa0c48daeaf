"""Read and check the output folder of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from minetrace.errors import InputError
from minetrace.schema import (
    FAILURES,
    PRODUCTS,
    SITE_PANEL,
    SITE_TABLE,
    STATUSES,
    TRANSITION_AREAS,
    Legend,
    check_table,
)

TABLE_EXTRAS = (
    "bsp_p", "ndvi_p", "ntl_p", "bsp_slope", "ndvi_slope", "ntl_slope",
    "first_disturbance_year", "first_disturbance_interval",
    "development_km2", "reclamation_km2", "development_unique_km2", "reclamation_unique_km2",
    "observed_share",
)  # fmt: skip
"""Columns that a run adds to the site table."""

_MEND = "`minetrace run` writes it: point at the folder that was given to --out, or run again."


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class StatusInfo(_Part):
    """How the activity status was decided."""

    years: tuple[int, int]
    alpha: float
    p_value: str


class RunInfo(_Part):
    """What was run, as ``run.json`` tells it."""

    recipe: str
    legend: Legend | None
    """None where the run had no land cover."""
    years: tuple[int, int]
    layers: dict[str, tuple[int, ...]]
    """Product → years that have a layer."""
    missing: tuple[str, ...]
    """Products that the run had no data for."""
    version: str
    items: int
    status: StatusInfo
    coverage: str
    min_persistence: int = 1

    def years_of(self, product: str) -> tuple[int, ...]:
        """Years with a layer of a product; empty where it is missing."""
        return () if product in self.missing else tuple(sorted(self.layers.get(product, ())))


@dataclass(frozen=True)
class RunFolder:
    """The outputs of one run, checked against their contracts."""

    path: Path
    info: RunInfo
    panel: pd.DataFrame
    table: gpd.GeoDataFrame
    transition_areas: pd.DataFrame
    failures: pd.DataFrame
    maps: tuple[Path, ...]

    @property
    def legend(self) -> Legend | None:
        """Legend of the run's land cover."""
        return self.info.legend

    @property
    def failed_sites(self) -> tuple[str, ...]:
        """Sites that have a failure and no row in the site table."""
        named = set(self.failures["site_id"].dropna()) - set(self.table["site_id"])
        return tuple(sorted(named))


def load_run(folder: str | Path) -> RunFolder:
    """Read the output folder of a run.

    Parameters
    ----------
    folder
        What ``minetrace run --out`` wrote: ``run.json``, ``site_table.parquet``,
        ``site_panel.parquet``, ``transition_areas.parquet``, ``failures.parquet`` and ``maps/``.

    Raises
    ------
    InputError
        A file is missing, damaged or breaks its contract; the message names the file.

    Examples
    --------
    >>> load_run("no/such/folder")
    Traceback (most recent call last):
    minetrace.errors.InputError: no/such/folder is not a folder...
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"{path} is not a folder. A report is made from a run's output: {_MEND}")
    info = _read_info(path / "run.json")
    areas = _read_table(path / "transition_areas.parquet")
    return RunFolder(
        path=path,
        info=info,
        panel=check_table(_read_table(path / "site_panel.parquet"), SITE_PANEL),
        table=_check_site_table(_read_sites(path / "site_table.parquet")),
        transition_areas=check_table(areas, TRANSITION_AREAS),
        failures=check_table(_read_table(path / "failures.parquet"), FAILURES),
        maps=tuple(sorted((path / "maps").glob("*.tif"))),
    )


def check_expected(expected: pd.DataFrame, table: pd.DataFrame) -> pd.Series:
    """Check expected statuses and key them by site id.

    Parameters
    ----------
    expected
        Columns ``site_id`` and ``status``.
    table
        The site table whose sites are meant.

    Raises
    ------
    InputError
        A column is missing, a site is unknown or given twice, or a status is no status.
    """
    missing = {"site_id", "status"} - set(expected.columns)
    if missing:
        raise InputError(f"the expected statuses lack the columns {sorted(missing)}")
    unknown = sorted(set(expected["site_id"]) - set(table["site_id"]))
    if unknown:
        raise InputError(
            f"the expected statuses name sites that the run does not have: {unknown[:5]}"
        )
    twice = sorted(set(expected.loc[expected["site_id"].duplicated(), "site_id"]))
    if twice:
        raise InputError(f"the expected statuses name sites more than once: {twice[:5]}")
    odd = sorted(set(map(str, expected["status"])) - set(STATUSES))
    if odd:
        raise InputError(f"expected statuses {odd} are none of {', '.join(STATUSES)}")
    return expected.set_index("site_id")["status"]


def _read_info(path: Path) -> RunInfo:
    _require(path)
    try:
        info = RunInfo.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as err:
        raise InputError(f"{path} is damaged: {err}\n{_MEND}") from err
    odd = (set(info.layers) | set(info.missing)) - set(PRODUCTS)
    if odd:
        raise InputError(f"{path} names products {sorted(odd)}; known are {', '.join(PRODUCTS)}")
    return info


def _read_table(path: Path) -> pd.DataFrame:
    """Read a parquet table without its geometry."""
    _require(path)
    try:
        names = [n for n in pq.read_schema(path).names if n not in ("geometry", "bbox")]
        return pd.read_parquet(path, columns=names)
    except (OSError, ValueError) as err:
        raise InputError(f"{path} is damaged: {err}. {_MEND}") from err


def _read_sites(path: Path) -> gpd.GeoDataFrame:
    _require(path)
    try:
        sites = gpd.read_parquet(path)
    except (OSError, ValueError) as err:
        raise InputError(f"{path} is damaged: {err}. {_MEND}") from err
    if sites.crs is None:
        raise InputError(f"{path} has no CRS, so its sites cannot be drawn. {_MEND}")
    return sites.to_crs("EPSG:4326")


def _check_site_table(table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    check_table(pd.DataFrame(table.drop(columns=table.geometry.name)), SITE_TABLE)
    lacking = [c for c in TABLE_EXTRAS if c not in table.columns]
    if lacking:
        raise InputError(f"site_table.parquet lacks the columns {lacking}. {_MEND}")
    return table


def _require(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing. {_MEND}")

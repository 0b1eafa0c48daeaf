"""Numbers and facts of a run as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from minetrace.report.load import RunInfo

PRODUCT_NAMES = {
    "landcover": "Land cover",
    "imagery": "Imagery (NDVI)",
    "lights": "Night lights",
}
TREND_NAMES = {"bsp": "Bare surface", "ndvi": "NDVI", "ntl": "Night lights"}
_TREND_WORDS = {1: "▲ up", 0: "– none", -1: "▼ down"}
NO_DATA = "no data"


class Trend(NamedTuple):
    """One trend of a site as the table shows it."""

    text: str
    detail: str
    sign: int | None
    """None where no trend could be computed."""


def area(value: float, unit: str = "") -> str:
    """Write an area given in km².

    Examples
    --------
    >>> area(12345.6), area(1.234), area(0.00123), area(0.0, " km²"), area(float("nan"), " km²")
    ('12,346', '1.23', '0.0012', '0 km²', 'no data')
    """
    if absent(value):
        return NO_DATA
    digits = 0 if value >= 100 or value == 0 else 1 if value >= 10 else 2 if value >= 0.1 else 4
    return f"{value:,.{digits}f}{unit}"


def share(value: float) -> str:
    r"""Write a share as a percentage.

    Examples
    --------
    >>> share(0.987), share(float("nan"))
    ('98.7\xa0%', 'no data')
    """
    return NO_DATA if absent(value) else f"{100 * value:.1f}\u00a0%"


def count(n: int, noun: str) -> str:
    """Write a number with its noun.

    Examples
    --------
    >>> count(1, "site"), count(1200, "site")
    ('1 site', '1,200 sites')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def year_list(years: Iterable[int]) -> str:
    """Write years with runs drawn together.

    Examples
    --------
    >>> year_list([1985, 1990, 2000, 2001, 2002])
    '1985, 1990, 2000–2002'
    """
    runs: list[list[int]] = []
    for year in sorted(years):
        if runs and year == runs[-1][-1] + 1:
            runs[-1].append(year)
        else:
            runs.append([year])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs)


def first_disturbance(row: Mapping[str, Any]) -> str:
    """Write the first disturbance of a site as a year or as the interval that is known.

    Examples
    --------
    >>> first_disturbance({"first_disturbance_year": 1990, "first_disturbance_interval": 5,
    ...     "development_km2": 0.4})
    '1986–1990'
    >>> first_disturbance({"first_disturbance_year": None, "first_disturbance_interval": None,
    ...     "development_km2": 0.4})
    'below share'
    """
    year, interval = row["first_disturbance_year"], row["first_disturbance_interval"]
    if absent(year):
        disturbed = row["development_km2"]
        return NO_DATA if absent(disturbed) else "below share" if disturbed > 0 else "none seen"
    if absent(interval) or interval <= 1:
        return f"{year:.0f}"
    return f"{year - interval + 1:.0f}–{year:.0f}"


def trend(row: Mapping[str, Any], name: str) -> Trend:
    """Write one trend of a site, and the numbers behind it.

    Examples
    --------
    >>> row = {"bsp_trend": 1, "bsp_p": 0.0167, "n_years_bsp": 5}
    >>> trend(row, "bsp")
    Trend(text='▲ up', detail='p 0.017, n 5', sign=1)
    """
    sign, n = row[f"{name}_trend"], int(row[f"n_years_{name}"])
    if absent(sign):
        return Trend(NO_DATA if n == 0 else "too few", f"n {n}", None)
    return Trend(_TREND_WORDS[int(sign)], f"p {row[f'{name}_p']:.2g}, n {n}", int(sign))


def summary(trends: Iterable[Trend]) -> str:
    """Say a site's trends in words, for those who do not see the figure.

    Examples
    --------
    >>> summary([Trend("▲ up", "", 1), Trend("– none", "", 0), Trend("no data", "", None)])
    'bare surface up, NDVI none, night lights no data'
    """
    return ", ".join(
        f"{title if title.isupper() else title.lower()} {t.text.lstrip('▲▼– ')}"
        for title, t in zip(TREND_NAMES.values(), trends, strict=True)
    )


def method(info: RunInfo) -> str:
    """Say in a few sentences how the numbers came about."""
    first, last = info.status.years
    parts = []
    if info.years_of("landcover"):
        how = (
            "by their exact coverage fraction"
            if info.coverage == "fraction"
            else "if their centre lies inside"
        )
        parts.append(
            "Disturbed is a pixel that passes from a vegetated to a mine-related land-cover class "
            "between two consecutive layers; reclaimed is one that passes back. Areas are those "
            f"of the WGS 84 ellipsoid; pixels on a site's edge count {how}. An event sum counts a "
            "pixel each time it changes, the unique area once."
        )
        if info.min_persistence > 1:
            parts.append(f"A new state counts if it lasts {info.min_persistence} layers.")
    parts.append(
        f"Status: two-sided Mann-Kendall tests ({info.status.p_value} p < {info.status.alpha:g}) "
        f"with Sen's slope on each year's bare surface, NDVI and night lights of {first}–{last}; "
        "the first significant of the three, in this order, decides (Xu et al.). More bare "
        "surface, less NDVI or more light mean active; the reverse means closed; otherwise the "
        "status is undefined. Trends that contradict each other are flagged as a conflict."
    )
    return " ".join(parts)


def absent(value: Any) -> bool:
    """Whether a value of a table is missing."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))

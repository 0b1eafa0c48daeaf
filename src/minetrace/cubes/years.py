"""Years and their seasons: which items make the layer of which year, and layers → variables."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import dask.array as da
import numpy as np
import pystac
import xarray as xr
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from minetrace.catalog import item_time
from minetrace.grid import middle
from minetrace.schema import ImageryRecipe, Variable

Months = tuple[int, int]


def local_date(item: pystac.Item, longitude: float) -> dt.date:
    """Date of an item by the sun at a longitude: noon is when the sun is highest.

    Examples
    --------
    >>> when = dt.datetime(2019, 12, 31, 22, 30, tzinfo=dt.UTC)
    >>> item = pystac.Item("fiji", None, None, when, {})
    >>> local_date(item, 178), local_date(item, 0)
    (datetime.date(2020, 1, 1), datetime.date(2019, 12, 31))
    """
    return (item_time(item) + dt.timedelta(hours=longitude / 15)).date()


def season_year(date: dt.date, months: Months) -> int | None:
    """Year of the composite that a date belongs to, or None outside the months.

    Examples
    --------
    >>> [season_year(dt.date(2019, m, 1), (11, 3)) for m in (2, 6, 12)]
    [2019, None, 2020]
    """
    first, last = months
    if first <= last:
        return date.year if first <= date.month <= last else None
    if date.month >= first:
        return date.year + 1
    return date.year if date.month <= last else None


def site_months(
    part: ImageryRecipe, geometry: BaseGeometry, *, fallback: bool = False
) -> Months | None:
    """Months of a recipe at a site, six later south of the equator if it asks for that.

    Examples
    --------
    >>> from shapely.geometry import box
    >>> part = ImageryRecipe(source="s", months=(5, 9), shift_south=True)
    >>> site_months(part, box(23, 26, 24, 27)), site_months(part, box(23, -27, 24, -26))
    ((5, 9), (11, 3))
    """
    months = part.fallback_months if fallback else part.months
    if months is None or not part.shift_south or middle(geometry)[1] >= 0:
        return months
    first, last = ((month + 5) % 12 + 1 for month in months)
    return first, last


def season_items(
    items: Sequence[pystac.Item], geometry: BaseGeometry, months: Months | None
) -> dict[int, list[pystac.Item]]:
    """Items of each composite year, in order of the years; none without months."""
    longitude = middle(geometry)[0]
    found: dict[int, list[pystac.Item]] = {}
    if months is None:
        return found
    for item in items:
        year = season_year(local_date(item, longitude), months)
        if year is not None:
            found.setdefault(year, []).append(item)
    return dict(sorted(found.items()))


def by_month(
    items: Sequence[pystac.Item], geometry: BaseGeometry
) -> list[tuple[int, list[pystac.Item]]]:
    """Items of one season by month, the earliest first."""
    longitude = middle(geometry)[0]
    found: dict[tuple[int, int], list[pystac.Item]] = {}
    for item in items:
        date = local_date(item, longitude)
        found.setdefault((date.year, date.month), []).append(item)
    return [(month, group) for (_, month), group in sorted(found.items())]


def search_span(
    part: ImageryRecipe, geometry: BaseGeometry, span: tuple[int, int]
) -> tuple[int, int]:
    """Calendar years (UTC) in which items of a span of composite years may lie.

    A season across New Year begins in the year before. Far from Greenwich the sun's date is
    another than that of an item around New Year.
    """
    months = [site_months(part, geometry, fallback=later) for later in (False, True)]
    wraps = any(m is not None and m[0] > m[1] for m in months)
    longitude = middle(geometry)[0]
    return span[0] - int(wraps or longitude > 90), span[1] + int(longitude < -90)


def stack_years(
    parts: Sequence[Mapping[str, da.Array]],
    years: NDArray[np.integer],
    variables: Mapping[str, Variable],
    coords: Mapping[str, xr.DataArray],
) -> xr.Dataset:
    """Join the arrays ``(y, x)`` of each year into variables ``(time, y, x)``."""
    made = {
        name: (
            var.dims,
            da.stack([p[name] for p in parts]).rechunk({0: -1}),
            {**var.attrs, "grid_mapping": "spatial_ref"},
        )
        for name, var in variables.items()
    }
    return xr.Dataset(made, coords={"time": january(years), **coords})


def january(years: NDArray[np.integer]) -> NDArray[np.datetime64]:
    """1 January of each year."""
    return np.array([f"{y}-01-01" for y in years], "datetime64[ns]")

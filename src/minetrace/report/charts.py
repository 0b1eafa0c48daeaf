"""Charts of sites and districts over time: yearly change, and the series behind a status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from minetrace.report.style import (
    COVER_COLORS,
    INK,
    MUTED,
    OBSERVED,
    SERIES_COLORS,
    WIDTH,
    styled,
)
from minetrace.schema import COVERS

_EMPTY = 0.3
"""Height in inches of a track without data: it is said, but takes no room."""
_STEPS = [1, 2, 5, 10]
"""Ticks at round numbers."""


@dataclass(frozen=True)
class _Track:
    """How one column of the site panel is drawn."""

    column: str
    title: str
    product: str
    scale: float
    unit: str
    """Unit of the slope."""


TRACKS: tuple[_Track, ...] = (
    _Track("bsp", "Bare surface, % of observed site area", "landcover", 100.0, "points"),
    _Track("ndvi", "NDVI, annual composite", "imagery", 1.0, ""),
    _Track("ntl", "Night lights, nW cm⁻² sr⁻¹", "lights", 1.0, "nW cm⁻² sr⁻¹"),
)


@dataclass(frozen=True)
class ChangeRates:
    """Disturbance and reclamation per year between consecutive layers."""

    edges: NDArray[np.int64]
    """Layer years; segment i covers the years after edge i up to edge i + 1."""
    development: NDArray[np.float64]
    """km² per year, ``(cover, segment)`` in the order of `COVERS`; NaN where nothing is known."""
    reclamation: NDArray[np.float64]

    @property
    def total(self) -> tuple[float, float]:
        """Event sums in km²: the areas of all bars."""
        width = np.diff(self.edges)
        return (
            float(np.nansum(self.development * width)),
            float(np.nansum(self.reclamation * width)),
        )


def change_rates(transition_areas: pd.DataFrame) -> ChangeRates:
    """Spread the areas of each interval evenly over its years, and sum over sites.

    Parameters
    ----------
    transition_areas
        Rows of the transition areas, of one site or of many.

    Returns
    -------
    ChangeRates
        Rate × width summed over the segments equals the event sums of the input.

    Examples
    --------
    >>> areas = pd.DataFrame({"year": [1990, 1991], "interval_years": [5, 1],
    ...     "cover": ["forest", "forest"], "development_km2": [10.0, 1.0],
    ...     "reclamation_km2": [0.0, 0.5]})
    >>> rates = change_rates(areas)
    >>> rates.edges.tolist(), rates.development[1].tolist()
    ([1985, 1990, 1991], [2.0, 1.0])
    >>> rates.total
    (11.0, 0.5)
    """
    end = transition_areas["year"].to_numpy(np.int64)
    start = end - transition_areas["interval_years"].to_numpy(np.int64)
    areas = transition_areas[["development_km2", "reclamation_km2"]].to_numpy(np.float64)
    cover = pd.Categorical(transition_areas["cover"], categories=COVERS).codes
    edges = np.unique(np.concatenate([start, end]))
    rates = np.zeros((2, len(COVERS), max(edges.size - 1, 0)))
    known = np.zeros(rates.shape[2], bool)
    for first, last in {*zip(start.tolist(), end.tolist(), strict=True)}:
        inside = (edges[:-1] >= first) & (edges[1:] <= last)
        known |= inside
        rows = (start == first) & (end == last)
        for k, column in enumerate(areas[rows].T):
            sums = np.bincount(cover[rows], column, minlength=len(COVERS))
            rates[k] += np.outer(sums / (last - first), inside)
    rates[:, :, ~known] = np.nan
    return ChangeRates(edges, rates[0], rates[1])


@styled
def annual_change(transition_areas: pd.DataFrame, *, seam: tuple[int, int] | None = None) -> Figure:
    """Draw disturbed and reclaimed area per year by cover type.

    A bar is as wide as the interval between two layers and as high as the area per year, so the
    area of the bar is the area of the change: no year is invented inside a five-year interval.

    Parameters
    ----------
    transition_areas
        Rows of the transition areas, of one site or of many (summed), km².
    seam
        Two layer years between which the product changed; that bar is hatched.

    Examples
    --------
    >>> areas = pd.DataFrame({"year": [1990], "interval_years": [5], "cover": ["forest"],
    ...     "development_km2": [10.0], "reclamation_km2": [0.0]})
    >>> annual_change(areas).axes[0].get_title(loc="left")
    'Area per year, km² (disturbed above zero, reclaimed below)'
    """
    figure = Figure(figsize=(WIDTH, 3.1))
    ax = figure.subplots(gridspec_kw=_margins(3.1, top=0.3, bottom=0.55))
    draw_change(ax, change_rates(transition_areas), seam=seam)
    _cover_legend(figure)
    return figure


def draw_change(ax: Axes, rates: ChangeRates, *, seam: tuple[int, int] | None = None) -> None:
    """Draw the bars of `annual_change` on axes of your own."""
    ax.set_title("Area per year, km² (disturbed above zero, reclaimed below)")
    if rates.edges.size == 0:
        _say(ax, "no data")
        return
    if sum(rates.total) == 0:
        _say(ax, "no change between layers")
        return
    edges = rates.edges + 0.5
    for sign, stack in ((1, rates.development), (-1, rates.reclamation)):
        base = np.zeros(stack.shape[1])
        for cover, heights in zip(COVERS, stack, strict=True):
            top = base + sign * heights
            if np.any(np.nan_to_num(heights) > 0):
                ax.stairs(top, edges, baseline=base, fill=True, color=COVER_COLORS[cover], lw=0)
            base = top
        ax.stairs(base, edges, baseline=0, color="white", lw=0.5)
        _separators(ax, edges, base)
        if seam is not None:
            _hatch(ax, rates.edges, base, seam)
    ax.axhline(0, color=INK, lw=0.7)
    tops = [np.nansum(stack, axis=0).max() for stack in (rates.reclamation, rates.development)]
    _round_limits(ax, -tops[0], tops[1])
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{abs(v):.4g}"))
    ax.xaxis.set_major_locator(MaxNLocator(9, steps=_STEPS, integer=True, min_n_ticks=1))
    ax.grid(axis="y")
    ax.margins(x=0.01)


@styled
def site_series(
    panel: pd.DataFrame,
    row: Mapping[str, Any] | pd.Series,
    *,
    transition_areas: pd.DataFrame | None = None,
    layers: Mapping[str, Sequence[int]] | None = None,
    status_years: tuple[int, int] | None = None,
    alpha: float = 0.05,
    seam: tuple[int, int] | None = None,
) -> Figure:
    """Draw one site's bare surface, NDVI, night lights and changes over the same years.

    Markers are observations. A thin line joins consecutive layers only; a gap stays a gap. Over
    the status years the Sen line is drawn where a trend could be computed: solid if significant,
    dashed if not.

    Parameters
    ----------
    panel
        Rows of the site panel; those of ``row["site_id"]`` are drawn.
    row
        The site's row of the site table.
    transition_areas
        Rows of the transition areas; adds the bars of the site's changes.
    layers
        Product (``landcover``, ``imagery``, ``lights``) → years with a layer. Without it every
        row of the panel counts as a layer of every product, so that 1985 and 1990 are not joined
        where the panel has rows between them.
    status_years
        First and last year of the trends; shaded.
    alpha
        Level of significance.
    seam
        As in `annual_change`.

    Examples
    --------
    >>> panel = pd.DataFrame({"site_id": "a", "year": [2018, 2019, 2020, 2021],
    ...     "bsp": [0.1, 0.2, 0.3, 0.5], "ndvi": [0.6, 0.5, 0.5, 0.4], "ntl": np.nan})
    >>> row = {"site_id": "a", "bsp_trend": 0, "bsp_p": 0.08, "bsp_slope": 0.13}
    >>> figure = site_series(panel, row, status_years=(2018, 2021))
    >>> [ax.get_title(loc="left") for ax in figure.axes][2]
    'Night lights, nW cm⁻² sr⁻¹'
    """
    own = panel[panel["site_id"] == row["site_id"]].sort_values("year")
    rates = None
    if transition_areas is not None:
        rates = change_rates(transition_areas[transition_areas["site_id"] == row["site_id"]])
    heights = [1.0 if own[track.column].notna().any() else _EMPTY for track in TRACKS]
    figure, axes = _series_axes([*heights, 1.5] if rates is not None else heights)
    for ax, track in zip(axes, TRACKS, strict=False):
        years = None if layers is None else layers.get(track.product, ())
        points = own if years is None else own[own["year"].isin(years)]
        _draw_track(ax, track, points)
        if status_years is not None:
            ax.axvspan(status_years[0] - 0.5, status_years[1] + 0.5, color=OBSERVED, lw=0, zorder=0)
            _draw_sen(ax, track, points, row, status_years, alpha)
    if rates is not None:
        draw_change(axes[-1], rates, seam=seam)
        _cover_legend(figure)
    axes[-1].set_xlim(*_year_limits(own, rates))
    return figure


def _series_axes(heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Axes of these heights in inches, the tracks and then, perhaps, the changes."""
    bottom = 0.55 if len(heights) > len(TRACKS) else 0.25
    height = sum(heights) + 0.3 * (len(heights) - 1) + 0.3 + bottom
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.subplots(
        len(heights),
        sharex=True,
        height_ratios=heights,
        gridspec_kw={
            **_margins(height, top=0.3, bottom=bottom),
            "hspace": 0.3 / (sum(heights) / len(heights)),
        },
    )
    return figure, list(axes)


def _draw_track(ax: Axes, track: _Track, points: pd.DataFrame) -> None:
    ax.set_title(track.title)
    ax.grid(axis="y")
    values = points[track.column].to_numpy(float) * track.scale
    if not np.isfinite(values).any():
        _say(ax, "no data")
        return
    color = SERIES_COLORS[track.column]
    ax.plot(points["year"], values, color=color, lw=0.9, alpha=0.55)
    ax.plot(
        points["year"],
        values,
        color=color,
        ls="",
        marker="o",
        ms=3.4,
        mec="white",
        mew=0.4,
        zorder=4,
        clip_on=False,
    )
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if track.column == "bsp" or 0 <= low < 0.4 * high:
        low = 0.0
    _round_limits(ax, low, max(high, low + 0.01 * track.scale))
    ax.xaxis.set_major_locator(MaxNLocator(9, steps=_STEPS, integer=True, min_n_ticks=1))


def _draw_sen(
    ax: Axes,
    track: _Track,
    points: pd.DataFrame,
    row: Mapping[str, Any] | pd.Series,
    span: tuple[int, int],
    alpha: float,
) -> None:
    """Sen line through the medians of the observations that entered the trend."""
    slope, p = (float(row.get(f"{track.column}_{name}", np.nan)) for name in ("slope", "p"))
    if pd.isna(row.get(f"{track.column}_trend")) or np.isnan(slope) or np.isnan(p):
        ax.set_title(f"no trend {span[0]}–{span[1]}", loc="right", color=MUTED, fontsize=7.5)
        return
    used = points[points["year"].between(*span) & points[track.column].notna()]
    years = used["year"].to_numpy(float)
    middle = float(used[track.column].median())
    ends = np.array([years.min(), years.max()])
    line = (middle + slope * (ends - np.median(years))) * track.scale
    ax.plot(ends, line, color=INK, lw=1.5, ls="-" if p < alpha else (0, (4, 2.5)), zorder=3)
    rate = f"{slope * track.scale:+.2g}".replace("-", "−") if slope else "0"
    unit = f" {track.unit}" if track.unit else ""
    ax.set_title(
        f"Sen slope {rate}{unit} per year, p = {p:.2g}, n = {years.size}",
        loc="right",
        fontsize=7.5,
    )


def _year_limits(own: pd.DataFrame, rates: ChangeRates | None) -> tuple[float, float]:
    years = [*own["year"], *(() if rates is None else rates.edges)]
    return (min(years) - 1.0, max(years) + 1.0) if years else (0.0, 1.0)


def _round_limits(ax: Axes, low: float, high: float) -> None:
    """Let the axis end at ticks, so that the least and the largest value can be read."""
    ticks = MaxNLocator(4, steps=_STEPS, min_n_ticks=3).tick_values(low, high)
    ax.set_yticks(ticks)
    ax.set_ylim(ticks[0], ticks[-1])


def _separators(ax: Axes, edges: NDArray[Any], tops: NDArray[np.float64]) -> None:
    """White hairlines between neighbouring bars."""
    inner = np.maximum(np.abs(tops[:-1]), np.abs(tops[1:])) * np.sign(tops[:-1] + tops[1:])
    ax.vlines(edges[1:-1], 0, inner, color="white", lw=0.5)


def _hatch(
    ax: Axes, edges: NDArray[np.int64], tops: NDArray[np.float64], seam: tuple[int, int]
) -> None:
    for start, end, top in zip(edges[:-1], edges[1:], tops, strict=True):
        if start >= seam[0] and end <= seam[1]:
            ax.bar(
                (start + end + 1) / 2,
                top,
                width=end - start,
                fill=False,
                hatch="////",
                edgecolor=MUTED,
                lw=0,
            )


def _cover_legend(figure: Figure) -> None:
    handles = [Patch(color=COVER_COLORS[c], label=c) for c in COVERS]
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=len(COVERS),
        title="cover type before disturbance, after reclamation",
        title_fontsize=7.5,
        borderaxespad=0.0,
        borderpad=0.1,
    )


def _say(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED)
    ax.set_yticks([])


def _margins(height: float, *, top: float, bottom: float) -> dict[str, float]:
    """Margins of the axes from inches."""
    return {
        "left": 0.5 / WIDTH,
        "right": 1 - 0.1 / WIDTH,
        "top": 1 - top / height,
        "bottom": bottom / height,
    }

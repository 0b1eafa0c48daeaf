"""Map figures: the status map of a district and the three maps of a site."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import geopandas as gpd
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from minetrace.report.maps import (
    Frame,
    MapIndex,
    draw_frame,
    draw_outlines,
    draw_scale,
    frame_around,
    read_maps,
)
from minetrace.report.style import (
    HAIRLINE,
    INK,
    OBSERVED,
    STATUS_MARKS,
    UNKNOWN_CLASS,
    WIDTH,
    styled,
    year_colors,
)
from minetrace.schema import STATUSES, Legend

_MOST_CLASSES = 10
MOST_NUMBERS = 60
"""Sites up to which the status map numbers them."""
_NO_DATA = "#ffffff"


class _Sheet(NamedTuple):
    """Arrays of one site's maps."""

    first_development: NDArray[np.int16]
    first_landcover: NDArray[np.int16]
    last_landcover: NDArray[np.int16]


@styled
def status_map(
    table: gpd.GeoDataFrame,
    *,
    maps: MapIndex | None = None,
    years: tuple[int, int] | None = None,
) -> Figure:
    """Draw all sites by status over the year of first disturbance.

    Parameters
    ----------
    table
        Site table with ``status`` and geometry, EPSG:4326. Sites are numbered in its order, from
        one; beyond 60 sites, or where numbers would overlap, they are left out.
    maps
        The run's maps (`minetrace.report.maps.index_maps`); without them only sites are drawn.
        Maps that would be smaller than three display pixels are left out.
    years
        First and last year of the colour scale.

    Examples
    --------
    >>> from shapely.geometry import box
    >>> table = gpd.GeoDataFrame({"status": ["active"]}, geometry=[box(-51.7, 2.2, -51.6, 2.3)],
    ...     crs="EPSG:4326")
    >>> status_map(table).get_size_inches()[0].item()
    7.2
    """
    shapes = table.geometry
    drawn = ~(shapes.isna() | shapes.is_empty)
    frame = frame_around(shapes[drawn], margin=0.06, aspect=(0.45, 1.0), smallest_m=2000.0)
    left, right, above, below = 0.5, 0.1, 0.1, 0.85
    map_height = (WIDTH - left - right) * frame.height / frame.width
    height = map_height + above + below
    figure = Figure(figsize=(WIDTH, height))
    ax = figure.add_axes(
        (left / WIDTH, below / height, (WIDTH - left - right) / WIDTH, map_height / height)
    )
    if maps is not None and years is not None and maps.paths:
        values = read_maps(_visible(maps, frame), frame, longest=1000)
        _draw_years(ax, frame, values[0], values[2] > 0, years)
        bar = figure.add_axes((left / WIDTH, 0.4 / height, 2.4 / WIDTH, 0.09 / height))
        _year_bar(figure, bar, years)
        bar.set_xlabel("year of first disturbance", fontsize=7.5, labelpad=2)
    draw_frame(ax, frame, ticks=5)
    draw_scale(ax, frame)
    _draw_sites(ax, frame, table)
    handles = [
        Line2D(
            [],
            [],
            ls="",
            marker=STATUS_MARKS[s].marker,
            color=STATUS_MARKS[s].color,
            ms=6,
            mec="white",
            mew=0.6,
            label=f"{s} ({int((table['status'] == s).sum())})",
        )
        for s in STATUSES
    ]
    figure.legend(
        handles=handles,
        loc="upper right",
        ncols=3,
        borderaxespad=0.0,
        title="activity status (number of sites)",
        alignment="left",
        title_fontsize=7.5,
        bbox_to_anchor=(1 - right / WIDTH, 0.58 / height),
    )
    return figure


@styled
def site_maps(
    geometry: BaseGeometry,
    maps: MapIndex,
    *,
    legend: Legend,
    layers: Sequence[int],
    years: tuple[int, int],
) -> Figure | None:
    """Draw a site's first and last land cover and the year of first disturbance.

    Parameters
    ----------
    geometry
        The site, EPSG:4326.
    maps
        The run's maps; only those that the site touches are opened.
    legend
        Legend of the land cover.
    layers
        Years with a land-cover layer; the first and the last are named in the titles.
    years
        First and last year of the colour scale.

    Returns
    -------
    Figure or None
        None where no map has data around the site.
    """
    frame = frame_around([geometry])
    values = read_maps(maps.touching(geometry), frame)
    if not values.any():
        return None
    sheet = _Sheet(values[0], values[2], values[3])
    classes = _classes_by_area(sheet)
    rows = -(-min(len(classes), _MOST_CLASSES + 1) // 2)
    left, right, gap, above = 0.5, 0.1, 0.12, 0.26
    side = (WIDTH - left - right - 2 * gap) / 3
    below = max(0.34 + 0.165 * rows, 0.42)
    height = side + above + below
    figure = Figure(figsize=(WIDTH, height))
    axes = [
        figure.add_axes(
            ((left + i * (side + gap)) / WIDTH, below / height, side / WIDTH, side / height)
        )
        for i in range(3)
    ]
    _draw_classes(axes[0], frame, sheet.first_landcover, legend, f"Land cover, {min(layers)}")
    _draw_classes(axes[1], frame, sheet.last_landcover, legend, f"Land cover, {max(layers)}")
    axes[2].set_title("First disturbance, year")
    _draw_years(axes[2], frame, sheet.first_development, sheet.first_landcover > 0, years)
    for i, ax in enumerate(axes):
        draw_frame(ax, frame, ticks=3, labels=i == 0)
        draw_outlines(ax, frame, gpd.GeoSeries([geometry], crs="EPSG:4326"))
    draw_scale(axes[0], frame)
    bar_left = left + 2 * (side + gap)
    bar = figure.add_axes((bar_left / WIDTH, (below - 0.18) / height, side / WIDTH, 0.08 / height))
    _year_bar(figure, bar, years)
    _class_legend(figure, classes, legend, (left / WIDTH, (below - 0.28) / height))
    return figure


def _visible(maps: MapIndex, frame: Frame) -> tuple[Path, ...]:
    step = max(frame.width, frame.height) / 1000
    degree = 111_000.0
    return tuple(
        path
        for path, outline in zip(maps.paths, maps.footprints, strict=True)
        if (outline.bounds[3] - outline.bounds[1]) * degree > 3 * step
    )


def _draw_years(
    ax: Axes,
    frame: Frame,
    first_year: NDArray[np.int16],
    observed: NDArray[np.bool_],
    years: tuple[int, int],
) -> None:
    ax.imshow(
        np.where(observed, 1.0, np.nan),
        cmap=ListedColormap([OBSERVED]),
        extent=frame.extent,
        interpolation="nearest",
    )
    ax.imshow(
        np.ma.masked_equal(first_year, 0),
        cmap=year_colors(),
        norm=Normalize(*years),
        extent=frame.extent,
        interpolation="nearest",
    )


def _year_bar(figure: Figure, ax: Axes, years: tuple[int, int]) -> None:
    scale = ScalarMappable(Normalize(*years), year_colors())
    bar = figure.colorbar(scale, cax=ax, orientation="horizontal")
    bar.outline.set_linewidth(0.4)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))


def _draw_classes(
    ax: Axes, frame: Frame, codes: NDArray[np.int16], legend: Legend, title: str
) -> None:
    ax.set_title(title)
    colors = np.full((256, 3), to_rgb(UNKNOWN_CLASS))
    for entry in legend.classes:
        colors[entry.code] = to_rgb(_NO_DATA if entry.group == "nodata" else entry.color)
    colors[0] = to_rgb(_NO_DATA)
    ax.imshow(colors[codes & 255], extent=frame.extent, interpolation="nearest")


def _classes_by_area(sheet: _Sheet) -> list[int]:
    """Class codes in either land-cover map, the largest first."""
    both = np.concatenate([sheet.first_landcover.ravel(), sheet.last_landcover.ravel()])
    codes, counts = np.unique(both[both > 0], return_counts=True)
    return [int(c) for c in codes[np.argsort(-counts, kind="stable")]]


def _class_legend(
    figure: Figure, codes: Sequence[int], legend: Legend, anchor: tuple[float, float]
) -> None:
    names = {c.code: c for c in legend.classes if c.group != "nodata"}
    shown = [c for c in codes if c in names]
    handles = [
        Patch(facecolor=names[c].color, edgecolor=HAIRLINE, lw=0.5, label=names[c].name)
        for c in shown[:_MOST_CLASSES]
    ]
    rest = len(shown) - len(handles)
    if rest > 0:
        handles.append(Patch(facecolor="none", label=f"and {rest} smaller classes"))
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=anchor,
        ncols=2,
        borderaxespad=0.0,
        borderpad=0.0,
        labelspacing=0.35,
    )


def _draw_sites(ax: Axes, frame: Frame, table: gpd.GeoDataFrame) -> None:
    shapes = table.geometry
    drawn = (~(shapes.isna() | shapes.is_empty)).to_numpy()
    points = frame.project(shapes[drawn].representative_point())
    x, y = points.x.to_numpy(float), points.y.to_numpy(float)
    few = x.size <= MOST_NUMBERS
    status = table["status"].to_numpy()[drawn]
    for name in reversed(STATUSES):  # undefined beneath the others: it is mostly the commonest
        mark, chosen = STATUS_MARKS[name], status == name
        width = 0.9 if few else 0.5
        draw_outlines(ax, frame, shapes[drawn][chosen], color=mark.color, width=width)
        ax.plot(
            x[chosen],
            y[chosen],
            ls="",
            marker=mark.marker,
            color=mark.color,
            mec="white",
            ms=6.0 if few else 3.6,
            mew=0.7 if few else 0.35,
            zorder=5,
        )
    if few:
        _draw_numbers(ax, np.column_stack([x, y]), np.flatnonzero(drawn) + 1)


def _draw_numbers(ax: Axes, at: NDArray[np.float64], numbers: NDArray[np.int64]) -> None:
    """Write each number beside its mark, at the first of six places that is still free."""
    points = ax.transData.transform(at) * 72 / ax.figure.dpi
    taken = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    halo = [withStroke(linewidth=2.4, foreground="white")]
    for (x, y), place, number in zip(points, at, numbers, strict=True):
        width = 5.0 * len(str(number))
        for dx, dy in (
            (5, -4),
            (-5 - width, -4),
            (-width / 2, 5),
            (-width / 2, -13),
            (5, 3),
            (5, -11),
        ):
            label = Bbox.from_extents(x + dx, y + dy, x + dx + width, y + dy + 8)
            if label.count_overlaps(taken) == 0:
                taken.append(label)
                ax.annotate(
                    str(number),
                    tuple(place),
                    (dx, dy + 1),
                    color=INK,
                    fontsize=7.5,
                    textcoords="offset points",
                    path_effects=halo,
                    zorder=7,
                )
                break

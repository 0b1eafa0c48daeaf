"""Map sheets: a local frame, the run's rasters warped into it, and the furniture around them.

A frame is an equirectangular projection on a sphere, centred on what it shows: north is up,
parallels and meridians are straight, and lengths are true on the central parallel. Rasters are
warped for display only; no number of the report is taken from a map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patheffects import withStroke
from matplotlib.text import OffsetFrom
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

from minetrace.errors import InputError
from minetrace.report.style import INK

# one sphere for shapely and for GDAL, whose PROJ versions may treat an ellipsoid differently
_RADIUS = 6_371_008.8
_HALF_TURN = math.pi * _RADIUS
_NEAREST = Resampling.nearest
MAP_BANDS = ("first_development", "first_reclamation", "first_landcover", "last_landcover")


@dataclass(frozen=True)
class Frame:
    """The extent of a map in its local projection."""

    lon: float
    """Central meridian, degrees."""
    lat: float
    """Central parallel, along which lengths are true, degrees."""
    left: float
    bottom: float
    right: float
    top: float
    """Metres from the centre."""

    @property
    def crs(self) -> str:
        """PROJ string of the local projection."""
        return (
            f"+proj=eqc +lat_ts={self.lat!r} +lat_0={self.lat!r} +lon_0={self.lon!r} "
            f"+x_0=0 +y_0=0 +R={_RADIUS} +units=m +no_defs"
        )

    @property
    def width(self) -> float:
        """Metres."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Metres."""
        return self.top - self.bottom

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top, as ``imshow`` wants it."""
        return self.left, self.right, self.bottom, self.top

    def shape(self, longest: int) -> tuple[int, int]:
        """Rows and columns of a display grid whose longer side has ``longest`` pixels."""
        step = max(self.width, self.height) / longest
        return max(1, round(self.height / step)), max(1, round(self.width / step))

    def project(self, geometries: gpd.GeoSeries) -> gpd.GeoSeries:
        """Geometries with a CRS in this frame's metres."""
        return geometries.to_crs(self.crs)


def frame_around(
    geometries: Iterable[BaseGeometry],
    *,
    margin: float = 0.15,
    aspect: tuple[float, float] = (1.0, 1.0),
    smallest_m: float = 300.0,
) -> Frame:
    """Frame that shows all of some geometries in EPSG:4326.

    Parameters
    ----------
    geometries
        At least one that is not empty. Those split at 180° are shown in one piece.
    margin
        Share of the extent that is added on each side.
    aspect
        Least and largest height over width; the short side is padded.
    smallest_m
        Least width and height in metres.

    Examples
    --------
    >>> frame = frame_around([box(-51.7, 2.2, -51.5, 2.4)])
    >>> round(frame.lon, 3), round(frame.width / 1000, 1), round(frame.height / 1000, 1)
    (-51.6, 28.9, 28.9)
    """
    shapes = gpd.GeoSeries([g for g in geometries if not g.is_empty], crs="EPSG:4326")
    lon = _central_meridian(shapes)
    south, north = shapes.total_bounds[[1, 3]]
    lat = float((south + north) / 2)
    bounds = Frame(lon, lat, 0, 0, 0, 0).project(shapes).total_bounds
    left, bottom, right, top = (float(edge) for edge in bounds)
    width = max((right - left) * (1 + 2 * margin), smallest_m)
    height = max((top - bottom) * (1 + 2 * margin), smallest_m)
    height = max(height, width * aspect[0])
    width = max(width, height / aspect[1])
    x, y = (left + right) / 2, (bottom + top) / 2
    # never past the poles, nor more than once around
    half_x = min(width / 2, _HALF_TURN * math.cos(math.radians(lat)))
    low, high = (math.radians(edge - lat) * _RADIUS for edge in (-90.0, 90.0))
    return Frame(
        lon, lat, x - half_x, max(y - height / 2, low), x + half_x, min(y + height / 2, high)
    )


@dataclass(frozen=True)
class MapIndex:
    """The run's maps and where each lies, so that a site opens only what it touches."""

    paths: tuple[Path, ...]
    footprints: tuple[BaseGeometry, ...]
    """In EPSG:4326."""

    def touching(self, geometry: BaseGeometry) -> tuple[Path, ...]:
        """Return the maps that a geometry in EPSG:4326 touches."""
        pairs = zip(self.paths, self.footprints, strict=True)
        return tuple(path for path, outline in pairs if outline.intersects(geometry))


def index_maps(paths: Iterable[Path]) -> MapIndex:
    """Look up the footprint of every map.

    Raises
    ------
    InputError
        A map cannot be read, has no CRS or not the four bands of a run's map.

    Examples
    --------
    >>> index_maps([]).paths
    ()
    """
    known = tuple(paths)
    return MapIndex(known, tuple(_footprint(path) for path in known))


def read_maps(paths: Sequence[Path], frame: Frame, *, longest: int = 420) -> NDArray[np.int16]:
    """Warp maps into a frame, for display.

    Parameters
    ----------
    paths
        GeoTIFFs with the four bands of `MAP_BANDS`; where several have data, the first counts.
    frame
        What to show.
    longest
        Pixels of the longer side.

    Returns
    -------
    ndarray
        int16 ``(4, y, x)``, 0 where there is no data. Classes are taken from the nearest pixel;
        of several years in one display pixel the earliest is shown.

    Raises
    ------
    InputError
        A map is damaged.
    """
    ny, nx = frame.shape(longest)
    canvas = np.zeros((len(MAP_BANDS), ny, nx), np.int16)
    for path in paths:
        canvas = np.where(canvas == 0, _warp(path, frame, (ny, nx)), canvas)
    return canvas


def draw_frame(ax: Axes, frame: Frame, *, ticks: int = 4, labels: bool = True) -> None:
    """Fit axes to a frame and label longitude and latitude in degrees."""
    ax.set(xlim=(frame.left, frame.right), ylim=(frame.bottom, frame.top), aspect="equal")
    ax.spines[["top", "right"]].set_visible(True)
    radians_x = _RADIUS * math.cos(math.radians(frame.lat))
    _degrees(ax, "x", frame.lon, radians_x, (frame.left, frame.right), ticks, "EW")
    _degrees(ax, "y", frame.lat, _RADIUS, (frame.bottom, frame.top), ticks, "NS")
    ax.tick_params(axis="y", labelrotation=90)
    for label in ax.get_yticklabels():
        label.set_verticalalignment("center")
    if not labels:
        ax.tick_params(labelleft=False, labelbottom=False)


def draw_scale(ax: Axes, frame: Frame) -> None:
    """Draw a scale bar at the lower left and a north arrow at the upper right."""
    length = _nice_length(frame.width * 0.3)
    x, y = frame.left + 0.06 * frame.width, frame.bottom + 0.06 * frame.height
    halo = [withStroke(linewidth=3.2, foreground="white")]
    ax.plot(
        [x, x + length],
        [y, y],
        color=INK,
        lw=1.8,
        solid_capstyle="butt",
        path_effects=[withStroke(linewidth=4.2, foreground="white")],
        zorder=6,
    )
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    ax.annotate(
        text,
        (x + length / 2, y),
        (0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=7,
        path_effects=halo,
        zorder=6,
    )
    corner = OffsetFrom(ax.patch, (1.0, 1.0))
    ax.annotate(
        "N",
        (-12, -6),
        (-12, -30),
        xycoords=corner,
        textcoords=corner,
        ha="center",
        fontsize=7,
        path_effects=halo,
        zorder=6,
        arrowprops={
            "arrowstyle": "-|>",
            "color": INK,
            "lw": 0.9,
            "shrinkA": 0,
            "shrinkB": 0,
            "path_effects": halo,
        },
    )


def draw_outlines(
    ax: Axes, frame: Frame, geometries: gpd.GeoSeries, *, color: str = INK, width: float = 1.0
) -> None:
    """Draw the boundaries of polygons in EPSG:4326 with a white halo."""
    lines = frame.project(geometries).boundary.explode(index_parts=False)
    paths = [np.asarray(line.coords) for line in lines if not line.is_empty]
    halo = [withStroke(linewidth=2.2 * width, foreground="white")]
    ax.add_collection(
        LineCollection(paths, colors=color, linewidths=width, path_effects=halo, zorder=4),
        autolim=False,
    )


def _central_meridian(shapes: gpd.GeoSeries) -> float:
    """Longitude opposite to the widest empty arc, so that no geometry is cut in two."""
    parts = shapes.explode(index_parts=False).bounds
    spans = sorted(zip(parts["minx"], parts["maxx"], strict=True))
    widest, lon, reach = -1.0, 0.0, spans[0][0]
    for west, east in [*spans, (spans[0][0] + 360.0, spans[0][0] + 360.0)]:
        if west - reach > widest:
            widest = west - reach
            lon = (west + reach) / 2 + 180.0
        reach = max(reach, east)
    return float((lon + 180.0) % 360.0 - 180.0)


def _footprint(path: Path) -> BaseGeometry:
    try:
        with rasterio.open(path) as src:
            if src.crs is None or src.count < len(MAP_BANDS):
                raise InputError(
                    f"{path} is no map of a run: it needs a CRS and the bands "
                    f"{', '.join(MAP_BANDS)}. Run again to write it anew."
                )
            west, south, east, north = transform_bounds(src.crs, "EPSG:4326", *src.bounds)
    except RasterioError as err:
        raise InputError(f"{path} is damaged: {err}. Run again to write it anew.") from err
    if west <= east:
        return box(west, south, east, north)
    return unary_union([box(west, south, 180, north), box(-180, south, east, north)])


def _warp(path: Path, frame: Frame, shape: tuple[int, int]) -> NDArray[np.int16]:
    try:
        with rasterio.open(path) as src:
            left, _, right, _ = transform_bounds(src.crs, frame.crs, *src.bounds)
            coarser = src.width > (right - left) / frame.width * shape[1]
            years = _view(src, frame, shape, (1, 2), Resampling.min if coarser else _NEAREST)
            return np.concatenate([years, _view(src, frame, shape, (3, 4), _NEAREST)])
    except RasterioError as err:
        raise InputError(f"{path} is damaged: {err}. Run again to write it anew.") from err


def _view(
    src: DatasetReader,
    frame: Frame,
    shape: tuple[int, int],
    bands: tuple[int, int],
    rule: Resampling,
) -> NDArray[np.int16]:
    ny, nx = shape
    with WarpedVRT(
        src,
        crs=frame.crs,
        width=nx,
        height=ny,
        resampling=rule,
        src_nodata=0,
        nodata=0,
        transform=from_bounds(frame.left, frame.bottom, frame.right, frame.top, nx, ny),
        UNIFIED_SRC_NODATA="NO",  # each band has gaps of its own
    ) as view:
        return np.asarray(view.read(bands), np.int16)


def _degrees(
    ax: Axes,
    axis: str,
    centre: float,
    radius: float,
    limits: tuple[float, float],
    ticks: int,
    hemispheres: str,
) -> None:
    low, high = (centre + math.degrees(v / radius) for v in limits)
    at = np.array(
        [
            v
            for v in MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
            if low + (high - low) / 25 < v < high - (high - low) / 25
        ]
    )
    step = float(at[1] - at[0]) if at.size > 1 else high - low
    digits = max(0, math.ceil(-math.log10(step) - 1e-9)) if step else 0
    if at.size > 1 and not math.isclose(round(step, digits), step):
        digits += 1
    which = ax.xaxis if axis == "x" else ax.yaxis
    which.set_major_locator(FixedLocator(list(np.radians(at - centre) * radius)))
    which.set_major_formatter(FuncFormatter(_degree_label(centre, radius, digits, hemispheres)))


def _degree_label(
    centre: float, radius: float, digits: int, hemispheres: str
) -> Callable[[float, int], str]:
    def label(value: float, _position: int) -> str:
        degrees = centre + math.degrees(value / radius)
        if hemispheres == "EW":
            degrees = (degrees + 180.0) % 360.0 - 180.0
        text = f"{abs(degrees):.{digits}f}"
        side = "" if float(text) == 0 else hemispheres[0] if degrees > 0 else hemispheres[1]
        return f"{text}° {side}".rstrip()

    return label


def _nice_length(longest: float) -> float:
    """Largest 1, 2 or 5 × 10ⁿ that is not longer."""
    power = 10.0 ** math.floor(math.log10(longest))
    return max(k * power for k in (1, 2, 5) if k * power <= longest * (1 + 1e-9))

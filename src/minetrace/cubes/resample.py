"""Pixels of a file on a grid that is not the file's own."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
from numpy.typing import NDArray
from odc.geo.converters import rio_geobox
from odc.geo.geobox import GeoBox
from odc.geo.overlap import compute_reproject_roi
from odc.geo.roi import roi_is_empty
from rasterio.enums import Resampling
from rasterio.windows import Window

from minetrace.cubes.claims import same_crs
from minetrace.grid import transformer

_TIE = 1e-6
_STRIP = 2**24
"""Most stored pixels that are held to fill a grid which is not the file's own."""
_KEPT = 8
Roi = tuple[slice, slice]


def nearest(
    opened: rasterio.DatasetReader,
    band: int,
    dst: GeoBox,
    kind: np.dtype[Any],
    src_nodata: float | None,
    nodata: float | None,
) -> tuple[Roi, NDArray[Any]]:
    """Stored pixel in which each pixel's centre lies.

    GDAL's own warp interpolates positions between few exact ones, and how it does depends on the
    window: 2 % of the pixels of a grid in degrees came out one off, others by other chunks. It
    also lets overviews in, which are mixtures.
    """
    out = np.full(dst.shape, 0 if nodata is None else nodata, kind)
    (ny, nx), (height, width) = dst.shape, opened.shape
    # a coarse grid spreads over many stored pixels: a few rows of it are taken at a time
    rows_at_once = max(1, int(_STRIP / max(1.0, nx * _spread(opened, dst))))
    for top in range(0, ny, rows_at_once):
        strip = slice(top, min(top + rows_at_once, ny))
        col, row = _positions(opened, dst[strip, :])
        inside = (col >= 0) & (col < width) & (row >= 0) & (row < height)
        if not inside.any():
            continue
        col, row = np.where(inside, col, -1), np.where(inside, row, -1)
        left, first = int(col[inside].min()), int(row[inside].min())
        window = Window(left, first, int(col.max()) + 1 - left, int(row.max()) + 1 - first)
        stored = filled(opened.read(band, window=window), kind, src_nodata, nodata)
        out[strip][inside] = stored[row[inside] - first, col[inside] - left]
    return (slice(0, ny), slice(0, nx)), out


Positions = tuple[NDArray[np.int32], NDArray[np.int32]]


def _positions(opened: rasterio.DatasetReader, dst: GeoBox) -> Positions:
    crs = str(dst.crs)
    own = crs if same_crs(opened, crs) else opened.crs.to_wkt()
    shape = dst.shape[0], dst.shape[1]
    return _found(shape, tuple(dst.affine)[:6], crs, tuple(~opened.transform)[:6], own)


@lru_cache(maxsize=_KEPT)
def _found(
    shape: tuple[int, int],
    a: tuple[float, ...],
    crs: str,
    back: tuple[float, ...],
    file_crs: str,
) -> Positions:
    """Column and row of the file in which each pixel's centre lies, ``(y, x)`` each.

    Kept, since the files of a time series share their lattice, and an exact position takes more
    time than the decoding of the pixel there.
    """
    cols, rows = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    x, y = a[0] * cols + a[1] * rows + a[2], a[3] * cols + a[4] * rows + a[5]
    if file_crs != crs:
        x, y = transformer(crs, file_crs).transform(x, y)
    return _floor(back[0] * x + back[1] * y + back[2]), _floor(back[3] * x + back[4] * y + back[5])


def _floor(at: NDArray[np.float64]) -> NDArray[np.int32]:
    # a centre on an edge belongs to the pixel after it, whatever the last digits are; what has
    # no place in the file's CRS is infinite
    at = np.nan_to_num(np.floor(at + _TIE), nan=-1, posinf=-1, neginf=-1)
    return at.clip(-1, 2**31 - 1).astype(np.int32)


def _spread(opened: rasterio.DatasetReader, dst: GeoBox) -> float:
    """Stored pixels a pixel of the grid, about."""
    col, row = _positions(opened, dst.zoom_to((2, 2)))
    area = max(int(np.ptp(col)), 1) * max(int(np.ptp(row)), 1)
    return float(4 * area / (dst.shape[0] * dst.shape[1]))


def bilinear(
    opened: rasterio.DatasetReader,
    band: int,
    dst: GeoBox,
    kind: np.dtype[Any],
    src_nodata: float | None,
    nodata: float | None,
) -> tuple[Roi, NDArray[Any]]:
    """Values between the four nearest pixels, for continuous quantities."""
    roi: Roi = compute_reproject_roi(rio_geobox(opened), dst, ttol=0.05).roi_dst
    part = dst[roi]
    pixels = np.full(part.shape, 0 if nodata is None else nodata, kind)
    if not roi_is_empty(roi):
        rasterio.warp.reproject(
            rasterio.band(opened, band), pixels, src_nodata=src_nodata, dst_nodata=nodata,
            dst_crs=str(dst.crs), dst_transform=part.affine, resampling=Resampling.bilinear,
            # else GDAL guesses the scale, and so how far bilinear reaches, from the window
            XSCALE=1, YSCALE=1,
        )  # fmt: skip
    return roi, pixels


def filled(
    pixels: NDArray[Any], kind: np.dtype[Any], src_nodata: float | None, nodata: float | None
) -> NDArray[Any]:
    """Pixels in the type of the result, with its own value for gaps."""
    if nodata is None or src_nodata is None or _same(src_nodata, nodata):
        return pixels.astype(kind, copy=False)
    gaps = np.isnan(pixels) if math.isnan(src_nodata) else pixels == src_nodata
    out = pixels.astype(kind, copy=False)
    out[gaps] = nodata
    return out


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))

"""The reader that odc-loader calls: one window of one file, checked, patient, never silent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.roi import roi_is_empty
from odc.loader.types import RasterLoadParams, RasterSource
from rasterio.io import DatasetReader
from rasterio.windows import Window

from minetrace.catalog import redact
from minetrace.cubes.claims import Claim, check, same_crs
from minetrace.cubes.gaps import listed
from minetrace.cubes.remote import Access, driver_of, patiently
from minetrace.cubes.resample import Roi, bilinear, filled, nearest
from minetrace.errors import ReadError

MAX_BLOCK_BYTES = 2**28
"""Largest block that is decoded: one small file may declare gigabytes in one piece."""

_SLACK = 0.01
"""Most pixels by which two lattices may differ and be one."""
_NOTHING: Roi = (slice(0, 0), slice(0, 0))


def lay_down(dst: NDArray[Any], src: NDArray[Any]) -> None:
    """Fuse the only source of a chunk: what it lacks is a gap in both."""
    np.copyto(dst, src)


class ReadDriver:
    """odc-loader's driver protocol: makes a reader of each source, in whichever worker."""

    def __init__(self, access: Access, *, window: GeoBox, gaps: str, token: str) -> None:
        self.access = access
        self.md_parser = None
        self.window = window
        """Pixels outside it are not read, though chunks may reach beyond."""
        self.gaps = gaps
        """Name of the list of failures; empty where they raise."""
        self.token = token
        """Stands for all that a read depends on beyond its address."""
        self.dask_reader = None
        self.aux_reader = None

    def new_load(self, geobox: GeoBox, *, chunks: Mapping[str, int] | None = None) -> None:
        """No state is shared by the reads of a load."""

    def finalise_load(self, load_state: None) -> None:
        """Nothing is held open."""

    def capture_env(self) -> dict[str, Any]:
        """What enters the name of every task."""
        return {"minetrace": self.token}

    @contextmanager
    def restore_env(self, env: dict[str, Any], load_state: None) -> Iterator[None]:
        """GDAL's settings differ by file, so they are set at each read."""
        yield

    def open(self, src: RasterSource, ctx: None) -> Reader:
        """Reader of one source; its file is opened when it is read."""
        return Reader(src, self)


class Reader:
    """Reads windows of one band."""

    def __init__(self, src: RasterSource, driver: ReadDriver) -> None:
        self.claim: Claim = src.driver_data
        self.band: int = src.band
        self.driver = driver

    def read(
        self,
        cfg: RasterLoadParams,
        dst_geobox: GeoBox,
        *,
        dst: NDArray[Any] | None = None,
        selection: Any = None,
    ) -> tuple[Roi, NDArray[Any]]:
        """Pixels of a window that the file covers, and where in the window they lie.

        Raises
        ------
        ReadError
            Naming item, asset, window and reason; without a list of failures only.
        """
        wanted = _overlap(dst_geobox, self.driver.window)
        if roi_is_empty(wanted):
            return _NOTHING, np.empty((0, 0), cfg.dtype)
        whole = wanted == tuple(slice(0, n) for n in dst_geobox.shape)
        part = dst_geobox if whole else dst_geobox[wanted]

        def attempt(path: str) -> tuple[Roi, NDArray[Any]]:
            # rasterio.open would set GDAL up once more, which takes a tenth of the opening
            with DatasetReader(path, driver=driver_of(self.claim.href), sharing=False) as opened:
                check(self.claim, opened, self.band)
                refuse_bomb(opened, self.band)
                return read_band(opened, self.band, self.claim, cfg, part)

        try:
            roi, pixels = patiently(attempt, self.claim.href, self.driver.access)
        except ReadError as err:
            reason = str(err)
        else:
            return _shifted(roi, wanted), pixels
        self._fail(reason, part, cfg)
        return _NOTHING, np.empty((0, 0), cfg.dtype)

    def _fail(self, reason: str, part: GeoBox, cfg: RasterLoadParams) -> None:
        """List the failed read; raise where there is no list, or no value that marks a gap."""
        code = self.claim
        bounds = part.geographic_extent.boundingbox
        window = ",".join(f"{v:.5f}" for v in bounds.bbox)
        row = {"item": code.item, "asset": code.asset, "window": window, "reason": reason}
        markable = cfg.fill_value is not None or np.dtype(cfg.dtype).kind == "f"
        if markable and listed(self.driver.gaps, row):
            return
        error = ReadError(
            f"item {code.item!r}, asset {code.asset!r} ({redact(code.href)}) cannot be read in "
            f"the window {window}: {reason}"
        )
        error.item, error.asset, error.window = code.item, code.asset, window
        raise error


def read_band(
    opened: DatasetReader,
    band: int,
    code: Claim,
    cfg: RasterLoadParams,
    dst: GeoBox,
) -> tuple[Roi, NDArray[Any]]:
    """Pixels of one band on a grid, and where on the grid they lie."""
    kind = np.dtype(cfg.dtype)
    src_nodata, nodata = require_readable(opened, band, code, kind, cfg.fill_value)
    native = native_window(opened, code, dst)
    if native is not None:
        place, window = native
        return place, filled(opened.read(band, window=window), kind, src_nodata, nodata)
    warp = nearest if cfg.nearest else bilinear
    return warp(opened, band, dst, kind, src_nodata, nodata)


def require_readable(
    opened: DatasetReader,
    band: int,
    code: Claim,
    kind: np.dtype[Any],
    fill_value: float | None,
) -> tuple[float | None, float | None]:
    """Gap value of the file and of the result; `ReadError` for what cannot be read exactly."""
    src_nodata = opened.nodatavals[band - 1] if code.nodata is None else code.nodata
    stored = np.dtype(opened.dtypes[band - 1])
    if not np.can_cast(stored, kind):
        raise ReadError(
            f"the file holds {stored}, which {kind} cannot hold exactly; declare data_type in the "
            "item's raster:bands"
        )
    if opened.crs is None:
        raise ReadError(
            f"the {opened.driver} file has no CRS, so its pixels have no place; write it as a "
            "GeoTIFF"
        )
    if fill_value is None:
        return src_nodata, math.nan if kind.kind == "f" else src_nodata
    return src_nodata, fill_value


def native_window(opened: DatasetReader, code: Claim, dst: GeoBox) -> tuple[Roi, Window] | None:
    """Where the window and the file overlap, in both; None unless they share a pixel lattice."""
    t, d = opened.transform, dst.affine
    (ny, nx), (height, width) = dst.shape, opened.shape
    if t.b or t.d or d.b or d.d:
        return None
    # steps may differ by rounding, but not so far that the last pixel is another
    if abs(t.a - d.a) * nx > _SLACK * abs(d.a) or abs(t.e - d.e) * ny > _SLACK * abs(d.e):
        return None
    x, y = (d.c - t.c) / t.a, (d.f - t.f) / t.e
    col, row = round(x), round(y)
    if max(abs(x - col), abs(y - row)) > _SLACK:
        return None
    # that the file is in the CRS of its item has been seen already
    if code.crs != str(dst.crs) and not same_crs(opened, str(dst.crs)):
        return None
    top, left = max(row, 0), max(col, 0)
    bottom, right = max(min(row + ny, height), top), max(min(col + nx, width), left)
    place = slice(top - row, bottom - row), slice(left - col, right - col)
    return place, Window(left, top, right - left, bottom - top)


def refuse_bomb(opened: DatasetReader, band: int) -> None:
    """Refuse a file of which one block would fill the memory."""
    height, width = opened.block_shapes[band - 1]
    layers = opened.count if opened.interleaving == rasterio.enums.Interleaving.pixel else 1
    size = height * width * layers * np.dtype(opened.dtypes[band - 1]).itemsize
    if size > MAX_BLOCK_BYTES:
        raise ReadError(
            f"the file is stored in blocks of {height} × {width} pixels, {size / 2**20:,.0f} MiB "
            f"each; at most {MAX_BLOCK_BYTES // 2**20} MiB are decoded at once. Tile it, e.g. as "
            "a COG"
        )


def _overlap(part: GeoBox, window: GeoBox) -> Roi:
    """Part of a chunk that lies inside the window; both are on one lattice."""
    a, b = part.affine, window.affine
    if a == b:
        col, row = 0, 0
    else:
        col, row = (round(v) for v in part.wld2pix(b.c, b.f))
    (ny, nx), (height, width) = part.shape, window.shape
    return (
        slice(max(row, 0), max(min(row + height, ny), 0)),
        slice(max(col, 0), max(min(col + width, nx), 0)),
    )


def _shifted(roi: Roi, by: Roi) -> Roi:
    y, x = (slice(r.start + b.start, r.stop + b.start) for r, b in zip(roi, by, strict=True))
    return y, x

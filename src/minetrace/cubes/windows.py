"""Class codes of many windows at once: every file is opened once, every block decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.loader.types import RasterLoadParams

from minetrace.catalog import Source, item_time
from minetrace.cubes.claims import Claim, check, claim, load_dtype
from minetrace.cubes.landcover import class_codes, code_gaps, refuse_rivals
from minetrace.cubes.layers import band_of
from minetrace.cubes.read import native_window, read_band, refuse_bomb, require_readable
from minetrace.cubes.remote import Access, Patience, driver_of, is_remote, patiently
from minetrace.cubes.resample import filled
from minetrace.errors import ReadError
from minetrace.schema import Legend

BLOCK = 512
"""Side of the blocks of a file that nobody has opened yet."""


@dataclass(frozen=True, eq=False)
class CodeWindows:
    """Class codes of windows, one behind the other."""

    years: NDArray[np.int64]
    codes: NDArray[np.uint8]
    """uint8 ``(time, pixel)``: the windows' pixels row by row; 0 where there are no data."""
    lost: tuple[int, ...]
    """Windows in which a file could not be read."""


class _Layer(NamedTuple):
    """One band of a file and the layer that it fills."""

    step: int
    band: int
    claim: Claim


class _Target(NamedTuple):
    """Where layers are laid down."""

    windows: Sequence[GeoBox]
    shapes: Sequence[tuple[int, int]]
    starts: Sequence[int]
    """First pixel of each window, and the end of the last."""
    stored: NDArray[Any]
    """``(time, pixel)`` as stored."""
    fills: Sequence[float | None]
    """Gap value of each layer."""

    def of(self, step: int, window: int) -> NDArray[Any]:
        """Pixels ``(y, x)`` of a window in a layer, to be written to."""
        part = self.stored[step, self.starts[window] : self.starts[window + 1]]
        return part.reshape(self.shapes[window])


def read_codes(
    source: Source,
    items: Sequence[pystac.Item],
    legend: Legend,
    windows: Sequence[GeoBox],
    *,
    into: NDArray[np.uint8] | None = None,
    patience: Patience | None = None,
) -> CodeWindows:
    """Read the land cover of windows in all years of the items, as `landcover_node` gives it.

    Parameters
    ----------
    source, items, legend
        As for `open_cube`. Of several items of a year the first, by time and id, that has a value
        gives the pixel.
    windows
        Grids on the pixel lattice of the items.
    into
        Bytes to hold the codes if there are enough of them; from then on they belong to the result.
    patience
        How faults of servers are waited for.

    Raises
    ------
    SourceError, HrefError
        An item lacks the asset, its address is not allowed, or two dates of one year meet.
    ReadError
        Values that are no class codes.
    """
    refuse_rivals(items)
    key = source.asset_key("landcover")
    ordered = sorted(items, key=lambda item: (item_time(item).year, item_time(item), item.id))
    claims = [claim(source, item, *band_of(source, item, key)) for item in ordered]
    bands = [band_of(source, item, key)[1] for item in ordered]
    item_years = np.array([item_time(item).year for item in ordered])
    years, first, step = np.unique(item_years, return_index=True, return_inverse=True)
    dtype = np.result_type(*{load_dtype(source, code) for code in claims})
    fills = [claims[i].nodata for i in first]
    starts = np.cumsum([0, *(w.shape[0] * w.shape[1] for w in windows)])
    size = years.size * int(starts[-1])
    room = into is not None and dtype == np.uint8 and into.size >= size
    stored = into[:size] if into is not None and room else np.empty(size, dtype)
    stored = stored.reshape(years.size, int(starts[-1]))
    target = _Target(windows, [w.shape.yx for w in windows], starts.tolist(), stored, fills)
    files: dict[tuple[int, str], list[_Layer]] = {}
    for i, code in enumerate(claims):
        # the second items of their years come after all first ones
        turn = int(i - first[step[i]])
        files.setdefault((turn, code.href), []).append(_Layer(int(step[i]), bands[i], code))
    access = Access(source.signer(), source.config.hosts, patience or Patience())
    lost: set[int] = set()
    for (turn, href), layers in sorted(files.items(), key=lambda file: file[0][0]):
        lost |= _read_file(href, layers, target, access, over=turn == 0)
    for window in lost:
        for layer, fill in enumerate(fills):
            target.of(layer, window)[...] = 0 if fill is None else fill
    gaps = code_gaps(source, items, legend)
    codes = stored if dtype == np.uint8 else np.empty(stored.shape, np.uint8)
    for layer, block in enumerate(stored):
        found = class_codes(block, gaps)
        if found is not block:
            codes[layer] = found
    # kernels are compiled once more for arrays that can be written to
    codes.flags.writeable = False
    return CodeWindows(years.astype(np.int64), codes, tuple(sorted(lost)))


def block_shape(source: Source, item: pystac.Item) -> tuple[int, int]:
    """Rows and columns of the blocks of an item's land cover; 512 each if it cannot be read."""
    key, band = band_of(source, item, source.asset_key("landcover"))
    href = claim(source, item, key, band).href
    # units are planned by it: a guess after a fault would plan others than the run before
    access = Access(source.signer(), source.config.hosts, Patience())

    def shape(path: str) -> tuple[int, int]:
        with rasterio.open(path, driver=driver_of(href), sharing=False) as opened:
            height, width = opened.block_shapes[band - 1]
            return int(height), int(width)

    try:
        return patiently(shape, href, access)
    except (ReadError, IndexError):
        return BLOCK, BLOCK


def _read_file(
    href: str, layers: Sequence[_Layer], target: _Target, access: Access, *, over: bool
) -> set[int]:
    """Lay down all layers of a file in all windows; return the windows where that failed."""
    left = list(range(len(target.windows)))
    lost: set[int] = set()

    def attempt(path: str) -> None:
        with rasterio.open(path, driver=driver_of(href), sharing=False) as opened:
            for layer in layers:
                check(layer.claim, opened, layer.band)
            refuse_bomb(opened, layers[0].band)
            while left:
                _lay(opened, layers, target, left[0], over=over)
                left.pop(0)

    while left:
        before = len(left)
        try:
            patiently(attempt, href, access)
        except ReadError:
            if not is_remote(href):
                lost.add(left.pop(0))
            elif len(left) == before:
                return lost | set(left)
            # with many windows a round may fail and still have got on
    return lost


def _lay(
    opened: rasterio.DatasetReader,
    layers: Sequence[_Layer],
    target: _Target,
    window: int,
    *,
    over: bool,
) -> None:
    """Lay down layers of a file in one window; unless ``over``, in the gaps only."""
    grid, kind = target.windows[window], target.stored.dtype
    native = native_window(opened, layers[0].claim, grid)
    if native is None:
        for layer in layers:
            cfg = RasterLoadParams(str(kind), fill_value=target.fills[layer.step])
            place, pixels = read_band(opened, layer.band, layer.claim, cfg, grid)
            _put(target.of(layer.step, window), place, pixels, target.fills[layer.step], over)
        return
    place, part = native
    # all bands in one call: a file may hold them pixel by pixel, and then decodes them together
    stack = opened.read([layer.band for layer in layers], window=part)
    for layer, pixels in zip(layers, stack, strict=True):
        fill = target.fills[layer.step]
        marks = require_readable(opened, layer.band, layer.claim, kind, fill)
        _put(target.of(layer.step, window), place, filled(pixels, kind, *marks), fill, over)


def _put(
    to: NDArray[Any],
    place: tuple[slice, slice],
    pixels: NDArray[Any],
    fill: float | None,
    over: bool,
) -> None:
    """Lay pixels down at their place in a window that holds, if ``over``, anything."""
    gap, part = 0 if fill is None else fill, to[place]
    if not over:
        np.copyto(part, pixels, where=part == gap)
        return
    if part.shape != to.shape:
        to[...] = gap
    part[...] = pixels

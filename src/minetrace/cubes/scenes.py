"""Scenes: what a satellite saw on each day, as reflectance with the unclear pixels taken out."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import groupby
from typing import Any

import dask.array as da
import numpy as np
import pystac
import shapely
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from minetrace.catalog import Source, item_time
from minetrace.catalog.search import footprint
from minetrace.cubes.duplicates import latest_items, standing
from minetrace.cubes.lattice import grid_coords
from minetrace.cubes.layers import Engine, load_layers
from minetrace.cubes.masks import (
    CLEAR,
    CLOUD,
    LAYERS,
    OUT,
    VERDICTS,
    check_mask,
    qa_radsat,
    sensor_band,
)
from minetrace.cubes.radiometry import (
    Encoding,
    check_offset,
    marked_encoding,
    says_offset_left,
    too_low,
)
from minetrace.cubes.steps import solar_shift
from minetrace.errors import RecipeError, SourceError
from minetrace.kernels.bright import restore_bright
from minetrace.kernels.mosaic import hide_codes, judge, lay_over, take_better
from minetrace.schema import ImageryRecipe

_STRIP = 2**23
"""Values that are held as float32 at a time, 32 MiB."""
_LARGE = 2**22
"""Values from which on a lone block is made by two tasks."""


def clear_scenes(
    source: Source,
    items: Sequence[pystac.Item],
    part: ImageryRecipe,
    geobox: GeoBox,
    *,
    chunks: Mapping[str, int] | None = None,
    engine: Engine = "odc",
) -> xr.Dataset:
    """Reflectance of each solar day, NaN where the ground was not seen clearly.

    Each acquisition is used once, in its latest processing. Items of one solar day, by the
    longitude of the grid's centre, become one step: a pixel is taken from the first item that
    shows it clearly in every band. First comes the latest processing, then the item that covers
    more of the grid, then the lesser id. Scale, offset and mask are each item's own, so items of
    one day may be encoded differently. The order of ``items`` and items given twice change
    nothing.

    Parameters
    ----------
    source
        Where the items come from; its ``[bands]`` name the assets of bands and quality layers.
        ``qa_radsat`` there also hides pixels that are saturated in one of the bands.
    items
        At least one.
    part
        Bands, mask and ``keep_bright``, which judges by all days of the call: give a year or a
        season.
    geobox
        Grid of the result; values are those of the nearest stored pixel.
    chunks
        Sides ``y`` and ``x`` of a block.
    engine
        Library that loads.

    Returns
    -------
    Dataset
        Dask-backed float32 ``(time, y, x)`` for each band of ``part``, dimensionless. All
        bands of a pixel are NaN or none. ``time`` is the UTC moment of the day's first item, and
        one chunk.

    Raises
    ------
    SourceError
        No items, an item without a needed asset or a gap value, flags that contradict, or a
        quality layer known to be empty.
    RecipeError
        ``keep_bright`` without a mask.
    ReadError
        When computed: pixels contradict the flag on the offset of Sentinel-2, see `check_offset`.
    """
    days = open_days(source, items, part, geobox, chunks=chunks, engine=engine)
    stack = days.map(_as_they_are, (len(part.bands), len(days.times)))
    return xr.Dataset(
        {band: (("time", "y", "x"), stack[i]) for i, band in enumerate(part.bands)},
        coords={"time": days.times, **grid_coords(geobox)},
    )


@dataclass(frozen=True)
class Days:
    """Stored blocks of every item, and how the days are made of them."""

    times: NDArray[np.datetime64]
    """UTC moment of each day's first item."""
    blocks: tuple[Any, ...]
    """Arrays and their dims, as `dask.array.blockwise` takes them."""
    n_layers: int
    """Arrays of one load."""
    plan: _Plan

    def map(
        self, function: Callable[[NDArray[np.float32]], NDArray[np.float32]], shape: tuple[int, ...]
    ) -> da.Array:
        """Results ``(*shape, y, x)`` of a function of clear reflectance ``(band, day, y, x)``.

        One task makes a block, strip by strip: a block's days never lie in memory as a whole. The
        function must not keep what it is given, nor look beyond a pixel.
        """
        dims = tuple(f"axis{i}" for i in range(len(shape)))

        def make(part: tuple[int, int], **options: Any) -> da.Array:
            # dask looks for arrays in every leaf of an argument, and a plan has thousands
            task = partial(
                _map_block, n_layers=self.n_layers, plan=self.plan, function=function,
                shape=shape, part=part,
            )  # fmt: skip
            made: da.Array = da.blockwise(
                task, (*dims, "y", "x"), *self.blocks,
                new_axes=dict(zip(dims, shape, strict=True)), dtype=np.float32, concatenate=False,
                meta=np.empty((0,) * (len(shape) + 2), np.float32), **options,
            )  # fmt: skip
            return made

        _, ny, nx = self.blocks[0].shape
        n_seen = len(self.plan.days) * len(self.plan.days[0][0].codes)
        alone = math.prod(self.blocks[0].numblocks[1:]) == 1
        if not alone or math.prod(shape) >= n_seen or n_seen * ny * nx < _LARGE:
            return make((0, 1))
        # a lone block would leave all threads but one idle
        halves = [
            make((k, 2), adjust_chunks={"y": (ny * (k + 1) // 2 - ny * k // 2,)}) for k in (0, 1)
        ]
        joined: da.Array = da.concatenate(halves, axis=-2).rechunk({len(shape): -1})
        return joined


def open_days(
    source: Source,
    items: Sequence[pystac.Item],
    part: ImageryRecipe,
    geobox: GeoBox,
    *,
    chunks: Mapping[str, int] | None = None,
    engine: Engine = "odc",
) -> Days:
    """Days of `clear_scenes`, to be made into something smaller."""
    if not items:
        raise SourceError(f"source {source.name!r} has no items for scenes; widen the years")
    if part.keep_bright and part.mask is None:
        raise RecipeError("keep_bright undoes part of a mask: name the mask")
    days = _solar_days(items, geobox)
    times = [item_time(day[0]).replace(tzinfo=None) for day in days]
    made = _load(source, days, part, geobox, chunks, engine)
    return Days(np.array(times, "datetime64[ns]"), *made)


def _solar_days(items: Sequence[pystac.Item], geobox: GeoBox) -> list[list[pystac.Item]]:
    """Items of each day by the sun, without replaced ones; the first of a day is its earliest."""
    shift = solar_shift(geobox)
    return [
        list(day)
        for _, day in groupby(latest_items(items), lambda item: (item_time(item) + shift).date())
    ]


@dataclass(frozen=True)
class _View:
    """One item of a day: where its blocks are, and how to read them."""

    place: tuple[int, int]
    """Load and index within it."""
    codes: tuple[Encoding, ...]
    sensors: tuple[int, ...]
    """Numbers of the sensor's bands, for ``qa_radsat``; empty without."""
    doubted: str
    """Id of an item whose flag on the offset its pixels may contradict, else empty."""


@dataclass(frozen=True)
class _Plan:
    days: tuple[tuple[_View, ...], ...]
    """Views of each day, the first choice first."""
    mask: str | None
    keep_bright: bool

    @cached_property
    def token(self) -> str:
        """What tells plans apart; dask's own way takes longer than to read the catalogue."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def __dask_tokenize__(self) -> tuple[str, str]:
        return type(self).__name__, self.token


def _load(
    source: Source,
    days: Sequence[Sequence[pystac.Item]],
    part: ImageryRecipe,
    geobox: GeoBox,
    chunks: Mapping[str, int] | None,
    engine: Engine,
) -> tuple[tuple[Any, ...], int, _Plan]:
    """Blocks, layers a load and plan of `Days`."""
    keys = [source.asset_key(band) for band in part.bands]
    quality: list[str] = [part.mask] if part.mask else []
    quality += ["qa_radsat"] if "qa_radsat" in source.config.bands else []
    masks = [source.asset_key(layer) for layer in quality]
    checked = source.config.radiometry.rule == "sentinel2_l2a"
    views: dict[int, _View] = {}
    loads: dict[tuple[object, ...], list[pystac.Item]] = {}
    for item in (item for day in days for item in day):
        if part.mask is not None:
            check_mask(item, part.mask)
        for key in (*keys, *masks):
            source.asset(item, key)
        numbers = [source.band(item, band) for band in part.bands]
        codes = tuple(
            marked_encoding(source, item, key, band=n) for key, n in zip(keys, numbers, strict=True)
        )
        # a load has one band, one type and one gap value an asset
        alike = (*numbers, *((c.dtype, c.nodata) for c in codes))
        group = loads.setdefault(alike, [])
        sensors = tuple(sensor_band(item, key) for key in keys) if "qa_radsat" in quality else ()
        doubted = item.id if checked and codes[0].offset < 0 and says_offset_left(item) else ""
        views[id(item)] = _View((list(loads).index(alike), len(group)), codes, sensors, doubted)
        group.append(item)
    wanted = [_name(source, band) for band in part.bands] + masks
    blocks: list[Any] = []
    for i, group in enumerate(loads.values()):
        raw = load_layers(
            source, group, wanted, geobox, groupby=_each, chunks=chunks, engine=engine
        )
        for key in wanted:
            blocks += [raw[key].data, (f"item{i}", "y", "x")]
    plan = _Plan(
        tuple(tuple(views[id(item)] for item in _ranked(day, geobox)) for day in days),
        part.mask,
        part.keep_bright,
    )
    return tuple(blocks), len(wanted), plan


def _name(source: Source, band: str) -> str:
    """Name of a band for the loader: its asset, with the number of the band if several share it."""
    number = source.config.band_index.get(band)
    key = source.asset_key(band)
    return key if number is None else f"{key}.{number}"


def _each(item: pystac.Item, index: int) -> int:
    return index


def _ranked(day: Sequence[pystac.Item], geobox: GeoBox) -> list[pystac.Item]:
    """Items of a day, the first choice first."""
    if len(day) == 1:
        return list(day)
    window = geobox.extent.to_crs("EPSG:4326").geom
    shapely.prepare(window)

    def rank(item: pystac.Item) -> tuple[tuple[float, ...], float, str]:
        share = footprint(item).intersection(window).area / window.area
        return tuple(-s for s in standing(item)), -round(share, 3), item.id

    return sorted(day, key=rank)


def _map_block(
    *layers: list[NDArray[Any]],
    n_layers: int,
    plan: _Plan,
    function: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    shape: tuple[int, ...],
    part: tuple[int, int],
) -> NDArray[np.float32]:
    """Blocks ``(1, y, x)`` of each item, layer by layer and load by load → (*shape, y, x).

    ``part`` is the number of a part and how many there are; the parts follow one another in y.
    """
    ny, nx = layers[0][0].shape[1:]
    first, last = ny * part[0] // part[1], ny * (part[0] + 1) // part[1]
    n_band, n_day = len(plan.days[0][0].codes), len(plan.days)
    n_row = max(1, min(ny, _STRIP // max(n_band * n_day * nx, 1)))
    buffer = np.empty(n_band * n_day * n_row * nx, np.float32)
    out = np.empty((*shape, last - first, nx), np.float32)
    low: Counter[tuple[str, int]] = Counter()
    seen: Counter[tuple[str, int]] = Counter()
    for top in range(first, last, n_row):
        rows = slice(top, min(top + n_row, last))
        clear = buffer[: n_band * n_day * (rows.stop - top) * nx].reshape(n_band, n_day, -1)
        _fill_clear([[b[0, rows] for b in blocks] for blocks in layers],
                    n_layers, plan, clear, low, seen)  # fmt: skip
        out[..., top - first : rows.stop - first, :] = function(
            clear.reshape(n_band, n_day, -1, nx)
        )
    for (item_id, band), n in seen.items():
        check_offset(item_id, low[item_id, band], n)
    return out


def _as_they_are(stack: NDArray[np.float32]) -> NDArray[np.float32]:
    return stack


def _fill_clear(
    layers: list[list[NDArray[Any]]],
    n_layers: int,
    plan: _Plan,
    out: NDArray[np.float32],
    low: Counter[tuple[str, int]],
    seen: Counter[tuple[str, int]],
) -> None:
    """Fill ``out`` ``(band, day, pixel)``, and count clear and too low pixels of doubted items."""
    n_band, n_day, n_pixel = out.shape
    cloud = np.zeros((n_day, n_pixel), np.bool_) if plan.keep_bright else None
    best, chosen = np.empty(n_pixel, np.uint8), np.empty(n_pixel, np.bool_)
    for d, day in enumerate(plan.days):
        best[:] = OUT
        for nth, view in enumerate(day):
            load, at = view.place
            mine = [layer[at] for layer in layers[load * n_layers : (load + 1) * n_layers]]
            bands = [np.ascontiguousarray(block).reshape(-1) for block in mine[:n_band]]
            state = _state(bands, mine[n_band:], view, plan)
            take_better(state, best, chosen)
            for b, (band, code) in enumerate(zip(bands, view.codes, strict=True)):
                lay_over(band, code.scale, code.offset, chosen, nth == 0, out[b, d])
                if view.doubted:
                    clear = band[state == CLEAR]
                    seen[view.doubted, b] += clear.size
                    low[view.doubted, b] += too_low(clear, code)
        if cloud is not None:
            cloud[d] = best == CLOUD
    if cloud is not None:
        restore_bright(out, cloud)
        out[:, cloud] = np.nan


@lru_cache(maxsize=256)
def _gaps(code: Encoding, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Stored values that are no observation, those that the type can hold."""
    marks = [float(mark) for mark in (code.nodata, code.saturated) if mark is not None]
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        marks = [m for m in marks if m.is_integer() and info.min <= m <= info.max]
    return np.array(marks).astype(dtype)


def _state(
    bands: Sequence[NDArray[Any]], quality: Sequence[NDArray[Any]], view: _View, plan: _Plan
) -> NDArray[np.uint8]:
    """Verdict on each pixel of a view, the worst of its layers."""
    state = np.full(bands[0].size, CLEAR, np.uint8)
    names = [*([plan.mask] if plan.mask else []), *(["qa_radsat"] if view.sensors else [])]
    for name, block in zip(names, quality, strict=True):
        judge(_quality_codes(block, name), _verdicts(name, view.sensors, plan.keep_bright), state)
    for band, code in zip(bands, view.codes, strict=True):
        hide_codes(band, _gaps(code, band.dtype), state, OUT)
    return state


def _quality_codes(block: NDArray[Any], name: str) -> NDArray[Any]:
    flat = np.ascontiguousarray(block).reshape(-1)
    dtype = np.dtype(LAYERS[name])
    if flat.dtype == dtype:
        return flat
    # an asset whose type nobody declares comes as float; outside of it is NaN, which is no view
    whole = (
        np.where(np.isfinite(flat), flat, np.iinfo(dtype).max) if flat.dtype.kind == "f" else (flat)
    )
    codes: NDArray[Any] = whole.astype(np.int64).clip(0, np.iinfo(dtype).max).astype(dtype)
    return codes


@lru_cache(maxsize=64)
def _verdicts(name: str, sensors: tuple[int, ...], keep_cloud: bool) -> NDArray[np.uint8]:
    """Verdict on every code of a quality layer."""
    codes = np.arange(1 << (8 * np.dtype(LAYERS[name]).itemsize))
    found = qa_radsat(codes, sensors) if name == "qa_radsat" else VERDICTS[name](codes)
    return found if keep_cloud else np.where(found == CLEAR, CLEAR, OUT).astype(np.uint8)

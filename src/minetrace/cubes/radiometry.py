"""How items store values, and stored values → physical ones."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pystac
from numpy.typing import NDArray

from minetrace.catalog import Source
from minetrace.cubes.masks import LAYERS
from minetrace.errors import ReadError, SourceError

BOA_OFFSET = -0.1
"""Reflectance that Sentinel-2 L2A stores too much since processing baseline 04.00: 1000 counts."""
_SHIFTED_SINCE = 4.0
_FLAGS = ("earthsearch:boa_offset_applied", "s2:boa_offset_applied", "sentinel:boa_offset_applied")
_BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
_PRODUCTS = ("s2:product_uri", "s2:product_id", "sentinel:product_id")
_LOWEST, _LOW_SHARE, _ENOUGH = -0.05, 0.05, 100
_IN_NAME = re.compile(r"_N(\d\d)(\d\d)_")


@dataclass(frozen=True)
class Encoding:
    """How an asset stores its values: physical = stored × scale + offset."""

    dtype: str
    """Empty where the item does not say."""
    nodata: float | None
    scale: float = 1.0
    offset: float = 0.0
    saturated: float | None = None
    """Stored value that marks a saturated detector; a gap like ``nodata``."""


def encoding(source: Source, item: pystac.Item, key: str, *, band: int | None = None) -> Encoding:
    """Tell how an asset stores its values.

    Scale, offset, nodata and type come from ``raster:bands`` or STAC 1.1 ``bands``. Where the item
    is silent, the source's ``[radiometry]`` stands in; scale and offset are one statement, so an
    item that gives one of them is silent on neither. Quality layers are never scaled. Sources of
    ``rule = "sentinel2_l2a"`` also settle the offset of baseline 04.00, see `sentinel2_offset`.

    Parameters
    ----------
    source
        Where the item comes from.
    item, key
        The item and one of its assets.
    band
        Band of the asset, from 1; the item's ``minetrace:band``, else 1, where not given.

    Raises
    ------
    SourceError
        The item lacks the band, a field is no number, or flags on the offset contradict.
    """
    own = _Fields(item, key, band)
    kind, nodata = own.text("data_type"), own.number("nodata")
    if key in {source.asset_key(layer) for layer in LAYERS}:
        return Encoding(kind, _marked(nodata))
    rules = source.config.radiometry
    scale, offset = own.number("scale"), own.number("offset")
    if scale is None and offset is None:
        scale, offset = rules.scale, rules.offset
    if nodata is None:
        nodata = rules.nodata
    if rules.rule == "sentinel2_l2a":
        scale = 1e-4 if scale is None else scale
        offset = sentinel2_offset(item, offset)
        nodata = 0.0 if nodata is None else nodata
        kind = kind or "uint16"
    scale, offset = (1.0 if scale is None else scale), (0.0 if offset is None else offset)
    if not (math.isfinite(scale) and math.isfinite(offset) and scale != 0):
        raise SourceError(
            f"item {item.id!r}, asset {key!r}, is stored with scale {scale:g} and offset "
            f"{offset:g}, which turn values into no numbers; mend its raster:bands"
        )
    return Encoding(kind, _marked(nodata), scale, offset, rules.saturated)


def sentinel2_offset(item: pystac.Item, declared: float | None) -> float:
    """Offset of a Sentinel-2 L2A item in reflectance, by its baseline and its provider's flag.

    Products of baseline 04.00 and later store 1000 counts more. Some providers take them off
    and say so in a flag. The flag is believed over ``raster:bands``, which keeps the offset of the
    original product, and older baselines never have one, whatever is declared.

    Parameters
    ----------
    item
        Item with its properties.
    declared
        Offset of its ``raster:bands``, if it declares one.

    Returns
    -------
    float
        0 where the pixels hold no offset, else what takes it off.

    Raises
    ------
    SourceError
        Flags or baselines contradict each other, no baseline is given, or an offset of 0 is
        declared for pixels that should have one.
    """
    applied = _flag(item)
    if applied:
        return 0.0
    baseline = _baseline(item)
    if baseline is None:
        raise SourceError(
            f"item {item.id!r} gives no processing baseline and no flag that the offset of "
            "baseline 04.00 is taken off, so its reflectance is not known; use a collection that "
            'does, or rule = "item" in [radiometry] if its raster:bands are right'
        )
    if baseline < _SHIFTED_SINCE:
        return 0.0
    if declared == 0:
        says = "no boa_offset_applied flag" if applied is None else "boa_offset_applied = false"
        raise SourceError(
            f"item {item.id!r} has processing baseline {baseline:05.2f} and {says}, so its pixels "
            "hold an offset of 1000, but its raster:bands declare offset 0. Which is right "
            'cannot be told; if it is raster:bands, set rule = "item" in [radiometry]'
        )
    return BOA_OFFSET if declared is None else declared


def too_low(stored: NDArray[Any], code: Encoding) -> int:
    """Values that no ground gives, if the offset of baseline 04.00 is taken off them."""
    return int(np.count_nonzero(stored < (_LOWEST - code.offset) / code.scale))


def check_offset(item_id: str, low: int, n: int) -> None:
    """Refuse pixels that cannot hold the offset that their item's flag leaves in them.

    Some flags say ``false`` although the offset is taken off. Reflectance is then too low by 0.1,
    below anything that dark ground or the correction of the atmosphere give.

    Parameters
    ----------
    item_id
        Item, for the message.
    low, n
        Clear pixels of one band that are `too_low`, and all of them.

    Raises
    ------
    ReadError
        More than 5 % of at least 100 pixels come out below −0.05.
    """
    if n >= _ENOUGH and low > _LOW_SHARE * n:
        raise ReadError(
            f"item {item_id!r} says that the offset of baseline 04.00 is still in its pixels, but "
            f"{low / n:.0%} of the clear ones would be below {_LOWEST:g} without it: the "
            "flag is wrong. Take the scene from another collection, as sentinel-2-c1-l2a"
        )


def says_offset_left(item: pystac.Item) -> bool:
    """Whether an item's flag says that the offset of baseline 04.00 is still in its pixels."""
    return _flag(item) is False


def marked_encoding(
    source: Source, item: pystac.Item, key: str, *, band: int | None = None
) -> Encoding:
    """Encoding whose gaps can be told; integers without a nodata value are refused."""
    code = encoding(source, item, key, band=band)
    if code.nodata is None and not code.dtype.startswith("float"):
        raise SourceError(
            f"item {item.id!r}, asset {key!r}, declares no nodata value, so "
            "gaps cannot be told from dark ground; declare it in raster:bands, or as nodata in "
            "[radiometry] of the source's TOML"
        )
    return code


def physical(block: da.Array, code: Encoding) -> da.Array:
    """Stored values → float32 physical values, NaN where nodata."""
    return block.map_blocks(
        to_physical, code, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32)
    )


def to_physical(values: NDArray[Any], code: Encoding) -> NDArray[np.float32]:
    """Stored values → float32 physical values, NaN where nodata or saturated.

    Nothing is clipped: an offset may leave dark ground slightly below 0.
    """
    # float64 inside: a uint16 count times a decimal scale is not exact in float32
    wide = values.astype(np.float64) * code.scale + code.offset
    out: NDArray[np.float32] = wide.astype(np.float32)
    for gap in (code.nodata, code.saturated):
        if gap is not None:
            out[values == gap] = np.nan
    return out


def _marked(nodata: float | None) -> float | None:
    # NaN is always a gap, and unequal to itself: it must not tell encodings apart
    return None if nodata is None or math.isnan(nodata) else nodata


def _flag(item: pystac.Item) -> bool | None:
    said = {name: item.properties[name] for name in _FLAGS if name in item.properties}
    read = {name: str(value).lower() for name, value in said.items() if value is not None}
    values = set(read.values())
    if len(values) > 1 or values - {"true", "false"}:
        shown = ", ".join(f"{name} = {value!r}" for name, value in said.items())
        raise SourceError(
            f"item {item.id!r} says {shown}: whether the offset of baseline 04.00 is still in its "
            "pixels cannot be told"
        )
    return None if not values else values == {"true"}


def _baseline(item: pystac.Item) -> float | None:
    """Processing baseline by property and product name; they must agree on the offset."""
    said: dict[str, float] = {}
    for name in _BASELINES:
        text = str(item.properties.get(name, ""))
        if re.fullmatch(r"\d+\.\d+", text):
            said[f"{name} = {text}"] = float(text)
    for name in _PRODUCTS:
        text = str(item.properties.get(name, ""))
        if found := _IN_NAME.search(text):
            said[f"{name} = {text}"] = float(".".join(found.groups()))
    if len({value >= _SHIFTED_SINCE for value in said.values()}) > 1:
        raise SourceError(
            f"item {item.id!r} says {' and '.join(said)}: whether its pixels hold the offset of "
            "baseline 04.00 cannot be told"
        )
    return next(iter(said.values()), None)


class _Fields:
    """What an item says of one band of an asset, wherever the STAC version puts it."""

    def __init__(self, item: pystac.Item, key: str, band: int | None) -> None:
        self.item, self.key = item, key
        asset = item.assets[key]
        bands = asset.extra_fields.get("raster:bands") or asset.extra_fields.get("bands") or []
        index = int(item.properties.get("minetrace:band", 1) if band is None else band) - 1
        if bands and index >= len(bands):
            raise SourceError(
                f"item {item.id!r} points to band {index + 1} of asset {key!r}, which "
                f"describes {len(bands)}"
            )
        self.own: Mapping[str, object] = bands[index] if bands else {}
        self.shared: Mapping[str, object] = asset.extra_fields

    def get(self, name: str) -> object:
        places = ((self.own, name), (self.own, f"raster:{name}"),
                  (self.shared, f"raster:{name}"), (self.shared, name))  # fmt: skip
        return next((p[n] for p, n in places if p.get(n) is not None), None)

    def text(self, name: str) -> str:
        value = self.get(name)
        return "" if value is None else str(value)

    def number(self, name: str) -> float | None:
        value = self.get(name)
        if value is None:
            return None
        try:
            return float(str(value))
        except ValueError:
            raise SourceError(
                f"item {self.item.id!r}, asset {self.key!r}, declares {name} = {value!r}, which "
                "is no number"
            ) from None

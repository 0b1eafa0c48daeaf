"""Quality layers: what the codes and bits of each kind say of a view of the ground.

A view is `CLEAR`, `CLOUD` (taken for cloud, which bright ground may be too) or `OUT` (no data,
shadow, cirrus, snow, defect). Codes are read as they are stored: nearest pixels, never mixed.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence

import numpy as np
import pystac
from numpy.typing import NDArray

from minetrace.catalog import item_time
from minetrace.errors import SourceError

CLEAR, CLOUD, OUT = 0, 1, 2

SCL_CLOUD: tuple[int, ...] = (8, 9)
SCL_OUT: tuple[int, ...] = (0, 1, 3, 8, 9, 10, 11)
"""Sentinel-2 scene classes that are no clear view of the ground: no data, defective, cloud
shadow, cloud (medium, high), cirrus, snow. Dark (2) and unclassified (7) pixels stay: coal and
tailings fall there. So do vegetation (4), bare ground (5) and water (6)."""

LAYERS: dict[str, str] = {
    "scl": "uint8", "qa_pixel": "uint16", "fmask": "uint8", "qa60": "uint16", "qa_radsat": "uint16",
}  # fmt: skip
"""Quality layers by their name in a source's ``[bands]``, and the type that holds their codes."""

QA60_EMPTY = (dt.datetime(2022, 1, 25, tzinfo=dt.UTC), dt.datetime(2024, 2, 28, tzinfo=dt.UTC))
"""Sensing times whose products carry an empty QA60: all 0 says nothing there."""

_DROPPED, _OCCLUDED = 9, 11


def scl(codes: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Sentinel-2 scene classification: verdict of each code; codes above 11 are `OUT`.

    Examples
    --------
    >>> scl(np.array([4, 9, 3])).tolist()
    [0, 1, 2]
    """
    out = np.isin(codes, SCL_OUT) | (codes > 11)
    return _verdict(out, np.isin(codes, SCL_CLOUD))


def qa_pixel(codes: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Landsat Collection 2 QA_PIXEL: verdict of each code.

    Fill (bit 0), dilated cloud (1), cirrus (2), cloud (3), shadow (4) and snow (5) hide the ground;
    clear (6) and water (7) do not. The confidences in bits 8 to 15
    say nothing more: bits 2 to 5 are set where theirs is high.
    """
    return _verdict(_bits(codes, 0, 1, 2, 3, 4, 5), _bits(codes, 1, 3), _bits(codes, 0, 2, 4, 5))


def fmask(codes: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Fmask: verdict of each code.

    Clear (1) and water (5) show the ground; null (0), cloud (2), shadow (3), snow (4) and any other
    code do not.
    """
    return _verdict(~np.isin(codes, (1, 5)), codes == 2)


def qa60(codes: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Sentinel-2 QA60: opaque cloud (bit 10) and cirrus (11). It knows no shadow and no snow."""
    return _verdict(_bits(codes, 10, 11), _bits(codes, 10), _bits(codes, 11))


def qa_radsat(codes: NDArray[np.integer], bands: Sequence[int]) -> NDArray[np.uint8]:
    """Landsat Collection 2 QA_RADSAT: verdict of each code for some bands of the sensor.

    A saturated band (bit number − 1), a dropped pixel (9) and ground behind terrain (11) are `OUT`.
    """
    hidden = _bits(codes, _DROPPED, _OCCLUDED, *(b - 1 for b in bands))
    return _verdict(hidden, np.zeros_like(hidden))


VERDICTS: dict[str, Callable[[NDArray[np.integer]], NDArray[np.uint8]]] = {
    "scl": scl, "qa_pixel": qa_pixel, "fmask": fmask, "qa60": qa60,
}  # fmt: skip
"""Masks that a recipe can name."""


def check_mask(item: pystac.Item, kind: str) -> None:
    """Refuse an item whose quality layer is known to be empty.

    Raises
    ------
    SourceError
        ``qa60`` of an item sensed while products carried none.
    """
    if kind == "qa60" and QA60_EMPTY[0] <= item_time(item) < QA60_EMPTY[1]:
        raise SourceError(
            f"item {item.id!r} was sensed on {item_time(item):%Y-%m-%d}; QA60 is empty from "
            f"{QA60_EMPTY[0]:%Y-%m-%d} to {QA60_EMPTY[1]:%Y-%m-%d}, so cloud cannot be told from "
            'clear ground. Use mask = "scl", or leave these years out'
        )


def sensor_band(item: pystac.Item, key: str) -> int:
    """Number of a Landsat sensor's band behind an asset: red is 3 on Landsat 7 and 4 on 8.

    Raises
    ------
    SourceError
        Neither the band's name nor the file's name ends in a band number.
    """
    fields = item.assets[key].extra_fields
    bands = fields.get("eo:bands") or fields.get("bands") or [{}]
    names = [str(bands[0].get("name", "")), re.sub(r"\.\w+$", "", item.assets[key].href)]
    for name in names:
        if found := re.search(r"(?:^|_)B(\d{1,2})$", name, re.IGNORECASE):
            return int(found.group(1))
    raise SourceError(
        f"item {item.id!r}, asset {key!r}: no band number in {names[0]!r} or its file's name, so "
        "its bit in qa_radsat is not known; take qa_radsat out of the source's [bands]"
    )


def _bits(codes: NDArray[np.integer], *bits: int) -> NDArray[np.bool_]:
    wanted = sum(1 << b for b in set(bits))
    found: NDArray[np.bool_] = (codes.astype(np.int64) & wanted) != 0
    return found


def _verdict(
    hidden: NDArray[np.bool_],
    cloud: NDArray[np.bool_],
    otherwise: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Hidden views by why: cloud, unless something else hides them too."""
    only = cloud if otherwise is None else cloud & ~otherwise
    out: NDArray[np.uint8] = np.where(only, CLOUD, np.where(hidden, OUT, CLEAR)).astype(np.uint8)
    return out

"""Items from what services and files say, whatever else they say."""

from __future__ import annotations

from typing import Any

import pystac
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from minetrace.errors import SourceError

_UNUSED = "stac-extensions.github.io/storage/"


def parse_item(fields: Any, where: str) -> pystac.Item:
    """Item of a dictionary, which may be changed.

    Raises
    ------
    SourceError
        It is no STAC item; ``where`` says in the message where it comes from.
    """
    name = fields.get("id") if isinstance(fields, dict) else None
    if not isinstance(name, str) or not name:
        raise SourceError(f"{where} holds an item with the id {name!r}; ids are text")
    try:
        return pystac.Item.from_dict(without_storage(fields), preserve_dict=False)
    except (pystac.STACTypeError, pystac.STACError, KeyError, TypeError, ValueError) as err:
        raise SourceError(
            f"item {name!r} of {where} is no STAC item: {type(err).__name__}: {err}"
        ) from err


def without_storage(fields: dict[str, Any]) -> dict[str, Any]:
    """Item that does not claim the storage extension.

    pystac migrates it on reading and warns of each real item of Earth Search, whose addresses
    it cannot split; nothing here needs it.
    """
    used = fields.get("stac_extensions")
    if isinstance(used, list) and any(_UNUSED in str(uri) for uri in used):
        return {**fields, "stac_extensions": [uri for uri in used if _UNUSED not in str(uri)]}
    return fields


def footprint(item: pystac.Item) -> BaseGeometry:
    """Outline of an item, EPSG:4326."""
    if item.geometry is not None:
        return shape(item.geometry)
    if item.bbox is None:
        raise SourceError(f"item {item.id!r} has neither geometry nor bbox")
    west, south, east, north = item.bbox[:2] + item.bbox[len(item.bbox) // 2 :][:2]
    if west > east:
        return box(west, south, 180, north).union(box(-180, south, east, north))
    return box(west, south, east, north)

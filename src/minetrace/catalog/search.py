"""Find the items of a source for a place and a span of years: one call for every kind."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import pystac
import pystac_client
import shapely
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.warnings import DoesNotConformTo
from shapely.geometry import MultiPolygon, box, mapping
from shapely.geometry.base import BaseGeometry

from minetrace.catalog.parquet import read_items
from minetrace.catalog.parse import footprint, parse_item
from minetrace.catalog.policy import host_allowed, redact
from minetrace.catalog.source import CUBE_YEARS, Source, saved_cube
from minetrace.catalog.web import StacIO
from minetrace.errors import SourceError

__all__ = ["covers", "footprint", "in_utc", "item_time", "sample", "search"]

MAX_ITEMS = 20_000
"""Most items of one search; more is a request for a whole country."""
_VERTICES = 500
"""Most vertices of a place that is sent; services refuse long requests."""
_NO_STAC = (
    APIError, ClientTypeError, DoesNotConformTo, pystac.STACTypeError, pystac.STACError, KeyError,
    TypeError, ValueError,
)  # fmt: skip
_PAGE = 100
"""Items a page: larger pages of Sentinel-2 exceed what some services may answer."""


def search(
    source: Source,
    geometry: BaseGeometry,
    years: tuple[int, int] | None,
    *,
    collection: str | None = None,
) -> list[pystac.Item]:
    """Items of a source that touch a geometry in a span of years.

    Parameters
    ----------
    source
        From `open_source`: an API, a static catalogue or a stac-geoparquet file.
    geometry
        Place, EPSG:4326.
    years
        First and last year, both included, in which an item starts, or which a saved cube holds;
        None for any time, as for terrain.
    collection
        Collection to look in; default the source's own, or all that a file holds.

    Returns
    -------
    list of Item
        Sorted by time, then id, each once, as it was updated last; empty when nothing matches.

    Raises
    ------
    SourceError
        The collection does not exist, an item is malformed, there are too many items, or the
        source describes files and holds none.
    UnavailableError
        The API does not answer after retries.
    """
    wanted = collection or source.config.collection
    kind = source.config.kind
    if kind == "api":
        found: Iterable[pystac.Item] = _search_api(source, geometry, years, wanted)
    elif kind == "geoparquet":
        found = read_items(source.path, geometry, wanted, limit=MAX_ITEMS)
    elif kind == "files":
        raise SourceError(
            f"source {source.name!r} describes files that you download from {source.config.href}; "
            f"make a catalogue of yours with `minetrace catalog build --source {source.name} "
            "FILES… --out DIR` and name DIR"
        )
    else:
        _require_collection(source, wanted)
        near = sorted(source.outlines.query(geometry, predicate="intersects"))
        found = (source.items[i] for i in near)
        found = (item for item in found if wanted in (None, item.collection_id))
    kept: dict[tuple[str | None, str], pystac.Item] = {}
    for item in found:
        in_time = years is None or any(years[0] <= y <= years[1] for y in _years(item))
        if in_time and covers(item, geometry):
            # an id is that of one item within a collection only
            key = item.collection_id or item.get_self_href(), item.id
            known = kept.setdefault(key, item)
            if _updated(item) > _updated(known):
                kept[key] = item
    return sorted(kept.values(), key=lambda item: (item_time(item).isoformat(), item.id))


def sample(source: Source, *, collection: str | None = None) -> pystac.Item | None:
    """Any one item of a source, to see what its items are like; None where it has none.

    Raises
    ------
    SourceError, UnavailableError
        As for `search`.
    """
    wanted = collection or source.config.collection
    if source.config.kind == "api":
        found = _ask(source, wanted, limit=1, max_items=1)
    else:
        found = search(source, box(-180, -90, 180, 90), None, collection=wanted)
    return found[0] if found else None


def item_time(item: pystac.Item) -> dt.datetime:
    """Moment of an item in UTC: its datetime, or the start of its range.

    A time without a zone is one of UTC, as STAC has it.

    Examples
    --------
    >>> item_time(pystac.Item("a", None, None, dt.datetime(2019, 12, 31, 23), {})).isoformat()
    '2019-12-31T23:00:00+00:00'
    """
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise SourceError(f"item {item.id!r} has neither datetime nor start_datetime")
    return in_utc(moment)


def in_utc(moment: dt.datetime) -> dt.datetime:
    """The same moment in UTC, which is also the zone of what names none."""
    # astimezone would take it for local time
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def _years(item: pystac.Item) -> list[int]:
    """Years that an item belongs to: the one it starts in, or those of a saved cube."""
    held = item.properties.get(CUBE_YEARS)
    if isinstance(held, list) and held and all(isinstance(year, int) for year in held):
        return held
    return [item_time(item).year]


def _updated(item: pystac.Item) -> str:
    return str(item.properties.get("updated") or "")


def covers(item: pystac.Item, geometry: BaseGeometry) -> bool:
    """Whether an item's footprint touches a geometry in EPSG:4326."""
    return bool(footprint(item).intersects(geometry))


def _require_collection(source: Source, wanted: str | None) -> None:
    known = source.collections
    if wanted is None or wanted in known:
        return
    store = saved_cube(source.items[0]) if source.items else None
    has = (
        f"its items are saved cubes; open one with mt.load_cube({str(store)!r})"
        if store is not None
        else f"it has {', '.join(sorted(k for k in known if k)) or 'items of no collection'}"
    )
    raise SourceError(f"source {source.name!r} has no collection {wanted!r}; {has}")


def _connection(source: Source) -> StacIO:
    """What asks the API; it sends the source's key where the API's host is among the hosts."""
    own = (urlsplit(source.config.href).hostname or "").lower()
    signer = source.signer()
    keyed = signer is not None and host_allowed(own, source.config.hosts)
    return StacIO(
        headers=signer.headers(source.config.href) if signer and keyed else {},
        params=signer.parameters() if signer and keyed else {},
        host_ok=lambda host: host == own or host_allowed(host, source.config.hosts),
    )


def _search_api(
    source: Source,
    geometry: BaseGeometry,
    years: tuple[int, int] | None,
    collection: str | None,
) -> list[pystac.Item]:
    # an item that started the year before may still last: `search` keeps those that start in it
    span = None if years is None else f"{years[0]}-01-01T00:00:00Z/{years[1]}-12-31T23:59:59Z"
    found = _ask(
        source, collection, intersects=mapping(_short(geometry)), datetime=span, limit=_PAGE,
        max_items=MAX_ITEMS + 1,
    )  # fmt: skip
    if len(found) > MAX_ITEMS:
        raise SourceError(
            f"the STAC API {redact(source.config.href)} has more than {MAX_ITEMS:,} items of "
            f"{collection!r} there; ask for a smaller place or fewer years"
        )
    return found


def _short(geometry: BaseGeometry) -> BaseGeometry:
    """The geometry, or a simpler one around it; `search` compares footprints with the true one."""
    if shapely.get_num_coordinates(geometry) <= _VERTICES:
        return geometry
    parts = getattr(geometry, "geoms", [geometry])
    # the boxes of the two sides of the antimeridian stay apart
    sides = [[p.bounds for p in parts if (p.centroid.x < 0) == west] for west in (True, False)]
    boxes = [
        box(*(min(b[i] for b in side) for i in (0, 1)), *(max(b[i] for b in side) for i in (2, 3)))
        for side in sides
        if side
    ]
    return boxes[0] if len(boxes) == 1 else MultiPolygon(boxes)


def _ask(source: Source, collection: str | None, **query: Any) -> list[pystac.Item]:
    """Items that an API gives for a query."""
    if collection is None:
        raise SourceError(f"source {source.name!r} is an API: name a collection")
    where = redact(source.config.href)
    connection = _connection(source)
    try:
        with connection.session:
            client = pystac_client.Client.open(source.config.href, stac_io=connection)
            found = client.search(collections=[collection], **query).items_as_dicts()
            return [parse_item(fields, f"the STAC API {where}") for fields in found]
    except SourceError:
        raise
    except _NO_STAC as err:
        raise SourceError(
            f"the STAC API {where} answers a search of {collection!r} with something that is no "
            f"STAC ({type(err).__name__}: {err}); is the address that of its landing page?"
        ) from err

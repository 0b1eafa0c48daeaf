"""Find the items of a source for a place and a span of years."""

from __future__ import annotations

import datetime as dt

import pystac
import pystac_client
import requests
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from shapely.geometry import box, mapping, shape
from shapely.geometry.base import BaseGeometry
from urllib3.util.retry import Retry

from minetrace.catalog.policy import redact
from minetrace.catalog.source import Source
from minetrace.errors import SourceError, UnavailableError

# pystac-client's own default gives up on the first 503, and on any failed POST
_RETRY = Retry(
    total=6,
    backoff_factor=0.5,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,
    respect_retry_after_header=True,
)


def search(
    source: Source,
    geometry: BaseGeometry,
    years: tuple[int, int],
    *,
    collection: str | None = None,
) -> list[pystac.Item]:
    """Items of a source that touch a geometry in a span of years.

    Parameters
    ----------
    source
        From `open_source`.
    geometry
        Place, EPSG:4326.
    years
        First and last year, both included.
    collection
        Collection to look in; default the source's own, or all of a static catalogue.

    Returns
    -------
    list of Item
        Sorted by time, then id; empty when nothing matches.

    Raises
    ------
    SourceError
        The collection does not exist, or the API does not answer after retries.
    """
    wanted = collection or source.config.collection
    if source.config.kind == "api":
        return _search_api(source, geometry, years, wanted)
    if wanted is not None:
        known = {item.collection_id for item in source.items}
        if wanted not in known:
            raise SourceError(
                f"source {source.name!r} has no collection {wanted!r}; it has "
                f"{', '.join(sorted(str(k) for k in known))}"
            )
    return [
        item
        for item in source.items
        if wanted in (None, item.collection_id)
        and years[0] <= item_time(item).year <= years[1]
        and covers(item, geometry)
    ]


def item_time(item: pystac.Item) -> dt.datetime:
    """Moment of an item: its datetime, or the start of its range."""
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise SourceError(f"item {item.id!r} has neither datetime nor start_datetime")
    return moment


def covers(item: pystac.Item, geometry: BaseGeometry) -> bool:
    """Whether an item's footprint touches a geometry in EPSG:4326."""
    return bool(footprint(item).intersects(geometry))


def footprint(item: pystac.Item) -> BaseGeometry:
    """Outline of an item, EPSG:4326."""
    if item.geometry is not None:
        return shape(item.geometry)
    if item.bbox is None:
        raise SourceError(f"item {item.id!r} has neither geometry nor bbox")
    west, south, east, north = item.bbox[:2] + item.bbox[len(item.bbox) // 2 :][:2]
    return box(west, south, east, north)


def _search_api(
    source: Source, geometry: BaseGeometry, years: tuple[int, int], collection: str | None
) -> list[pystac.Item]:
    if collection is None:
        raise SourceError(f"source {source.name!r} is an API: name a collection")
    where = redact(source.config.href)
    try:
        client = pystac_client.Client.open(
            source.config.href, stac_io=StacApiIO(max_retries=_RETRY, timeout=60)
        )
        found = list(
            client.search(
                collections=[collection],
                intersects=mapping(geometry),
                datetime=f"{years[0]}-01-01T00:00:00Z/{years[1]}-12-31T23:59:59Z",
            ).items()
        )
    except (APIError, requests.RequestException) as err:
        reason = type(err).__name__
        raise UnavailableError(
            f"the STAC API {where} did not answer a search ({reason}) after "
            f"{_RETRY.total} tries; try again later"
        ) from err
    return sorted(found, key=lambda item: (item_time(item).isoformat(), item.id))

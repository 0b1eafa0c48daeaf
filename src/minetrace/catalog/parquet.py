"""Items from a stac-geoparquet file: a catalogue that is searched without a service."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pystac
import shapely
from shapely.geometry.base import BaseGeometry

from minetrace.catalog.parse import parse_item
from minetrace.errors import SourceError

_NEEDED = ("id", "geometry", "assets")


def read_items(
    path: Path, geometry: BaseGeometry, collection: str | None, *, limit: int
) -> list[pystac.Item]:
    """Items whose footprint touches a geometry, EPSG:4326.

    The bounding boxes of the file are compared while it is read, so that row groups that lie
    elsewhere are skipped; footprints are compared after. Relative addresses of assets are those
    beside the file.

    Raises
    ------
    SourceError
        The file cannot be read, is no stac-geoparquet, has no such collection or more than
        ``limit`` items there, or stac-geoparquet is not installed.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    try:
        from stac_geoparquet.arrow import stac_table_to_items
    except ImportError as err:
        raise SourceError(
            f"reading {path} needs stac-geoparquet; install it: pip install 'minetrace[geoparquet]'"
        ) from err
    try:
        data = ds.dataset(path, format="parquet")
        lacking = [name for name in _NEEDED if name not in data.schema.names]
        if lacking:
            raise SourceError(f"{path} is no stac-geoparquet: it has no column {lacking[0]!r}")
        _require_collection(data, path, collection)
        table = data.to_table(filter=_where(data.schema, geometry, collection))
        shapely.prepare(geometry)
        near = shapely.intersects(shapely.from_wkb(_wkb(table)), geometry)
        table = table.filter(pa.array(near))
        if len(table) > limit:
            raise SourceError(
                f"{path} has more than {limit:,} items there; ask for a smaller place"
            )
        return [_item(fields, path) for fields in stac_table_to_items(table)]
    except (pa.ArrowException, OSError, KeyError, shapely.GEOSException) as err:
        raise SourceError(f"{path} cannot be read as stac-geoparquet: {err}") from err


def _require_collection(data: Any, path: Path, collection: str | None) -> None:
    if collection is None:
        return
    known: set[str] = set()
    if "collection" in data.schema.names:
        known = set(data.to_table(columns=["collection"])["collection"].unique().to_pylist())
    if collection not in known:
        raise SourceError(
            f"{path} has no collection {collection!r}; it has "
            f"{', '.join(sorted(map(str, known))) or 'none'}"
        )


def _where(schema: Any, geometry: BaseGeometry, collection: str | None) -> Any:
    import pyarrow.compute as pc
    import pyarrow.types as types

    tests = []
    if collection is not None:
        tests.append(pc.field("collection") == collection)
    index = schema.get_field_index("bbox")
    if index >= 0 and types.is_struct(schema.field(index).type):
        west, south, east, north = geometry.bounds
        low, high = pc.field("bbox", "xmin"), pc.field("bbox", "xmax")
        across = low > high
        overlaps = across | ((low <= east) & (high >= west))
        tests.append(
            pc.field("bbox").is_null()
            | (overlaps & (pc.field("bbox", "ymin") <= north) & (pc.field("bbox", "ymax") >= south))
        )
    where = None
    for test in tests:
        where = test if where is None else where & test
    return where


def _wkb(table: Any) -> Any:
    column = table["geometry"].combine_chunks()
    storage = getattr(column, "storage", column)
    return storage.to_numpy(zero_copy_only=False)


def _item(fields: dict[str, Any], path: Path) -> pystac.Item:
    for asset in fields["assets"].values():
        href = asset["href"]
        if not urlsplit(href).scheme and not href.startswith("/"):
            asset["href"] = str(path.parent / href)
    return parse_item(fields, str(path))

"""Sources of STAC items: open, search, check addresses, build from plain rasters."""

from minetrace.catalog.build import build_catalog
from minetrace.catalog.identity import items_hash
from minetrace.catalog.policy import check_href, redact
from minetrace.catalog.search import covers, item_time, search
from minetrace.catalog.source import Source, SourceConfig, open_source

__all__ = [
    "Source", "SourceConfig", "build_catalog", "check_href", "covers", "item_time", "items_hash",
    "open_source", "redact", "search",
]  # fmt: skip

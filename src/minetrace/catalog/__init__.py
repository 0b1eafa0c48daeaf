"""Sources of STAC items: open, search, check addresses, build from plain rasters."""

from minetrace.catalog.build import build_catalog
from minetrace.catalog.policy import check_href, redact
from minetrace.catalog.search import item_time, search
from minetrace.catalog.source import Source, SourceConfig, open_source

__all__ = [
    "Source", "SourceConfig", "build_catalog", "check_href", "item_time", "open_source", "redact",
    "search",
]  # fmt: skip

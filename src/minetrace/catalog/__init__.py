"""Sources of STAC items: open, search, check addresses, build from plain rasters."""

from minetrace.catalog.build import build_catalog
from minetrace.catalog.config import FilePattern, Radiometry, Sign, SourceConfig
from minetrace.catalog.identity import item_hashes, items_hash
from minetrace.catalog.policy import check_href, redact
from minetrace.catalog.redirects import check_host, resolve
from minetrace.catalog.search import covers, item_time, sample, search
from minetrace.catalog.signing import Signer
from minetrace.catalog.source import Source, open_source

__all__ = [
    "FilePattern", "Radiometry", "Sign", "Signer", "Source", "SourceConfig", "build_catalog",
    "check_host", "check_href", "covers", "item_hashes", "item_time", "items_hash", "open_source",
    "redact", "resolve", "sample", "search",
]  # fmt: skip

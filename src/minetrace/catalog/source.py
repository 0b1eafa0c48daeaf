"""Sources: where items come from and what may be opened."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pystac
import pystac.stac_io
from pydantic import ValidationError
from pystac.utils import make_absolute_href
from shapely import STRtree
from shapely.geometry.base import BaseGeometry

from minetrace.catalog.config import SourceConfig
from minetrace.catalog.parse import footprint, without_storage
from minetrace.catalog.policy import check_href
from minetrace.catalog.signing import Signer
from minetrace.errors import HrefError, SourceError
from minetrace.schema.shipped import shipped_file

CUBE_YEARS = "minetrace:years"
"""Property of the items of saved cubes: the years that they hold."""
_LOCAL = ("static", "geoparquet")


@dataclass(frozen=True)
class Source:
    """An opened source. Static ones hold their items, the others look at each search."""

    config: SourceConfig
    folder: Path
    """Folder that relative paths of the configuration start from."""
    items: tuple[pystac.Item, ...] = field(default=(), repr=False)
    part_of: frozenset[str | None] = frozenset()
    """Collections of the whole catalogue, where the items are a part of it only."""

    @cached_property
    def collections(self) -> frozenset[str | None]:
        """Collections of a catalogue whose items are here."""
        return self.part_of or frozenset(item.collection_id for item in self.items)

    @property
    def name(self) -> str:
        """Short name, recorded in every cube."""
        return self.config.name

    @cached_property
    def roots(self) -> tuple[Path, ...]:
        """Folders that local assets may lie in, without links."""
        extra = [self.folder / r for r in self.config.roots]
        own = [self.path.parent] if self.config.kind in _LOCAL else []
        return tuple(root.resolve() for root in (*own, *extra))

    @property
    def path(self) -> Path:
        """Catalogue file of a static or geoparquet source."""
        return self.folder / self.config.href

    @cached_property
    def outlines(self) -> STRtree:
        """Footprints of the items, in their order, to be asked for a place."""
        return STRtree([footprint(item) for item in self.items])

    def near(self, geometry: BaseGeometry) -> Source:
        """The source with the items whose footprint touches a geometry in EPSG:4326.

        What a worker gets of a large catalogue. A source that is asked over the net, or that keeps
        its items in a file, stays as it is.
        """
        if not self.items:
            return self
        touched = np.sort(self.outlines.query(geometry, predicate="intersects"))
        items = tuple(self.items[i] for i in touched)
        return replace(self, items=items, part_of=self.collections)

    def __getstate__(self) -> dict[str, Any]:
        """Without what a copy works out again where it needs it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def asset_key(self, variable: str) -> str:
        """Asset that holds a cube variable."""
        return self.config.bands.get(variable, variable)

    def band(self, item: pystac.Item, variable: str) -> int:
        """Band of its asset that holds a cube variable, from 1."""
        known = self.config.band_index.get(variable)
        return int(item.properties.get("minetrace:band", 1)) if known is None else known

    def signer(self) -> Signer | None:
        """What signs addresses when they are opened; None where none is needed."""
        return None if self.config.sign is None else Signer(self.config.sign, self.config.hosts)

    def asset(self, item: pystac.Item, key: str) -> pystac.Asset:
        """Asset of an item; `SourceError` where it has none of that key."""
        found = item.assets.get(key)
        if found is None:
            raise SourceError(
                f"item {item.id!r} of source {self.name!r} has no asset {key!r}; it "
                f"has {', '.join(item.assets)}. Map the band in [bands]"
            )
        return found

    def check_href(self, item: pystac.Item, key: str) -> str:
        """Unsigned address of an item's asset, if this source may open it.

        Where the asset's own address is not allowed, its alternates are tried.
        """
        asset = self.asset(item, key)
        store = saved_cube(item)
        if store is not None:
            raise SourceError(
                f"item {item.id!r} of source {self.name!r} is a saved cube, and {key!r} of it no "
                f"raster; open it with mt.load_cube({str(store)!r})"
            )
        try:
            return self._check(asset.get_absolute_href() or asset.href)
        except HrefError as err:
            for href in _alternates(asset):
                try:
                    return self._check(href)
                except HrefError:
                    continue
            raise err

    def _check(self, href: str) -> str:
        for prefix, instead in self.config.rewrite.items():
            if href.startswith(prefix):
                href = instead + href.removeprefix(prefix)
                break
        signer = self.signer()
        bare = href if signer is None else signer.bare(href)
        return check_href(bare, roots=self.roots, hosts=self.config.hosts)


def saved_cube(item: pystac.Item) -> Path | None:
    """Store of a cube that an item of `minetrace.store.write_catalog` stands for, else None."""
    if CUBE_YEARS not in item.properties:
        return None
    folder = Path(item.get_self_href() or ".").parent
    # years that were added lie in a folder of their own, below the store
    return folder.parents[1] if folder.parent.name == "years" else folder


def _alternates(asset: pystac.Asset) -> list[str]:
    """Other addresses of the same bytes, by the alternate-assets extension."""
    others = asset.extra_fields.get("alternate")
    entries = others.values() if isinstance(others, dict) else ()
    return [str(e["href"]) for e in entries if isinstance(e, dict) and e.get("href")]


def open_source(name_or_path: str | Path | Source) -> Source:
    """Open a data source.

    Parameters
    ----------
    name_or_path
        The name of a file in ``catalogs/``, the path of a source TOML, of a static STAC catalogue
        or collection (JSON) or of a stac-geoparquet file, or a folder that holds ``source.toml``
        or ``catalog.json``. Static catalogues are read here, metadata only.

    Raises
    ------
    SourceError
        No such source, a malformed file, or a catalogue without items.

    Examples
    --------
    >>> open_source("earth_search_sentinel_2_l2a").config.kind
    'api'
    """
    if isinstance(name_or_path, Source):
        return name_or_path
    path = Path(name_or_path)
    if path.is_dir():
        path = next(
            (
                path / n
                for n in ("source.toml", "catalog.json", "collection.json")
                if (path / n).is_file()
            ),
            path / "source.toml",
        )
    if path.suffix == ".json":
        if not path.is_file():
            raise SourceError(f"there is no catalogue {path}")
        config = SourceConfig(name=path.resolve().parent.name, kind="static", href=path.name)
        return _load_static(config, path.resolve().parent)
    if path.suffix == ".parquet":
        config = SourceConfig(name=path.stem, kind="geoparquet", href=path.name)
        return _present(Source(config, path.resolve().parent))
    path = shipped_file("catalogs", name_or_path if path.suffix != ".toml" else path, SourceError)
    try:
        config = SourceConfig(**tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as err:
        raise SourceError(f"source {path} is not valid TOML: {err}") from err
    except ValidationError as err:
        faults = "; ".join(
            f"{'.'.join(map(str, f['loc']))}: "
            + ("unknown key" if f["type"] == "extra_forbidden" else f["msg"])
            for f in err.errors()
        )
        raise SourceError(f"source {path}: {faults}") from err
    if config.kind == "static":
        return _load_static(config, path.resolve().parent)
    return _present(Source(config, path.resolve().parent))


def _present(source: Source) -> Source:
    if source.config.kind == "geoparquet" and not source.path.is_file():
        raise SourceError(f"source {source.name!r}: there is no file {source.path}")
    return source


class _LocalIO(pystac.stac_io.DefaultStacIO):
    """Reads JSON below one folder only: a link in a catalogue must not reach elsewhere."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root.resolve()

    def read_text_from_href(self, href: str, *args: object, **kwargs: object) -> str:
        parts = urlsplit(href)
        path = Path(unquote(parts.path)).resolve()
        if parts.scheme not in ("", "file") or not path.is_relative_to(self.root):
            raise SourceError(f"a link of the catalogue in {self.root} leaves it: {href!r}")
        try:
            return path.read_text(encoding="utf-8")
        except OSError as err:
            raise SourceError(f"catalogue file {path} cannot be read: {err.strerror}") from err

    def stac_object_from_dict(
        self, d: dict[str, Any], href: pystac.link.HREF | None = None,
        root: pystac.Catalog | None = None, preserve_dict: bool = True,
    ) -> pystac.STACObject:  # fmt: skip
        """The object of a dict that was just read, so that nothing need be kept of it."""
        current = d.get("type") == "Feature" and d.get("stac_version") == pystac.get_stac_version()
        if not current:
            return super().stac_object_from_dict(d, href, root, preserve_dict)
        # pystac copies items twice to bring them up to date: two thirds of the time
        return pystac.Item.from_dict(
            d, None if href is None else str(href), root, migrate=False, preserve_dict=False
        )

    def json_loads(self, txt: str, *args: object, **kwargs: object) -> dict[str, Any]:
        return without_storage(super().json_loads(txt, *args, **kwargs))


def _load_static(config: SourceConfig, folder: Path) -> Source:
    path = (folder / config.href).resolve()
    if not path.is_file():
        raise SourceError(f"source {config.name!r}: there is no catalogue {path}")
    try:
        reader = _LocalIO(path.parent)
        root = pystac.Catalog.from_file(str(path), stac_io=reader)
        items = tuple(sorted(_walk(root, reader), key=_order))
    except SourceError:
        raise
    except (pystac.STACTypeError, pystac.STACError, KeyError, ValueError) as err:
        # pystac wraps what our reader refused
        if isinstance(err.__cause__, SourceError):
            raise err.__cause__ from None
        raise SourceError(f"catalogue {path} is not valid STAC: {err}") from err
    if not items:
        raise SourceError(f"catalogue {path} has no items")
    return Source(config, folder, items)


def _walk(catalog: pystac.Catalog, reader: _LocalIO) -> Iterator[pystac.Item]:
    here = catalog.get_self_href()
    # Catalog.get_items ties each item to its catalogue and looks through all links for each
    for link in catalog.get_item_links():
        href = make_absolute_href(link.get_target_str() or "", here)
        item = reader.read_stac_object(href)
        if not isinstance(item, pystac.Item):
            raise SourceError(f"{href} is linked as an item and is none")
        yield item
    for child in catalog.get_children():
        yield from _walk(child, reader)


def _order(item: pystac.Item) -> tuple[str, str]:
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise SourceError(f"item {item.id!r} has no datetime; every item needs one")
    return moment.isoformat(), item.id

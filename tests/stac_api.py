"""A STAC API and a token service on loopback, with faults: what real clients are tested against.

Search by GET and POST, paging with next links, item collections, collections, ``ids``, ``bbox``,
``intersects`` and ``datetime``. Tokens are those of a blob store: a query with an expiry.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from shapely.geometry import box, shape

FAULTS = ("429", "503", "reset", "stall", "truncate", "garbage")
_CONFORMS = (
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    "https://api.stacspec.org/v1.0.0/collections",
)


@dataclass
class Api:
    """What the server serves, does wrong and was asked."""

    items: list[dict[str, Any]]
    url: str = ""
    page: int = 10
    conforms: Sequence[str] = _CONFORMS
    repeat: int = 0
    """Items of each page that the next one begins with again."""
    faults: deque[str] = field(default_factory=deque)
    """Faults of the next requests, one each: of `FAULTS`, or a status as text."""
    fault_rate: float = 0.0
    """Share of other requests that get a fault of `FAULTS`, by the seed."""
    seed: int = 0
    retry_after: str = "0"
    stall_s: float = 5.0
    token_life_s: float = 3600.0
    moved: dict[str, str] = field(default_factory=dict)
    """Paths that redirect, and where to."""
    next_href: str | None = None
    """Address of next links, where it is not the server's own."""
    seen: list[tuple[str, str, Any, dict[str, str]]] = field(default_factory=list)
    """Method, path, parameters and headers of every request that got no fault."""
    n_faults: int = 0
    n_tokens: int = 0

    def __post_init__(self) -> None:
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.dice = random.Random(self.seed)

    def fault(self) -> str | None:
        """Fault of the next request, if it gets one."""
        with self.lock:
            if self.faults:
                found: str | None = self.faults.popleft()
            elif self.dice.random() < self.fault_rate:
                found = self.dice.choice(FAULTS)
            else:
                return None
            self.n_faults += 1
            return found

    def find(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        """Items that a search asks for."""
        return [item for item in self.items if _matches(item, query)]

    def token(self, path: str) -> dict[str, str]:
        """A new token; its expiry is part of it, as in a blob store."""
        with self.lock:
            self.n_tokens += 1
            number = self.n_tokens
        end = datetime.now(UTC) + timedelta(seconds=self.token_life_s)
        query = urlencode({"se": end.isoformat(), "sr": path, "sig": f"SECRET{number}"})
        return {"token": query, "msft:expiry": end.isoformat()}


@contextmanager
def serve_stac(items: Sequence[dict[str, Any]], **options: Any) -> Iterator[Api]:
    """Serve items at ``api.url`` until the block ends."""
    api = Api(list(items), **options)
    handler = type("Handler", (_Handler,), {"api": api})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def stac_item(
    name: str, when: str, *, collection: str = "s2", bbox: Sequence[float] = (10, 49, 11, 50),
    assets: dict[str, Any] | None = None, **properties: Any,
) -> dict[str, Any]:  # fmt: skip
    """A small valid item; ``when`` may be ``start/end``."""
    start, _, end = when.partition("/")
    times = (
        {"datetime": None, "start_datetime": start, "end_datetime": end}
        if end
        else {"datetime": start}
    )
    return {
        "type": "Feature", "stac_version": "1.0.0", "stac_extensions": [], "id": name,
        "collection": collection, "geometry": box(*bbox).__geo_interface__, "bbox": list(bbox),
        "properties": {**times, **properties}, "links": [],
        "assets": assets or {"data": {"href": "https://data.org/a.tif", "type": "image/tiff"}},
    }  # fmt: skip


def _matches(item: dict[str, Any], query: dict[str, Any]) -> bool:
    if query.get("ids") and item["id"] not in query["ids"]:
        return False
    if query.get("collections") and item["collection"] not in query["collections"]:
        return False
    ground = shape(item["geometry"])
    if query.get("bbox") and not ground.intersects(box(*map(float, query["bbox"]))):
        return False
    if query.get("intersects") and not ground.intersects(shape(query["intersects"])):
        return False
    return not query.get("datetime") or _lasts(item["properties"], query["datetime"])


def _lasts(properties: dict[str, Any], span: str) -> bool:
    """Whether an item's time meets an interval; items with a range match in all of it."""
    own = (properties["datetime"],) * 2
    if own[0] is None:
        own = (properties["start_datetime"], properties["end_datetime"])
    first, _, last = span.partition("/")
    begins, ends = (datetime.fromisoformat(text) for text in own)
    opens = datetime.min.replace(tzinfo=UTC) if first == ".." else datetime.fromisoformat(first)
    last = last or first
    closes = datetime.max.replace(tzinfo=UTC) if last == ".." else datetime.fromisoformat(last)
    return begins <= closes and ends >= opens


class _Handler(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._serve({})

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self._serve({key: values[0] for key, values in query.items()})

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _serve(self, query: dict[str, Any]) -> None:
        fault = self.api.fault()
        if fault is not None:
            self._fail(fault)
            return
        path = urlsplit(self.path).path.rstrip("/")
        if path in self.api.moved:
            self.send_response(307)
            self.send_header("Location", self.api.moved[path])
            self._body(b"")
            return
        self.api.seen.append((self.command, self.path, query, dict(self.headers)))
        answer = self._answer(path, query)
        self.send_response(200 if answer is not None else 404)
        self.send_header("Content-Type", "application/json")
        self._body(json.dumps(answer).encode())

    def _body(self, raw: bytes) -> None:
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _answer(self, path: str, query: dict[str, Any]) -> dict[str, Any] | None:
        parts = path.strip("/").split("/")
        if path == "":
            return self._landing()
        if parts[0] == "token":
            return self.api.token("/".join(parts[1:]))
        if path == "/search":
            return self._page(_typed(query))
        if path == "/collections":
            return {"collections": [self._collection(c) for c in self._known()], "links": []}
        if parts[0] == "collections" and parts[1] in self._known():
            if parts[2:] == ["items"]:
                return self._page({**_typed(query), "collections": [parts[1]]})
            return self._collection(parts[1])
        return None

    def _known(self) -> list[str]:
        return sorted({item["collection"] for item in self.api.items})

    def _landing(self) -> dict[str, Any]:
        url = self.api.url
        search = [
            {"rel": "search", "href": f"{url}/search", "method": method,
             "type": "application/geo+json"} for method in ("GET", "POST")
        ]  # fmt: skip
        return {
            "type": "Catalog", "stac_version": "1.0.0", "id": "api", "description": "test",
            "conformsTo": list(self.api.conforms),
            "links": [{"rel": "self", "href": url}, {"rel": "root", "href": url}, *search,
                      {"rel": "data", "href": f"{url}/collections"}],
        }  # fmt: skip

    def _collection(self, name: str) -> dict[str, Any]:
        return {
            "type": "Collection", "stac_version": "1.0.0", "id": name, "description": name,
            "license": "other",
            "links": [{"rel": "items", "href": f"{self.api.url}/collections/{name}/items"}],
            "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]},
                       "temporal": {"interval": [["1980-01-01T00:00:00Z", None]]}},
        }  # fmt: skip

    def _page(self, query: dict[str, Any]) -> dict[str, Any]:
        found = self.api.find(query)
        start = int(query.get("token", 0))
        size = min(int(query.get("limit", self.api.page)), self.api.page)
        links = []
        if start + size < len(found):
            follow = {**query, "token": start + size - self.api.repeat}
            href = self.api.next_href or f"{self.api.url}{urlsplit(self.path).path}"
            if self.command == "POST":
                links = [{"rel": "next", "href": href, "method": "POST", "body": follow}]
            else:
                links = [{"rel": "next", "href": f"{href}?{urlencode(_flat(follow))}"}]
        return {
            "type": "FeatureCollection", "features": found[start : start + size], "links": links,
            "numberMatched": len(found),
        }  # fmt: skip

    def _fail(self, fault: str) -> None:
        self.close_connection = True
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
        elif fault == "stall":
            self.api.stopped.wait(self.api.stall_s)
        elif fault in ("truncate", "garbage"):
            raw = b'{"type": "FeatureCollection", "features": ['
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw) + 1000 * (fault == "truncate")))
            self.end_headers()
            self.wfile.write(raw)
        else:
            self.send_response(int(fault))
            self.send_header("Retry-After", self.api.retry_after)
            self._body(b"")

    def log_message(self, *args: Any) -> None:
        pass


def _typed(query: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a GET as those of a POST."""
    typed = dict(query)
    for key in ("ids", "collections", "bbox"):
        if isinstance(typed.get(key), str):
            typed[key] = typed[key].split(",")
    if isinstance(typed.get("intersects"), str):
        typed["intersects"] = json.loads(typed["intersects"])
    return typed


def _flat(query: dict[str, Any]) -> dict[str, str]:
    return {
        key: ",".join(map(str, value)) if isinstance(value, list)
        else json.dumps(value) if isinstance(value, dict) else str(value)
        for key, value in query.items()
    }  # fmt: skip


def seconds(function: Any, *args: Any, **kwargs: Any) -> tuple[float, Any]:
    """How long a call takes, and what it returns."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return time.perf_counter() - start, result

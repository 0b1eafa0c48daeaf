"""A file server on loopback that speaks ranges, and fails as real ones do when it is asked to.

Faults are drawn from a seed, one draw a request, so that a run can be repeated.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

KINDS = ("429", "500", "503", "reset", "stall", "truncated")
"""Faults that may be gone at the next request."""


@dataclass
class RangeServer:
    """What the server serves, how it fails and what it was asked.

    ``fail`` is the share of requests that meet one of ``kinds``. ``always`` gives single paths
    one answer for good: a status, a fault's name, or an address to redirect to. With ``sign``
    every request needs ``sig=TIME``, the end of its validity in seconds since 1970.
    """

    folder: Path
    fail: float = 0.0
    kinds: tuple[str, ...] = KINDS
    seed: int = 0
    retry_after: str = "0"
    stall_s: float = 0.6
    always: dict[str, int | str] = field(default_factory=dict)
    sign: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    """Headers that every request must carry."""
    met: Counter[str] = field(default_factory=Counter)
    """Faults that requests met."""
    asked: list[tuple[float, str, str, str]] = field(default_factory=list)
    """Time, method, path with query, and fault or ``ok`` of every request."""
    port: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def draw(self, path: str) -> int | str | None:
        """What goes wrong with this request, if anything."""
        if path in self.always:
            return self.always[path]
        with self._guard:
            if self._random.random() >= self.fail:
                return None
            return self._random.choice(self.kinds)

    def paths(self) -> list[str]:
        """Paths of the requests without their queries."""
        return [urlsplit(target).path for _, _, target, _ in self.asked]

    def note(self, method: str, target: str, what: str) -> None:
        with self._guard:
            self.asked.append((time.monotonic(), method, target, what))
            if what != "ok":
                self.met[what] += 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        self._serve(body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing; tests look at `RangeServer.asked`."""

    def _serve(self, *, body: bool) -> None:
        ours = self.server.ours
        parts = urlsplit(self.path)
        fault = ours.draw(parts.path) or self._refusal(parse_qs(parts.query))
        ours.note(self.command, self.path, "ok" if fault is None else str(fault))
        if isinstance(fault, str) and fault.startswith("http"):
            self._status(302, {"Location": fault})
        elif fault == "reset":
            # a linger of zero seconds makes the kernel answer with RST
            option = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            self.close_connection = True
        elif isinstance(fault, int) or (fault or "").isdigit():
            status = int(fault)
            later = {"Retry-After": ours.retry_after} if status in (429, 503) else {}
            self._status(status, later)
        else:
            self._file(parts.path, fault, body=body)

    def _refusal(self, query: Mapping[str, list[str]]) -> int | None:
        ours = self.server.ours
        if any(self.headers.get(name) != value for name, value in ours.headers.items()):
            return 401
        if ours.sign and float(query.get("sig", ["0"])[0]) < time.time():
            return 403
        return None

    def _status(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _file(self, path: str, fault: int | str | None, *, body: bool) -> None:
        file = self.server.ours.folder / path.lstrip("/")
        if not file.is_file():
            self._status(404, {})
            return
        size = file.stat().st_size
        first, last = 0, size - 1
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes="):
            low, _, high = asked.removeprefix("bytes=").partition("-")
            first, last = int(low), min(int(high or last), last)
        if first > last:
            self._status(416, {"Content-Range": f"bytes */{size}"})
            return
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if not body:
            return
        with file.open("rb") as stream:
            stream.seek(first)
            data = stream.read(last - first + 1)
        if fault in ("stall", "truncated"):
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if fault == "stall":
                time.sleep(self.server.ours.stall_s)
            self.close_connection = True
            return
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    ours: RangeServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the game."""


@contextmanager
def serve(folder: Path, **faults: object) -> Iterator[RangeServer]:
    """Serve a folder while the context lasts; ``faults`` as in `RangeServer`."""
    ours = RangeServer(folder, **faults)  # type: ignore[arg-type]
    server = _Server(("127.0.0.1", 0), _Handler)
    server.ours = ours
    ours.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield ours
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

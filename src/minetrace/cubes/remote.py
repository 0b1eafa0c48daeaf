"""Opening files near and far: GDAL's settings, faults that pass, and secrets that stay hidden.

GDAL remembers a failed request, and the half of a block that came before a connection broke, for
as long as the process lives. A second try therefore goes to an address that differs in its
fragment: no server sees that, and GDAL takes it for another file.

So do two threads. One that wants what another is fetching would wait for it inside GDAL, at times
with Python's lock, which the other needs to log that its request failed: both would wait for good.
"""

from __future__ import annotations

import email.utils
import logging
import math
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from minetrace.catalog import Signer, redact
from minetrace.catalog.redirects import resolve
from minetrace.errors import HrefError, ReadError, UnavailableError, causes

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# odc-geo asserts when an opened file has no CRS, as a damaged one has not
GDAL_FAULTS = (RasterioError, CPLE_BaseError, AssertionError)
_NEAR: dict[str, Any] = {
    # files beside a raster could change what it says, or point anywhere
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GTIFF_SRS_SOURCE": "GEOKEYS",
    # every block is read once; GDAL would keep them in a twentieth of the machine's memory
    "GDAL_CACHEMAX": 64 * 2**20,
}
_FAR: dict[str, Any] = {
    **_NEAR,
    # addresses are often signed for GET alone
    "CPL_VSIL_CURL_USE_HEAD": "NO",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "GDAL_HTTP_TCP_KEEPALIVE": "YES",
    # 429 and 503 say when to come back, which GDAL does not hear
    "GDAL_HTTP_RETRY_CODES": "408,425,500,502,504",
    "GDAL_HTTP_MAX_RETRY": "3",
}
_DRIVERS = {".jp2": "JP2OpenJPEG", ".png": "PNG"}
_BELIEVED = 3
"""Times that a file of the web may differ from its item before that is taken to be so."""
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_QUERY = re.compile(r"\?[^\s'\"<>]*")
_KEY = re.compile(r"(GDAL_HTTP_HEADERS).*", re.DOTALL)
_TALKERS = (
    "rasterio._base",
    "rasterio._env",
    "rasterio._err",
    "rasterio._filepath",
    "rasterio._io",
    "rasterio._path",
    "rasterio._warp",
    "rasterio.env",
    "urllib3.connectionpool",
)
"""Loggers of libraries that write whole addresses or settings into their records."""


@dataclass(frozen=True)
class Patience:
    """How long reading waits for files that do not come."""

    tries: int = 8
    delay_s: float = 0.5
    """Wait after the first fault; doubled after each further one, up to 16 s."""
    longest_s: float = 120.0
    """Longest wait that a server may ask for."""
    connect_s: float = 15.0
    stall_s: float = 20.0
    """A connection that sends nothing for so long is given up."""


class Access(NamedTuple):
    """What a worker needs to open the files of one source; small, and without a secret."""

    signer: Signer | None
    hosts: tuple[str, ...]
    patience: Patience


class _Verdict(NamedTuple):
    reason: str
    passing: bool
    wait_s: float = 0.0


# per process: failed addresses by how often they failed, and hosts that redirect to no other
_failed: dict[str, int] = {}
_trusted: set[tuple[str, tuple[str, ...]]] = set()
_guard = threading.Lock()


def is_remote(href: str) -> bool:
    """Whether an address is one of the web."""
    return href.startswith(("http://", "https://"))


def driver_of(href: str) -> str:
    """GDAL driver that may open an address; no other is asked."""
    path = urlsplit(href).path.lower()
    return next((d for suffix, d in _DRIVERS.items() if path.endswith(suffix)), "GTiff")


def patiently(do: Callable[[str], _T], href: str, access: Access) -> _T:
    """Call ``do`` with the path that GDAL opens, again after faults that may pass.

    Local files get one try. Remote ones are signed before each try, and their host is asked
    once a process whether it redirects elsewhere.

    Raises
    ------
    ReadError
        What went wrong, without the address's query.
    """
    if not is_remote(href):
        reason = ""
        try:
            with rasterio.Env(**_NEAR):
                return do(href)
        except GDAL_FAULTS as err:
            reason = plain_text(err)
        # outside the handler: the message of GDAL must not hang on as context
        raise ReadError(reason)
    patience, verdict, differed = access.patience, _Verdict("", passing=True), 0
    for turn in range(patience.tries):
        if turn:
            _log.info("%s is asked again: %s", redact(href), verdict.reason)
            own = min(patience.delay_s * 2 ** (turn - 1), 16.0) * random.uniform(0.5, 1.0)
            time.sleep(max(own, min(verdict.wait_s, patience.longest_s)))
        fault = ""
        try:
            return _once(do, href, access)
        except UnavailableError as err:
            verdict = _Verdict(plain_text(err), passing=True)
        except HrefError as err:
            verdict = _Verdict(plain_text(err), passing=False)
        except GDAL_FAULTS as err:
            fault = plain_text(err)
        except ReadError as err:
            # GDAL may open a file of whose head it got a part, and that lacks a place, say
            differed += 1
            verdict = _Verdict(str(err), passing=differed < _BELIEVED)
            _rename(href)
        if fault:
            _rename(href)
            verdict = _diagnose(href, access, fault)
        if not verdict.passing:
            raise ReadError(verdict.reason)
    raise ReadError(f"{verdict.reason} (given up after {patience.tries} tries)")


def _rename(href: str) -> None:
    """Let the next try go to an address that GDAL does not know."""
    with _guard:
        _failed[href] = _failed.get(href, 0) + 1


def _once(do: Callable[[str], _T], href: str, access: Access) -> _T:
    address, headers = _signed(href, access)
    host = (urlsplit(href).netloc, access.hosts)
    if host not in _trusted:
        resolve(address, hosts=access.hosts, headers=headers)
        _trusted.add(host)
    again = f"{threading.get_ident()}.{_failed.get(href, 0)}"
    patience = access.patience
    settings = {
        **_FAR,
        "GDAL_HTTP_RETRY_DELAY": str(patience.delay_s),
        "GDAL_HTTP_CONNECTTIMEOUT": str(math.ceil(patience.connect_s)),
        "GDAL_HTTP_LOW_SPEED_TIME": str(math.ceil(patience.stall_s)),
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    }
    if headers:
        settings["GDAL_HTTP_HEADERS"] = "\r\n".join(f"{k}: {v}" for k, v in headers.items())
    with rasterio.Env(**settings):
        return do(f"/vsicurl/{address}#{again}.tif")


def _signed(href: str, access: Access) -> tuple[str, Mapping[str, str]]:
    if access.signer is None:
        return href, {}
    for name in _TALKERS:
        # a filter that is there already is not added again
        logging.getLogger(name).addFilter(_REDACT)
    return access.signer.sign(href), access.signer.headers(href)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Leave the redirect as the answer."""


def _diagnose(href: str, access: Access, fault: str) -> _Verdict:
    """Ask the server for a few bytes: GDAL says neither whether to wait nor how long."""
    try:
        address, headers = _signed(href, access)
    except UnavailableError as err:
        return _Verdict(plain_text(err), passing=True)
    request = urllib.request.Request(address, headers={**headers, "Range": "bytes=0-15"})
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=access.patience.connect_s) as answer:
            if answer.read(16).lstrip().startswith(b"<"):
                return _Verdict("the server answers with a page, not with a raster", passing=False)
        return _Verdict(fault, passing=True)
    except urllib.error.HTTPError as err:
        status, later = err.code, err.headers.get("Retry-After")
        err.close()
    except (OSError, HTTPException) as err:
        return _Verdict(f"{fault} ({type(err).__name__})", passing=True)
    # a token may have been taken back early, and the next one be good
    passing = status < 400 or status in _TRANSIENT or (status in (401, 403) and bool(access.signer))
    hint = "; does the source need a key ([sign] in its TOML)?" if status in (401, 403) else ""
    return _Verdict(f"the server answers {status}{hint}", passing, _seconds(later))


def _seconds(later: str | None) -> float:
    """Seconds of a Retry-After header, which is a number or a date."""
    if not later:
        return 0.0
    try:
        return max(0.0, float(later))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(later).timestamp() - time.time())
    except ValueError:
        return 0.0


def plain_text(err: BaseException) -> str:
    """Messages of an error and its causes, addresses without their queries."""
    text = _QUERY.sub("", causes(err)).replace("/vsicurl/", "")
    return re.sub(r"#\d+\.\d+\.tif", "", text)


class _Redact(logging.Filter):
    """Takes queries and keys out of what libraries log."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        hidden = _QUERY.sub("?…", _KEY.sub(r"\1 …", text))
        if hidden != text:
            record.msg, record.args = hidden, ()
        return True


_REDACT = _Redact()

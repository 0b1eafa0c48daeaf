"""JSON from services: retried, bounded in size, never led astray by a redirect.

pystac-client's own session gives up on the first 503, reads answers of any length, follows
redirects anywhere and writes headers to its log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import pystac_client.stac_api_io
import requests
from urllib3.exceptions import MaxRetryError
from urllib3.util.retry import Retry

from minetrace.catalog.policy import redact
from minetrace.errors import SourceError, UnavailableError

MAX_JSON_BYTES = 64 * 2**20
"""Longest answer that is read."""
TIMEOUT_S: tuple[float, float] = (15.0, 60.0)
"""Seconds to connect, and between two pieces of an answer."""
_TRIES = 7
RETRY = Retry(
    total=_TRIES - 1, backoff_factor=0.5, backoff_max=30, backoff_jitter=0.5, retry_after_max=120,
    status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None,
)  # fmt: skip
_HOPS = 5
_log = logging.getLogger(__name__)


class _NoQueries(logging.Filter):
    """Takes queries, where keys and signatures live, out of urllib3's own messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every message pass, shortened."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args
            )
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_NoQueries())
_BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError,
           requests.exceptions.ContentDecodingError)  # fmt: skip


def get_json(url: str, *, what: str, headers: Mapping[str, str] | None = None) -> Any:
    """JSON that a service answers to a GET.

    Parameters
    ----------
    url
        Address; redirects to other hosts are refused.
    what
        How messages call the service.
    headers
        Sent, and never shown.

    Raises
    ------
    UnavailableError
        No answer after retries.
    SourceError
        The service refuses, its answer is too long, or a redirect leads elsewhere.
    """
    with requests.Session() as session:
        text = fetch(session, "GET", url, what=what, headers=headers)
    return json.loads(text)


def fetch(
    session: requests.Session,
    method: str,
    url: str,
    *,
    what: str,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    host_ok: Callable[[str], bool] | None = None,
) -> str:
    """Text of a JSON answer; ``host_ok`` says which other hosts a redirect may lead to."""
    own = urlsplit(url).netloc
    retry = RETRY
    hops = 0
    while True:
        raw = None
        failure: Exception | None = None
        try:
            with session.request(
                method, url, headers=dict(headers or {}), params=params, json=body,
                timeout=TIMEOUT_S, stream=True, allow_redirects=False,
            ) as response:  # fmt: skip
                if response.is_redirect:
                    hops += 1
                    url = _next(response, method, what, own, hops, host_ok)
                    # the address of the redirect holds the parameters already
                    params = None
                    continue
                if response.status_code not in RETRY.status_forcelist:
                    return _text(response, what)
                raw, reason = response.raw, f"status {response.status_code}"
        except _BROKEN as err:
            failure, reason = err, type(err).__name__
        except requests.RequestException as err:
            # its text holds the whole address
            reason = type(err).__name__
            raise SourceError(f"{what} {redact(url)} cannot be asked: {reason}") from None
        except SourceError:
            raise
        except ValueError as err:
            failure, reason = err, "no valid JSON"
        try:
            retry = retry.increment(method, redact(url), response=raw, error=failure)
        except MaxRetryError:
            raise UnavailableError(
                f"{what} {redact(url)} did not answer ({reason}) in {_TRIES} tries; try again later"
            ) from None
        _log.info("%s %s is asked again: %s", what, redact(url), reason)
        retry.sleep(raw)


def _text(response: requests.Response, what: str) -> str:
    where = redact(str(response.url))
    if not response.ok:
        raise SourceError(
            f"{what} {where} answered {response.status_code} {response.reason}"
            f"{_hint(response.status_code)}"
        )
    body = bytearray()
    for piece in response.iter_content(2**16):
        body += piece
        if len(body) > MAX_JSON_BYTES:
            raise SourceError(
                f"{what} {where} answers more than {MAX_JSON_BYTES // 2**20} MiB; ask for a "
                "smaller place or fewer years"
            )
    text = body.decode("utf-8")
    json.loads(text)
    return text


def _hint(status: int) -> str:
    if status in (401, 403):
        return "; does the source need a key ([sign] in its TOML)?"
    return "; is its address right?" if status == 404 else ""


def _next(
    response: requests.Response, method: str, what: str, own: str, hops: int,
    host_ok: Callable[[str], bool] | None,
) -> str:  # fmt: skip
    here, target = str(response.url), urljoin(str(response.url), response.headers["location"])
    parts = urlsplit(target)
    downgraded = urlsplit(here).scheme == "https" and parts.scheme != "https"
    elsewhere = parts.netloc != own and not (host_ok and host_ok((parts.hostname or "").lower()))
    if hops > _HOPS or downgraded or elsewhere or parts.scheme not in ("http", "https"):
        raise SourceError(
            f"{what} {redact(here)} redirects to {redact(target)}, which is "
            + ("one redirect too many" if hops > _HOPS else "not among the hosts of its source")
        )
    if method != "GET" and response.status_code not in (307, 308):
        raise SourceError(
            f"{what} {redact(here)} moved to {redact(target)}; give that address in the source"
        )
    return target


class StacIO(pystac_client.stac_api_io.StacApiIO):
    """What pystac-client asks services through."""

    def __init__(
        self, *, headers: Mapping[str, str], params: Mapping[str, str],
        host_ok: Callable[[str], bool],
    ) -> None:  # fmt: skip
        super().__init__(max_retries=None)
        self.secrets = (dict(headers), dict(params))
        self.host_ok = host_ok

    def request(
        self, href: str, method: str | None = None, headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """Answer of the service; links to other hosts are refused."""
        parts = urlsplit(href)
        known = self.host_ok((parts.hostname or "").lower())
        if parts.scheme not in ("http", "https") or not known:
            raise SourceError(
                f"the STAC API links to {redact(href)!r}, which is not among the hosts of its "
                "source"
            )
        own_headers, own_params = self.secrets
        posts = (method or "GET").upper() == "POST"
        return fetch(
            self.session, "POST" if posts else "GET", href, what="the STAC API",
            headers={**(headers or {}), **own_headers},
            params=own_params if posts else {**(parameters or {}), **own_params},
            body=(parameters or {}) if posts else None, host_ok=self.host_ok,
        )  # fmt: skip

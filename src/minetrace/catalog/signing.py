"""Signing addresses at the moment they are opened, with secrets that nothing here keeps or shows.

Keys come from the environment, tokens from a service. A signer holds neither: it can be pickled
into any worker, which asks for its own.
"""

from __future__ import annotations

import datetime as dt
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from minetrace.catalog.config import Sign
from minetrace.catalog.policy import host_allowed, redact
from minetrace.catalog.web import get_json
from minetrace.errors import HrefError, SourceError, UnavailableError

_MARGIN_S = 60.0
"""A token is renewed this long before it ends, or a tenth of its life where that is shorter."""


@dataclass(frozen=True)
class _Token:
    query: str
    fetched: float
    expires: float

    @property
    def usable(self) -> bool:
        margin = min(_MARGIN_S, (self.expires - self.fetched) / 10)
        return time.time() < self.expires - margin


# per process: a signer that is copied into a worker starts without tokens
_tokens: dict[tuple[str, str, str], _Token] = {}
_locks: dict[tuple[str, str, str], threading.Lock] = {}
_guard = threading.Lock()


@dataclass(frozen=True)
class Signer:
    """Signs the addresses of one source. It is small, picklable and holds no secret."""

    config: Sign
    hosts: tuple[str, ...]
    """Hosts that may see the secret."""

    def sign(self, href: str) -> str:
        """Address to open now; a token that ends soon is renewed first.

        Raises
        ------
        HrefError
            A host that is not the source's: it must not see the secret.
        SourceError
            The environment variable of the key is not set.
        UnavailableError
            The token service does not answer, or answers something else.
        """
        if urlsplit(href).scheme not in ("http", "https") or self.config.kind == "header":
            return href
        self._require_host(href)
        if self.config.kind == "query":
            return _with_query(href, self.parameters())
        return redact(href) + "?" + self._token(href).query

    def bare(self, href: str) -> str:
        """Address without what signing adds; what is kept and shown."""
        if self.config.kind == "planetary_computer" and urlsplit(href).scheme in ("http", "https"):
            return redact(href)
        return _with_query(href, {str(self.config.name): None})

    def parameters(self) -> dict[str, str]:
        """Query parameters that carry the key; empty where none do."""
        return {str(self.config.name): self._key()} if self.config.kind == "query" else {}

    def headers(self, href: str) -> dict[str, str]:
        """Headers to send with a request for the address; empty where none are needed.

        Raises
        ------
        HrefError, SourceError
            As for `sign`.
        """
        if self.config.kind != "header":
            return {}
        self._require_host(href)
        return {str(self.config.name): self.config.prefix + self._key()}

    def _require_host(self, href: str) -> None:
        host = (urlsplit(href).hostname or "").lower()
        if not host_allowed(host, self.hosts):
            raise HrefError(
                f"host {host!r} is not among the hosts of this source "
                f"({', '.join(self.hosts) or 'none'}) and gets no key of it"
            )

    def _key(self) -> str:
        name = str(self.config.env)
        value = os.environ.get(name, "").strip()
        if not value:
            raise SourceError(
                f"the environment variable {name} is not set; it holds your key for "
                f"{', '.join(self.hosts) or 'this source'}"
            )
        if not value.isprintable():
            raise SourceError(f"the environment variable {name} holds a line break; give one key")
        return value

    def _token(self, href: str) -> _Token:
        place = (str(self.config.endpoint).rstrip("/"), *_account(href))
        with _guard:
            lock = _locks.setdefault(place, threading.Lock())
        # the others wait for the one that asks; they find its token
        with lock:
            token = _tokens.get(place)
            if token is None or not token.usable:
                token = _tokens[place] = self._fetch(place)
        return token

    def _fetch(self, place: tuple[str, str, str]) -> _Token:
        key = os.environ.get(self.config.env or "", "").strip()
        headers = {"Ocp-Apim-Subscription-Key": key} if key else {}
        where = "/".join(place)
        asked = time.time()
        body = get_json(where, headers=headers, what="the token service")
        try:
            expires = dt.datetime.fromisoformat(body["msft:expiry"])
            token = str(body["token"]).lstrip("?")
        except (KeyError, TypeError, ValueError) as err:
            raise UnavailableError(
                f"the token service {where} gave no token with an expiry; is the endpoint of "
                "[sign] right?"
            ) from err
        if expires.tzinfo is None:
            expires = expires.replace(tzinfo=dt.UTC)
        return _Token(token, asked, expires.timestamp())


def _account(href: str) -> tuple[str, str]:
    """Storage account and container of an address."""
    parts = urlsplit(href)
    host = parts.hostname or ""
    blob = ".blob.core.windows.net"
    container = parts.path.lstrip("/").partition("/")[0]
    if not container:
        raise HrefError(f"asset address {redact(href)!r} names no container")
    return (host.removesuffix(blob), container)


def _with_query(href: str, new: Mapping[str, str | None]) -> str:
    """Address with parameters set, or taken out where None."""
    parts = urlsplit(href)
    before = parse_qsl(parts.query, keep_blank_values=True)
    if not any(new.values()) and not any(name in new for name, _ in before):
        return href
    kept = [(name, value) for name, value in before if name not in new]
    kept += [(name, value) for name, value in new.items() if value is not None]
    return parts._replace(query=urlencode(kept)).geturl()

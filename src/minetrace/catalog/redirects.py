"""Where an address really leads: names are resolved and redirects followed one by one.

GDAL follows redirects by itself and asks nobody. Whoever opens addresses of a host asks here
first, once per host and process.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import urljoin, urlsplit

import requests

from minetrace.catalog import web
from minetrace.catalog.policy import check_remote, is_public, redact
from minetrace.errors import HrefError, UnavailableError

_HOPS = 5


def resolve(href: str, *, hosts: Sequence[str], headers: Mapping[str, str] | None = None) -> str:
    """Follow an address to where its bytes are; every hop must be one that the source allows.

    Parameters
    ----------
    href
        Remote address, signed where it needs to be.
    hosts
        The source's allowed hosts. A host whose name leads to a private, loopback or link-local
        address is refused unless that address itself is among them.
    headers
        Sent to allowed hosts only, and never shown.

    Returns
    -------
    str
        The last address; ``href`` itself where nothing redirects.

    Raises
    ------
    HrefError
        A hop leads to a host that is not allowed or not public, or there are too many.
    UnavailableError
        The host cannot be reached.
    """
    here = href
    with requests.Session() as session:
        for _ in range(_HOPS + 1):
            _check_hop(href, here, hosts)
            try:
                answer = session.head(
                    here, headers=dict(headers or {}), allow_redirects=False,
                    timeout=web.TIMEOUT_S,
                )  # fmt: skip
            except requests.RequestException as err:
                raise UnavailableError(
                    f"{redact(here)} cannot be reached ({type(err).__name__}); try again later"
                ) from None
            with answer:
                if not answer.is_redirect:
                    return here
                here = urljoin(here, answer.headers["location"])
    raise HrefError(f"asset address {redact(href)!r} is redirected more than {_HOPS} times")


def check_host(host: str, *, hosts: Sequence[str]) -> None:
    """Refuse a host whose name leads to an address that is not public.

    Addresses that ``hosts`` names exactly may be anything. A name that leads nowhere passes: it
    cannot be opened either.

    Raises
    ------
    HrefError
        Naming the host and the address.
    """
    for address in _addresses(host):
        if not is_public(address) and address not in hosts:
            raise HrefError(
                f"host {host!r} leads to {address}, which is no public address; add that "
                "address to hosts in the source's TOML to allow it"
            )


def _check_hop(first: str, here: str, hosts: Sequence[str]) -> None:
    try:
        check_remote(here, hosts=hosts)
        check_host((urlsplit(here).hostname or "").lower(), hosts=hosts)
    except HrefError as err:
        if here == first:
            raise
        raise HrefError(f"asset address {redact(first)!r} is redirected: {err}") from None


@lru_cache(maxsize=1024)
def _addresses(host: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple(sorted({str(entry[4][0]) for entry in found}))

"""Which asset addresses may be opened.

GDAL opens far more than rasters: archives, virtual drivers, text that names other files. An
address from a catalogue is therefore checked before any library sees it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from minetrace.errors import HrefError

_CONTROL = re.compile(r"[\x00-\x1f<>|\"]")
_SIGNATURES: tuple[bytes, ...] = (
    b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+",  # TIFF, BigTIFF
    b"\x00\x00\x00\x0cjP", b"\xff\x4f\xff\x51",  # JPEG 2000
    b"\x89PNG",
)  # fmt: skip
RASTER_DRIVERS = (
    "GTiff", "COG", "JP2OpenJPEG", "PNG", "HFA", "ENVI", "AAIGrid", "netCDF",
)  # fmt: skip
"""GDAL drivers whose files hold their own pixels; a virtual raster could name any file."""
_NAT64 = IPv6Network("64:ff9b::/96")


def check_href(href: str, *, roots: Sequence[Path], hosts: Sequence[str] = ()) -> str:
    """Return the address to open, or refuse it. Nothing is asked of the network.

    Parameters
    ----------
    href
        Address from a STAC asset: a local path, ``file:`` or ``https:``.
    roots
        Folders that local assets may lie in, compared after links are resolved.
    hosts
        Host names that remote assets may come from; ``*.example.org`` allows its subdomains.
        A numeric address must be named in full.

    Raises
    ------
    HrefError
        Another scheme, a GDAL virtual path, user information in the address, a host or folder
        that is not allowed, a missing file, or a local file that is no TIFF, JPEG 2000 or PNG.
    """
    if _CONTROL.search(href):
        raise HrefError(f"asset address {href!r} holds characters that no path or URL needs")
    if href.startswith(("/vsi", "\\\\")):
        raise HrefError(
            f"asset address {href!r} names a virtual file system of GDAL; give the "
            "plain path or https address"
        )
    parts = _split(href)
    if parts.scheme in ("", "file"):
        return _check_local(unquote(parts.path), roots)
    return check_remote(href, hosts=hosts)


def check_remote(href: str, *, hosts: Sequence[str]) -> str:
    """Return a remote address, or refuse it; see `check_href`."""
    parts = _split(href)
    if parts.scheme == "s3":
        raise HrefError(
            f"asset address {redact(href)!r} is in an S3 bucket; only local files and https are "
            "opened. If the bucket is public, map it in [rewrite] of the source's TOML: "
            f'"s3://{parts.netloc}/" = "https://{parts.netloc}.s3.REGION.amazonaws.com/". Buckets '
            "whose requester pays (usgs-landsat) want AWS keys of your own; take the collection "
            "from a provider that serves it over https"
        )
    if parts.scheme not in ("https", "http"):
        raise HrefError(
            f"asset address {redact(href)!r} has scheme {parts.scheme!r}; only local "
            "files and https are opened"
        )
    host = (parts.hostname or "").lower()
    if parts.username or parts.password:
        raise HrefError(
            f"asset address on {host!r} carries user information; keep secrets out of catalogues"
        )
    if not host_allowed(host, hosts):
        raise HrefError(
            f"host {host!r} is not among the hosts of this source "
            f"({', '.join(hosts) or 'none'}); add it to the source's TOML to allow it"
        )
    if parts.scheme == "http" and host not in ("127.0.0.1", "::1", "localhost"):
        raise HrefError(f"asset address {redact(href)!r} is plain http; use https")
    return href


def redact(href: str) -> str:
    """Address without its query, where signatures and tokens live, and without user information.

    Examples
    --------
    >>> redact("https://me:pw@data.org/a.tif?sig=secret")
    'https://data.org/a.tif'
    """
    try:
        parts = urlsplit(href)
    except ValueError:
        return href.partition("?")[0]
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=place, query="", fragment="").geturl()


def host_allowed(host: str, hosts: Sequence[str]) -> bool:
    """Whether a host is one of those named; a numeric address matches no wildcard.

    Examples
    --------
    >>> host_allowed("a.tiles.org", ["*.tiles.org"]), host_allowed("127.0.0.1", ["*.0.0.1"])
    (True, False)
    """
    plain = host.strip("[]").lower()
    if plain in (named.strip("[]").lower() for named in hosts):
        return True
    return not _is_numeric(plain) and any(
        named.startswith("*.") and plain.endswith(named[1:].lower()) for named in hosts
    )


def is_public(address: str) -> bool:
    """Whether a numeric address is one that the whole internet can reach.

    Addresses that hold another one (mapped, 6to4, Teredo, NAT64) are judged by that as well.

    Examples
    --------
    >>> is_public("10.0.0.1"), is_public("::ffff:10.0.0.1"), is_public("8.8.8.8")
    (False, False, True)
    """
    ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    inner: list[IPv4Address | IPv6Address] = [ip]
    if isinstance(ip, IPv6Address):
        held = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            held.append(IPv4Address(int(ip) & 0xFFFFFFFF))
        inner += [h for h in held if h is not None]
        if ip.ipv4_mapped is not None:
            inner.remove(ip)
    return all(i.is_global and not i.is_multicast for i in inner)


def _is_numeric(host: str) -> bool:
    """Whether a resolver would read the host as an address: decimal, octal and hex forms too."""
    if ":" in host:
        return True
    last = host.rstrip(".").rpartition(".")[2]
    return last.isdigit() or bool(re.fullmatch(r"0x[0-9a-f]*", last))


def _split(href: str) -> SplitResult:
    try:
        parts = urlsplit(href)
        # a port that is no number shows only when asked for
        _ = parts.port
    except ValueError as err:
        raise HrefError(f"asset address {redact(href)!r} is no address: {err}") from None
    return parts


def _check_local(path: str, roots: Sequence[Path]) -> str:
    real = os.path.realpath(path)
    if not _lies_in(real, roots):
        raise HrefError(
            f"asset {path} lies outside the folders of this source "
            f"({', '.join(str(r) for r in roots) or 'none'}); add its folder to `roots` in the "
            "source's TOML to allow it"
        )
    try:
        with open(real, "rb", buffering=0) as file:
            head = file.read(8)
    except OSError as err:
        raise HrefError(f"asset {path} cannot be opened: {err.strerror}") from err
    if not head.startswith(_SIGNATURES):
        raise HrefError(f"asset {path} is neither TIFF, JPEG 2000 nor PNG by its first bytes")
    return real


def _lies_in(real: str, roots: Sequence[Path]) -> bool:
    # what the path without links begins with holds no links either, and need not be resolved
    if any(real.startswith(os.path.join(root, "")) for root in roots):
        return True
    return any(Path(real).is_relative_to(root.resolve()) for root in roots)

"""Which asset addresses may be opened.

GDAL opens far more than rasters: archives, virtual drivers, text that names other files. An
address from a catalogue is therefore checked before any library sees it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

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


def check_href(href: str, *, roots: Sequence[Path], hosts: Sequence[str] = ()) -> str:
    """Return the address to open, or refuse it.

    Parameters
    ----------
    href
        Address from a STAC asset: a local path, ``file:`` or ``https:``.
    roots
        Folders that local assets may lie in, compared after links are resolved.
    hosts
        Host names that remote assets may come from; ``*.example.org`` allows its subdomains.

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
    parts = urlsplit(href)
    if parts.scheme in ("", "file"):
        return _check_local(Path(unquote(parts.path)), roots)
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
    if not any(_host_matches(host, allowed.lower()) for allowed in hosts):
        raise HrefError(
            f"host {host!r} is not among the hosts of this source "
            f"({', '.join(hosts) or 'none'}); add it to the source's TOML to allow it"
        )
    if parts.scheme == "http" and host not in ("127.0.0.1", "localhost"):
        raise HrefError(f"asset address {redact(href)!r} is plain http; use https")
    return href


def redact(href: str) -> str:
    """Address without its query, where signatures and tokens live."""
    return urlsplit(href)._replace(query="", fragment="").geturl()


def _host_matches(host: str, allowed: str) -> bool:
    if allowed.startswith("*."):
        return host.endswith(allowed[1:])
    return host == allowed


def _check_local(path: Path, roots: Sequence[Path]) -> str:
    real = path.resolve()
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        raise HrefError(
            f"asset {path} lies outside the folders of this source "
            f"({', '.join(str(r) for r in roots) or 'none'}); add its folder to `roots` in the "
            "source's TOML to allow it"
        )
    try:
        with real.open("rb") as file:
            head = file.read(8)
    except OSError as err:
        raise HrefError(f"asset {path} cannot be opened: {err.strerror}") from err
    if not head.startswith(_SIGNATURES):
        raise HrefError(f"asset {path} is neither TIFF, JPEG 2000 nor PNG by its first bytes")
    return str(real)

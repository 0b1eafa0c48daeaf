"""Where a store lies: a local folder, or a prefix of an object store through obstore."""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from minetrace.errors import InputError, StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    Store: TypeAlias = str | Path | ObjectStore
else:
    Store: TypeAlias = Any

OBJECTS = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
"""Schemes of addresses that obstore opens."""


class Place(Protocol):
    """A flat set of named byte strings, of which single ones appear at once or not at all."""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
        """Bytes of a file or of a part of it; None where there is no such file."""

    def sizes(self, below: str = "") -> dict[str, int]:
        """Name → bytes of every file below a folder of the store."""

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless its name is taken; whether it was written."""

    def replace(self, name: str, data: bytes) -> None:
        """Write a file whether or not its name is taken."""

    @property
    def address(self) -> str:
        """The place in words, without secrets."""


class Folder:
    """A local folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def address(self) -> str:
        """The path."""
        return str(self.path)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
        """See `Place.read`."""
        try:
            with (self.path / name).open("rb") as file:
                file.seek(start)
                return file.read() if stop is None else file.read(stop - start)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def sizes(self, below: str = "") -> dict[str, int]:
        """See `Place.sizes`."""
        return {
            Path(folder, name).relative_to(self.path).as_posix(): (
                Path(folder, name).lstat().st_size
            )
            for folder, _, names in os.walk(self.path / below)
            for name in names
        }

    def create(self, name: str, data: bytes) -> bool:
        """See `Place.create`."""
        part = self._part(name, data)
        try:
            # a hard link appears at once and fails if the name is taken
            os.link(part, self.path / name)
        except FileExistsError:
            return False
        finally:
            part.unlink()
        return True

    def replace(self, name: str, data: bytes) -> None:
        """See `Place.replace`."""
        self._part(name, data).replace(self.path / name)

    def _part(self, name: str, data: bytes) -> Path:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        # beside the store and not in it, where a cut-off write would leave a foreign file
        part = self.path.with_name(part_prefix(self.path) + secrets.token_hex(4))
        try:
            part.write_bytes(data)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        return part


class Bucket:
    """A prefix of an object store."""

    def __init__(self, store: ObjectStore | str) -> None:
        self._store = store

    @property
    def address(self) -> str:
        """The address, or the kind of store where an object was given."""
        return self._store if isinstance(self._store, str) else type(self._store).__name__

    @property
    def objects(self) -> ObjectStore:
        """The obstore store."""
        # an address travels to workers as it is; each takes credentials from its own environment
        return _connect(self._store) if isinstance(self._store, str) else self._store

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
        """See `Place.read`."""
        import obstore

        with self._explained("read", name):
            try:
                if start or stop is not None:
                    end = obstore.head(self.objects, name)["size"] if stop is None else stop
                    return bytes(obstore.get_range(self.objects, name, start=start, end=end))
                return bytes(obstore.get(self.objects, name).bytes())
            except (FileNotFoundError, obstore.exceptions.NotFoundError):
                return None

    def sizes(self, below: str = "") -> dict[str, int]:
        """See `Place.sizes`."""
        import obstore

        with self._explained("list", below):
            listed = obstore.list(self.objects, prefix=below or None)
            return {str(found["path"]): int(found["size"]) for page in listed for found in page}

    def create(self, name: str, data: bytes) -> bool:
        """See `Place.create`."""
        import obstore

        with self._explained("write", name):
            try:
                obstore.put(self.objects, name, data, mode="create", use_multipart=False)
            except obstore.exceptions.AlreadyExistsError:
                return False
        return True

    def replace(self, name: str, data: bytes) -> None:
        """See `Place.replace`."""
        import obstore

        with self._explained("write", name):
            obstore.put(self.objects, name, data, use_multipart=False)

    def remove(self, names: list[str]) -> None:
        """Delete files; a name that is not there is no error."""
        import obstore

        with self._explained("delete", names[0] if names else ""):
            for name in names:
                try:
                    obstore.delete(self.objects, name)
                except (FileNotFoundError, obstore.exceptions.NotFoundError):
                    continue

    @contextmanager
    def _explained(self, verb: str, name: str) -> Iterator[None]:
        import obstore

        try:
            yield
        except obstore.exceptions.BaseError as err:
            # the first line says what the service answered; those after it hold its whole reply,
            # and an address may carry a signature
            first = (str(err).splitlines() or [""])[0].partition("?")[0]
            raise StoreError(
                f"{self.address}: could not {verb} {name!r} ({type(err).__name__}: {first}); check "
                "the address, and the credentials in the environment"
            ) from None


@lru_cache
def _connect(address: str) -> ObjectStore:
    from obstore.store import from_url

    return from_url(address)


def open_place(store: Store) -> Folder | Bucket:
    """Place of a path, of an address such as ``s3://bucket/prefix``, or of an obstore store.

    Raises
    ------
    InputError
        An unknown scheme, credentials in an address, or obstore is not installed.

    Examples
    --------
    >>> open_place("cubes/mine.zarr").address
    'cubes/mine.zarr'
    """
    if isinstance(store, Path) or (isinstance(store, str) and "://" not in store):
        path = Path(store)
        if path.name in ("", ".."):
            raise InputError(f"{store} cannot be replaced by a store; name a folder in it")
        return Folder(path)
    if isinstance(store, str):
        parts = urlsplit(store)
        if parts.scheme not in OBJECTS:
            raise InputError(
                f"a store is a folder or an address of {', '.join(OBJECTS)}, not {parts.scheme}://"
            )
        if parts.username or parts.password or parts.query:
            raise InputError(
                f"the address of {parts.hostname} holds credentials; leave them out and set them "
                "in the environment, where obstore finds them"
            )
        store = store.rstrip("/")
    try:
        import obstore
    except ModuleNotFoundError as err:
        raise InputError("object stores need obstore: pip install 'minetrace[cloud]'") from err
    if not isinstance(store, str | obstore.store.ObjectStore):
        raise InputError(f"{store!r} is no path, address or obstore store")
    return Bucket(store)


def part_prefix(path: Path) -> str:
    """How unfinished files and folders beside a store are called: whose they are can be told."""
    return f".{path.name}.{platform.node()}.{os.getpid()}."

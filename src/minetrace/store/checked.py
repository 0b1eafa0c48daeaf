"""A zarr store that hands out only bytes whose hash is the manifest's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype

from minetrace.errors import StoreError
from minetrace.store.manifest import MEND, PIECE, ROOT, Manifest, own_nodes, piece_hashes
from minetrace.store.place import Place


class CheckedStore(Store):  # type: ignore[misc]
    """Read-only face of one committed unit.

    Every read is of whole pieces, hashed before a byte of them is passed on. What the checksum
    inside a chunk cannot tell is found too: a chunk in another's place, or one that is gone.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, place: Place, meta: dict[str, Any], manifest: Manifest) -> None:
        super().__init__(read_only=True)
        self._place = place
        self._manifest = manifest
        listed = meta["consolidated_metadata"]
        listed = listed | {"metadata": own_nodes(listed["metadata"])}
        self._root = json.dumps(meta | {"consolidated_metadata": listed}).encode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CheckedStore) and self._token() == other._token()

    def __hash__(self) -> int:
        return hash(self._token())

    def __dask_tokenize__(self) -> tuple[str, ...]:
        return self._token()

    def __str__(self) -> str:
        return "/".join(filter(None, (self._place.address, self._manifest.unit)))

    def _token(self) -> tuple[str, ...]:
        return "minetrace.store", str(self), self._manifest.seal

    def fetch(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes of a listed file, or of a part of it.

        Raises
        ------
        StoreError
            The file is gone, cut off, or not what was committed.
        """
        entry = self._manifest.files[name]
        stop = entry.size if stop is None else min(stop, entry.size)
        first = min(start, stop) // PIECE
        end = min(-(-stop // PIECE) * PIECE, entry.size)
        whole = not (first or end < entry.size)
        path = "/".join(filter(None, (self._manifest.unit, name)))
        data = self._place.read(path) if whole else self._place.read(path, first * PIECE, end)
        if data is None:
            raise StoreError(f"{self} misses its file {name}; {MEND}")
        # a file read as a whole may have grown too
        right = len(data) == end - first * PIECE
        if not right or piece_hashes(data) != entry.pieces[first : first + -(-len(data) // PIECE)]:
            raise StoreError(f"{self}: {name} differs from the manifest, so it is damaged; {MEND}")
        return data[start - first * PIECE : max(stop, start) - first * PIECE]

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Verified bytes of a file, None where the unit has none of that name."""
        if key == ROOT:
            return prototype.buffer.from_bytes(self._root)
        entry = self._manifest.files.get(key)
        if entry is None:
            return None
        start, stop = _span(byte_range, entry.size)
        return prototype.buffer.from_bytes(await asyncio.to_thread(self.fetch, key, start, stop))

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Verified bytes of several parts."""
        return await asyncio.gather(*(self.get(k, prototype, r) for k, r in key_ranges))

    async def exists(self, key: str) -> bool:
        """Whether the unit has a file of that name."""
        return key == ROOT or key in self._manifest.files

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse: committed units do not change."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refuse: committed units do not change."""
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        """Names of all files."""
        for name in (ROOT, *self._manifest.files):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Names that begin with a prefix."""
        async for name in self.list():
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly below a folder."""
        stem = f"{prefix.rstrip('/')}/" if prefix else ""
        async for name in self.list_prefix(stem):
            yield name.removeprefix(stem).partition("/")[0]


def _span(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
    if isinstance(byte_range, RangeByteRequest):
        return byte_range.start, byte_range.end
    if isinstance(byte_range, OffsetByteRequest):
        return byte_range.offset, size
    if isinstance(byte_range, SuffixByteRequest):
        return max(size - byte_range.suffix, 0), size
    return 0, size

"""Files of a committed unit, handed out only if their hash is the manifest's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minetrace.errors import StoreError
from minetrace.store.manifest import MEND, PIECE, Manifest, own_nodes, piece_hashes
from minetrace.store.place import Place


@dataclass(frozen=True, eq=False)
class CheckedUnit:
    """Read-only face of one committed unit.

    Every read is of whole pieces, hashed before a byte of them is passed on. What the checksum
    inside a chunk cannot tell is found too: a chunk in another's place, or one that is gone.
    """

    place: Place
    meta: dict[str, Any]
    """Metadata of the root group, which the manifest's seal covers."""
    manifest: Manifest

    def __str__(self) -> str:
        return "/".join(filter(None, (self.place.address, self.manifest.unit)))

    def __dask_tokenize__(self) -> tuple[str, ...]:
        return "minetrace.store", str(self), self.manifest.seal

    @property
    def nodes(self) -> dict[str, Any]:
        """Metadata of the unit's own groups and arrays by name."""
        return own_nodes(self.meta["consolidated_metadata"]["metadata"])

    def fetch(self, name: str, start: int = 0, stop: int | None = None) -> memoryview:
        """Bytes of a listed file, or of a part of it.

        Raises
        ------
        StoreError
            The file is gone, cut off, or not what was committed.
        """
        entry = self.manifest.files[name]
        stop = entry.size if stop is None else min(stop, entry.size)
        first = min(start, stop) // PIECE
        end = min(-(-stop // PIECE) * PIECE, entry.size)
        whole = not (first or end < entry.size)
        path = "/".join(filter(None, (self.manifest.unit, name)))
        data = self.place.read(path) if whole else self.place.read(path, first * PIECE, end)
        if data is None:
            raise StoreError(f"{self} misses its file {name}; {MEND}")
        # a file read as a whole may have grown too
        right = len(data) == end - first * PIECE
        if not right or piece_hashes(data) != entry.pieces[first : first + -(-len(data) // PIECE)]:
            raise StoreError(f"{self}: {name} differs from the manifest, so it is damaged; {MEND}")
        return memoryview(data)[start - first * PIECE : max(stop, start) - first * PIECE]

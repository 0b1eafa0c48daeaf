"""Variables of a unit, decoded from checked bytes: what zarr reads, with less in between.

Reading a series of 64 × 64 pixels through zarr and xarray's backend takes 1.6 times as long, and
opening a store 2.5 times: their event loop, codec pipelines and indexers cost more than the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
import xarray as xr
from numcodecs.zstd import decompress  # type: ignore[import-untyped]
from xarray.backends.zarr import FillValueCoder

from minetrace.errors import StoreError
from minetrace.store.checked import CheckedUnit
from minetrace.store.manifest import MEND, PIECE

ROWS = 256
"""Rows of a lazy block, half a file. What is made of several variables becomes one task a block, so
that whole files would keep one thread busy on a small site: 85 ms instead of 63."""
Box: TypeAlias = tuple[slice, ...]
"""Start and stop along each dimension."""


@dataclass(frozen=True)
class StoredArray:
    """Values of one array; an index reads and decodes the chunks that it touches."""

    unit: CheckedUnit
    path: str
    """Name below the unit, such as ``imagery/red``."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    file: tuple[int, ...]
    """Values in a file along each dimension, those past the edge of the array too."""
    chunk: tuple[int, ...] | None
    """Values that are compressed as one, in a file with an index; None where a file is one chunk
    without."""
    separator: str
    """What stands between the numbers in the name of a file."""

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        # the seal of the unit covers all that is said of the array
        return self.path, self.unit.__dask_tokenize__()

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        """Values at a number, slice or list along each of the first dimensions, each by itself."""
        key += (slice(None),) * (self.ndim - len(key))
        spots = [np.arange(n)[k] for n, k in zip(self.shape, key, strict=True)]
        box = tuple(slice(s.min(), s.max() + 1) if s.size else slice(0, 0) for s in spots)
        values = self._read(box)
        for axis in reversed(range(self.ndim)):
            spot, side = spots[axis], box[axis]
            if not np.array_equal(spot, np.arange(side.start, side.stop)):
                values = values[(slice(None),) * axis + (spot - side.start,)]
        return values

    def _read(self, box: Box) -> np.ndarray:
        out = np.empty([side.stop - side.start for side in box], self.dtype)
        for number, inside, where in _tiles(box, self.file):
            name = f"{self.path}/{self.separator.join(['c', *map(str, number)])}"
            # an empty index would copy
            part = out[where] if where else out
            if self.chunk is None:
                part[...] = self._decode(name, self.unit.fetch(name), self.file)[inside]
                continue
            tiles = list(_tiles(inside, self.chunk))
            chunks = self._chunks(name, self.chunk, [number for number, _, _ in tiles])
            for data, (_, within, there) in zip(chunks, tiles, strict=True):
                part[there] = self._decode(name, data, self.chunk)[within]
        return out

    def _chunks(
        self, name: str, chunk: tuple[int, ...], wanted: list[tuple[int, ...]]
    ) -> Iterator[memoryview]:
        """Compressed chunks of a file that has an index of them."""
        grid = [f // c for f, c in zip(self.file, chunk, strict=True)]
        size = self.unit.manifest.files[name].size
        # of each chunk two numbers of eight bytes, start and length, and a checksum of them all
        begin = max(size - 16 * prod(grid) - 4, 0)
        whole = size <= PIECE or len(wanted) == prod(grid)
        data = self.unit.fetch(name, 0 if whole else begin)
        index = data[begin:] if whole else data
        if len(index) != 16 * prod(grid) + 4:
            raise StoreError(f"{self.unit}: {name} has no room for its index; {MEND}")
        table = np.frombuffer(index[:-4], "<u8").reshape(*grid, 2)
        rows = [table[number].tolist() for number in wanted]
        spans = [(start, start + length) for start, length in rows]
        first, last = (0, size) if whole else (min(s for s, _ in spans), max(s for _, s in spans))
        # pieces are hashed as a whole: of neighbours each would be hashed several times
        together = last - first <= 2 * sum(stop - start for start, stop in spans)
        if together and not whole:
            data = self.unit.fetch(name, first, last)
        for start, stop in spans:
            if whole or together:
                yield data[start - first : stop - first]
            else:
                yield self.unit.fetch(name, start, stop)

    def _decode(self, name: str, data: memoryview, shape: tuple[int, ...]) -> np.ndarray:
        try:
            return np.frombuffer(decompress(data), self.dtype.newbyteorder("<")).reshape(shape)
        except (RuntimeError, ValueError) as err:
            raise StoreError(f"{self.unit}: {name} cannot be decoded ({err}); {MEND}") from err


def _tiles(box: Box, sides: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Box, Box]]:
    """Tiles that a box touches: number, which part of the tile, and where in the box that lies."""
    axes = [
        [
            (
                i,
                slice(max(span.start - i * side, 0), min(span.stop - i * side, side)),
                slice(max(i * side - span.start, 0), min(i * side + side, span.stop) - span.start),
            )
            for i in range(span.start // side, -(-span.stop // side))
        ]
        for span, side in zip(box, sides, strict=True)
    ]
    for tile in product(*axes):
        yield tuple(i for i, _, _ in tile), tuple(a for _, a, _ in tile), tuple(b for *_, b in tile)


def open_unit(unit: CheckedUnit) -> xr.DataTree:
    """Lazy tree of one unit; every byte is compared with the manifest when it is read."""
    nodes = unit.nodes
    groups: dict[str, dict[str, xr.Variable]] = {"": {}}
    groups |= {path: {} for path, node in nodes.items() if node["node_type"] == "group"}
    for path, node in nodes.items():
        if node["node_type"] == "array":
            group, _, name = path.rpartition("/")
            groups[group][name] = _variable(stored_array(unit, path, node), name, node)
    attrs = {"": unit.meta, **nodes}
    return xr.DataTree.from_dict(
        {
            path or "/": xr.decode_cf(xr.Dataset(variables, attrs=attrs[path].get("attributes")))
            for path, variables in groups.items()
        }
    )


def stored_array(unit: CheckedUnit, path: str, node: dict[str, Any]) -> StoredArray:
    """An array by its metadata, which `check_metadata` has seen."""
    inner = node["codecs"][0].get("configuration", {}).get("chunk_shape")
    return StoredArray(
        unit,
        path,
        tuple(node["shape"]),
        np.dtype(node["data_type"]),
        tuple(node["chunk_grid"]["configuration"]["chunk_shape"]),
        None if inner is None else tuple(inner),
        node["chunk_key_encoding"].get("configuration", {}).get("separator", "/"),
    )


def _variable(stored: StoredArray, name: str, node: dict[str, Any]) -> xr.Variable:
    dims = tuple(node.get("dimension_names") or ())
    attrs = dict(node.get("attributes", {}))
    if "_FillValue" in attrs:
        attrs["_FillValue"] = FillValueCoder.decode(attrs["_FillValue"], stored.dtype)
    if dims in ((), (name,)):
        return xr.Variable(dims, stored[()], attrs)
    # time whole, since series are read along it
    sides = zip(dims, stored.file, strict=True)
    block = {dim: min(side, ROWS) if dim == "y" else side for dim, side in sides}
    chunks = tuple(block[dim] if dim in ("y", "x") else -1 for dim in dims)
    meta = np.empty((0,) * stored.ndim, stored.dtype)
    return xr.Variable(dims, da.from_array(stored, chunks, meta=meta), attrs)

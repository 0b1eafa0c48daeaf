"""What metadata of a store may ask for, since a store can come from anybody."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import prod
from typing import Any

import numpy as np

from minetrace.errors import StoreError

CODECS = frozenset({"bytes", "zstd", "crc32c", "sharding_indexed"})
"""Codecs of cubes. Others can name code, or were never tried on damaged bytes; in another order
`decode` would not know them."""
TYPES = frozenset(
    {"bool", "float32", "float64", *(f"{s}int{n}" for s in ("", "u") for n in (8, 16, 32, 64))}
)
MAX_CHUNK = 2**31
"""Pixels of a chunk or shard: few stored bytes could ask for all memory."""


def check_metadata(meta: dict[str, Any], where: str) -> dict[str, Any]:
    """Consolidated metadata of a root group, name → node, once they are known to be harmless.

    Raises
    ------
    StoreError
        Another zarr format, codec, chunk grid or data type than a cube has.
    """
    nodes = (meta.get("consolidated_metadata") or {}).get("metadata")
    if meta.get("zarr_format") != 3 or not isinstance(nodes, dict):
        raise StoreError(f"{where} is no zarr v3 group with consolidated metadata; cubes are")
    for name, node in nodes.items():
        try:
            fault = _fault(node)
        except (KeyError, TypeError, AttributeError, ValueError) as err:
            fault = f"malformed metadata ({err!r})"
        if fault:
            raise StoreError(f"{where}/{name} has {fault}; no cube has that, so it is not read")
    return nodes


def _fault(node: dict[str, Any]) -> str:
    if node["zarr_format"] != 3:
        return f"zarr_format {node['zarr_format']!r}"
    if node["node_type"] == "group":
        return ""
    if node["node_type"] != "array":
        return f"node type {node['node_type']!r}"
    codecs = set(_codecs(node["codecs"]))
    if codecs - CODECS:
        return f"the codec {min(codecs - CODECS)!r}"
    if node.get("storage_transformers"):
        return "storage transformers"
    if node["data_type"] not in TYPES:
        return f"the data type {node['data_type']!r}"
    grid, keys = node["chunk_grid"], node["chunk_key_encoding"]
    if grid["name"] != "regular" or keys["name"] != "default":
        return f"the chunk grid {grid['name']!r} with keys {keys['name']!r}"
    shape, chunk = node["shape"], grid["configuration"]["chunk_shape"]
    if len(shape) != len(chunk) or min([*shape, 0]) < 0 or min([*chunk, 1]) < 1:
        return f"chunks {chunk} of a shape {shape}"
    if len(node.get("dimension_names") or ()) != len(shape):
        return f"the dimensions {node.get('dimension_names')} for a shape {shape}"
    if prod(chunk) > MAX_CHUNK:
        return f"chunks of {prod(chunk):,} pixels"
    return _fault_of_layout(node["codecs"], chunk)


def _fault_of_layout(codecs: list[dict[str, Any]], file: list[int]) -> str:
    if _names(codecs) == ["sharding_indexed"]:
        inner = codecs[0]["configuration"]
        chunk = inner["chunk_shape"]
        if len(chunk) != len(file) or min(chunk) < 1 or np.mod(file, chunk).any():
            return f"chunks {chunk} in files of {file}"
        index, where = inner["index_codecs"], inner.get("index_location", "end")
        if not _are_plain(index, "crc32c") or where != "end":
            return f"an index of {_names(index)} at the {where}"
        codecs = inner["codecs"]
    return "" if _are_plain(codecs, "zstd") else f"the codecs {_names(codecs)}"


def _are_plain(codecs: list[dict[str, Any]], second: str) -> bool:
    """Whether values are stored as little-endian bytes, to which one thing is done."""
    return _names(codecs) == ["bytes", second] and _endian(codecs[0]) == "little"


def _endian(codec: dict[str, Any]) -> Any:
    # single bytes have none
    return (codec.get("configuration") or {}).get("endian", "little")


def _names(codecs: list[dict[str, Any]]) -> list[str]:
    return [str(codec["name"]) for codec in codecs]


def _codecs(codecs: list[dict[str, Any]]) -> Iterator[str]:
    for codec in codecs:
        yield str(codec["name"])
        inner = codec.get("configuration") or {}
        yield from _codecs([*inner.get("codecs", []), *inner.get("index_codecs", [])])


def chunk_names(nodes: dict[str, Any], *, most: int) -> Iterator[str]:
    """Names of the files that hold chunks, or shards of them; no more than ``most`` + 1 a node."""
    for name, node in nodes.items():
        if node["node_type"] != "array":
            continue
        keys = node["chunk_key_encoding"].get("configuration", {}).get("separator", "/")
        chunk = node["chunk_grid"]["configuration"]["chunk_shape"]
        counts = [range(-(-n // c)) for n, c in zip(node["shape"], chunk, strict=True)]
        for index in islice(_indices(counts), most + 1):
            yield f"{name}/{keys.join(['c', *map(str, index)])}"


def _indices(counts: list[range]) -> Iterator[tuple[int, ...]]:
    # itertools.product would first make a list of each range, however long a shape claims to be
    if not counts:
        yield ()
        return
    for first in counts[0]:
        for rest in _indices(counts[1:]):
            yield (first, *rest)

"""A cube, or years of it, as a folder of zarr files; nothing is published here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import xarray as xr
from zarr.codecs import ZstdCodec

from minetrace._version import __version__
from minetrace.errors import StoreError
from minetrace.store.checked import CheckedUnit
from minetrace.store.decode import open_unit
from minetrace.store.identity import Identity, split_years
from minetrace.store.item import ITEM, cube_item
from minetrace.store.manifest import ROOT, Manifest, seal, stored, unseal
from minetrace.store.place import Folder

CHUNK = 64
"""Side, in pixels, of what is read at once; time is whole, since series are read along it."""
SHARD = 512
"""Side of a file. Measured on 38 years of 512 × 512 pixels: a series of 64 × 64 takes 2.4 ms, 15 ms
from files of 256 × 256 that are one chunk; chunks of 32 double the time of reading all."""
_CONVENTIONS = [
    {
        "name": "spatial:",
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "spec_url": "https://github.com/zarr-conventions/spatial/blob/v1/README.md",
    },
    {
        "name": "proj:",
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "spec_url": "https://github.com/zarr-conventions/geo-proj/blob/v1/README.md",
    },
]


def write_unit(cube: xr.DataTree, identity: Identity, work: Path, *, unit: str) -> Manifest:
    """Write a unit into an empty folder, read it back and seal it.

    Raises
    ------
    StoreError
        What is read back differs in form from the cube, or a chunk is not there.
    """
    _write(cube, work)
    (work / ITEM).write_text(json.dumps(cube_item(cube, unit=unit), indent=1), encoding="utf-8")
    meta = _consolidated(work)
    root = work / ROOT
    root.unlink()
    files = {
        p.relative_to(work).as_posix(): stored(p.read_bytes())
        for p in sorted(work.rglob("*"))
        if p.is_file()
    }
    manifest = Manifest(unit, __version__, identity.series, identity.years, files)
    text = seal(meta, manifest)
    meta, manifest = unseal(text, unit=unit, where=f"{work}")
    _read_back(cube, CheckedUnit(Folder(work), meta, replace(manifest, unit="")))
    root.write_bytes(text)
    return manifest


def pick_years(cube: xr.DataTree, years: Iterable[str]) -> xr.DataTree:
    """The part of a cube that lies in some years, with the items of those years only."""
    wanted = set(years)
    nodes = {"/": cube.to_dataset().drop_attrs().assign_attrs(_lasting(cube.attrs))}
    for name, child in cube.children.items():
        ds = child.to_dataset(inherit=False)
        split = split_years(ds)
        here = [year for year in split if year in wanted]
        if len(here) == len(split):
            nodes[name] = ds
        elif here:
            where = np.concatenate([split[year]["time"] for year in here])
            nodes[name] = ds.isel(time=where).assign_attrs(_items_of(ds.attrs, set(here)))
    return xr.DataTree.from_dict(nodes)


def _lasting(attrs: dict[Any, Any]) -> dict[Any, Any]:
    return {k: v for k, v in attrs.items() if k != "unfinished"}


def _items_of(attrs: dict[Any, Any], years: set[str]) -> dict[Any, Any]:
    if "items_by_year" not in attrs:
        return {}
    ids = zip(attrs["item_ids"], attrs["item_years"], strict=True)
    kept = [(i, y) for i, y in ids if f"{y:04d}" in years]
    return {
        "item_ids": [i for i, _ in kept],
        "item_years": [y for _, y in kept],
        "items_by_year": {k: v for k, v in attrs["items_by_year"].items() if k in years},
    }


def _write(cube: xr.DataTree, work: Path) -> None:
    tree = xr.DataTree.from_dict(
        {"/": cube.to_dataset(), **{n: _stamped(c) for n, c in cube.children.items()}}
    )
    encoding = {
        f"/{name}": {str(k): _encoding(v) for k, v in node.to_dataset().variables.items()}
        for name, node in tree.children.items()
    }
    # a chunk without a file would be read as fill values: empty ones are written too, so that a
    # lost one can be told
    tree.to_zarr(
        work,
        mode="w",
        zarr_format=3,
        consolidated=False,
        write_empty_chunks=True,
        encoding=encoding,
    )


def _consolidated(work: Path) -> dict[str, Any]:
    """Metadata of the root group with those of all nodes below it inline.

    A plain `xr.open_datatree` warns and is slow without them; readers that do not know them ignore
    them. `zarr.consolidate_metadata` always warns, and warnings cannot be silenced for one thread.
    """
    found: dict[str, dict[str, Any]] = {
        p.parent.relative_to(work).as_posix(): json.loads(p.read_text(encoding="utf-8"))
        for p in sorted(work.rglob(ROOT))
    }
    listed = {"kind": "inline", "must_understand": False}
    root = found.pop(".")
    return root | {"consolidated_metadata": listed | {"metadata": found}}


def _encoding(var: xr.Variable) -> dict[str, Any]:
    # zarr's default zstd has no checksum: damaged chunks would decode to wrong values
    checksummed: dict[str, Any] = {"compressors": [ZstdCodec(level=3, checksum=True)]}
    if var.dims[-2:] == ("y", "x") and var.size:
        before, sides = var.shape[:-2], var.shape[-2:]
        chunk = [min(CHUNK, n) for n in sides]
        checksummed["chunks"] = (*before, *chunk)
        if max(sides) > CHUNK:
            # a shard is whole chunks
            shard = [min(SHARD, -(-n // c) * c) for n, c in zip(sides, chunk, strict=True)]
            checksummed["shards"] = (*before, *shard)
    return checksummed


def _stamped(node: xr.DataTree) -> xr.Dataset:
    """Node with the geo conventions beside its CF grid mapping, and storable chunks."""
    ds = node.to_dataset(inherit=False)
    for var in ds.variables.values():
        # encodings of the files that pixels came from do not fit the cube
        var.encoding.clear()
    if ds.chunks:
        # tasks write whole files, so that no two of them share one
        ds = ds.chunk({**({"time": -1} if "time" in ds.dims else {}), "y": SHARD, "x": SHARD})
    box = ds.odc.geobox
    epsg = box.crs.to_epsg()
    ds.attrs |= {
        "zarr_conventions": _CONVENTIONS,
        "spatial:dimensions": ["y", "x"],
        "spatial:transform": list(box.affine)[:6],
        "spatial:bbox": list(box.boundingbox.bbox),
        "spatial:shape": list(box.shape),
        **({"proj:code": f"EPSG:{epsg}"} if epsg else {"proj:wkt2": box.crs.to_wkt()}),
    }
    return ds


def _read_back(cube: xr.DataTree, unit: CheckedUnit) -> None:
    """Decode every chunk (its checksum is tested) and compare metadata with the cube's."""
    written = open_unit(unit)
    for name, node in cube.children.items():
        back = written.children[name].to_dataset(inherit=False)
        for key, var in node.to_dataset(inherit=False).data_vars.items():
            if back[key].dtype != var.dtype or back[key].shape != var.shape:
                raise StoreError(
                    f"{name}/{key} was read back as {back[key].dtype} "
                    f"{back[key].shape}, written as {var.dtype} {var.shape}"
                )
            back[key].data.map_blocks(_touch, dtype=np.uint8).compute()


def _touch(block: np.ndarray) -> np.ndarray:
    return np.zeros(block.shape, np.uint8)

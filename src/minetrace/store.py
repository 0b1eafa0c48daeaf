"""Write a cube so that a reader sees all of it or none of it.

A cube is one folder, zarr v3 with a checksum in every chunk. It is written under a temporary
name, read back, hashed file by file, and renamed when all agree. The manifest, an attribute of
the root group, lists every file with its SHA-256; a folder without one is unfinished and refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import dask
import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import rasterio.errors
import xarray as xr
from zarr.codecs import ZstdCodec
from zarr.errors import ZarrUserWarning

from minetrace._version import __version__
from minetrace.errors import InputError, ReadError, StoreError, causes
from minetrace.schema import validate

MANIFEST = "minetrace:manifest"
"""Attribute of the root group. A file of its own would be no part of a zarr hierarchy, of which
zarr warns every reader."""
CHUNK = 256
"""Side of a stored chunk in pixels; time is whole, since series are read along it."""
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


def save_cube(cube: xr.DataTree, store: str | Path, *, resume: bool = True) -> Path:
    """Write a cube as zarr v3, atomically.

    Parameters
    ----------
    cube
        From `minetrace.open_cube`; lazy arrays are computed block by block.
    store
        Folder to make. Plain ``xr.open_datatree(store, engine="zarr")`` reads it back.
    resume
        A finished store of the same cube (equal recipe, items, legend and version) is left as it
        is, unless a file of it is damaged.
        False writes it anew; the old one stays readable until the new one is complete.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    StoreError
        The folder holds a cube of another configuration or something that is no cube, or what was
        read back differs from what was written.
    ReadError
        A raster behind the cube cannot be read. Nothing half-written is left behind.
    """
    path = Path(store)
    key = cube_key(cube)
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file; a store is a folder")
    if path.exists() and any(path.iterdir()) and _is_done(path, key, resume=resume):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        _write(validate(cube), work)
        _read_back(cube, work)
        manifest = {"key": key, "version": __version__, "files": _hashes(work)}
        _sign(work, manifest)
        _publish(work, path)
    except rasterio.errors.RasterioError as err:
        raise ReadError(f"a raster of the cube could not be read: {causes(err)}") from err
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return path


def load_cube(store: str | Path, *, verify: bool = False) -> xr.DataTree:
    """Open a saved cube lazily.

    Parameters
    ----------
    store
        Folder written by `save_cube`.
    verify
        Hash every file and compare with the manifest before opening. Without it a damaged chunk
        is still found when it is read, by its own checksum.

    Raises
    ------
    StoreError
        The folder is no finished cube, or (``verify``) a file is damaged, missing or foreign.
    """
    path = Path(store)
    manifest = _manifest(path)
    listed = manifest["files"]
    absent = sorted(name for name in listed if not (path / name).is_file())
    if absent:
        raise StoreError(
            f"{path} misses {len(absent)} of its files, first {absent[0]}; write the cube again"
        )
    if verify:
        wrong = _damaged(path, manifest)
        if wrong:
            raise StoreError(
                f"{path}: {len(wrong)} files differ from the manifest, first "
                f"{wrong[0]}; write the cube again"
            )
    cube = xr.open_datatree(path, engine="zarr", chunks={})
    del cube.attrs[MANIFEST]
    return cube


def _is_done(path: Path, key: str, *, resume: bool) -> bool:
    """Whether a folder already holds this very cube; refuse what must not be replaced."""
    if not resume:
        if not (path / "zarr.json").is_file():
            raise StoreError(f"{path} holds files that are no cube; choose another folder")
        return False
    old = _manifest(path)
    if old["key"] != key:
        raise StoreError(
            f"{path} holds another cube (key {old['key']}, this one is {key}); choose another "
            "folder, or pass resume=False to replace it"
        )
    return not _damaged(path, old)


def cube_key(cube: xr.DataTree) -> str:
    """Key of what a cube was made from: settings, items, code version, shape.

    Cubes that carry no provenance (not made by `open_cube`) are keyed by their values' tokens.
    """
    parts: list[Any] = [__version__, cube.attrs.get("recipe_hash"), cube.attrs.get("site_id")]
    for name, node in sorted(cube.children.items()):
        ds = node.to_dataset(inherit=False)
        parts += [name, dict(ds.sizes), sorted(map(str, ds.data_vars))]
        box = ds.odc.geobox
        parts.append(None if box is None else [str(box.crs), [round(v, 9) for v in box.affine[:6]]])
        parts.append(ds.attrs.get("items_hash") or dask.base.tokenize(ds))
        parts.append(ds.attrs.get("legend_hash"))
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]


def _write(cube: xr.DataTree, work: Path) -> None:
    if not cube.children:
        raise InputError("the cube has no nodes, so there is nothing to save")
    tree = xr.DataTree.from_dict(
        {"/": cube.to_dataset(), **{n: _stamped(c) for n, c in cube.children.items()}}
    )
    encoding = {
        f"/{name}": {str(k): _encoding(v) for k, v in node.to_dataset().variables.items()}
        for name, node in tree.children.items()
    }
    with warnings.catch_warnings():
        # readers that do not know consolidated metadata ignore it ("must_understand": false);
        # without it a plain xr.open_datatree warns and is slow
        warnings.filterwarnings("ignore", "Consolidated metadata", ZarrUserWarning)
        tree.to_zarr(work, mode="w", zarr_format=3, consolidated=True, encoding=encoding)


def _encoding(var: xr.Variable) -> dict[str, Any]:
    # zarr's default zstd has no checksum: damaged chunks would decode to wrong values
    checksummed: dict[str, Any] = {"compressors": [ZstdCodec(level=3, checksum=True)]}
    if var.ndim == 3:
        checksummed["chunks"] = (var.shape[0], *(min(CHUNK, n) for n in var.shape[1:]))
    return checksummed


def _stamped(node: xr.DataTree) -> xr.Dataset:
    """Node with the geo conventions beside its CF grid mapping, and storable chunks."""
    ds = node.to_dataset(inherit=False)
    box = ds.odc.geobox
    if box is None or box.crs is None:
        raise InputError(f"node {node.name!r} has no grid: x, y and spatial_ref are needed")
    for var in ds.variables.values():
        # encodings of the files that pixels came from do not fit the cube
        var.encoding.clear()
    if ds.chunks:
        # tasks write whole store chunks, so that no two of them share one
        ds = ds.chunk({"time": -1, "y": 4 * CHUNK, "x": 4 * CHUNK})
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


def _read_back(cube: xr.DataTree, work: Path) -> None:
    """Decode every chunk (its checksum is tested) and compare metadata with the cube's."""
    written = xr.open_datatree(work, engine="zarr", chunks={})
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


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the root's own metadata, which holds the manifest."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / "zarr.json")
    return {p.relative_to(folder).as_posix(): _sha256(p) for p in files}


def _damaged(path: Path, manifest: dict[str, Any]) -> list[str]:
    """Files that are not what the manifest says: damaged, missing or foreign."""
    listed, found = manifest["files"], _hashes(path)
    return sorted(n for n in listed.keys() | found.keys() if listed.get(n) != found.get(n))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sign(work: Path, manifest: dict[str, Any]) -> None:
    root = work / "zarr.json"
    meta = json.loads(root.read_text())
    meta["attributes"][MANIFEST] = manifest | {"root": _digest(meta)}
    root.write_text(json.dumps(meta, indent=1))


def _digest(meta: dict[str, Any]) -> str:
    """SHA-256 of the root's metadata without the manifest."""
    attributes = {k: v for k, v in meta.get("attributes", {}).items() if k != MANIFEST}
    text = json.dumps(meta | {"attributes": attributes}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _manifest(path: Path) -> dict[str, Any]:
    root = path / "zarr.json"
    if not root.is_file():
        raise StoreError(
            f"{path} is no finished cube: it has no zarr.json. If a write was cut off "
            "there, delete the folder and write again"
        )
    try:
        meta = json.loads(root.read_text())
        manifest = meta["attributes"].get(MANIFEST)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as err:
        raise StoreError(f"{root} is damaged ({err}); write the cube again") from err
    if not isinstance(manifest, dict) or not {"key", "files", "root"} <= manifest.keys():
        raise StoreError(
            f"{path} is no finished cube: its root has no {MANIFEST}. It was written "
            "by another program, or a write was cut off; write the cube again"
        )
    if manifest["root"] != _digest(meta):
        raise StoreError(f"{root} is damaged: its hash differs; write the cube again")
    return manifest


def _publish(work: Path, path: Path) -> None:
    """Rename into place; an old cube steps aside first and comes back if that fails."""
    if not path.exists():
        work.rename(path)
        return
    aside = path.with_name(f".{path.name}-old-{os.getpid()}")
    path.rename(aside)
    try:
        work.rename(path)
    except OSError:
        aside.rename(path)
        raise
    shutil.rmtree(aside)

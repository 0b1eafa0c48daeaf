"""HDF5 tiles of NASA's linear grid of longitudes and latitudes, field by field as rasters.

A dataset in an HDF5 file may stand for bytes of any other file: by an external link, by external
storage, or as a virtual dataset. GDAL's driver follows all three, so the files are read by h5py
here, and only what they hold themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader, MemoryFile
from rasterio.transform import from_origin

from minetrace.catalog.profile import Field
from minetrace.errors import InputError, SourceError

SIDE_DEG = 10
"""Side of a tile; tile h00v00 begins at 180° W and 90° N."""
MAX_BYTES = 2**28
"""Largest field that is read, ten times what the finest tiles hold."""
_TYPES = ("uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")


@contextmanager
def open_field(path: Path, field: Field) -> Iterator[DatasetReader]:
    """Open one field of a tile as a north-up raster of one band in memory.

    Scale, offset and gap value are those that the dataset states by ``scale_factor``,
    ``add_offset`` or ``offset``, and ``_FillValue``. Pixels that another field marks as not
    observed become gaps.

    Raises
    ------
    SourceError
        The file is no HDF5, lacks the field, leads to another file, or does not lie where its
        name says.
    InputError
        h5py is not installed.
    """
    with _opened(path) as file:
        data = _dataset(file, field.dataset, path)
        values = _values(data, path)
        nodata = _gap(data, path)
        _check_place(file, field, values.shape, path)
        for name, codes in field.unseen:
            flags = _values(_dataset(file, name, path), path)
            if flags.shape != values.shape or nodata is None:
                raise SourceError(
                    f"{path}: {field.dataset} has no gap value, or another shape than {name}, "
                    "which marks what was not observed"
                )
            values[np.isin(flags, codes)] = nodata
        scale = _number(data.attrs, path, "scale_factor")
        offset = _number(data.attrs, path, "add_offset", "offset")
    west, north = field.column * SIDE_DEG - 180, 90 - field.row * SIDE_DEG
    height, width = values.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", height=height, width=width, count=1, dtype=values.dtype,
            crs="EPSG:4326", nodata=nodata,
            transform=from_origin(west, north, SIDE_DEG / width, SIDE_DEG / height),
        ) as out:  # fmt: skip
            out.write(values, 1)
            out.scales = (1.0 if scale is None else scale,)
            out.offsets = (0.0 if offset is None else offset,)
        with memory.open() as raster:
            yield raster


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as err:
        raise InputError("HDF5 tiles need h5py: pip install 'minetrace[hdf5]'") from err
    try:
        with h5py.File(path, "r") as file:
            yield file
    # h5py's errors of a damaged file
    except (OSError, RuntimeError, KeyError) as err:
        raise SourceError(f"{path} cannot be read as HDF5: {err}; download it again") from err


def _dataset(file: Any, name: str, path: Path) -> Any:
    """Dataset that the file itself holds."""
    import h5py

    here = file
    for part in name.split("/"):
        names = list(here) if isinstance(here, h5py.Group) else []
        if part not in names:
            raise SourceError(
                f"{path} has no {name}: where {part!r} should be, it has "
                f"{', '.join(names[:12]) or 'nothing'}"
            )
        if not isinstance(here.get(part, getlink=True), h5py.HardLink):
            raise SourceError(f"{path}: {part!r} of {name} is a link, which may lead to any file")
        here = here[part]
    if not isinstance(here, h5py.Dataset) or here.ndim == 0:
        raise SourceError(f"{path}: {name} is no array")
    if here.external or here.is_virtual:
        raise SourceError(f"{path}: the values of {name} lie in another file")
    biggest = max(here.size, int(np.prod(here.chunks or (0,))))
    if biggest * here.dtype.itemsize > MAX_BYTES:
        raise SourceError(
            f"{path}: {name} has {here.shape} values in chunks of {here.chunks}; at most "
            f"{MAX_BYTES // 2**20} MiB are read"
        )
    return here


def _values(data: Any, path: Path) -> NDArray[Any]:
    values: NDArray[Any] = data[()]
    if values.ndim != 2 or values.dtype.name not in _TYPES:
        raise SourceError(
            f"{path}: {data.name} is {values.dtype} with {values.ndim} dimensions; a raster has "
            f"two, of {', '.join(_TYPES)}"
        )
    # rasterio wants the byte order of the machine
    return values.astype(values.dtype.newbyteorder("="))


def _gap(data: Any, path: Path) -> float | None:
    """Gap value of a dataset, which must be one of its type."""
    gap = _number(data.attrs, path, "_FillValue")
    if gap is not None and data.dtype.kind in "iu":
        info = np.iinfo(data.dtype)
        if not info.min <= gap <= info.max:
            raise SourceError(f"{path}: the _FillValue {gap:g} of {data.name} is no {data.dtype}")
    return gap


def _number(attrs: Mapping[str, Any], path: Path, *names: str) -> float | None:
    """First of some attributes, as the decimal number that its type rounds."""
    for name in names:
        if name in attrs:
            try:
                # 0.1 in float32 is 0.10000000149 as a double
                return float(str(np.ravel(attrs[name])[0]))
            except (ValueError, IndexError):
                raise SourceError(f"{path}: attribute {name} is {attrs[name]!r}") from None
    return None


def _check_place(file: Any, field: Field, shape: tuple[int, ...], path: Path) -> None:
    """Compare the tile of the name with the coordinates in the file, where it has them."""
    group = field.dataset.rpartition("/")[0]
    first = {"lat": 90.0 - field.row * SIDE_DEG, "lon": field.column * SIDE_DEG - 180.0}
    for (name, edge), size, sign in zip(first.items(), shape, (-1, 1), strict=True):
        if name not in file[group]:
            continue
        along = _dataset(file, f"{group}/{name}", path)[()].ravel()
        step = SIDE_DEG / size
        # some give the corners of pixels, others their centres
        wanted = edge + sign * step * np.arange(size)
        alike = along.dtype.kind == "f" and along.shape == wanted.shape
        if not alike or not np.abs(along - wanted).max() <= step:
            raise SourceError(
                f"{path}: its {name} runs from {along[:1]} to {along[-1:]}, but tile "
                f"h{field.column:02}v{field.row:02} of its name begins at {edge:g}; was it "
                "renamed?"
            )

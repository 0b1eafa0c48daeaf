"""What items say of their files, and whether an opened file agrees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pystac
import rasterio
from affine import Affine
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError

from minetrace.catalog import Source
from minetrace.cubes.masks import LAYERS
from minetrace.cubes.radiometry import encoding
from minetrace.errors import ReadError, SourceError

_NEAR = 0.1
"""Most pixels by which a corner of the file may lie elsewhere: transforms are often rounded."""


class Claim(NamedTuple):
    """One asset of an item as the catalogue describes it; None where it is silent."""

    item: str
    asset: str
    href: str
    """Unsigned address that the source allows."""
    shape: tuple[int, int] | None
    transform: tuple[float, ...] | None
    crs: str | None
    dtype: str | None
    nodata: float | None


Claims = Mapping[tuple[int, str, int], Claim]
"""By the identity of the item, the asset's key and its band."""


class Contradiction(ReadError):
    """A file is not what its item says."""


def claim(source: Source, item: pystac.Item, key: str, band: int) -> Claim:
    """What an item says of one band.

    Raises
    ------
    SourceError, HrefError
        The item lacks the asset or the band, or its address is not allowed.
    """
    href = source.check_href(item, key)
    code = encoding(source, item, key, band=band)
    shape, transform = _field(item, key, "proj:shape"), _field(item, key, "proj:transform")
    return Claim(
        item.id, key, href,
        None if shape is None else (int(shape[0]), int(shape[1])),
        None if transform is None else tuple(float(v) for v in transform[:6]),
        _crs_text(item, key), code.dtype or None, code.nodata,
    )  # fmt: skip


def stated_grid(item: pystac.Item, key: str) -> GeoBox | None:
    """Pixel grid of an asset by proj:shape, proj:transform and a CRS, as far as all are there."""
    shape, transform = _field(item, key, "proj:shape"), _field(item, key, "proj:transform")
    if shape is None or transform is None or len(transform) < 6:
        return None
    crs = _crs_text(item, key)
    if crs is None:
        return None
    return _grid((int(shape[0]), int(shape[1])), tuple(float(v) for v in transform[:6]), crs)


def load_dtype(source: Source, code: Claim) -> np.dtype[Any]:
    """Type to load an asset in: the declared one, or one that holds what such assets hold."""
    if code.dtype is not None:
        return np.dtype(code.dtype)
    quality = {source.asset_key(layer): kind for layer, kind in LAYERS.items()}
    return np.dtype(quality.get(code.asset, "float32"))


def joint_dtypes(
    source: Source,
    bands: Sequence[tuple[str, int]],
    claims: Claims,
    resampling: str = "nearest",
) -> dict[tuple[str, int], np.dtype[Any]]:
    """Type of each band that holds the values of all items, and what lies between them."""
    between = [] if resampling == "nearest" else [np.dtype(np.float32)]
    return {
        band: np.result_type(
            *between,
            *{load_dtype(source, code) for (_, *own), code in claims.items() if tuple(own) == band},
        )
        for band in bands
    }


def check(code: Claim, opened: rasterio.DatasetReader, band: int) -> None:
    """Refuse a file that is not what its item says: which of both is right cannot be told.

    Raises
    ------
    Contradiction
        Naming the item and both values.
    """
    if band > opened.count:
        _refuse(code, "band", f"has band {band}", f"has {opened.count}")
    if code.shape is not None and code.shape != opened.shape:
        _refuse(code, "proj:shape", f"has {code.shape} rows and columns", f"has {opened.shape}")
    if code.crs is not None and not same_crs(opened, code.crs):
        _refuse(code, "proj:code", f"is in {code.crs[:60]}", f"is in {_name(opened.crs)}")
    if code.transform is not None and code.transform != opened.transform[:6]:
        far = _apart(Affine(*code.transform), opened.transform, opened.shape)
        if far > _NEAR:
            theirs = tuple(opened.transform)[:6]
            _refuse(code, "proj:transform", f"lies at {code.transform}", f"lies at {theirs}")
    kind, tag = opened.dtypes[band - 1], opened.nodatavals[band - 1]
    if code.dtype is not None and np.dtype(code.dtype) != np.dtype(kind):
        _refuse(code, "data_type", f"is {code.dtype}", f"is {kind}")
    if tag is None or code.nodata is None:
        return
    # NaN is a gap in floating point whatever else is
    if tag != code.nodata and not (math.isnan(tag) or math.isnan(code.nodata)):
        _refuse(code, "nodata", f"marks gaps by {code.nodata:g}", f"marks gaps by {tag:g}")


def _refuse(code: Claim, name: str, item: str, file: str) -> None:
    raise Contradiction(
        f"by its item it {item}, but the file itself {file}; mend {name} of the item, or leave "
        "the item out"
    )


def _field(item: pystac.Item, key: str, name: str) -> Any:
    return item.assets[key].extra_fields.get(name, item.properties.get(name))


def _crs_text(item: pystac.Item, key: str) -> str | None:
    code, epsg = _field(item, key, "proj:code"), _field(item, key, "proj:epsg")
    text = code or (f"EPSG:{epsg}" if epsg else None) or _field(item, key, "proj:wkt2")
    if text is None:
        return None
    try:
        crs_of(str(text))
    except CRSError:
        raise SourceError(
            f"item {item.id!r}, asset {key!r}, is in {str(text)[:60]!r}, which is no CRS; mend "
            "its proj:code"
        ) from None
    return str(text)


def same_crs(opened: rasterio.DatasetReader, crs: str) -> bool:
    """Whether a file is in a CRS, given as text."""
    return opened.crs is not None and _same_crs(opened.crs.to_wkt(), crs)


@lru_cache(maxsize=256)
def _grid(shape: tuple[int, int], transform: tuple[float, ...], crs: str) -> GeoBox:
    return GeoBox(shape, Affine(*transform), crs_of(crs))


@lru_cache(maxsize=256)
def crs_of(text: str) -> CRS:
    """CRS of a text; kept, since reading one takes milliseconds."""
    return CRS(text)


@lru_cache(maxsize=256)
def _same_crs(wkt: str, code: str) -> bool:
    return bool(CRS(wkt) == crs_of(code))


def _name(crs: rasterio.crs.CRS | None) -> str:
    return "no CRS" if crs is None else str(crs.to_string())[:60]


def _apart(a: Affine, b: Affine, shape: tuple[int, int]) -> float:
    """Most pixels between the corners of a raster under two transforms."""
    back, (ny, nx) = ~b, shape
    far = 0.0
    for col, row in ((0, 0), (nx, 0), (0, ny), (nx, ny)):
        x, y = _at(a, col, row)
        col_b, row_b = _at(back, x, y)
        far = max(far, abs(col_b - col), abs(row_b - row))
    return far


def _at(t: Affine, x: float, y: float) -> tuple[float, float]:
    # affine 3 retires the operator that affine 2 needs here
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f

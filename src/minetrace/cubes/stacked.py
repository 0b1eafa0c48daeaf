"""Layers through stackstac, behind the same call as odc-stac and with the same result.

stackstac's own ``stack`` takes the projection from a field that current items no longer have,
rescales, labels pixels by their corners and calls pandas in a way that pandas 3 refuses. Its two
lower steps are called here instead, with everything they would guess given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from minetrace.catalog import Source, redact
from minetrace.cubes.claims import Claim, Claims, joint_dtypes
from minetrace.cubes.remote import GDAL_FAULTS, driver_of, plain_text
from minetrace.cubes.steps import GroupBy, time_steps
from minetrace.errors import InputError, ReadError

try:
    from stackstac.prepare import prepare_items
    from stackstac.rio_reader import AutoParallelRioReader
    from stackstac.to_dask import items_to_dask
except ImportError as absent:
    raise InputError(
        "engine='stackstac' needs stackstac, which is not installed: "
        "pip install 'minetrace[stackstac]'; the default engine needs nothing more"
    ) from absent


def stack_layers(
    source: Source,
    items: Sequence[pystac.Item],
    bands: Sequence[tuple[str, int]],
    claims: Claims,
    geobox: GeoBox,
    *,
    groupby: GroupBy,
    chunks: Mapping[str, int],
    resampling: str,
) -> tuple[NDArray[np.datetime64], list[da.Array]]:
    """Times, and an array ``(time, y, x)`` for each band; see `minetrace.cubes.load_layers`.

    Files are opened by the allowed drivers only, but not checked against their items, and faults
    of servers are not waited for beyond what GDAL does.

    Raises
    ------
    InputError
        The source signs, an asset holds several bands, or the grid has no EPSG code or is not
        north up.
    """
    _refuse(source, bands, geobox)
    dtypes = joint_dtypes(source, bands, claims)
    times, steps = time_steps(items, groupby, geobox)
    arrays = []
    for band in bands:
        codes = [claims[id(item), *band] for item in items]
        nodata, kind = codes[0].nodata, dtypes[band]
        fill = kind.type((np.nan if kind.kind == "f" else 0) if nodata is None else nodata)
        layers = _stack(items, codes, geobox, kind, fill, chunks, resampling)
        arrays.append(da.stack([_first_valid([layers[i] for i in step], fill) for step in steps]))
    return times, arrays


def _refuse(source: Source, bands: Sequence[tuple[str, int]], geobox: GeoBox) -> None:
    why = None
    if source.signer() is not None:
        why = f"cannot sign addresses at the moment they are opened, as {source.name!r} needs it"
    elif any(band != 1 for _, band in bands):
        why = f"reads the first band of a file only, not {bands}"
    elif geobox.crs is None or geobox.crs.epsg is None:
        why = "needs a grid with an EPSG code"
    elif geobox.affine.e > 0 or geobox.affine.a < 0 or geobox.affine.b or geobox.affine.d:
        why = "needs a grid with north up"
    if why is not None:
        raise InputError(f"engine='stackstac' {why}; use engine='odc'")


def _stack(
    items: Sequence[pystac.Item],
    codes: Sequence[Claim],
    geobox: GeoBox,
    kind: np.dtype[Any],
    fill: np.generic,
    chunks: Mapping[str, int],
    resampling: str,
) -> list[da.Array]:
    """Array ``(y, x)`` of each item, gaps filled."""
    plain = [_plain(item, code, i) for i, (item, code) in enumerate(zip(items, codes, strict=True))]
    bounds = geobox.boundingbox.bbox
    table, spec, keys, kept = prepare_items(
        plain, assets=["data"], epsg=geobox.crs.epsg, bounds=bounds, snap_bounds=False,
        resolution=(abs(geobox.affine.a), abs(geobox.affine.e)), rescale=False, dtype=kind,
    )  # fmt: skip
    if spec.shape != tuple(geobox.shape):
        raise InputError(f"stackstac makes {spec.shape} pixels of the grid {tuple(geobox.shape)}")
    sizes = chunks["y"], chunks["x"]
    empty = da.full(tuple(geobox.shape), fill, dtype=kind, chunks=sizes)
    layers = [empty] * len(items)
    if keys:
        stacked = items_to_dask(
            table, spec, chunksize=(1, 1, *sizes), dtype=kind, fill_value=fill, rescale=False,
            resampling=Resampling[resampling], errors_as_nodata=(), reader=_Reader,
        )  # fmt: skip
        # items outside of the grid are dropped
        for place, item in enumerate(kept):
            i = int(item["id"])
            layers[i] = _remap(stacked[place, 0], codes[i].nodata, fill)
    return layers


def _plain(item: pystac.Item, code: Claim, number: int) -> dict[str, Any]:
    """What stackstac asks of an item, and nothing that it could take wrongly."""
    asset: dict[str, Any] = {"href": code.href}
    epsg = None if code.crs is None else CRS(code.crs).epsg
    if epsg is not None and code.transform is not None and code.shape is not None:
        asset |= {
            "proj:epsg": epsg,
            "proj:shape": list(code.shape),
            "proj:transform": list(code.transform),
        }
    return {"id": str(number), "bbox": item.bbox, "properties": {}, "assets": {"data": asset}}


def _remap(layer: da.Array, nodata: float | None, fill: np.generic) -> da.Array:
    if nodata is None or nodata == fill:
        return layer
    return da.where(layer == nodata, fill, layer)


def _first_valid(layers: Sequence[da.Array], fill: np.generic) -> da.Array:
    out = layers[0]
    for later in layers[1:]:
        gap = da.isnan(out) if np.isnan(fill) else out == fill
        out = da.where(gap, later, out)
    return out


class _Reader(AutoParallelRioReader):  # type: ignore[misc]
    """stackstac's reader behind the list of allowed drivers, with a typed error."""

    def _open(self) -> Any:
        # stackstac asks every driver of GDAL, also those whose files name other files
        with rasterio.open(self.url, driver=driver_of(self.url), sharing=False):
            return super()._open()

    def read(self, window: Any, **kwargs: Any) -> NDArray[Any]:
        try:
            found: NDArray[Any] = super().read(window, **kwargs)
        except (*GDAL_FAULTS, RuntimeError) as err:
            raise ReadError(f"{redact(self.url)} cannot be read: {plain_text(err)}") from None
        return found

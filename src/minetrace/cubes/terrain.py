"""Terrain: elevation, slope and hillshade of the ground, from a digital elevation model."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

import dask.array as da
import numpy as np
import pystac
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from minetrace.catalog import Source, item_time
from minetrace.cubes.lattice import grid_coords
from minetrace.cubes.layers import CHUNK, Engine, load_layers
from minetrace.cubes.radiometry import encoding, physical
from minetrace.errors import InputError
from minetrace.schema import NODES, TerrainRecipe

SUN = (315.0, 45.0)
"""Azimuth and height of the sun in hillshades, degrees: north-west, as maps have it."""


def terrain_node(
    source: Source,
    items: Sequence[pystac.Item],
    part: TerrainRecipe,
    geobox: GeoBox,
    *,
    chunks: Mapping[str, int] | None,
    engine: Engine = "odc",
) -> xr.Dataset:
    """Elevation by bilinear interpolation, slope by Horn's method, hillshade.

    Pixels of the grid must be true metres. One more pixel is read on every side, so that the
    outermost have neighbours. Slope is missing where one of a pixel's eight neighbours is,
    hillshade where one of its four is. Of overlapping items the oldest is taken, and of equals the
    first by id.

    Raises
    ------
    InputError
        The optional library xarray-spatial is not installed.
    """
    if importlib.util.find_spec("xrspatial") is None:
        raise InputError(
            "terrain needs xarray-spatial, which is not installed: pip install 'minetrace[terrain]'"
        )
    key = source.asset_key(part.band)
    ordered = sorted(items, key=lambda item: (item_time(item), item.id))
    wide = geobox.pad(1)
    height: da.Array | None = None
    for group in _same_codes(source, ordered, key):
        # blocks of one size whatever the caller's: GDAL places pixels to 0.002 of a pixel, by block
        raw = load_layers(
            source, group, [key], wide, groupby=_one_layer, chunks={"y": CHUNK, "x": CHUNK},
            engine=engine, resampling="bilinear",
        )  # fmt: skip
        layer = physical(raw[key].data, encoding(source, group[0], key))[0]
        height = layer if height is None else da.where(da.isnan(height), layer, height)
    assert height is not None
    sizes = {"y": CHUNK, "x": CHUNK, **(chunks or {})}
    step = abs(geobox.affine.a), abs(geobox.affine.e)
    made = {"elevation": height} | {
        name: height.map_overlap(
            function, depth=1, boundary=np.nan, dtype=np.float32, step=step,
            meta=np.empty((0, 0), np.float32),
        )
        for name, function in (("slope", _slope), ("hillshade", _hillshade))
    }  # fmt: skip
    return xr.Dataset(
        {
            name: (
                ("y", "x"),
                made[name][1:-1, 1:-1].rechunk((sizes["y"], sizes["x"])),
                {**var.attrs, "grid_mapping": "spatial_ref"},
            )
            for name, var in NODES["terrain"].items()
        },
        coords=grid_coords(geobox),
    )


def _same_codes(source: Source, items: Sequence[pystac.Item], key: str) -> list[list[pystac.Item]]:
    groups: dict[object, list[pystac.Item]] = {}
    for item in items:
        groups.setdefault(encoding(source, item, key), []).append(item)
    return list(groups.values())


def _one_layer(item: pystac.Item, index: int) -> int:
    return 0


def _slope(height: NDArray[np.float32], *, step: tuple[float, float]) -> NDArray[np.float32]:
    """Steepness in degrees of cells ``step`` metres wide and high; NaN along the edges."""
    from xrspatial import slope

    return _where_known(height, slope(_cells(height, step)).to_numpy())


def _hillshade(height: NDArray[np.float32], *, step: tuple[float, float]) -> NDArray[np.float32]:
    """Cosine of the angle between sun and ground, 0 where the ground turns away."""
    from xrspatial import hillshade

    # it takes cells to be as wide as heights are high: heights go in as multiples of the cell
    cells = _cells(height / np.float32(step[0]), (1.0, step[1] / step[0]))
    shade = hillshade(cells, azimuth=SUN[0], angle_altitude=SUN[1]).to_numpy()
    # it gives (cosine + 1) / 2
    return _where_known(height, np.maximum(2 * shade - 1, 0))


def _where_known(height: NDArray[np.float32], made: NDArray[np.floating]) -> NDArray[np.float32]:
    """Neither method looks at the height of the pixel itself."""
    out: NDArray[np.float32] = np.where(np.isnan(height), np.nan, made).astype(np.float32)
    return out


def _cells(height: NDArray[np.float32], step: tuple[float, float]) -> xr.DataArray:
    ny, nx = height.shape
    coords = {"y": -step[1] * np.arange(ny), "x": step[0] * np.arange(nx)}
    return xr.DataArray(height, coords, ("y", "x"))

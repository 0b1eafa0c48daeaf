"""Night lights: annual means of monthly radiance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dask.array as da
import numpy as np
import pystac
import xarray as xr
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from minetrace.catalog import Source, item_time
from minetrace.catalog.search import in_utc
from minetrace.cubes.lattice import grid_coords, site_grid
from minetrace.cubes.layers import Engine, load_layers
from minetrace.cubes.radiometry import Encoding, encoding, marked_encoding, physical
from minetrace.cubes.years import stack_years
from minetrace.errors import SourceError
from minetrace.schema import NODES, LightsRecipe, Recipe

_DAYS = 30.44
"""Mean length of a month."""


def lights_node(
    source: Source,
    items: Sequence[pystac.Item],
    geometry: BaseGeometry,
    recipe: Recipe,
    part: LightsRecipe,
    *,
    chunks: Mapping[str, int] | None,
    engine: Engine = "odc",
) -> xr.Dataset:
    """Annual mean of the months with a cloud-free view, and their number; negatives stay.

    With ``part.weight`` the mean is weighted by each month's cloud-free observations. A month
    whose count is missing or 0 is then missing, whatever its radiance says. A layer of a whole
    year passes through and counts as the months that its item spans.
    """
    names = [name for name in (part.band, part.weight) if name is not None]
    keys = [_key(source, name) for name in names]
    geobox = site_grid(items, source.asset_key(part.band), geometry, buffer_m=recipe.buffer_m)
    parts = []
    for codes, group in _same_codes(source, items, names).items():
        raw = load_layers(source, group, keys, geobox, chunks=chunks, engine=engine)
        layers = [physical(raw[k].data, code) for k, code in zip(keys, codes, strict=True)]
        # the weight is 1 where nothing says otherwise, so one kernel serves both
        stack = da.stack([*layers, *([da.ones_like(layers[0])] if part.weight is None else [])])
        parts.append(
            xr.DataArray(stack, {"time": raw.time.values}, ("layer", "time", "y", "x"), "lights")
        )
    months = xr.concat(parts, "time").sortby("time")
    spans = _spans(source, items, months.time.values)
    years = months.time.dt.year.values
    every = np.unique(years)
    return stack_years(
        [_mean_year(months.data[:, years == y], spans[years == y]) for y in every],
        every,
        dict(NODES["lights"]),
        grid_coords(geobox),
    )


def _key(source: Source, name: str) -> str:
    """Asset of a variable, with its band where one asset holds several variables."""
    band = source.config.band_index.get(name)
    return source.asset_key(name) + ("" if band is None else f".{band}")


def _same_codes(
    source: Source, items: Sequence[pystac.Item], names: Sequence[str]
) -> dict[tuple[Encoding, ...], list[pystac.Item]]:
    """Items by how they store radiance and counts; a count needs no mark of gaps, 0 is one."""
    groups: dict[tuple[Encoding, ...], list[pystac.Item]] = {}
    for item in items:
        codes = []
        for name, read in zip(names, (marked_encoding, encoding), strict=False):
            source.check_href(item, source.asset_key(name))
            band = source.band(item, name)
            codes.append(read(source, item, source.asset_key(name), band=band))
        groups.setdefault(tuple(codes), []).append(item)
    return groups


def _spans(
    source: Source, items: Sequence[pystac.Item], times: NDArray[np.datetime64]
) -> NDArray[np.int64]:
    """Months that each layer spans, 1 where its items do not say; none may overlap."""
    longest: dict[np.datetime64, int] = {}
    for item in items:
        time = np.datetime64(item_time(item).replace(tzinfo=None), "ns")
        start, end = item.common_metadata.start_datetime, item.common_metadata.end_datetime
        n = 1
        if start is not None and end is not None:
            n = max(1, round((in_utc(end) - in_utc(start)).days / _DAYS))
        longest[time] = max(n, longest.get(time, 1))
    spans = np.array([longest[time] for time in times])
    first = times.astype("datetime64[M]").astype(np.int64)
    twice = np.flatnonzero(first[1:] < (first + spans)[:-1])
    if twice.size:
        month = times[twice[0] + 1].astype("datetime64[M]")
        raise SourceError(
            f"source {source.name!r} has two layers of lights for {month}; one a month enters the "
            "annual mean: name a collection with one version of one product"
        )
    return spans


def _mean_year(months: da.Array, spans: NDArray[np.int64]) -> dict[str, da.Array]:
    made = months.rechunk({0: -1, 1: -1}).map_blocks(
        _mean_block, spans, dtype=np.float32, drop_axis=1, chunks=((2,), *months.chunks[2:]),
        meta=np.empty((0, 0, 0), np.float32),
    )  # fmt: skip
    return {"ntl": made[0], "n_months": made[1].astype(np.uint8)}


def _mean_block(stack: NDArray[np.float32], spans: NDArray[np.int64]) -> NDArray[np.float32]:
    """(radiance and weight, month, y, x) → weighted mean, and the months that entered it."""
    radiance, weight = stack.astype(np.float64)
    weight = np.where(np.isnan(radiance) | ~(weight > 0), 0.0, weight)
    total = weight.sum(axis=0)
    product = np.where(weight > 0, radiance, 0.0) * weight
    mean = np.full(total.shape, np.nan)
    np.divide(product.sum(axis=0), total, out=mean, where=total > 0)
    count = ((weight > 0) * spans[:, None, None]).sum(axis=0)
    return np.stack([mean, count]).astype(np.float32)

"""Composites: one image out of the clear observations of many dates."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from dask.array import Array, asanyarray, blockwise
from numpy.typing import NDArray

from minetrace.errors import InputError
from minetrace.kernels.composite import (
    max_index_composite,
    medoid_composite,
    percentile_composite,
)
from minetrace.kernels.stacks import PLAIN, Packing, gaps
from minetrace.schema import NODES, fill_value, label

Method = Literal["median", "medoid", "geomedian", "max_index", "percentile"]

_GEOMEDIAN_PIXELS = 2**14
"""Pixels that are copied at a time into the layout that geomad takes."""
_GEOMEDIAN_STEP = 1e-6
"""Last step of the search for the geometric median, reflectance."""
_MAX_DATES = np.iinfo(np.int16).max
_PACKING = ("_FillValue", "nodata", "missing_value", "scale_factor", "add_offset")
_N_OBS = NODES["imagery"]["n_obs"]


def composite(
    ds: xr.Dataset,
    *,
    method: Method = "median",
    mask: xr.DataArray | None = None,
    index: xr.DataArray | None = None,
    percentile: float | None = None,
    dim: str = "time",
) -> xr.Dataset:
    """One image of the clear observations along a dimension.

    An observation is a date at which every band has a value: finite and not ``_FillValue`` or
    ``nodata``. All bands of the composite come from the same observations.

    Parameters
    ----------
    ds
        Bands of one set of dims, integers or floats. Packed numbers are scaled by the attributes
        ``scale_factor`` and ``add_offset``. Dask data stay lazy; ``dim`` must be one chunk.
    method
        ``"median"`` and ``"percentile"`` take each band for itself. ``"medoid"`` takes the
        observation closest to all others over the bands, ``"max_index"`` the one with the largest
        value of ``index``; of equals the first. ``"geomedian"`` takes the point, between
        observations as a rule, whose distances to all of them have the least sum; it needs the
        library geomad (``pip install 'minetrace[geomedian]'``).
    mask
        bool, True where an observation is hidden (cloud, shadow). Its dims are among those of
        the bands.
    index
        For ``"max_index"`` only: index with the dims of the bands, for example `minetrace.ndvi`.
        Where it has no value the observation does not enter.
    percentile
        For ``"percentile"`` only: 0 to 100, interpolated linearly.
    dim
        Dimension of the dates, dropped from the result.

    Returns
    -------
    Dataset
        The bands as float32, NaN where nothing was observed; ``n_obs`` uint16, the observations
        that entered; for ``"medoid"`` and ``"max_index"`` also ``chosen``, the date taken
        (``datetime64`` and NaT, or float64 and NaN for an axis of numbers).

    Raises
    ------
    InputError
        No bands, bands of differing dims or of other types, a chunked ``dim``, an option
        that the method does not use or lacks, coordinates that differ, a library that is not
        installed.

    References
    ----------
    Flood (2013), doi:10.3390/rs5126481: medoid. Roberts et al. (2017),
    doi:10.1109/TGRS.2017.2723896: geomedian.

    Examples
    --------
    >>> time = np.array(["2020-01-05", "2020-03-01", "2020-05-09"], "datetime64[ns]")
    >>> stored = xr.DataArray(np.array([[1000], [0], [3000]], "uint16"), {"time": time},
    ...                       ("time", "x"), attrs={"nodata": 0, "scale_factor": 1e-4})
    >>> found = composite(xr.Dataset({"red": stored}))
    >>> found.red.values.round(3).tolist(), found.n_obs.values.tolist()
    ([0.20000000298023224], [2])
    >>> composite(xr.Dataset({"red": stored}), method="max_index", index=stored).chosen.values
    array(['2020-05-09T00:00:00.000000000'], dtype='datetime64[ns]')
    """
    bands = _checked_bands(ds, dim)
    _check_options(method, index, percentile)
    extra = [a for a in (index, mask) if a is not None]
    _check_extra(bands, index, mask, dim)
    choosing = method in ("medoid", "max_index")
    dates = _dates(ds, dim) if choosing else None
    layers = [*bands, _N_OBS.name, *(["chosen"] if choosing else [])]
    made = xr.apply_ufunc(
        _composite_layers,
        *bands.values(),
        *extra,
        kwargs={
            "n_layers": len(layers),
            "packings": [_packing(a) for a in (*bands.values(), *_or_none(index))],
            "masked": mask is not None,
            "percentile": {"median": 50.0, "percentile": percentile}.get(method),
            "index_last": index is not None,
            "geometric": method == "geomedian",
        },
        input_core_dims=[[dim]] * (len(bands) + len(extra)),
        output_core_dims=[["layer"]],
        dask="allowed",
        keep_attrs=True,
    )
    return _named(dict(zip(layers, made.transpose("layer", ...), strict=True)), bands, ds, dates)


def _checked_bands(ds: xr.Dataset, dim: str) -> dict[str, xr.DataArray]:
    bands = {str(name): da for name, da in ds.data_vars.items()}
    if not bands:
        raise InputError("the dataset has no bands to make a composite of")
    taken = sorted({_N_OBS.name, "chosen"} & set(bands))
    if taken:
        raise InputError(f"the dataset holds {taken}, names of results: use .drop_vars({taken})")
    dims = next(iter(bands.values())).dims
    for band in bands.values():
        if set(band.dims) != set(dims):
            raise InputError(
                f"{label(band)} has dims {band.dims}, other bands {dims}; drop or broadcast it"
            )
        _check_stack(band, dim, dims)
    if not 1 <= ds.sizes[dim] <= _MAX_DATES:
        raise InputError(f"{dim!r} has {ds.sizes[dim]} steps; give 1 to {_MAX_DATES}")
    return bands


def _check_stack(
    da: xr.DataArray, dim: str, dims: tuple[Any, ...], *, is_mask: bool = False
) -> None:
    """Refuse what is no stack of numbers, or no mask, along a whole ``dim``."""
    if dim not in da.dims or not set(da.dims) <= set(dims):
        raise InputError(
            f"{label(da)} has dims {da.dims}; expected {dim!r} and others of the bands' {dims}"
        )
    if is_mask and da.dtype != bool:
        raise InputError(f"the mask is {da.dtype}; it must be bool, True where hidden")
    if not is_mask and (da.dtype.kind not in "iuf" or da.dtype.itemsize > 8):
        raise InputError(f"{label(da)} is {da.dtype}; a composite needs integers or floats")
    n_chunks = len(da.chunksizes.get(dim, (0,)))
    if n_chunks > 1:
        raise InputError(
            f"{label(da)} has {n_chunks} chunks along {dim!r}; a series must be "
            f"whole: .chunk({{{dim!r}: -1}})"
        )


def _check_options(method: str, index: xr.DataArray | None, percentile: float | None) -> None:
    if method not in get_args(Method):
        raise InputError(f"method is {method!r}; use one of {get_args(Method)}")
    if method == "geomedian":
        require_geomedian()
    for name, value, user in (
        ("index", index, "max_index"),
        ("percentile", percentile, "percentile"),
    ):
        if (value is not None) != (method == user):
            need = "needs" if value is None else "does not use"
            raise InputError(f"method {method!r} {need} {name!r}; it belongs to {user!r}")
    if percentile is not None and not 0 <= percentile <= 100:
        raise InputError(f"percentile is {percentile!r}; it lies between 0 and 100")


def _check_extra(
    bands: dict[str, xr.DataArray],
    index: xr.DataArray | None,
    mask: xr.DataArray | None,
    dim: str,
) -> None:
    """Refuse an index or a mask that does not lie over the bands."""
    first = next(iter(bands.values()))
    for extra in (*_or_none(index), *_or_none(mask)):
        _check_stack(extra, dim, first.dims, is_mask=extra is mask)
        try:
            xr.align(first, extra, join="exact", copy=False)
        except ValueError as err:
            raise InputError(
                f"{label(extra)} does not lie on the pixels and dates of the bands ({err}); "
                "select or reindex it first"
            ) from err


def _or_none(da: xr.DataArray | None) -> tuple[xr.DataArray, ...]:
    return () if da is None else (da,)


def _packing(da: xr.DataArray) -> Packing:
    scale, offset = _number(da, "scale_factor", 1.0), _number(da, "add_offset", 0.0)
    if scale <= 0:
        raise InputError(f"scale_factor of {label(da)} is {scale:g}; give a number above 0")
    return Packing(fill_value(da), scale, offset)


def _number(da: xr.DataArray, key: str, default: float) -> float:
    """Attribute as a finite number; files hold it as a text or a list of one as well."""
    try:
        (value,) = np.ravel(da.attrs.get(key, default)).astype(np.float64)
    except (TypeError, ValueError) as err:
        raise InputError(
            f"the attribute {key!r} of {label(da)} is {da.attrs[key]!r}; give one number, or "
            "delete it"
        ) from err
    if not np.isfinite(value):
        raise InputError(f"the attribute {key!r} of {label(da)} is {value}; give a finite number")
    return float(value)


def _dates(ds: xr.Dataset, dim: str) -> NDArray[Any]:
    """Coordinates of ``dim`` and, last, what stands for none of them."""
    if dim not in ds.coords or ds[dim].dtype.kind not in "iufM":
        raise InputError(
            f"{dim!r} has no dates to say which was chosen; assign datetime64 or numbers to it"
        )
    dates = ds[dim].to_numpy()
    if dates.dtype.kind == "M":
        return np.append(dates, np.datetime64("NaT"))
    return np.append(dates.astype(np.float64), np.nan)


def _named(
    layers: dict[str, xr.DataArray],
    bands: dict[str, xr.DataArray],
    ds: xr.Dataset,
    dates: NDArray[Any] | None,
) -> xr.Dataset:
    """Layers in their types, with the attributes of their bands but those of the packing."""
    out = xr.Dataset(layers, attrs=ds.attrs)
    for name, band in bands.items():
        out[name].attrs = {k: v for k, v in band.attrs.items() if k not in _PACKING}
    out[_N_OBS.name] = layers[_N_OBS.name].astype(_N_OBS.dtype)
    out[_N_OBS.name].attrs = dict(_N_OBS.attrs)
    if dates is not None:
        out["chosen"] = xr.apply_ufunc(
            _dates_at, layers["chosen"], kwargs={"dates": dates}, dask="parallelized",
            output_dtypes=[dates.dtype], keep_attrs=True,
        )  # fmt: skip
        out["chosen"].attrs = {"long_name": "date of the observation taken"}
    return out


def _dates_at(chosen: NDArray[np.float32], *, dates: NDArray[Any]) -> NDArray[Any]:
    """Dates at positions; none is -1, and the last of the dates stands for it."""
    return dates[chosen.astype(np.int16)]


def _composite_layers(*arrays: Any, n_layers: int, **options: Any) -> Any:
    """Layers of numpy or dask arrays ``(..., time)``.

    The blocks come as they are: xarray's ``dask="parallelized"`` copies each of them to join its
    one chunk along time, and turns it so that the kernels copy it once more.
    """
    if not any(isinstance(a, Array) for a in arrays):
        return _composite_block(*arrays, **options)
    n_dims = max(a.ndim for a in arrays)
    time, layer = n_dims - 1, n_dims
    operands = [(a, tuple(range(n_dims - a.ndim, n_dims))) for a in map(asanyarray, arrays)]
    return blockwise(
        _composite_whole_series,
        (*range(time), layer),
        *chain.from_iterable(operands),
        new_axes={layer: n_layers},
        dtype=np.float32,
        meta=np.empty((0,) * n_dims, np.float32),
        **options,
    )


def _composite_whole_series(*series: list[NDArray[Any]], **options: Any) -> NDArray[np.float32]:
    return _composite_block(*(chunks[0] for chunks in series), **options)


def _composite_block(
    *arrays: NDArray[Any],
    packings: list[Packing],
    masked: bool,
    percentile: float | None,
    index_last: bool,
    geometric: bool,
) -> NDArray[np.float32]:
    """Layers ``(..., layer)`` of a block ``(..., time)``: bands, number, position or -1."""
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    stacks = [np.moveaxis(np.broadcast_to(a, shape), -1, 0) for a in arrays]
    hidden = stacks.pop() if masked else None
    if percentile is not None:
        layers = _percentile_layers(stacks, packings, hidden, percentile)
    elif geometric:
        bands, n_obs = geometric_median(stacks, hidden=hidden, packings=packings)
        layers = [*bands, n_obs]
    else:
        if index_last:
            bands, chosen, n_obs = max_index_composite(
                stacks[:-1], stacks[-1], hidden=hidden, packings=packings[:-1],
                index_packing=packings[-1],
            )  # fmt: skip
        else:
            bands, chosen, n_obs = medoid_composite(stacks, hidden=hidden, packings=packings)
        layers = [*bands, n_obs, chosen]
    return np.moveaxis(np.stack(layers, dtype=np.float32, casting="unsafe"), 0, -1)


def _percentile_layers(
    bands: list[NDArray[Any]],
    packings: list[Packing],
    hidden: NDArray[np.bool_] | None,
    percentile: float,
) -> list[NDArray[Any]]:
    if len(bands) > 1:
        hidden = gaps(bands, hidden=hidden, packings=packings)
    made = [
        percentile_composite(band, percentile, hidden=hidden, packing=packing)
        for band, packing in zip(bands, packings, strict=True)
    ]
    return [*(layer for layer, _ in made), made[-1][1]]


def require_geomedian() -> None:
    """Refuse where the library of the geometric median is not installed."""
    if importlib.util.find_spec("geomad") is None:
        raise InputError(
            "the geometric median needs geomad, which is not installed: "
            "pip install 'minetrace[geomedian]'"
        )


def geometric_median(
    bands: Sequence[NDArray[Any]],
    *,
    hidden: NDArray[np.bool_] | None = None,
    packings: Sequence[Packing] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Point of the least sum of Euclidean distances to the observations of every pixel.

    Parameters as for `minetrace.kernels.composite.medoid_composite`. The sum is minimal to 1e-6
    in the units of the bands, in float32.

    Returns
    -------
    values, n_obs
        float32 ``(band, ...)``, NaN where nothing was observed, and uint16 ``(...)``.
    """
    from geomad import nangeomedian_pcm

    n_time, *shape = bands[0].shape
    hide = gaps(bands, hidden=hidden, packings=packings).reshape(n_time, -1)
    made = np.empty((len(bands), hide.shape[1]), np.float32)
    for start in range(0, hide.shape[1], _GEOMEDIAN_PIXELS):
        at = slice(start, start + _GEOMEDIAN_PIXELS)
        seen = ~hide[:, at].T
        # one row a pixel: along a row geomad starts from the neighbour's result
        stack = np.full((len(seen), 1, len(bands), n_time), np.nan, np.float32)
        for b, (band, code) in enumerate(zip(bands, packings or [PLAIN] * len(bands), strict=True)):
            values = band.reshape(n_time, -1)[:, at].T * np.float64(code.scale) + code.offset
            stack[:, 0, b][seen] = values[seen]
        made[:, at] = nangeomedian_pcm(stack, eps=_GEOMEDIAN_STEP, num_threads=1)[:, 0].T
    n_obs = (n_time - hide.sum(axis=0)).astype(np.uint16)
    return made.reshape(len(bands), *shape), n_obs.reshape(shape)

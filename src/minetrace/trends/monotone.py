"""Mann-Kendall tests and Sen's slope of arrays."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import ndtri

from minetrace.errors import InputError
from minetrace.kernels import monotone
from minetrace.kernels.normal import INTERCEPT, SLOPE
from minetrace.schema import TREND, Variable, fill_value, label
from minetrace.trends.axis import MAX_STEPS, increasing_years, require_one_chunk
from minetrace.trends.blocks import map_series
from minetrace.trends.columns import Results, as_dataset, results_of, trend_block
from minetrace.trends.methods import Method, test_of

PValue = Literal["normal", "exact"]

_OPTIONS: dict[str, tuple[Method, ...]] = {
    "lag": ("hamed_rao", "yue_wang"),
    "period": ("seasonal", "correlated_seasonal"),
    "over": ("regional", "multivariate"),
    "covariate": ("partial",),
}
"""Options that only some methods have."""

_LIMITS = (
    Variable("slope_low", "float64", "year-1", "lower confidence limit of Sen's slope"),
    Variable("slope_high", "float64", "year-1", "upper confidence limit of Sen's slope"),
)
_SEN = tuple(v for v in TREND if v.name in ("slope", "intercept", "n"))


def mann_kendall(
    da: xr.DataArray,
    *,
    dim: str = "time",
    method: Method = "original",
    alpha: float = 0.05,
    min_valid: int = 4,
    p_value: PValue = "normal",
    lag: int | None = None,
    period: int | None = None,
    over: Hashable | None = None,
    covariate: xr.DataArray | None = None,
) -> xr.Dataset:
    """Mann-Kendall test and Sen's slope along one dimension.

    Parameters
    ----------
    da
        Real numbers with any other dims, such as ``(time, y, x)`` or ``(site, time)``. Values
        that are not finite, or equal ``_FillValue`` or ``nodata`` of the attributes, are gaps and
        are skipped; a fill value outside the data's type is ignored, as it cannot occur. Dask
        data stay lazy and need the whole of ``dim`` in one chunk; blocks below about 128² pixels
        lose time to the scheduler.
    dim
        Dimension with a coordinate of dates or years, increasing.
    method
        ``"original"``: independent observations. Serial correlation is taken into the variance by
        ``"hamed_rao"`` and ``"yue_wang"``, and out of the series by ``"pre_whitening"`` and
        ``"trend_free_pre_whitening"``. ``"seasonal"`` compares values of the same season only;
        in ``"correlated_seasonal"`` the seasons may depend on each other. ``"regional"`` and
        ``"multivariate"`` test all locations or variables along ``over`` together. ``"partial"``
        tests what ``covariate`` leaves. These last four run pymannkendall series by series, about
        a thousand times slower.
    alpha
        Level of significance, two-sided; for ``"hamed_rao"`` of the autocorrelations as well.
    min_valid
        Series with fewer values give NaN and trend 0.
    p_value
        ``"normal"``: the usual approximation. ``"exact"``, for the original method: below 10
        values, the share of all orders of the series' own values, ties included, whose S is as far
        from 0; from 10 values on the approximation.
    lag
        For ``"hamed_rao"`` and ``"yue_wang"``: the number of lags that count; all of them if None.
    period
        For the seasonal methods: seasons a year, 12 if None. Seasons are counted from the first
        step on, by date, so missing steps are gaps.
    over
        For ``"regional"`` and ``"multivariate"``: the dimension of locations or variables.
    covariate
        For ``"partial"``: numbers along the same ``dim``, other dims broadcast against ``da``.

    Returns
    -------
    Dataset
        Without ``dim`` and ``over``: ``trend`` int8 (-1, 0, 1); ``p``, ``z``, ``tau``, ``s``,
        ``var_s``, ``slope`` (per year), ``intercept`` (the Sen line at the first step of ``dim``)
        float64; ``n`` int16 valid values (``"partial"``: steps at which both are valid).

    Raises
    ------
    InputError
        Unknown method or option, an option of another method, no such dim, dates that do not
        increase, two values in one season, ``dim`` in several chunks, or a fill value that is no
        number.

    Notes
    -----
    The variance of S is corrected for ties and z for continuity. Slopes are per decimal year
    (`decimal_years`), so annual steps are exactly 1 and a missing year stays a gap of two. A
    constant series has s = 0, z = 0, p = 1, slope 0. Where the variance is not above 0 although s
    is not 0, z and p are NaN and the trend is 0. What the methods compute, and where they differ
    from pymannkendall, is in the chapter on methods of the documentation.

    Extra memory is that of the results, 59 bytes a series, and of a copy of at most 16,384 series
    unless the data are float32 or float64, time first and without a fill value.

    Short series can hardly be significant. The smallest p that n values can reach is

    == ========= ========
    n  normal    exact
    == ========= ========
    4  0.089     0.083
    5  0.027     0.017
    6  0.0085    0.0028
    7  0.0027    0.00040
    8  0.00083   0.000050
    9  0.00026   0.0000055
    == ========= ========

    References
    ----------
    Mann (1945), doi:10.2307/1907187; Kendall (1975), Rank Correlation Methods; Sen (1968),
    doi:10.1080/01621459.1968.10480934; Hamed and Rao (1998), doi:10.1016/S0022-1694(97)00125-X;
    Yue and Wang (2004), doi:10.1023/B:WARM.0000043140.61082.60; Yue and Wang (2002),
    doi:10.1029/2001WR000861; Yue et al. (2002), doi:10.1002/hyp.1095; Hirsch et al. (1982),
    doi:10.1029/WR018i001p00107; Hirsch and Slack (1984), doi:10.1029/WR020i006p00727; Helsel and
    Frans (2006), doi:10.1021/es051650b; Libiseller and Grimvall (2002), doi:10.1002/env.507;
    Hussain and Mahmud (2019), doi:10.21105/joss.01556.

    Examples
    --------
    >>> share = xr.DataArray([0.1, 0.2, 0.3, np.nan, 0.6, 0.7],
    ...                      coords={"time": range(2017, 2023)}, dims="time")
    >>> found = mann_kendall(share)
    >>> int(found.trend), int(found.n), round(float(found.slope), 3), round(float(found.p), 3)
    (1, 5, 0.122, 0.027)
    >>> months = np.arange("2015-01", "2020-01", dtype="datetime64[M]").astype("datetime64[ns]")
    >>> summer = 5.0 - abs(6 - np.arange(60) % 12)
    >>> lights = xr.DataArray(summer + np.arange(60) // 12, coords={"time": months}, dims="time")
    >>> float(mann_kendall(lights, method="seasonal").slope)
    1.0
    """
    if method not in get_args(Method):
        raise InputError(f"method {method!r} is not available; use one of {get_args(Method)}")
    if p_value not in get_args(PValue):
        raise InputError(f"p_value is {p_value!r}; use one of {get_args(PValue)}")
    if p_value == "exact" and method != "original":
        raise InputError(f"p_value 'exact' is for the method 'original', not for {method!r}")
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha!r}; a level of significance lies between 0 and 1")
    if min_valid < 2:
        raise InputError(f"min_valid is {min_valid!r}; a trend needs 2 values at least")
    _refuse_others(method, {"lag": lag, "period": period, "over": over, "covariate": covariate})
    years = increasing_years(_numbers(da), dim)
    arrays = [da] if covariate is None else [da, _same_axis(covariate, da, dim)]
    core: list[Hashable] = [dim] if over is None else [_joint(da, over, dim), dim]
    test = test_of(
        method, years, min_valid, exact=p_value == "exact", alpha=alpha, lag=lag, period=period,
        n_joint=1 if over is None else da.sizes[over],
    )  # fmt: skip
    fills = [fill_value(a) for a in arrays]
    function = partial(trend_block, test=test, fills=fills, n_core=len(core), alpha=alpha)
    return as_dataset(_along(core, function, arrays, TREND), TREND)


def sens_slope(
    da: xr.DataArray, *, dim: str = "time", confidence: float | None = None
) -> xr.Dataset:
    """Sen's slope along one dimension: the median of all pairwise slopes.

    Parameters
    ----------
    da, dim
        As for `mann_kendall`; two valid values are enough.
    confidence
        Level of confidence, such as 0.95, of the limits of the slope; no limits if None.

    Returns
    -------
    Dataset
        ``slope`` (per year), ``intercept`` (the line at the first step of ``dim``), ``n``; with
        ``confidence`` also ``slope_low`` and ``slope_high``: the pairwise slopes whose ranks lie
        as far from the middle as the normal approximation of S allows; NaN where so few values
        have no slope of that rank.

    Raises
    ------
    InputError
        As `mann_kendall`, or a confidence that is not between 0 and 1.

    References
    ----------
    Sen (1968), doi:10.1080/01621459.1968.10480934; Gilbert (1987), Statistical Methods for
    Environmental Pollution Monitoring, chapter 16.

    Examples
    --------
    >>> share = xr.DataArray([1.0, 3.0, 9.0], coords={"time": [2000, 2001, 2003]}, dims="time")
    >>> float(sens_slope(share).slope)
    2.666...
    """
    if confidence is not None and not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence!r}; a level lies between 0 and 1")
    years = increasing_years(_numbers(da), dim)
    variables = _SEN if confidence is None else (*_SEN, *_LIMITS)
    function = partial(_sen_block, years=years, fill=fill_value(da), confidence=confidence)
    return as_dataset(_along([dim], function, [da], variables), variables)


def _along(
    core: list[Hashable],
    function: Callable[..., tuple[NDArray[Any], ...]],
    arrays: list[xr.DataArray],
    variables: tuple[Variable, ...],
) -> tuple[xr.DataArray, ...]:
    """Results of a function of blocks ``(..., *core)``, in the order of ``variables``."""
    results: tuple[xr.DataArray, ...] = xr.apply_ufunc(
        map_series,
        *arrays,
        kwargs={
            "function": function,
            "n_core": len(core),
            "dtypes": [v.dtype for v in variables],
        },
        input_core_dims=[core] * len(arrays),
        output_core_dims=[[]] * len(variables),
        dask="allowed",
        keep_attrs=True,
    )
    return results


def _refuse_others(method: str, options: dict[str, Any]) -> None:
    """Refuse options that the method does not have, and methods without what they need."""
    for name, value in options.items():
        its = _OPTIONS[name]
        if value is not None and method not in its:
            raise InputError(f"{name} is an option of {its}, not of the method {method!r}")
        if value is None and method in its and name in ("over", "covariate"):
            raise InputError(f"the method {method!r} needs {name}=...")
    for name in ("lag", "period"):
        value = options[name]
        if value is not None and (not isinstance(value, int | np.integer) or value < 1):
            raise InputError(f"{name} is {value!r}; give a whole number from 1 on")
    if method == "correlated_seasonal" and options["period"] == 1:
        raise InputError("one season has nothing to be correlated with; use the method 'original'")


def _numbers(da: xr.DataArray) -> xr.DataArray:
    if da.dtype.kind not in "iuf":
        raise InputError(f"{label(da)} is {da.dtype}; a trend needs integers or floats")
    return da


def _same_axis(covariate: xr.DataArray, da: xr.DataArray, dim: str) -> xr.DataArray:
    """Check that the covariate has the coordinates of ``da``, ``dim`` among them."""
    increasing_years(_numbers(covariate), dim)
    try:
        xr.align(da, covariate, join="exact", copy=False)
    except ValueError as err:
        raise InputError(
            f"the covariate {label(covariate)} and {label(da)} have other coordinates: {err}; "
            "use .reindex_like or .interp_like"
        ) from err
    return covariate


def _joint(da: xr.DataArray, over: Hashable, dim: str) -> Hashable:
    """Check the dimension of what is tested together."""
    if over == dim or over not in da.dims:
        raise InputError(f"over is {over!r}; name another dimension of {label(da)} ({da.dims})")
    require_one_chunk(da, over)
    if not 1 <= da.sizes[over] * da.sizes[dim] <= MAX_STEPS:
        raise InputError(
            f"{label(da)} has {da.sizes[over]} × {da.sizes[dim]} values along {over!r} and "
            f"{dim!r}; up to {MAX_STEPS} are tested together"
        )
    return over


def _sen_block(
    values: NDArray[Any],
    *,
    years: NDArray[np.float64],
    fill: float | None,
    confidence: float | None,
) -> tuple[NDArray[Any], ...]:
    """Slope, intercept and n of a block ``(..., time)``, then the limits of the slope."""

    def test(columns: NDArray[Any]) -> Results:
        statistics, n = monotone.mann_kendall(columns, years, 2, False)
        line = statistics[[SLOPE, INTERCEPT]]
        if confidence is None:
            return line, n
        quantile = float(ndtri((1 + confidence) / 2))
        limits = monotone.sen_interval(columns, years, quantile)
        return np.concatenate([line, limits]), n

    n_row = 2 if confidence is None else 4
    shape, rows, n = results_of(test, [values], [fill], 1, n_row)
    slope, intercept, *limits = (row.reshape(shape) for row in rows)
    return slope, intercept, n.reshape(shape), *limits

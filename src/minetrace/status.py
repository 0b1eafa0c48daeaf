"""Is a mine active or closed? The decision tree over three trends.

Method: Xu et al., land disturbance and reclamation of surface mines 1985-2022, activity status.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from minetrace.errors import InputError

_STAGES = {1: "expanding", -1: "shrinking", 0: "stable"}


class Status(NamedTuple):
    """What the decision tree says; fields are scalars, arrays or Series as the input was."""

    status: Any
    """``active``, ``closed`` or ``undefined``."""
    stage: Any
    """``expanding``, ``shrinking`` or ``stable``; null without a bare-surface trend."""
    conflict: Any
    """Whether significant trends disagree on activity."""


def classify_status(bsp_trend: Any, ndvi_trend: Any, ntl_trend: Any) -> Status:
    """Classify mines by the trends of bare surface, vegetation and night lights.

    The first significant trend decides: bare surface (up active, down closed), then NDVI (up
    closed, down active), then night lights (up active, down closed); none means undefined. The
    hierarchy never yields "undefined" for mixed signals, so these are flagged as a conflict.

    Parameters
    ----------
    bsp_trend, ndvi_trend, ntl_trend
        Sign of each trend: -1, 0 (not significant), 1, or missing (None, NaN, ``pd.NA``). Three
        scalars, or three sequences, arrays or Series of one length.

    Returns
    -------
    Status
        ``status, stage, conflict``: three scalars for scalars; three Series on the index of the
        first Series given; else three arrays (object, object, bool).

    Raises
    ------
    InputError
        Another value than the four, lengths or indexes that differ, or scalars mixed with arrays.

    Examples
    --------
    >>> classify_status(1, None, -1)
    Status(status='active', stage='expanding', conflict=True)
    >>> classify_status([0, None], [1, 0], [0, 0]).status.tolist()
    ['closed', 'undefined']
    """
    given = {"bsp_trend": bsp_trend, "ndvi_trend": ndvi_trend, "ntl_trend": ntl_trend}
    many = {name: _is_many(value, name) for name, value in given.items()}
    if not any(many.values()):
        return Status(*_decide(*(_sign(value, name) for name, value in given.items())))
    if not all(many.values()) or len({len(value) for value in given.values()}) > 1:
        sizes = {name: len(v) if many[name] else "scalar" for name, v in given.items()}
        raise InputError(f"the three trends must have one length, not {sizes}")
    index = _common_index(given)
    columns = [[_sign(v, name) for v in value] for name, value in given.items()]
    rows = [_decide(*row) for row in zip(*columns, strict=True)]
    status, stage, conflict = zip(*rows, strict=True) if rows else ((), (), ())
    if index is None:
        return Status(np.array(status, object), np.array(stage, object), np.array(conflict, bool))
    return Status(
        pd.Series(status, index=index, dtype="str", name="status"),
        pd.Series(stage, index=index, dtype="str", name="stage"),
        pd.Series(conflict, index=index, dtype="bool", name="conflict"),
    )


def _decide(bsp: int | None, ndvi: int | None, ntl: int | None) -> tuple[str, str | None, bool]:
    """Decide for one mine; green-up speaks against activity, the other two for it."""
    votes = [vote for vote in (bsp, -ndvi if ndvi else None, ntl) if vote]
    status = {1: "active", -1: "closed"}[votes[0]] if votes else "undefined"
    return status, None if bsp is None else _STAGES[bsp], len(set(votes)) > 1


def _is_many(value: Any, name: str) -> bool:
    ndim = int(getattr(value, "ndim", isinstance(value, Sequence) and not isinstance(value, str)))
    if ndim > 1:
        raise InputError(f"{name} has {ndim} dimensions; give one trend per site")
    return ndim == 1


def _sign(value: Any, name: str) -> int | None:
    plain = value.item() if hasattr(value, "item") else value
    if plain is None or plain is pd.NA or (isinstance(plain, float) and math.isnan(plain)):
        return None
    if isinstance(plain, bool) or plain not in (-1, 0, 1):
        raise InputError(f"{name} holds {plain!r}; a trend is -1, 0, 1 or missing")
    return int(plain)


def _common_index(given: dict[str, Any]) -> pd.Index | None:
    indexes = [value.index for value in given.values() if isinstance(value, pd.Series)]
    if any(not other.equals(indexes[0]) for other in indexes[1:]):
        raise InputError("the three trends are Series with different indexes; align them first")
    return indexes[0] if indexes else None

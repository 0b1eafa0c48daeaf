"""Rows of the failures table: which site, item, asset and window, and why."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from shapely.geometry.base import BaseGeometry

from minetrace.schema import FAILURES

Failure = dict[str, str | None]
_COLUMNS = list(FAILURES.columns)


def failure(
    site_id: str | None, reason: str, window: str, *,
    item: str | None = None, asset: str | None = None,
) -> Failure:  # fmt: skip
    """One row of the failures table."""
    return {"site_id": site_id, "item": item, "asset": asset, "window": window, "reason": reason}


def failure_frame(failures: Sequence[Failure]) -> pd.DataFrame:
    """Failures as the table of the contract, sorted, each once."""
    given = pd.DataFrame(failures, columns=_COLUMNS)
    frame = given.astype("str").mask(given.isna(), None).drop_duplicates()
    return frame.sort_values(_COLUMNS, na_position="first", ignore_index=True)


def window_text(window: BaseGeometry) -> str:
    """Bounds of a window as the failures table gives them."""
    return ",".join(f"{v:.5f}" for v in window.bounds)

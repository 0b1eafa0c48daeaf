"""The columns of every table that minetrace writes, as pandera schemas."""

from __future__ import annotations

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaError, SchemaErrors

from minetrace.errors import InputError
from minetrace.schema.legend import COVERS

STAGES: tuple[str, ...] = ("expanding", "shrinking", "stable")
STATUSES: tuple[str, ...] = ("active", "closed", "undefined")


def _share() -> pa.Column:
    return pa.Column("float64", pa.Check.in_range(-1e-9, 1 + 1e-9), nullable=True)


def _area() -> pa.Column:
    return pa.Column("float64", pa.Check.ge(0.0))


def _trend() -> pa.Column:
    return pa.Column("Int8", pa.Check.isin([-1, 0, 1]), nullable=True)


def _text(*, nullable: bool = False) -> pa.Column:
    return pa.Column("str", nullable=nullable, coerce=True)


SITES = pa.DataFrameSchema(
    {
        "site_id": pa.Column("str", unique=True, coerce=True),
        "area_km2": _area(),
        "source": _text(),
        "country": _text(nullable=True),
    },
    strict=False,
    name="sites",
    metadata={"mend": "read sites with minetrace.read_sites"},
)
"""Mine polygons, EPSG:4326: one row a site; the file's own columns follow."""

SITE_PANEL = pa.DataFrameSchema(
    {
        "site_id": _text(),
        "year": pa.Column("int64"),
        "bsp": _share(),
        "reclamation_rate": _share(),
        "ndvi": pa.Column("float64", nullable=True),
        "ntl": pa.Column("float64", nullable=True),
        "development_km2": pa.Column("float64", pa.Check.ge(0.0), nullable=True),
        "reclamation_km2": pa.Column("float64", pa.Check.ge(0.0), nullable=True),
        "n_pixels": pa.Column("float64", pa.Check.ge(0.0)),
    },
    unique=["site_id", "year"],
    strict=False,
    name="site panel",
)
"""One row per site and year. Gaps are NaN; ``n_pixels`` is the sum of coverage fractions of the
land-cover pixels with data (a plain pixel count under ``coverage="centre"``)."""

SITE_TABLE = pa.DataFrameSchema(
    {
        "site_id": pa.Column("str", unique=True, coerce=True),
        "area_km2": _area(),
        "country": _text(nullable=True),
        "bsp_trend": _trend(),
        "ndvi_trend": _trend(),
        "ntl_trend": _trend(),
        "stage": pa.Column("str", pa.Check.isin(STAGES), nullable=True, coerce=True),
        "status": pa.Column("str", pa.Check.isin(STATUSES), coerce=True),
        "conflict": pa.Column("bool"),
        "n_years_bsp": pa.Column("int64"),
        "n_years_ndvi": pa.Column("int64"),
        "n_years_ntl": pa.Column("int64"),
    },
    strict=False,
    name="site table",
)
"""One row per site. A trend is null where the layer is missing or has too few years."""

TRANSITION_AREAS = pa.DataFrameSchema(
    {
        "site_id": _text(),
        "year": pa.Column("int64"),
        "interval_years": pa.Column("int64", pa.Check.ge(1)),
        "cover": pa.Column("str", pa.Check.isin(COVERS), coerce=True),
        "development_km2": _area(),
        "reclamation_km2": _area(),
        "development_unique_km2": _area(),
        "reclamation_unique_km2": _area(),
    },
    unique=["site_id", "year", "cover"],
    strict=True,
    name="transition areas",
)
"""One row per site, layer (from the second) and cover type."""

FAILURES = pa.DataFrameSchema(
    {c: _text(nullable=True) for c in ("site_id", "item", "asset", "window", "reason")},
    strict=True,
    name="failures",
)
"""What could not be done: one row each, never a crash of the batch."""


def check_table(table: pd.DataFrame, schema: pa.DataFrameSchema) -> pd.DataFrame:
    """Validate a table and return it, or raise `InputError` naming the offending columns.

    The message ends with the mend that the schema knows (``metadata["mend"]``).
    """
    try:
        checked: pd.DataFrame = schema.validate(table, lazy=True)
    except (SchemaError, SchemaErrors) as err:
        detail = getattr(err, "failure_cases", None)
        text = detail.head(5).to_string(index=False) if isinstance(detail, pd.DataFrame) else err
        mend = (schema.metadata or {}).get("mend", "correct the columns named above")
        raise InputError(f"the {schema.name} breaks its contract:\n{text}\n{mend}") from err
    return checked

"""Cube recipes: which products, on which grid, for which years, composited how."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from minetrace.errors import RecipeError
from minetrace.schema.shipped import shipped_file
from minetrace.schema.variables import PRODUCTS


def _ordered(years: tuple[int, int]) -> tuple[int, int]:
    if years[0] > years[1]:
        raise ValueError(f"first year {years[0]} is after last year {years[1]}")
    return years


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LandcoverRecipe(_Section):
    """Annual land cover, read on the source's own grid."""

    source: str
    collection: str | None = None
    legend: str
    """A shipped legend or the path of a TOML file, relative to the recipe."""


class ImageryRecipe(_Section):
    """Annual composites of surface reflectance."""

    source: str
    collection: str | None = None
    bands: Annotated[tuple[str, ...], Field(min_length=1)] = ("red", "nir")
    mask: Literal["scl"] | None = None
    """Which quality layer removes cloud, shadow and defective pixels before compositing."""
    crs: str = "native"
    """``native`` (the source's own grid), ``utm`` (the site's zone) or an authority code."""
    resolution: Annotated[float, Field(gt=0)] | None = None
    """In units of ``crs``; needed unless it is ``native``."""

    @model_validator(mode="after")
    def _has_resolution(self) -> ImageryRecipe:
        if self.crs != "native" and self.resolution is None:
            raise ValueError(f"crs = {self.crs!r} needs a resolution in its units")
        return self


class LightsRecipe(_Section):
    """Annual mean of monthly night-time radiance."""

    source: str
    collection: str | None = None
    band: str = "ntl"


class ChangeRecipe(_Section):
    """Disturbance and reclamation accounting."""

    coverage: Literal["fraction", "centre"] = "fraction"
    min_persistence: Annotated[int, Field(ge=1, le=10)] = 1
    """Layers that a new state must last to count as a change."""
    first_disturbance_share: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of a site's observed area that must be disturbed before the site counts as begun."""


class StatusRecipe(_Section):
    """Mann-Kendall trends and the decision tree."""

    years: tuple[int, int] = (2018, 2023)
    """First and last year that enter the trends."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    min_valid: Annotated[int, Field(ge=3)] = 4
    p_value: Literal["exact", "normal"] = "exact"

    _years_in_order = field_validator("years")(_ordered)


class Recipe(_Section):
    """A validated recipe; relative paths in it are relative to ``folder``."""

    name: str
    years: tuple[int, int]
    buffer_m: Annotated[float, Field(ge=0)] = 0.0
    """Margin around a site that the cube also holds."""
    landcover: LandcoverRecipe | None = None
    imagery: ImageryRecipe | None = None
    lights: LightsRecipe | None = None
    change: ChangeRecipe = ChangeRecipe()
    status: StatusRecipe = StatusRecipe()
    folder: Path = Field(default=Path(), exclude=True)

    _years_in_order = field_validator("years")(_ordered)

    @property
    def products(self) -> tuple[str, ...]:
        """Products that the recipe asks for, in the order of a cube's nodes."""
        return tuple(p for p in PRODUCTS if getattr(self, p) is not None)

    @property
    def fingerprint(self) -> str:
        """Hash of every setting; two recipes with equal fingerprints give equal numbers."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def load_recipe(recipe: str | Path | Recipe) -> Recipe:
    """Load a recipe by its shipped name, from a TOML file, or pass one through.

    Raises
    ------
    RecipeError
        No such recipe, an unknown key or a wrong value; the message names the key.

    Examples
    --------
    >>> load_recipe("landcover_only").years
    (1985, 2022)
    """
    if isinstance(recipe, Recipe):
        return recipe
    path = shipped_file("cubes", recipe, RecipeError)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise RecipeError(f"recipe {path} is not valid TOML: {err}") from err
    try:
        loaded = Recipe(**{"name": path.stem, **data, "folder": path.resolve().parent})
    except (ValidationError, TypeError) as err:
        raise RecipeError(f"recipe {path}: {_explain(err)}") from err
    if not loaded.products:
        raise RecipeError(f"recipe {path} names no product: add [landcover], [imagery] or [lights]")
    return loaded


def _explain(err: ValidationError | TypeError) -> str:
    if isinstance(err, TypeError):
        return str(err)
    lines = []
    for fault in err.errors():
        where = ".".join(str(part) for part in fault["loc"])
        known = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"]
        lines.append(f"{where}: {known}")
    return "; ".join(lines)

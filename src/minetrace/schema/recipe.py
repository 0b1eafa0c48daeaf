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

Composite = Literal["median", "medoid", "geomedian", "max_ndvi", "least_cloudy_month"]
"""``median``: of each band. ``medoid``: the observation nearest to all others over the bands.
``geomedian``: the point nearest to all observations; needs the extra ``geomedian``.
``max_ndvi``: the observation with the largest NDVI. ``least_cloudy_month``: the median of the
month that shows most of the ground."""
Month = Annotated[int, Field(ge=1, le=12)]


def _ordered(years: tuple[int, int]) -> tuple[int, int]:
    if years[0] > years[1]:
        raise ValueError(f"first year {years[0]} is after last year {years[1]}")
    return years


def _each_month(months: tuple[int, int]) -> set[int]:
    first, last = months
    return {
        m for m in range(1, 13) if (first <= m <= last) or (first > last and not last < m < first)
    }


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
    mask: Literal["scl", "qa_pixel", "fmask", "qa60"] | None = None
    """Which quality layer removes cloud, shadow and defective pixels before compositing."""
    keep_bright: bool = False
    """Whether ground that the mask takes for cloud, since it is always bright, is kept."""
    max_cloud_cover: Annotated[float, Field(ge=0, le=100)] | None = None
    """Percent; items that declare more (``eo:cloud_cover``) are not read. Silent items stay."""
    composite: Composite = "median"
    """How the clear observations of a year become one image, see `Composite`."""
    months: tuple[Month, Month] = (1, 12)
    """First and last month that enter, by the site's own date. A window across New Year,
    ``[11, 3]``, belongs to the year of its last month."""
    shift_south: bool = False
    """Whether the months are six later at sites south of the equator."""
    fallback_months: tuple[Month, Month] | None = None
    """Months that join where none of ``months`` shows ``min_clear`` of the pixels."""
    min_clear: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the grid's pixels that a month must show once before it does."""
    crs: str = "native"
    """``native`` (the source's own grid), ``utm`` (the site's zone) or an authority code."""
    resolution: Annotated[float, Field(gt=0)] | None = None
    """In units of ``crs``; needed unless it is ``native``."""

    @model_validator(mode="after")
    def _agrees(self) -> ImageryRecipe:
        if self.crs != "native" and self.resolution is None:
            raise ValueError(f"crs = {self.crs!r} needs a resolution in its units")
        if self.crs == "native" and self.resolution is not None:
            raise ValueError(
                f"resolution = {self.resolution:g} has no use on the source's own grid: "
                "give a crs ('utm' or a code) too, or leave it out"
            )
        if self.composite == "max_ndvi" and not {"red", "nir"} <= set(self.bands):
            raise ValueError("composite = 'max_ndvi' needs the bands red and nir")
        choosing = self.composite == "least_cloudy_month"
        for name in ("fallback_months", "min_clear"):
            if name in self.model_fields_set and not choosing:
                raise ValueError(f"{name} belongs to composite = 'least_cloudy_month'")
        if self.fallback_months is not None:
            twice = sorted(_each_month(self.months) & _each_month(self.fallback_months))
            if twice:
                raise ValueError(
                    f"months {twice} are in months and in fallback_months; a fallback is other "
                    "months"
                )
        if self.keep_bright and self.mask is None:
            raise ValueError("keep_bright undoes part of a mask: name the mask")
        if self.keep_bright and choosing:
            raise ValueError(
                "keep_bright judges by what a year's views share, and composite = "
                "'least_cloudy_month' has those of one month only"
            )
        return self


class LightsRecipe(_Section):
    """Annual mean of monthly night-time radiance."""

    source: str
    collection: str | None = None
    band: str = "ntl"
    weight: str | None = None
    """Variable that holds each month's number of cloud-free observations."""


class TerrainRecipe(_Section):
    """Elevation, slope and hillshade from a digital elevation model."""

    source: str
    collection: str | None = None
    band: str = "elevation"
    resolution: Annotated[float, Field(gt=0)] = 30.0
    """Metres, in the site's UTM zone. Not used where the imagery's grid is in metres: terrain
    then lies on that."""


class RingsRecipe(_Section):
    """Distance classes around the site."""

    distances_m: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        1000.0, 5000.0, 10000.0,
    )  # fmt: skip
    """Outer limits of the rings, increasing."""
    resolution: Annotated[float, Field(gt=0)] = 30.0
    """Metres, as for `TerrainRecipe`."""

    @field_validator("distances_m")
    @classmethod
    def _increase(cls, distances: tuple[float, ...]) -> tuple[float, ...]:
        if list(distances) != sorted(set(distances)) or len(distances) > 200:
            raise ValueError("distances increase from ring to ring, 200 rings at most")
        return distances


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
    terrain: TerrainRecipe | None = None
    rings: RingsRecipe | None = None
    change: ChangeRecipe = ChangeRecipe()
    status: StatusRecipe = StatusRecipe()
    folder: Path = Field(default=Path(), exclude=True)

    _years_in_order = field_validator("years")(_ordered)

    @model_validator(mode="after")
    def _rings_fit(self) -> Recipe:
        if self.rings is not None and self.rings.distances_m[-1] > self.buffer_m:
            raise ValueError(
                f"rings reach {self.rings.distances_m[-1]:g} m from the site, but the cube only "
                f"buffer_m = {self.buffer_m:g}: outer rings would be cut; enlarge buffer_m"
            )
        return self

    @property
    def products(self) -> tuple[str, ...]:
        """Annual products that the recipe asks for, in the order of a cube's nodes."""
        return tuple(p for p in PRODUCTS if getattr(self, p) is not None)

    @property
    def annual(self) -> Recipe:
        """The recipe without what holds for all years: terrain and rings."""
        return self.model_copy(update={"terrain": None, "rings": None})

    def only(self, product: str) -> Recipe:
        """The recipe of one product."""
        return self.model_copy(
            update={name: None for name in (*PRODUCTS, "terrain", "rings") if name != product}
        )

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
    if not loaded.products and loaded.terrain is None:
        raise RecipeError(
            f"recipe {path} names no product: add [landcover], [imagery], [lights] or [terrain]"
        )
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

"""Land-cover legends as data: class code → name → group → cover type.

The groups and the five cover types are those of Xu et al. (land disturbance and reclamation of
surface mines, 1985-2022). A legend maps the class codes of any product onto them.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minetrace.errors import LegendError
from minetrace.schema.shipped import shipped_file, shipped_names

COVERS: tuple[str, ...] = ("cropland", "forest", "shrubland", "grassland", "sparse")
"""The five vegetated cover types in which disturbance and reclamation are accounted."""

GROUPS: tuple[str, ...] = ("cropland", "sparse", "dense", "mine", "other", "nodata")
"""The groups of the transition rule; the first three are vegetated."""

_COVERS_OF_GROUP: dict[str, tuple[str, ...]] = {
    "cropland": ("cropland",),
    "sparse": ("sparse",),
    "dense": ("forest", "shrubland", "grassland"),
}
UNKNOWN = 255


class Kind(IntEnum):
    """What a pixel counts as: the five cover types, mine-related, other, or no data.

    The values are those of the kernels' lookup table; 1 to 5 follow `COVERS`.
    """

    NODATA = 0
    CROPLAND = 1
    FOREST = 2
    SHRUBLAND = 3
    GRASSLAND = 4
    SPARSE = 5
    MINE = 6
    OTHER = 7


@dataclass(frozen=True)
class LandClass:
    """One class of a land-cover product."""

    code: int
    """Value in the raster, 0 to 254; 0 is always no data."""
    name: str
    group: str
    """One of `GROUPS`."""
    cover: str | None
    """One of `COVERS` for vegetated groups, else None."""
    color: str
    """#rrggbb."""

    @property
    def kind(self) -> Kind:
        """Column of the kernels' lookup table."""
        if self.cover is not None:
            return Kind(COVERS.index(self.cover) + 1)
        return {"mine": Kind.MINE, "other": Kind.OTHER, "nodata": Kind.NODATA}[self.group]


@dataclass(frozen=True)
class Legend:
    """The classes of one land-cover product.

    Examples
    --------
    >>> legend = load_legend("glc_fcs30d")
    >>> legend.by_code(200).group
    'mine'
    >>> int(legend.lut[200]) == Kind.MINE
    True
    """

    name: str
    title: str
    classes: tuple[LandClass, ...]

    def by_code(self, code: int) -> LandClass:
        """Class with this raster value."""
        for entry in self.classes:
            if entry.code == code:
                return entry
        raise LegendError(f"legend {self.name!r} has no class {code}")

    @property
    def fingerprint(self) -> str:
        """Hash of the whole legend."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    @property
    def codes(self) -> tuple[int, ...]:
        """Raster values in file order."""
        return tuple(c.code for c in self.classes)

    @property
    def nodata_codes(self) -> tuple[int, ...]:
        """Raster values that mean "not observed"."""
        return tuple(c.code for c in self.classes if c.group == "nodata")

    @property
    def lut(self) -> NDArray[np.uint8]:
        """uint8[256]: class code → `Kind`, `UNKNOWN` for codes the legend does not name."""
        table = np.full(256, UNKNOWN, np.uint8)
        table[0] = Kind.NODATA  # the cube's own gap, whatever the product uses
        for entry in self.classes:
            table[entry.code] = entry.kind
        return table

    def require(self, codes: NDArray[np.integer] | list[int], where: str) -> None:
        """Raise `LegendError` naming every code that this legend misses."""
        missing = sorted({int(c) for c in np.asarray(codes).ravel()} - {0, *self.codes})
        if missing:
            raise LegendError(
                f"{where} holds class codes {missing} that legend {self.name!r} does not name. "
                "Add them to the legend's TOML, or choose the legend that belongs to this product "
                f"(shipped: {', '.join(shipped_names('legends'))})."
            )


def load_legend(legend: str | Path | Legend) -> Legend:
    """Load a legend by its shipped name, from a TOML file, or pass one through.

    Parameters
    ----------
    legend
        A shipped name (``glc_fcs30d``, ``mapbiomas_c8``, ``esa_worldcover``), the path of a TOML
        file with ``name``, ``title`` and ``[[class]]`` tables (``code``, ``name``, ``group``,
        ``cover`` for vegetated groups, ``color``), or a `Legend`.

    Raises
    ------
    LegendError
        No such legend, or the file breaks a rule; the message names the class at fault.

    Examples
    --------
    >>> load_legend("esa_worldcover").by_code(60).name
    'Bare / sparse vegetation'
    """
    if isinstance(legend, Legend):
        return legend
    path = shipped_file("legends", legend, LegendError)
    try:
        return _parse(path, path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise LegendError(f"{path} is not valid TOML: {err}") from err


@lru_cache(maxsize=32)
def _parse(path: Path, text: str) -> Legend:
    """Legend of a file's text; kept, since a run asks for it in every unit."""
    data = tomllib.loads(text)
    unknown = set(data) - {"name", "title", "source", "class"}
    if unknown:
        raise LegendError(
            f"{path}: unknown keys {sorted(unknown)}; a legend has name, title, "
            "source and [[class]] tables"
        )
    rows = data.get("class")
    if not rows or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LegendError(f"{path} has no [[class]] tables")
    classes = tuple(_parse_class(path, row) for row in rows)
    codes = [c.code for c in classes]
    twice = sorted({c for c in codes if codes.count(c) > 1})
    if twice:
        raise LegendError(f"{path}: class codes {twice} are given more than once")
    return Legend(str(data.get("name", path.stem)), str(data.get("title", path.stem)), classes)


def _parse_class(path: Path, row: dict[str, object]) -> LandClass:
    unknown = set(row) - {"code", "name", "group", "cover", "color"}
    if unknown:
        raise LegendError(f"{path}: unknown keys {sorted(unknown)} in class {row.get('code')}")
    code, name, group = row.get("code"), row.get("name"), row.get("group")
    cover, color = row.get("cover"), row.get("color", "#808080")
    if type(code) is not int or not 0 <= code <= 254:
        raise LegendError(f"{path}: class code {code!r} is not an integer from 0 to 254")
    if not isinstance(name, str):
        raise LegendError(f"{path}: class {code} has no name")
    if not (isinstance(color, str) and re.fullmatch("#[0-9a-fA-F]{6}", color)):
        raise LegendError(f"{path}: class {code} has color {color!r}; write it as '#rrggbb'")
    if group not in GROUPS:
        raise LegendError(f"{path}: class {code} has group {group!r}; use one of {GROUPS}")
    if code == 0 and group != "nodata":
        raise LegendError(
            f"{path}: class 0 is {group!r}, but 0 is the cube's own no-data value; "
            "map the product's class 0 to another code"
        )
    allowed = _COVERS_OF_GROUP.get(str(group))
    if allowed is None and cover is not None:
        raise LegendError(f"{path}: class {code} is {group!r} and can have no cover type")
    if allowed is not None and cover not in allowed:
        raise LegendError(
            f"{path}: class {code} is {group!r}, so its cover is one of {allowed}, not {cover!r}"
        )
    return LandClass(code, name, str(group), None if cover is None else str(cover), color)

"""What the names of known products' files say: place, time and what their bands hold."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minetrace.catalog.config import FilePattern, SourceConfig
from minetrace.catalog.stamp import given_time
from minetrace.errors import SourceError

_TIME = ("year", "month", "day", "doy")
_GRID = {"h": 36, "v": 18}
"""Tiles of 10° round the Earth, and from pole to pole."""


@dataclass(frozen=True)
class Field:
    """Where an HDF5 tile holds a layer."""

    dataset: str
    column: int
    """Tiles of 10° east of 180° W."""
    row: int
    """Tiles of 10° south of 90° N."""
    unseen: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Datasets with the codes by which they mark pixels of this one as not observed."""


@dataclass(frozen=True)
class Layer:
    """One band of one file: a variable at one moment."""

    path: Path
    band: int
    time: dt.datetime
    variable: str
    item: str
    """Id of the item it belongs to; layers of one item share place and time."""
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    """Gap value, where the file declares none."""
    whole_year: bool = False
    field: Field | None = None
    """Of an HDF5 tile, which states scale, offset and gap value itself."""


def named_layers(
    files: Sequence[Path], config: SourceConfig, count: Callable[[Path], int]
) -> list[Layer]:
    """Layers of files whose names a source's patterns know.

    Parameters
    ----------
    files
        Files of the product, in any order.
    config
        Source with patterns (``[[files]]``).
    count
        Number of bands of a file.

    Raises
    ------
    SourceError
        A name that no pattern knows, or a file with another number of bands than it should have.
    """
    layers = []
    for path in files:
        pattern, found = _match(path, config)
        places = [text for name, text in found.groupdict().items() if name not in _TIME and text]
        if pattern.fields:
            layers += _tile_layers(path, pattern, found, config)
            continue
        bands = count(path)
        wanted = len(pattern.times or pattern.variables) or bands
        if bands < wanted or (bands > wanted and not pattern.variables):
            raise SourceError(
                f"{path} has {bands} bands, but files of {config.name!r} with such a name have "
                f"{wanted}; is it complete?"
            )
        for band in range(1, wanted + 1):
            moment = (
                given_time(pattern.times[band - 1], band) if pattern.times else _time(found, path)
            )
            item = _item_id(config, places, moment)
            layers.append(
                Layer(
                    path, band, moment, pattern.variable or pattern.variables[band - 1], item,
                    pattern.scale, pattern.offset, pattern.nodata, pattern.whole_year,
                )
            )  # fmt: skip
    return layers


def _item_id(config: SourceConfig, places: Sequence[str], moment: dt.datetime) -> str:
    return "-".join([config.name, *map(_slug, places), f"{moment:%Y%m%d}"])


def _tile_layers(
    path: Path, pattern: FilePattern, found: re.Match[str], config: SourceConfig
) -> list[Layer]:
    """Layers of an HDF5 tile, which is named by its place in the grid."""
    named = found.groupdict()
    moment = _time(found, path)
    column, row = (int(named[axis]) for axis in _GRID)
    if column >= _GRID["h"] or row >= _GRID["v"]:
        raise SourceError(f"the name of {path} holds no tile: there is no h{column:02}v{row:02}")
    others = [text for name, text in named.items() if name not in (*_TIME, *_GRID) and text]
    item = _item_id(config, [*others, f"h{column:02}v{row:02}"], moment)
    out = []
    for variable, dataset in pattern.fields.items():
        flags = pattern.unseen.get(variable, {})
        unseen = tuple((pattern.fields[flag], codes) for flag, codes in flags.items())
        field = Field(dataset, column, row, unseen)
        out.append(
            Layer(path, 1, moment, variable, item, whole_year=pattern.whole_year, field=field)
        )
    return out


def _match(path: Path, config: SourceConfig) -> tuple[FilePattern, re.Match[str]]:
    for pattern in config.files:
        found = re.fullmatch(pattern.match, path.name)
        if found is not None:
            return pattern, found
    known = ", ".join(repr(p.match) for p in config.files)
    raise SourceError(
        f"{path.name} is not named like the files of {config.name!r} ({known}); keep the names "
        "that they are distributed with, or build without a profile"
    )


def _time(found: re.Match[str], path: Path) -> dt.datetime:
    part = found.groupdict()
    try:
        if part.get("doy"):
            start = dt.datetime(int(part["year"]), 1, 1, tzinfo=dt.UTC)
            moment = start + dt.timedelta(days=int(part["doy"]) - 1)
            if moment.year != start.year or int(part["doy"]) < 1:
                raise ValueError(f"there is no day {part['doy']}")
            return moment
        return dt.datetime(
            int(part["year"]), int(part.get("month") or 1), int(part.get("day") or 1), tzinfo=dt.UTC
        )
    except ValueError as err:
        raise SourceError(f"the name of {path} holds no date: {err}") from err


def _slug(text: str) -> str:
    """Text as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", text)[:40]

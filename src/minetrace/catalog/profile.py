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
        bands = count(path)
        wanted = len(pattern.times or pattern.variables) or bands
        if bands < wanted or (bands > wanted and not pattern.variables):
            raise SourceError(
                f"{path} has {bands} bands, but files of {config.name!r} with such a name have "
                f"{wanted}; is it complete?"
            )
        places = [text for name, text in found.groupdict().items() if name not in _TIME and text]
        for band in range(1, wanted + 1):
            moment = (
                given_time(pattern.times[band - 1], band) if pattern.times else _time(found, path)
            )
            item = "-".join([config.name, *map(_slug, places), f"{moment:%Y%m%d}"])
            layers.append(
                Layer(
                    path, band, moment, pattern.variable or pattern.variables[band - 1], item,
                    pattern.scale, pattern.offset, pattern.nodata, pattern.whole_year,
                )
            )  # fmt: skip
    return layers


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

"""Typed exceptions: every message says what was wrong, where, and how to mend it."""

from __future__ import annotations


class MinetraceError(Exception):
    """Base of every error that minetrace raises on purpose."""


class InputError(MinetraceError, ValueError):
    """An array, table or option does not meet a function's contract."""


class SiteError(InputError):
    """A site file, a site id or a site geometry cannot be used."""


class LegendError(InputError):
    """A legend is malformed, or misses a class code that the data hold."""


class RecipeError(InputError):
    """A cube recipe has an unknown key, a wrong value or no such name."""


class SourceError(InputError):
    """A data source, catalogue or item is malformed or holds nothing for the request."""


class UnavailableError(SourceError):
    """A catalogue service did not answer; trying again later may help."""


class HrefError(SourceError):
    """An asset address is outside what its source allows."""


class GridError(InputError):
    """No grid can be made for a site (CRS, antimeridian, size, outside the source)."""


class ReadError(MinetraceError, OSError):
    """Pixels that the catalogue promises could not be read."""

    item: str | None = None
    """Item of the file at fault, where one file is."""
    asset: str | None = None
    window: str | None = None
    """West, south, east and north of what was asked for, in degrees."""


class StoreError(MinetraceError, OSError):
    """A store is unfinished, damaged, or belongs to another configuration."""


def causes(err: BaseException) -> str:
    """Messages of an error and of what caused it: GDAL names the file in the innermost only."""
    texts: list[str] = []
    link: BaseException | None = err
    while link is not None:
        text = str(link) or type(link).__name__
        if text not in texts:
            texts.append(text)
        link = link.__cause__ or link.__context__
    return " ← ".join(texts)


class RunError(MinetraceError, RuntimeError):
    """A batch run cannot start or go on."""

"""Which moment a layer shows: from a date that was given, or from a name that holds one."""

from __future__ import annotations

import datetime as dt
import re

from minetrace.errors import SourceError

_YEAR = r"19[5-9]\d|20\d\d|2100"
_MONTH = r"0[1-9]|1[0-2]"
_DAY = r"0[1-9]|[12]\d|3[01]"
_ISO = re.compile(rf"({_YEAR})(?:-({_MONTH})(?:-({_DAY}))?)?")
_STAMP = re.compile(rf"(?<!\d)({_YEAR})(?:[-_.]?({_MONTH})(?:[-_.]?({_DAY}))?)?(?!\d)")


def given_time(value: object, position: int) -> dt.datetime:
    """Moment of a date as a user gives it; ``position`` counts from 1.

    Raises
    ------
    SourceError
        It is no ISO date, year-month or year from 1950 to 2100.

    Examples
    --------
    >>> given_time("2018-05", 1)
    datetime.datetime(2018, 5, 1, 0, 0, tzinfo=datetime.timezone.utc)
    """
    # a datetime is a date too; layers have no time of day
    text = f"{value:%Y-%m-%d}" if isinstance(value, dt.date) else str(value).strip()
    found = _ISO.fullmatch(text)
    moment = None if found is None else _moment(found)
    if moment is None:
        raise SourceError(
            f"time {position}, {text!r}, is no date; give YYYY-MM-DD, YYYY-MM or YYYY, "
            "years 1950 to 2100"
        )
    return moment


def named_time(name: str, where: str) -> dt.datetime | None:
    """Moment that a file name or band description holds; None when it holds none.

    Raises
    ------
    SourceError
        It holds several years, so any choice would be a guess.

    Examples
    --------
    >>> named_time("cover_201805", "cover.tif").date()
    datetime.date(2018, 5, 1)
    """
    stamps = list(_STAMP.finditer(name))
    years = sorted({stamp.group(1) for stamp in stamps})
    if len(years) > 1:
        raise SourceError(
            f"{where}: {name!r} may be of {' or '.join(years)}; say which with --times, one "
            "date per band"
        )
    return next((m for m in map(_moment, stamps) if m is not None), None)


def _moment(found: re.Match[str]) -> dt.datetime | None:
    year, month, day = (int(part or 1) for part in found.groups())
    try:
        return dt.datetime(year, month, day, tzinfo=dt.UTC)
    except ValueError:
        return None

"""What the TOML of a source may say."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SourceProduct = Literal["imagery", "landcover", "lights", "terrain"]
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Radiometry(_Table):
    """How stored values become physical ones, where an item does not say itself."""

    rule: Literal["item", "sentinel2_l2a"] = "item"
    """``item``: as the item says. ``sentinel2_l2a``: also the offset of processing baseline 04.00,
    told from the item's baseline and flags."""
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    saturated: float | None = None
    """Stored value that marks a saturated detector; masked."""


class Sign(_Table):
    """How addresses are signed at the moment they are opened.

    Secrets stay in the environment: the file names the variable, never its value.
    """

    kind: Literal["planetary_computer", "query", "header"]
    endpoint: str | None = None
    """``planetary_computer``: service that gives tokens, asked for ``/account/container``."""
    name: str | None = None
    """Query parameter or header that carries the key."""
    env: str | None = None
    """Environment variable that holds the key; a subscription key for ``planetary_computer``,
    where it may be unset."""
    prefix: str = ""
    """Text before the key in a header, as ``"Bearer "``."""

    @model_validator(mode="after")
    def _is_complete(self) -> Sign:
        if self.kind == "planetary_computer":
            if self.endpoint is None:
                raise ValueError("planetary_computer needs the endpoint that gives tokens")
            parts = urlsplit(self.endpoint)
            if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
                raise ValueError(f"endpoint {self.endpoint!r} is not https")
        elif self.name is None or self.env is None:
            raise ValueError(f"{self.kind} needs name and env")
        return self


class FilePattern(_Table):
    """Files of one kind: how their names read and what their bands hold."""

    match: str
    """Regular expression for the whole file name. Groups ``year``, ``month``, ``day`` or ``doy``
    (day of the year) give the time, ``h`` and ``v`` the tile of ``fields``; all other groups tell
    places apart."""
    variable: str | None = None
    """Variable that every band holds, one time a band."""
    variables: tuple[str, ...] = ()
    """Variables of the bands in order, all of one time."""
    fields: dict[str, str] = {}
    """HDF5 tiles: variable → dataset that holds it. Tiles are squares of 10°; the groups ``h`` and
    ``v`` count them from 180° W and 90° N. Scale, offset and gap value are the datasets' own."""
    unseen: dict[str, dict[str, tuple[int, ...]]] = {}
    """Variable of ``fields`` → variable whose codes mark pixels as not observed. They become gaps:
    some products fill them from other dates."""
    times: tuple[str, ...] = ()
    """Time of each band in order: YYYY, YYYY-MM or YYYY-MM-DD."""
    whole_year: bool = False
    """Whether each layer is of the year that begins at its time."""
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    """Gap value, where the file declares none."""

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as err:
            raise ValueError(f"{value!r} is no regular expression: {err}") from err
        return value

    @model_validator(mode="after")
    def _is_complete(self) -> FilePattern:
        groups = re.compile(self.match).groupindex
        if (self.variable is not None) + bool(self.variables) + bool(self.fields) != 1:
            raise ValueError("give one of variable, variables and fields")
        if self.fields and not {"h", "v", "year"} <= groups.keys():
            raise ValueError("tiles with fields need the groups 'h', 'v' and 'year' in match")
        named = {*self.unseen, *(flag for flags in self.unseen.values() for flag in flags)}
        if not named <= self.fields.keys():
            raise ValueError(
                f"unseen names {', '.join(sorted(named - self.fields.keys()))}, "
                "which fields does not"
            )
        if not self.times and "year" not in groups:
            raise ValueError("give times, or name a group 'year' in match")
        if self.times and self.variables:
            raise ValueError("times is for bands of one variable; variables share one time")
        return self


class SourceConfig(_Table):
    """One file of ``catalogs/``; unknown keys are refused."""

    name: str
    title: str = ""
    kind: Literal["static", "api", "geoparquet", "files"]
    """``files``: rasters that the user downloads; ``build_catalog`` makes a catalogue of them."""
    href: str
    """Static, geoparquet: the catalogue's JSON or the parquet file, relative to this file. API:
    the https address. Files: where they are downloaded; it is shown and never opened."""
    collection: str | None = None
    product: SourceProduct | None = None
    """What the source holds; a recipe that asks it for anything else is refused."""
    legend: str | None = None
    """Legend of the class codes; a build of files checks them against it."""
    bands: dict[str, str] = {}
    """Cube variable → asset key, where they differ. Quality layers are variables too: ``scl``,
    ``qa_pixel``, ``qa_radsat``, ``fmask``, ``qa60``."""
    band_index: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Cube variable → band of its asset, from 1, where one asset holds several."""
    radiometry: Radiometry = Radiometry()
    sign: Sign | None = None
    rewrite: dict[str, str] = {}
    """Prefix of an address → the prefix to open instead, as ``s3://bucket/`` → ``https://…/``."""
    hosts: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    """Folders beside the catalogue's own that assets may lie in."""
    files: tuple[FilePattern, ...] = ()
    """Kinds of files that a build understands."""

    @field_validator("hosts")
    @classmethod
    def _are_plain_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not re.fullmatch(r"(\*\.)?[A-Za-z0-9.:_-]+", host) or (
                host.startswith("*.") and (host.count(".") < 2)
            ):
                raise ValueError(f"{host!r} is no host name; give e.g. data.example.org")
        return hosts

    @model_validator(mode="after")
    def _fits_its_kind(self) -> SourceConfig:
        if (self.kind == "files") != bool(self.files):
            raise ValueError('[[files]] and kind = "files" go together')
        return self

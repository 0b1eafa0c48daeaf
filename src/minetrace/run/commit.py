"""Publish a unit's results: files first, then one manifest entry by exclusive create.

Readers see only units that have an entry. A unit that died half-way leaves files that nobody
lists; the next run writes them anew.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import xarray as xr
from odc.geo import CRS
from pydantic import TypeAdapter
from rasterio.io import MemoryFile

from minetrace.cubes import node_grid
from minetrace.errors import RunError
from minetrace.panel import write_table
from minetrace.run.failures import Failure, failure_frame
from minetrace.run.rows import SiteRows, write_rows


@dataclass
class Entry:
    """One committed unit, as the manifest keeps it."""

    unit: str
    key: str
    product: str
    folder: str
    """Name of the folder of its files."""
    sites: list[str]
    years: list[int] = field(default_factory=list)
    """Years with a layer."""
    items: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    """Sites that have a map or a cube."""
    faults: int = 0
    """Failures that may pass: a later run tries the unit again."""
    files: dict[str, str] = field(default_factory=dict)
    """File name in the unit's folder → SHA-256."""


_ENTRY = TypeAdapter(Entry)
CUBES_FILE = "cubes.json"
"""File of a unit that tells the seals of the stores it made."""
_KEYS = {f.name for f in fields(Entry)}
_IN_HAND = re.compile(r".+\.(?P<host>[A-Za-z0-9-]+)-(?P<pid>\d+)\.[0-9a-f]{8}")


class Manifest:
    """The committed units below one output folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / "manifest"
        self.units = out / "units"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.units.mkdir(exist_ok=True)
        except OSError as err:
            raise RunError(
                f"{err.filename} cannot be made: {err.strerror}; give a run a folder that you "
                "may write to"
            ) from err

    def files(self, entry: Entry) -> Path:
        """Where the files of a committed unit lie."""
        return self.units / entry.folder

    def find(self, unit: str, key: str) -> Entry | None:
        """The entry of a committed unit whose files are all there and whole."""
        path = self._path(unit, key)
        if not path.is_file():
            return None
        entry = _read_entry(path)
        folder = self.files(entry)
        for name, digest in entry.files.items():
            file = folder / name
            if not file.is_file() or _sha256(file) != digest:
                raise RunError(
                    f"{file} is damaged or gone although its unit is committed; delete "
                    f"{path} to have the unit done again"
                )
        return entry

    def forget(self, unit: str, key: str) -> None:
        """Take a unit out of the manifest, so that it is done again."""
        path = self._path(unit, key)
        if path.is_file():
            folder = self.files(_read_entry(path))
            path.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def folder_for(self, name: str) -> Iterator[Path]:
        """An empty folder that no other process has, for a unit's files or the run's tables.

        What goes wrong inside takes it away again; `sweep` does so after a kill. That the disk is
        full is said in a `RunError`.
        """
        folder = self.units / f"{name}.{_process()}.{uuid.uuid4().hex[:8]}"
        try:
            folder.mkdir()
            yield folder
        except BaseException as err:
            shutil.rmtree(folder, ignore_errors=True)
            if is_full(err):
                raise RunError(
                    f"no space is left in {self.out} for {name}; free some and run again: what "
                    "is committed is not done twice"
                ) from err
            raise

    def sweep(self) -> None:
        """Remove what processes of this machine left behind when they died."""
        listed = self._listed()
        for folder in self.units.iterdir():
            unit = _IN_HAND.fullmatch(folder.name)
            left = unit and folder.name not in listed and unit["host"] == _host()
            if unit and left and not _alive(int(unit["pid"])):
                shutil.rmtree(folder, ignore_errors=True)

    def _listed(self) -> set[str]:
        names = set()
        for path in self.folder.glob("*.json"):
            # a damaged entry is reported when its unit is asked for
            with suppress(RunError):
                names.add(_read_entry(path).folder)
        return names

    def publish(self, entry: Entry) -> bool:
        """List a unit whose files are written; False if another process was the first.

        The files of the other stay: equal keys stand for equal results.
        """
        folder = self.files(entry)
        for file in folder.iterdir():
            _sync(file)
        entry.files = {p.name: _sha256(p) for p in sorted(folder.iterdir())}
        whole = folder / "entry.json"
        whole.write_text(json.dumps(asdict(entry), indent=1, sort_keys=True))
        _sync(whole)
        try:
            # a hard link appears at once and fails if the name is taken
            os.link(whole, self._path(entry.unit, entry.key))
        except FileExistsError:
            shutil.rmtree(folder, ignore_errors=True)
            return False
        whole.unlink()
        return True

    def deliver(self, folder: Path) -> None:
        """Move what a run gathered to where readers look for it; older files of a folder go.

        Files take each other's place one by one, so another run may do the same at the same time.
        """
        for part in folder.iterdir():
            target = self.out / part.name
            if not part.is_dir():
                part.replace(target)
                continue
            target.mkdir(exist_ok=True)
            new = [file.name for file in part.iterdir()]
            for name in new:
                (part / name).replace(target / name)
            for old in target.iterdir():
                if old.name not in new:
                    old.unlink(missing_ok=True)
        shutil.rmtree(folder)

    def _path(self, unit: str, key: str) -> Path:
        return self.folder / f"{unit}-{key}.json"


def _read_entry(path: Path) -> Entry:
    try:
        text = path.read_bytes()
        entry = _ENTRY.validate_json(text, strict=True)
        if json.loads(text).keys() != _KEYS:
            raise ValueError(f"its keys are not {', '.join(sorted(_KEYS))}")
    except ValueError as err:
        raise RunError(
            f"manifest entry {path} is damaged: {err}; delete it to have the unit done again"
        ) from err
    return entry


def write_unit(
    folder: Path,
    *,
    rows: Sequence[SiteRows],
    failures: Sequence[Failure],
    maps: Sequence[xr.Dataset],
    cubes: Mapping[str, str],
) -> None:
    """Write a unit's files: what there is of rows, failures, maps and seals of cubes."""
    if rows:
        write_rows(pa.concat_tables([r.table() for r in rows]), folder / "rows.arrow")
    if failures:
        write_table(failure_frame(failures), folder / "failures.parquet")
    for i, dataset in enumerate(maps):
        _write_map(dataset, folder / f"map{i}.tif")
    if cubes:
        (folder / CUBES_FILE).write_text(json.dumps(cubes, indent=1, sort_keys=True))


def _write_map(dataset: xr.Dataset, path: Path) -> None:
    """Write variables of one type as bands: integers with 0 for none, floats with NaN."""
    grid, names = node_grid(dataset), list(dataset.data_vars)
    dtype = dataset[names[0]].dtype
    profile = {
        "driver": "COG", "height": grid.shape[0], "width": grid.shape[1], "count": len(names),
        "dtype": dtype, "crs": _gdal_crs(grid.crs), "transform": grid.affine,
        "nodata": 0 if dtype.kind == "i" else np.nan,
        "compress": "DEFLATE", "predictor": "YES", "overview_resampling": "NEAREST",
    }  # fmt: skip
    # in memory first: of a full disk GDAL tells in many ways, and not always
    with MemoryFile() as whole:
        with whole.open(**profile) as dst:
            dst.update_tags(**dataset.attrs)
            for i, name in enumerate(names, 1):
                dst.write(dataset[name].values, i)
                dst.set_band_description(i, str(name))
                dst.set_band_unit(i, str(dataset[name].attrs.get("units", "1")))
        path.write_bytes(whole.getbuffer())


def _gdal_crs(crs: CRS) -> str:
    # GDAL's PROJ may be older than ours and refuse the newest WKT
    epsg = crs.to_epsg()
    return f"EPSG:{epsg}" if epsg else str(crs.to_wkt(version="WKT1_GDAL"))


def is_full(err: BaseException) -> bool:
    """Whether an error comes of a disk or a quota without room."""
    link: BaseException | None = err
    while link is not None:
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        link = link.__cause__ or link.__context__
    return False


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "", socket.gethostname()) or "host"


def _process() -> str:
    return f"{_host()}-{os.getpid()}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""The import order of the package: a module imports only from rooms below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOMS = (
    "errors", "schema", "grid", "sites", "catalog", "kernels", "composites", "cubes", "store",
    "zones", "trends", "change", "status", "vectorise", "boundaries", "segment", "panel",
    "discover", "clusters", "assess", "report", "simulate", "run", "cli",
)  # fmt: skip
FACE = ("__init__", "_version", "accessor")
"""Modules of the package's face: they may import from any room, rooms import none of them
but the version."""

SRC = Path(__file__).resolve().parents[1] / "src" / "minetrace"
FILES = sorted(SRC.rglob("*.py"))
HEAVY = ("torch", "rasterio", "distributed", "odc", "pandas", "xarray", "numba")


def room_of(path: Path, root: Path = SRC) -> str:
    return path.relative_to(root).parts[0].removesuffix(".py")


def imported_modules(path: Path, root: Path = SRC) -> Iterator[str]:
    """Dotted names of all that a file imports, at its top or inside functions."""
    package = ("minetrace", *path.relative_to(root).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else ())))
            yield module
            if module == "minetrace":
                yield from (f"minetrace.{alias.name}" for alias in node.names)


def forbidden_rooms(path: Path, root: Path = SRC) -> list[str]:
    """Rooms that a file imports although they stand above its own."""
    room = room_of(path, root)
    found = {m.split(".")[1] for m in imported_modules(path, root) if m.startswith("minetrace.")}
    return sorted(
        other
        for other in found - {"_version"}
        if other not in ROOMS or ROOMS.index(other) > ROOMS.index(room)
    )


def roots(path: Path, root: Path = SRC) -> set[str]:
    return {m.split(".")[0] for m in imported_modules(path, root)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_every_file_has_a_room_and_imports_only_from_rooms_below(path):
    if path.parent == SRC and path.stem in FACE:
        return
    assert room_of(path) in ROOMS, f"{path.name} belongs to no room of the import order"
    assert forbidden_rooms(path) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_torch_is_imported_only_where_networks_live(path):
    if room_of(path) not in ("segment", "discover"):
        assert roots(path).isdisjoint({"torch", "segmentation_models_pytorch"})


@pytest.mark.parametrize("path", sorted((SRC / "kernels").glob("*.py")), ids=lambda p: p.name)
def test_kernels_import_only_arrays_and_the_compiler(path):
    allowed = {"numpy", "numba", "minetrace", *sys.stdlib_module_names}
    assert roots(path) <= allowed
    ours = {m for m in imported_modules(path) if m.startswith("minetrace.")}
    assert all(m.startswith("minetrace.kernels") for m in ours)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from minetrace.panel import site_panel", ["panel"]),
        ("from minetrace import run", ["run"]),
        ("import minetrace.report.page", ["report"]),
        ("def f():\n    from minetrace.cli import main", ["cli"]),
        ("from ..panel import x", ["panel"]),
        ("from minetrace.errors import InputError", []),
        ("from . import jit", []),
        ("from minetrace.utils import x", ["utils"]),
    ],
)
def test_the_check_sees_every_way_to_import(tmp_path, line, expected):
    path = tmp_path / "kernels" / "planted.py"
    path.parent.mkdir()
    path.write_text(line, encoding="utf-8")
    assert forbidden_rooms(path, tmp_path) == expected


def test_importing_the_package_loads_no_heavy_library():
    code = (
        "import sys, minetrace; "
        f"print(*sorted({{m.split('.')[0] for m in sys.modules}} & set({HEAVY!r})))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []

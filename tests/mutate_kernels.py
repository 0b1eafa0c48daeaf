"""Plant one wrong comparison at a time in the kernels and see which test notices.

    python tests/mutate_kernels.py [KERNEL ...] [--every N] [--limit SECONDS]

Works on a copy of ``src``; the checkout stays as it is. Ends with 1 if a wrong comparison that
is not listed as harmless survives. Tests run compiled: as plain Python they take ten times as
long as with the compilation of every mutant.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "src" / "minetrace" / "kernels"

TESTS = {
    "median": ("monotone", "seasonal"),
    "medoid": ("composite",),
    "monotone": ("monotone", "slopes"),
    "follow": ("transitions",),
    "lines": ("slopes",),
    "mosaic": ("scenes",),
    "network": ("slopes",),
    "normal": ("serial",),
    "runs": ("zones", "change"),
    "slopes": ("slopes",),
    "stacks": ("composite",),
    "strips": ("zonal",),
    "transitions": ("transitions", "change"),
    "coverage": ("zones",),
    "zonal": ("zonal",),
}
"""Kernel → stems of the test files that prove it; ``test_<kernel>.py`` where none are listed."""

_WIDTH = "(1, _BUFFER // max(1, (len(stacks) - first) * n_time))"
_STEERING = "other lines are laid; what lies below each is counted all the same"
_SHARE = "(max(share, np.float32(0.03)), np.float32(0.97))"
_ROOMS = "max(_ROOM, 1 << (years.size ** 2 // 256).bit_length())"
_UPPER = "found[1] * scale < line[1] - dates.sure"
_LIMIT = "a share at the limit itself may count as whole or not"
HARMLESS = {
    f"composite._composite_of_chosen: max{_WIDTH} -> min{_WIDTH}": "strips of 1 pixel: slower",
    "lines.first_lines: up >= 0 -> up > 0": "a count more: slower",
    f"lines.close_in: min{_SHARE} -> max{_SHARE}": _STEERING,
    "lines.close_in: max(passed, density[lane] / 4) -> min(passed, density[lane] / 4)": _STEERING,
    f"slopes.of: {_ROOMS} -> {_ROOMS.replace('max', 'min')}": "less room: slower",
    f"slopes.slopes_of_rank: {_UPPER} -> {_UPPER.replace('<', '<=')}": "guard of the last digit",
    "slopes.slopes_of_rank: places[1] < count -> places[1] <= count": "the guard above refuses inf",
    "serial.variance_factor: min(LANES, n_pixel) -> max(LANES, n_pixel)": "wider buffers",
    "strips.next_strip: n_span > 0 -> n_span >= 0": "compares with a place that no strip fills",
    "zonal._weighted_select: target <= taken -> target < taken": "targets lie below every sum",
    "transitions._next_words: left <= 8 -> left < 8": "one more word, which weighs nothing",
    "coverage._windows: left < n_cols -> left <= n_cols": "a window without columns",
    "coverage._split_row: share[column] >= 1.0 - _SLIVER -> share[column] > 1.0 - _SLIVER": _LIMIT,
    "coverage._cover: v0 < v1 -> v0 <= v1": "an edge along a row has no height",
    "coverage._add_row: right <= 0.0 -> right < 0.0": "all of it is left of column 0 either way",
    "median.select: max(a, b) -> min(a, b)": "another pivot: slower",
    "median.select: stop - start > 1 -> stop - start >= 1": "one more turn, which ends the search",
}
"""Mutants that compute the same, and why."""

NO_SHRINKING = """
from hypothesis import Phase, settings

def pytest_configure():
    base = settings.get_profile("minetrace")
    settings.register_profile("mutants", base, phases=(Phase.explicit, Phase.generate))
    settings.load_profile("mutants")
"""
"""Plugin of pytest: that a test fails is enough, the smallest example would take a minute."""

SWAPS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
CALLS = {"min": "max", "max": "min"}


def mutants(source: str, stem: str) -> Iterator[tuple[int, str, str]]:
    """Line, name and source of every mutant of one file."""
    tree = ast.parse(source)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            before = ast.unparse(node) if isinstance(node, ast.Compare | ast.Call) else ""
            for undo in swapped(node):
                name = f"{stem}.{function.name}: {before} -> {ast.unparse(node)}"
                mutated = ast.unparse(tree)
                undo()
                yield node.lineno, name, mutated


def swapped(node: ast.AST) -> Iterator:
    """Turn each comparison of a node wrong in turn; what is yielded puts it right again."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            if type(op) in SWAPS:
                node.ops[i] = SWAPS[type(op)]()
                yield lambda i=i, op=op: node.ops.__setitem__(i, op)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
        name = node.func.id
        node.func.id = CALLS[name]
        yield lambda: setattr(node.func, "id", name)


def verdict(src: Path, stem: str, limit: float) -> str:
    """First test that fails on the package in ``src``, or ''."""
    files = [ROOT / "tests" / f"test_{t}.py" for t in TESTS.get(stem, (stem,))]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-n", "0",
               "-p", "no_shrinking"]  # fmt: skip
    try:
        run = subprocess.run(
            [*command, *map(str, files)], env={**os.environ, "PYTHONPATH": str(src)}, cwd=ROOT,
            capture_output=True, text=True, timeout=limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no end within {limit:g} s"
    if run.returncode == 0:
        return ""
    failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", run.stdout, re.MULTILINE)
    return failed[1] if failed else f"pytest ended with {run.returncode}"


def check_kernel(src: Path, path: Path, every: int, limit: float) -> int:
    """Print the fate of the mutants of one kernel; return how many survive without a reason."""
    source, survivors = path.read_text(encoding="utf-8"), 0
    target = src / path.relative_to(ROOT / "src")
    if found := verdict(src, path.stem, limit):
        raise SystemExit(f"{path.name}: the tests fail before anything is planted: {found}")
    for line, name, mutated in [*mutants(source, path.stem)][::every]:
        target.write_text(mutated, encoding="utf-8")
        fate = verdict(src, path.stem, limit) or HARMLESS.get(name) or "SURVIVED"
        survivors += fate == "SURVIVED"
        sys.stdout.write(f"{path.name}:{line}  {name}  {fate}\n")
        sys.stdout.flush()
    target.write_text(source, encoding="utf-8")
    return survivors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kernels", nargs="*", help="names such as median; all by default")
    parser.add_argument("--every", type=int, default=1, help="try every n-th mutant only")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds a mutant may take")
    options = parser.parse_args()
    # an exception ends the tests of a mutant that runs; the signal alone would leave them running
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    names = options.kernels or sorted(p.stem for p in KERNELS.glob("[!_]*.py"))
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        src = Path(folder) / "src"
        shutil.copytree(ROOT / "src", src)
        (src / "no_shrinking.py").write_text(NO_SHRINKING, encoding="utf-8")
        for shipped in ("catalogs", "cubes", "legends"):
            shutil.copytree(ROOT / shipped, Path(folder) / shipped)
        for name in names:
            survivors += check_kernel(src, KERNELS / f"{name}.py", options.every, options.limit)
    sys.stdout.write(f"{survivors} survived\n")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())

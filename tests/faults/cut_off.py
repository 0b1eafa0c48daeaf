"""Writers that are cut off at chosen points; run as a script by ``test_store_faults``.

Each writer is a fork of this process, after it has saved a cube itself: a fresh process for each
would spend its time on imports.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import dask

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from test_store_faults import make_pair, same, values

from minetrace.errors import StoreError
from minetrace.store import load_cube, save_cube

REFUSED = 3
OLD, NEW = [2018, 2019], [2018, 2019, 2020]
SPREAD, FULL = 2, 5


def in_child(call: Callable[[], None]) -> int:
    """Exit code of a call in a forked process; minus the signal that ended it."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        call()
        code = 0
    except StoreError as err:
        sys.stderr.write(f"refused: {err}\n")
        code = REFUSED
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def at_event(number: int, folder: Path, act: Callable[[], None]) -> list[int]:
    """Do something just before the given change to files below a folder; counts the changes."""
    count = [0]

    def hook(event: str, args: tuple) -> None:
        if event not in ("open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir"):
            return
        if not isinstance(args[0], str | os.PathLike) or str(folder) not in os.fspath(args[0]):
            return
        if event == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        count[0] += 1
        if count[0] == number:
            act()

    sys.addaudithook(hook)
    return count


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def scenario(name: str) -> tuple[Callable[[Path], None], Callable[[Path], None]]:
    """What stands before, and what the writer does."""
    return {
        "first": (lambda _: None, lambda p: save_cube(make_pair(OLD), p)),
        "year": (lambda p: save_cube(make_pair(OLD), p), lambda p: save_cube(make_pair(NEW), p)),
        "anew": (
            lambda p: (save_cube(make_pair(OLD), p), save_cube(make_pair(NEW), p)),
            lambda p: save_cube(make_pair(NEW), p, resume=False),
        ),
    }[name]


def check(path: Path, before: list[int] | None, after: list[int]) -> None:
    """A reader is refused, or sees what was there before or what is there after."""
    try:
        seen = values(load_cube(path))
    except StoreError:
        # between the two renames of a replacement the old cube stands aside, named by the message
        return
    assert any(same(seen, values(make_pair(y))) for y in (before, after) if y), "torn"


def kill(name: str, root: Path) -> dict[str, int]:
    """Kill the writer at points spread over all its changes to files."""
    prepare, write = scenario(name)
    before = {"first": None, "year": OLD, "anew": NEW}[name]
    after = OLD if name == "first" else NEW
    standing, quiet = root / "standing" / "c.zarr", root / "quiet" / "c.zarr"
    standing.parent.mkdir()
    prepare(standing)
    shutil.copytree(standing.parent, quiet.parent)

    def counted() -> None:
        count = at_event(-1, quiet.parent, lambda: None)
        write(quiet)
        (root / "count").write_text(str(count[0]))

    assert in_child(counted) == 0
    total, killed = int((root / "count").read_text()), 0
    # the last changes are those that publish
    points = sorted(
        {1 + i * total // SPREAD for i in range(SPREAD)} | set(range(total - 3, total + 1))
    )
    for point in points:
        path = root / f"at-{point}" / "c.zarr"
        shutil.copytree(standing.parent, path.parent)

        def cut(path: Path = path, point: int = point) -> None:
            at_event(point, path.parent, lambda: os.kill(os.getpid(), signal.SIGKILL))
            write(path)

        killed += in_child(cut) == -signal.SIGKILL

        def resume(path: Path = path) -> None:
            check(path, before, after)
            write(path)

        assert in_child(resume) == 0, f"{name} at {point} of {total}"
        assert files(path.parent) == files(quiet.parent), f"{name} at {point} of {total}"
        shutil.rmtree(path.parent)
    return {"points": len(points), "killed": killed}


def full(root: Path) -> dict[str, int]:
    """Let files grow to some sizes and no further, as on a disk that is full."""
    prepare, write = scenario("year")
    standing, quiet = root / "standing" / "c.zarr", root / "quiet" / "c.zarr"
    standing.parent.mkdir()
    prepare(standing)
    shutil.copytree(standing.parent, quiet.parent)
    write(quiet)
    largest = max(len(data) for name, data in files(quiet).items() if "years" in name)
    path = root / "full" / "c.zarr"
    shutil.copytree(standing.parent, path.parent)
    old, refused = files(path.parent), 0
    for step in range(FULL):

        def limited(size: int = largest * step // FULL) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            write(path)

        refused += in_child(limited) == REFUSED
        assert files(path.parent) == old, "something was left behind"
    assert in_child(lambda: write(path)) == 0
    assert files(path.parent) == files(quiet.parent)
    return {"refused": refused}


if __name__ == "__main__":
    told = {}
    with dask.config.set(scheduler="sync"):
        # what is imported on first use is there before the first fork
        save_cube(make_pair(OLD), Path(sys.argv[1]) / "warm.zarr")
        values(load_cube(Path(sys.argv[1]) / "warm.zarr"))
        for what in ("first", "year", "anew", "full"):
            where = Path(sys.argv[1]) / what
            where.mkdir()
            told[what] = full(where) if what == "full" else kill(what, where)
    sys.stdout.write(json.dumps(told))

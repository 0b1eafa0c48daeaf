"""Find the TOML files that ship with minetrace: legends, catalogs, cubes."""

from __future__ import annotations

from pathlib import Path

from minetrace.errors import InputError

_NOUNS = {"legends": "legend", "catalogs": "source", "cubes": "recipe"}
_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_folder(kind: str) -> Path:
    """Folder of the shipped ``legends``, ``catalogs`` or ``cubes``.

    An installed wheel carries them inside the package; a checkout has them at its root.
    """
    inside = _PACKAGE / "shipped" / kind
    return inside if inside.is_dir() else _PACKAGE.parents[1] / kind


def shipped_names(kind: str) -> tuple[str, ...]:
    """Names that can be given instead of a path."""
    return tuple(sorted(p.stem for p in shipped_folder(kind).glob("*.toml")))


def shipped_file(kind: str, name: str | Path, error: type[InputError]) -> Path:
    """Path of a shipped file by name, or of the user's own TOML file.

    A bare name that is both shipped and a file means the shipped one: write ``./name.toml`` for
    the file.
    """
    text = str(name)
    if text in shipped_names(kind):
        return shipped_folder(kind) / f"{text}.toml"
    path = Path(name)
    if path.is_file():
        return path
    raise error(
        f"there is no {_NOUNS[kind]} {text!r}: neither a file nor one of the shipped "
        f"{', '.join(shipped_names(kind))}"
    )

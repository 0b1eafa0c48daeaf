"""The manifest of a run: what it lists, and what it refuses to believe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minetrace.errors import RunError
from minetrace.run.commit import Entry, Manifest


def committed(out: Path) -> tuple[Manifest, Path]:
    """A manifest with unit ``u`` of key ``k``, and the path of its entry."""
    manifest = Manifest(out)
    with manifest.folder_for("u-k") as folder:
        (folder / "rows.arrow").write_text("numbers")
        entry = Entry("u", "k", "landcover", folder.name, ["a"], years=[2000, 2005])
        assert manifest.publish(entry)
    return manifest, out / "manifest" / "u-k.json"


def test_a_published_entry_is_found_as_it_was(tmp_path: Path):
    manifest, _ = committed(tmp_path)
    entry = manifest.find("u", "k")
    assert entry is not None
    assert (entry.product, entry.sites, entry.years) == ("landcover", ["a"], [2000, 2005])
    assert list(entry.files) == ["rows.arrow"]
    assert manifest.find("u", "other") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "\x00\xff",
        lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "files"}),
        lambda text: json.dumps(json.loads(text) | {"colour": "red"}),
        lambda text: json.dumps(json.loads(text) | {"sites": "a"}),
        lambda text: json.dumps(json.loads(text) | {"files": ["rows.arrow"]}),
    ],
    ids=["half", "empty", "no table", "no text", "missing key", "foreign key", "sites", "files"],
)
def test_a_damaged_entry_is_named_with_its_mend(tmp_path: Path, damage):
    manifest, path = committed(tmp_path)
    path.write_text(damage(path.read_text()), encoding="latin-1")
    with pytest.raises(RunError, match=r"(?s)u-k\.json is damaged.*delete it"):
        manifest.find("u", "k")
    path.unlink()
    assert manifest.find("u", "k") is None


@pytest.mark.parametrize("out", ["taken", "taken/run"])
def test_a_file_in_the_way_of_a_run_is_named(tmp_path: Path, out: str):
    (tmp_path / "taken").write_text("precious")
    with pytest.raises(RunError, match=r"taken.* cannot be made: .*give a run a folder"):
        Manifest(tmp_path / out)


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, monkeypatch):
    def refuse(self, *args, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunError, match="cannot be made: Permission denied"):
        Manifest(tmp_path / "run")

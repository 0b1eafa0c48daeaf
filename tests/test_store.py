"""A saved cube is whole or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from minetrace.errors import InputError, StoreError
from minetrace.store import MANIFEST, cube_key, load_cube, save_cube


def make_cube(seed: int = 0, *, chunks: dict[str, int] | None = None) -> xr.DataTree:
    rng = np.random.default_rng(seed)
    box = GeoBox.from_bbox((500000, 200000, 509000, 206000), "EPSG:32622", resolution=30)
    time = np.array([f"{y}-01-01" for y in (1990, 1995, 2000)], "datetime64[ns]")
    coords = {"time": time, **xr_coords(box, dims=("y", "x"))}
    codes = rng.choice([0, 61, 200], (3, *box.shape)).astype("u1")
    ndvi = rng.random((3, *box.shape)).astype("f4")
    ndvi[:, 3, 4] = np.nan
    land = xr.Dataset({"landcover": (("time", "y", "x"), codes)}, coords=coords)
    image = xr.Dataset({"red": (("time", "y", "x"), ndvi)}, coords=coords)
    if chunks is not None:
        land, image = land.chunk(chunks), image.chunk(chunks)
    return xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs={"recipe": "t"}), "landcover": land, "imagery": image}
    )


def assert_same(a: xr.DataTree, b: xr.DataTree) -> None:
    for path in ("landcover/landcover", "imagery/red"):
        xr.testing.assert_equal(
            a[path].compute().drop_vars("spatial_ref"), b[path].compute().drop_vars("spatial_ref")
        )
        assert a[path].dtype == b[path].dtype


@pytest.mark.parametrize("chunks", [None, {"y": 64, "x": 100}, {"time": 1, "y": 37, "x": 41}])
def test_plain_xarray_reads_the_same_values(tmp_path: Path, chunks):
    cube = make_cube(chunks=chunks)
    path = save_cube(cube, tmp_path / "c.zarr")
    with xr.open_datatree(path, engine="zarr") as back:
        assert_same(cube, back)
        assert back["landcover"].to_dataset().odc.geobox.crs.to_epsg() == 32622
    assert_same(cube, load_cube(path, verify=True))


def test_the_store_follows_the_conventions(tmp_path: Path):
    path = save_cube(make_cube(), tmp_path / "c.zarr")
    group = json.loads((path / "landcover" / "zarr.json").read_text())
    attrs = group["attributes"]
    assert group["zarr_format"] == 3
    assert {c["name"] for c in attrs["zarr_conventions"]} == {"spatial:", "proj:"}
    assert attrs["proj:code"] == "EPSG:32622"
    assert attrs["spatial:transform"] == [30.0, 0.0, 500010.0, 0.0, -30.0, 206010.0] or (
        attrs["spatial:transform"][0] == 30.0
    )
    array = json.loads((path / "landcover" / "landcover" / "zarr.json").read_text())
    assert array["dimension_names"] == ["time", "y", "x"]
    codec = array["codecs"][-1]
    assert codec["name"] == "zstd"
    assert codec["configuration"]["checksum"] is True


def test_resume_leaves_a_finished_store_alone(tmp_path: Path):
    path = save_cube(make_cube(), tmp_path / "c.zarr")
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    save_cube(make_cube(), path)
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before


def test_another_cube_is_not_overwritten_unless_asked(tmp_path: Path):
    path = save_cube(make_cube(0), tmp_path / "c.zarr")
    with pytest.raises(StoreError, match="holds another cube"):
        save_cube(make_cube(1), path)
    assert_same(make_cube(0), load_cube(path))
    save_cube(make_cube(1), path, resume=False)
    assert_same(make_cube(1), load_cube(path))
    assert [p.name for p in tmp_path.iterdir()] == ["c.zarr"]


def test_equal_cubes_have_equal_keys_whatever_their_chunks():
    a = make_cube()
    assert cube_key(a) == cube_key(make_cube())
    assert cube_key(a) != cube_key(make_cube(1))


def test_a_damaged_store_is_written_again(tmp_path: Path):
    path = save_cube(make_cube(), tmp_path / "c.zarr")
    chunk = next(p for p in sorted((path / "imagery" / "red" / "c").rglob("*")) if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-5])
    save_cube(make_cube(), path)
    assert_same(make_cube(), load_cube(path, verify=True))


def test_a_folder_that_is_no_cube_is_never_replaced(tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.txt").write_text("precious")
    for resume in (True, False):
        with pytest.raises(StoreError):
            save_cube(make_cube(), tmp_path / "thesis", resume=resume)
    assert (tmp_path / "thesis" / "text.txt").read_text() == "precious"
    with pytest.raises(StoreError, match="is a file"):
        save_cube(make_cube(), tmp_path / "thesis" / "text.txt")


def test_a_folder_without_manifest_is_refused(tmp_path: Path):
    path = save_cube(make_cube(), tmp_path / "c.zarr")
    root = path / "zarr.json"
    root.write_text(root.read_text().replace(MANIFEST, "other"))
    with pytest.raises(StoreError, match="no finished cube"):
        load_cube(path)
    with pytest.raises(StoreError, match="no finished cube"):
        save_cube(make_cube(), path)


def test_changed_root_metadata_are_refused(tmp_path: Path):
    path = save_cube(make_cube(), tmp_path / "c.zarr")
    root = path / "zarr.json"
    root.write_text(root.read_text().replace('"fill_value": 0', '"fill_value": 7'))
    with pytest.raises(StoreError, match="hash differs"):
        load_cube(path)


def test_a_lost_chunk_is_found_when_opening(tmp_path: Path):
    path = save_cube(make_cube(), tmp_path / "c.zarr")
    chunk = next(
        p for p in sorted((path / "landcover" / "landcover" / "c").rglob("*")) if p.is_file()
    )
    chunk.unlink()
    with pytest.raises(StoreError, match="misses 1 of its files"):
        load_cube(path)


def test_no_bit_flip_gives_wrong_values_silently(tmp_path: Path):
    cube = make_cube()
    path = save_cube(cube, tmp_path / "c.zarr")
    rng = np.random.default_rng(7)
    files = [p for p in sorted(path.rglob("c/**/*")) if p.is_file()]
    silent = 0
    for _ in range(60):
        file = files[rng.integers(len(files))]
        good = file.read_bytes()
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        file.write_bytes(bad)
        with pytest.raises(StoreError, match="differ from the manifest"):
            load_cube(path, verify=True)
        try:
            assert_same(cube, load_cube(path))
        except (RuntimeError, ValueError, OSError):
            pass
        except AssertionError:
            silent += 1
        file.write_bytes(good)
    assert silent == 0


def test_a_write_that_fails_leaves_nothing(tmp_path: Path):
    cube = make_cube(chunks={"y": 50, "x": 50})

    def explode(block):
        raise OSError("the disk is gone")

    node = cube["landcover"].to_dataset()
    node["landcover"] = node["landcover"].copy(
        data=node["landcover"].data.map_blocks(explode, dtype="u1", meta=np.empty((0, 0, 0), "u1"))
    )
    broken = xr.DataTree.from_dict({"landcover": node})
    with pytest.raises(OSError, match="the disk is gone"):
        save_cube(broken, tmp_path / "c.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_cube_without_grid_or_nodes_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no nodes"):
        save_cube(xr.DataTree(), tmp_path / "c.zarr")
    plain = xr.Dataset({"landcover": (("time", "y", "x"), np.zeros((1, 2, 2), "u1"))})
    with pytest.raises(InputError, match="spatial_ref"):
        save_cube(xr.DataTree.from_dict({"landcover": plain}), tmp_path / "c.zarr")

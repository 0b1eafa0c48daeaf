"""A saved cube is whole or refused."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import numpy as np
import pystac
import pystac.validation
import pytest
import shapely
import xarray as xr
from hypothesis import example, given
from hypothesis import strategies as st
from numcodecs.zstd import compress
from obstore.store import MemoryStore
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from minetrace.catalog import open_source, search
from minetrace.catalog.source import saved_cube
from minetrace.cli.app import app
from minetrace.cubes import open_cube
from minetrace.errors import InputError, SourceError, StoreError
from minetrace.schema import load_recipe
from minetrace.simulate import simulate_mines
from minetrace.store import load_cube, save_cube, write_catalog
from minetrace.store.checked import CheckedUnit
from minetrace.store.decode import StoredArray, stored_array
from minetrace.store.identity import identify
from minetrace.store.manifest import MANIFEST, PIECE, Manifest, seal, stored, unseal
from minetrace.store.place import Bucket, Folder


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


def make_years(years: list[int], *, seed: int = 0, items: str = "i") -> xr.DataTree:
    """Annual cube with provenance; the values of a year are the same in every cube of a seed."""
    box = GeoBox.from_bbox((500000, 200000, 504500, 203000), "EPSG:32622", resolution=30)
    coords = {
        "time": np.array([f"{y}-01-01" for y in years], "datetime64[ns]"),
        **xr_coords(box, dims=("y", "x")),
    }
    rngs = [np.random.default_rng([seed, year]) for year in years]
    red = np.stack([rng.random(box.shape, np.float32) for rng in rngs])
    codes = np.stack([rng.choice(np.array([0, 61, 200], "u1"), box.shape) for rng in rngs])
    height = np.random.default_rng(seed).random(box.shape, np.float32)
    kept = {
        "series_hash": "s", "collection": "c",
        "item_ids": [f"scene-{y}" for y in years], "item_years": list(years),
        "items_by_year": {str(y): f"{items}-{seed}-{y}" for y in years},
    }  # fmt: skip
    dims = ("time", "y", "x")
    return xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs={"site_id": "sim-001", "recipe": "t"}),
            "imagery": xr.Dataset({"red": (dims, red)}, coords, kept).chunk(y=64),
            "landcover": xr.Dataset({"landcover": (dims, codes)}, coords, kept),
            "terrain": xr.Dataset(
                {"elevation": (dims[1:], height)},
                {k: v for k, v in coords.items() if k != "time"},
                {"series_hash": "s", "items_hash": "dem"},
            ),
        }
    )


def assert_same(a: xr.DataTree, b: xr.DataTree) -> None:
    assert set(a.children) == set(b.children)
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
    (shards,) = array["codecs"]
    assert shards["name"] == "sharding_indexed"
    assert shards["configuration"]["chunk_shape"] == [3, 64, 64]
    assert shards["configuration"]["index_codecs"][-1]["name"] == "crc32c"
    codec = shards["configuration"]["codecs"][-1]
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
    assert identify(a) == identify(make_cube())
    assert identify(a) != identify(make_cube(1))


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


def test_any_folder_name_will_do_but_the_working_folder_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("a[b] c*.zarr", "deep/er/c"):
        save_cube(make_years([2018]), name)
        save_cube(make_years([2019]), name)
        assert_same(make_years([2018, 2019]), load_cube(name, verify=True))
    for name in (".", "..", Path()):
        with pytest.raises(InputError, match="name a folder in it"):
            save_cube(make_cube(), name)


def test_a_cube_without_grid_or_nodes_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no nodes"):
        save_cube(xr.DataTree(), tmp_path / "c.zarr")
    plain = xr.Dataset({"landcover": (("time", "y", "x"), np.zeros((1, 2, 2), "u1"))})
    with pytest.raises(InputError, match="spatial_ref"):
        save_cube(xr.DataTree.from_dict({"landcover": plain}), tmp_path / "c.zarr")


@pytest.mark.parametrize("kind", ["folder", "objects"])
def test_a_place_gives_a_name_to_one_writer_only(tmp_path: Path, kind):
    place = Folder(tmp_path / "c") if kind == "folder" else Bucket(MemoryStore())
    assert place.read("years/a") is None
    with ThreadPoolExecutor(4) as pool:
        first = list(pool.map(lambda i: place.create("years/a", b"%d" % i), range(8)))
    assert first.count(True) == 1
    assert place.read("years/a") == b"%d" % first.index(True)
    place.replace("years/a", b"0123456789")
    place.replace("b", b"")
    assert place.read("years/a", 2, 5) == b"234"
    assert place.sizes() == {"years/a": 10, "b": 0}
    assert place.sizes("years") == {"years/a": 10}
    assert [p.name for p in tmp_path.iterdir()] == (["c"] if kind == "folder" else [])


# ---- growing by years ----------------------------------------------------------------


def test_opened_cubes_of_more_and_more_years_make_one_store(tmp_path: Path):
    _, sites = simulate_mines(tmp_path / "m", sites=1, years=range(2018, 2022))
    recipe, site = tmp_path / "m" / "recipe.toml", sites.iloc[[0]]
    for last in (2019, 2021):
        path = save_cube(open_cube(site, recipe, years=(2018, last)), tmp_path / "c.zarr")
    cube = open_cube(site, recipe)
    before = snapshot(path)
    save_cube(cube, path)
    assert snapshot(path) == before
    grown = load_cube(path, verify=True)
    assert (path / "years" / "2021").is_dir()
    for name, node in cube.children.items():
        xr.testing.assert_equal(
            grown[name].to_dataset(inherit=False).compute(),
            node.to_dataset(inherit=False).compute(),
        )
        assert sorted(grown[name].attrs["item_ids"]) == sorted(node.attrs["item_ids"])
    # an item that changed is told by its year
    (item,) = (tmp_path / "m").rglob("landcover_2020.json")
    item.write_text(item.read_text().replace('"landcover_2020"', '"landcover_2020_v2"'))
    with pytest.raises(StoreError, match="its landcover 2020 has the key"):
        save_cube(open_cube(site, recipe), path)


def snapshot(path: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in path.rglob("*")}


@pytest.mark.parametrize(
    "saves",
    [
        [[2018, 2019], [2020]],
        [[2018, 2019], [2018, 2019, 2020, 2021]],
        [[2019], [2021], [2018], [2020]],
    ],
)
def test_a_store_that_grew_is_the_cube_of_all_years(tmp_path: Path, saves):
    for years in saves:
        path = save_cube(make_years(years), tmp_path / "c.zarr")
    every = sorted({year for years in saves for year in years})
    grown = load_cube(path, verify=True)
    assert_same(make_years(every), grown)
    assert grown["terrain/elevation"].dims == ("y", "x")
    assert grown["imagery"].attrs["items_by_year"] == {str(y): f"i-0-{y}" for y in every}
    assert sorted(grown["imagery"].attrs["item_ids"]) == [f"scene-{y}" for y in every]
    # series are read along time, so it is one chunk
    assert len(grown["imagery/red"].chunks[0]) == 1
    before = snapshot(path)
    save_cube(make_years(every), path)
    save_cube(make_years(every[:1]), path)
    assert snapshot(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.zarr"]


def test_only_years_that_are_new_are_computed(tmp_path: Path):
    path = save_cube(make_years([2018, 2019]), tmp_path / "c.zarr")
    cube = make_years([2018, 2019, 2020])
    seen = []

    def watch(block: np.ndarray, block_info=None) -> np.ndarray:
        seen.append(block_info[0]["array-location"][0])
        return block

    red = cube["imagery/red"]
    lazy = red.copy(data=red.chunk(time=1).data.map_blocks(watch, dtype=red.dtype))
    cube["imagery"] = cube["imagery"].to_dataset().assign(red=lazy)
    seen.clear()
    save_cube(cube, path)
    assert set(seen) == {(2, 3)}


def test_plain_zarr_readers_see_added_years_once_they_are_complete(tmp_path: Path):
    path = save_cube(make_years([2018, 2019]), tmp_path / "c.zarr")
    save_cube(make_years([2020]), path)
    with xr.open_datatree(path, engine="zarr") as plain:
        assert plain["imagery/red"].sizes["time"] == 2
        np.testing.assert_array_equal(
            plain["years/2020/imagery/red"], make_years([2020])["imagery/red"]
        )
        assert plain["years/2020/imagery"].attrs["item_ids"] == ["scene-2020"]
        # what has no year was written once
        assert set(plain["years/2020"].children) == {"imagery", "landcover"}


def test_a_year_from_other_items_is_refused_and_replaced_only_when_asked(tmp_path: Path):
    path = save_cube(make_years([2018, 2019, 2020]), tmp_path / "c.zarr")
    save_cube(make_years([2021]), path)
    changed = make_years([2020], items="reprocessed")
    changed["imagery/red"] = 1 - changed["imagery/red"]
    before = snapshot(path)
    with pytest.raises(StoreError, match=r"imagery 2020 has the key \w{16}, this one \w{16}"):
        save_cube(changed, path)
    assert snapshot(path) == before
    save_cube(changed, path, resume=False)
    new = load_cube(path, verify=True)
    old = make_years([2018, 2019, 2020, 2021])["imagery/red"].values
    old[2] = 1 - old[2]
    np.testing.assert_array_equal(new["imagery/red"], old)
    assert new["imagery"].attrs["items_by_year"]["2020"] == "reprocessed-0-2020"
    assert new["imagery"].attrs["items_by_year"]["2018"] == "i-0-2018"
    # what was merged is known: saving either again changes nothing
    before = snapshot(path)
    save_cube(changed, path)
    save_cube(make_years([2018, 2021]), path)
    assert snapshot(path) == before


@pytest.mark.parametrize("what", ["settings", "site", "grid", "node", "variables"])
def test_years_of_another_series_are_refused(tmp_path: Path, what):
    path = save_cube(make_years([2018, 2019]), tmp_path / "c.zarr")
    other = make_years([2020])
    image = other["imagery"].to_dataset()
    if what == "settings":
        image.attrs["series_hash"] = "t"
    elif what == "site":
        other.attrs["site_id"] = "sim-002"
    elif what == "grid":
        image = image.assign_coords(x=image.x + 30)
    elif what == "node":
        other["lights"] = image.rename(red="ntl")
    else:
        image["nir"] = image.red
    other["imagery"] = image
    with pytest.raises(StoreError, match=r"holds another cube: its (imagery|landcover|lights)"):
        save_cube(other, path)


def test_a_year_that_one_node_lacked_is_not_stored_twice(tmp_path: Path):
    """Land cover of 1995 came late: the imagery of that year is not repeated beside it."""
    whole = make_years([1990, 1995, 2000])
    early = whole.copy()
    early["landcover"] = xr.DataTree(make_years([1990, 2000])["landcover"].to_dataset())
    path = tmp_path / "c.zarr"
    save_cube(early, path)
    with pytest.raises(StoreError, match="1995 is committed without some of the cube's nodes"):
        save_cube(whole, path)
    save_cube(whole, path, resume=False)
    for name in ("imagery", "landcover"):
        xr.testing.assert_equal(load_cube(path)[name].to_dataset(), whole[name].to_dataset())


def test_two_writers_of_one_year(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The second publishes while the first still writes."""
    from minetrace.store import save

    path = save_cube(make_years([2018]), tmp_path / "c.zarr")
    write = save.write_unit

    def overtaken(*args, **kwargs):
        monkeypatch.setattr(save, "write_unit", write)
        save_cube(make_years([2019], seed=first), path)
        return write(*args, **kwargs)

    first = 0
    monkeypatch.setattr(save, "write_unit", overtaken)
    save_cube(make_years([2019]), path)
    assert_same(make_years([2018, 2019]), load_cube(path, verify=True))

    other = save_cube(make_years([2018]), tmp_path / "d.zarr")
    path, first = other, 1
    other_year = make_years([2019], seed=1)["imagery/red"]
    monkeypatch.setattr(save, "write_unit", overtaken)
    with pytest.raises(StoreError, match="2019 was committed by another writer"):
        save_cube(make_years([2019]), path)
    np.testing.assert_array_equal(load_cube(path)["imagery/red"][1], other_year[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.zarr", "d.zarr"]


def test_a_year_that_is_committed_while_the_cube_is_replaced_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from minetrace.store import save

    path = save_cube(make_years([2018, 2019]), tmp_path / "c.zarr")
    write = save.write_unit

    def meanwhile(*args, **kwargs):
        monkeypatch.setattr(save, "write_unit", write)
        save_cube(make_years([2020]), path)
        return write(*args, **kwargs)

    monkeypatch.setattr(save, "write_unit", meanwhile)
    save_cube(make_years([2018, 2019]), path, resume=False)
    assert_same(make_years([2018, 2019, 2020]), load_cube(path, verify=True))


def test_a_damaged_store_is_not_mended_with_fewer_years_than_it_had(tmp_path: Path):
    path = save_cube(make_years([2018, 2019]), tmp_path / "c.zarr")
    save_cube(make_years([2020]), path)
    chunk = path / "imagery" / "red" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(StoreError, match="Save a cube that has imagery 2018, imagery 2019"):
        save_cube(make_years([2020, 2021]), path)
    save_cube(make_years([2018, 2019, 2020]), path)
    assert_same(make_years([2018, 2019, 2020]), load_cube(path, verify=True))


def test_a_write_that_was_cut_off_is_named_and_no_part_of_the_cube(tmp_path: Path):
    path = save_cube(make_years([2018]), tmp_path / "c.zarr")
    left = tmp_path / ".c.zarr.elsewhere.1.aa"
    left.mkdir()
    assert load_cube(path).attrs["unfinished"] == [left.name]
    # it may be another machine's, at work
    save_cube(load_cube(path), tmp_path / "d.zarr")
    save_cube(make_years([2018]), path)
    assert left.is_dir()
    assert "unfinished" not in load_cube(tmp_path / "d.zarr").attrs
    (tmp_path / ".e.zarr.h.1.aa").mkdir()
    with pytest.raises(StoreError, match=r"no finished cube: \.e\.zarr\.h\.1\.aa beside it"):
        load_cube(tmp_path / "e.zarr")


# ---- reading -------------------------------------------------------------------------


def test_opening_computes_nothing_and_a_small_read_is_small(
    tmp_path: Path, no_compute, monkeypatch: pytest.MonkeyPatch
):
    rng = np.random.default_rng(1)
    box = GeoBox.from_bbox((0, 0, 600, 600), "EPSG:32622", resolution=1)
    red = rng.random((8, 600, 600), np.float32)
    coords = {"time": np.arange("2011", "2019", dtype="M8[Y]").astype("M8[ns]"), **xr_coords(box)}
    cube = xr.DataTree.from_dict(
        {"imagery": xr.Dataset({"red": (("time", "y", "x"), red)}, coords)}
    )
    with dask.config.set(scheduler="sync"):
        path = save_cube(cube, tmp_path / "c.zarr")
    again = load_cube(path)
    assert again["imagery/red"].chunks == ((8,), (256, 256, 88), (512, 88))
    read = []
    monkeypatch.setattr(
        Folder, "read", lambda self, name, start=0, stop=None, plain=Folder.read: (
            read.append(plain(self, name, start, stop)) or read[-1]
        ),
    )  # fmt: skip
    with dask.config.set(scheduler="sync"):
        part = again["imagery/red"][:, 64:128, 64:128].values
    np.testing.assert_array_equal(part, red[:, 64:128, 64:128])
    # 128 KiB of pixels: the piece or two that they lie in, and that of the index
    assert 0 < sum(map(len, read)) <= 3 * PIECE
    whole = (path / "imagery" / "red" / "c" / "0" / "0" / "0").stat().st_size
    assert whole > 20 * PIECE


@pytest.fixture(scope="module")
def stored_arrays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoredArray]:
    """Arrays of a unit by name: in chunks of a file, in a file that is one chunk, and a number."""
    path = save_cube(make_cube(), tmp_path_factory.mktemp("arrays") / "c.zarr")
    unit = CheckedUnit(Folder(path), *unseal((path / "zarr.json").read_bytes(), unit="", where=""))
    names = ("imagery/red", "imagery/x", "imagery/spatial_ref")
    return {name: stored_array(unit, name, unit.nodes[name]) for name in names}


def one_axis(n: int) -> st.SearchStrategy:
    lists = st.lists(st.integers(0, n - 1), min_size=1, max_size=4)
    return st.integers(0, n - 1) | st.slices(n) | lists


@given(st.tuples(one_axis(3), one_axis(200), one_axis(300)))
@example((slice(None), slice(64, 128), slice(128, 192)))
@example((slice(None), slice(None), slice(None)))
@example((slice(2, 2), slice(None), 0))
def test_an_index_picks_along_each_dimension_by_itself(stored_arrays, key):
    right = make_cube()["imagery/red"].values
    for axis in (2, 1, 0):
        right = right[(slice(None),) * axis + (key[axis],)]
    read = stored_arrays["imagery/red"][key]
    assert read.shape == right.shape
    np.testing.assert_array_equal(read, right)


def test_arrays_of_fewer_dimensions_are_read_too(stored_arrays):
    x = make_cube()["imagery"].x.values
    np.testing.assert_array_equal(stored_arrays["imagery/x"][()], x)
    np.testing.assert_array_equal(stored_arrays["imagery/x"][slice(250, 20, -7),], x[250:20:-7])
    assert stored_arrays["imagery/spatial_ref"][()].shape == ()
    assert stored_arrays["imagery/spatial_ref"][()] == make_cube()["imagery"].spatial_ref


@pytest.mark.parametrize(
    "pick",
    [
        {"time": 1, "y": 70, "x": 299},
        {"y": slice(None, None, -3), "x": [250, 3, 3]},
        {"y": xr.DataArray([199, 0], dims="p"), "x": xr.DataArray([5, 280], dims="p")},
        {"x": slice(40, 40)},
    ],
)
def test_lazy_cubes_are_indexed_like_arrays_in_memory(tmp_path: Path, pick):
    path = save_cube(make_cube(), tmp_path / "c.zarr")
    xr.testing.assert_equal(
        load_cube(path)["imagery/red"].isel(pick).drop_vars("spatial_ref"),
        make_cube()["imagery/red"].isel(pick).drop_vars("spatial_ref"),
    )


def test_what_is_read_is_what_plain_xarray_reads(tmp_path: Path):
    cube = make_years([2018, 2019, 2021])
    land = cube["landcover"].to_dataset()
    land["burnt"] = land["landcover"] == 61
    land["level"] = (
        land["landcover"].astype("f4").assign_attrs(_FillValue=np.float32(61), units="m")
    )
    codes = land["landcover"].values[0].astype("i2")
    land = land.assign_coords(
        gauge=("time", [0.5, np.nan, -1]),
        depth=(("y", "x"), codes - 100),
        season=("time", [1, 2, 3]),
    )
    land.attrs["note"] = ["a", "b"]
    cube["landcover"] = land
    path = save_cube(cube, tmp_path / "c.zarr")
    read = load_cube(path)
    with xr.open_datatree(path, engine="zarr") as plain:
        # coordinates of dimensions and single numbers are in memory, all else is lazy
        assert {k for k, v in read["landcover"].variables.items() if v.chunks is None} == {
            "time", "y", "x", "spatial_ref"
        }  # fmt: skip
        assert np.isnan(plain["landcover/level"]).any()
        assert set(read.children) == set(plain.children)
        for name, node in read.children.items():
            again = plain[name].to_dataset()
            xr.testing.assert_identical(node.to_dataset(), again)
            assert {k: v.dtype for k, v in node.variables.items()} == dict(again.dtypes) | {
                k: v.dtype for k, v in again.coords.items()
            }
    # nobody else holds what was read
    assert read["imagery/red"].values.flags.writeable


def test_tasks_are_named_after_what_they_read(tmp_path: Path):
    def names(path: Path) -> dict[str, str]:
        return {k: load_cube(path)[k].data.name for k in ("imagery/red", "landcover/landcover")}

    path = save_cube(make_cube(), tmp_path / "c.zarr")
    before = names(path)
    assert names(path) == before
    assert len(set(before.values())) == 2
    other = shutil.copytree(path, tmp_path / "d.zarr")
    assert not set(names(other).values()) & set(before.values())
    save_cube(make_cube(1), path, resume=False)
    assert not set(names(path).values()) & set(before.values())


def test_a_file_of_one_piece_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    part = load_cube(save_cube(make_years([2018]), tmp_path / "c.zarr"))["imagery/red"][:, :9, :9]
    read, plain = [], Folder.read
    monkeypatch.setattr(Folder, "read", lambda *args: read.append(args) or plain(*args))
    np.testing.assert_array_equal(part, make_years([2018])["imagery/red"][:, :9, :9])
    assert len(read) == 1


def test_damage_after_a_read_is_found_by_the_next_one_that_needs_those_bytes(tmp_path: Path):
    path = save_cube(make_cube(), tmp_path / "c.zarr")
    file = path / "imagery" / "red" / "c" / "0" / "0" / "0"
    good = file.read_bytes()
    assert len(good) > 2 * PIECE
    lazy = load_cube(path)["imagery/red"]
    parts = [lazy[:, :64, :64], lazy[:, 130:140, 190:195], lazy]
    right = make_cube()["imagery/red"].values
    rights = [right[:, :64, :64], right[:, 130:140, 190:195], right]
    refused = [0, 0, 0]
    spots = range(0, len(good), 20_011)
    for spot in spots:
        for i, part in enumerate(parts):
            np.testing.assert_array_equal(part, rights[i])
            file.write_bytes(good[:spot] + bytes([good[spot] ^ 16]) + good[spot + 1 :])
            try:
                np.testing.assert_array_equal(part, rights[i])
            except StoreError:
                refused[i] += 1
            file.write_bytes(good)
    assert 0 < refused[0] < len(spots)
    assert 0 < refused[1] < len(spots)
    assert refused[2] == len(spots)


def file_of(chunk: bytes) -> bytes:
    """A file with an index, whose six chunks are one and the same."""
    return chunk + np.array([0, len(chunk)] * 6, "<u8").tobytes() + bytes(4)


@pytest.mark.parametrize(
    ("forge", "told"),
    [
        (lambda file: file[:-84] + bytes(80) + file[-4:], "cannot be decoded"),
        (lambda file: file[:-84] + b"\xff" * 80 + file[-4:], "cannot be decoded"),
        (lambda file: file[:-84] + b"\xfe" * 80 + file[-4:], "cannot be decoded"),
        (lambda file: file[-40:], "has no room for its index"),
        (lambda file: file_of(compress(bytes(16380))), "cannot be decoded"),
        (lambda file: file_of(compress(bytes(16388))), "cannot be decoded"),
    ],
)  # fmt: skip
def test_a_foreign_file_that_cannot_be_decoded_is_an_error(tmp_path: Path, forge, told):
    path = save_cube(make_years([2018]), tmp_path / "c.zarr")
    name = "imagery/red/c/0/0/0"
    forged = forge((path / name).read_bytes())
    (path / name).write_bytes(forged)
    reseal(path, lambda meta, red, files: files.update({name: stored(forged)}))
    with pytest.raises(StoreError, match=told):
        load_cube(path)["imagery/red"].compute()


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> tuple[CheckedUnit, bytes]:
    """A unit with one file of several pieces, and its bytes."""
    folder = tmp_path_factory.mktemp("unit")
    data = np.random.default_rng(3).bytes(3 * PIECE + 1000)
    (folder / "f").write_bytes(data)
    manifest = Manifest("", "0", {}, {}, {"f": stored(data)})
    meta = {"consolidated_metadata": {"metadata": {}}}
    return CheckedUnit(Folder(folder), meta, manifest), data


_EDGES = st.sampled_from([0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 1000])
_PLACES = st.one_of(_EDGES, st.integers(0, 3 * PIECE + 2000))


@given(start=_PLACES, stop=_PLACES)
def test_any_part_of_a_file_is_that_part(pieces, start, stop):
    store, data = pieces
    start, stop = sorted((start, stop))
    assert store.fetch("f", start, stop) == data[start:stop]


def test_chunks_that_are_all_gap_are_stored_too_and_a_lost_one_is_no_gap(tmp_path: Path):
    cube = make_years([2018])
    for name in ("imagery/red", "landcover/landcover"):
        cube[name] = cube[name].compute() * np.array(
            np.nan if "red" in name else 0, cube[name].dtype
        )
    path = save_cube(cube, tmp_path / "c.zarr")
    assert_same(cube, load_cube(path))
    opened = load_cube(path)
    for name in ("imagery/red", "landcover/landcover"):
        (path / name / "c" / "0" / "0" / "0").unlink()
        with pytest.raises(StoreError, match="misses its file"):
            opened[name].compute()


def test_a_unit_in_place_of_another_is_refused(tmp_path: Path):
    path = save_cube(make_years([2018]), tmp_path / "c.zarr")
    save_cube(make_years([2020]), path)
    shutil.copytree(path / "years" / "2020", path / "years" / "2021")
    with pytest.raises(StoreError, match="belongs to 'years/2020', not here"):
        load_cube(path)
    with pytest.raises(StoreError, match="belongs to 'years/2020', not here"):
        load_cube(path / "years" / "2020")


def reseal(path: Path, change) -> None:
    """Change root metadata as somebody would who makes a store of his own."""
    meta, manifest = unseal((path / "zarr.json").read_bytes(), unit="", where="")
    change(meta, meta["consolidated_metadata"]["metadata"]["imagery/red"], manifest.files)
    (path / "zarr.json").write_bytes(seal(meta, manifest))


def inner(array: dict) -> dict:
    """Settings of the chunks in a file."""
    return array["codecs"][0]["configuration"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m, red, f: red["codecs"].insert(0, {"name": "pickle"}), "the codec 'pickle'"),
        (
            lambda m, red, f: red["codecs"][0]["configuration"]["codecs"].append({"name": "gzip"}),
            "the codec 'gzip'",
        ),
        (lambda m, red, f: red.update(data_type="object"), "data type 'object'"),
        (lambda m, red, f: red.update(zarr_format=2), "zarr_format 2"),
        (lambda m, red, f: red.update(storage_transformers=[{"name": "x"}]), "transformers"),
        (lambda m, red, f: red.update(shape=[3, 10**12, 10**12]), "no file for the chunk"),
        (lambda m, red, f: red.pop("codecs"), "malformed metadata"),
        (
            lambda m, red, f: red["chunk_grid"].update(
                configuration={"chunk_shape": [9, 9**6, 9**6]}
            ),
            "chunks of 2,541,865,828,329 pixels",
        ),
        (lambda m, red, f: f.update({"../../etc/passwd": f["item.json"]}), "no name of a file"),
        (lambda m, red, f: f.update({"/etc/passwd": f["item.json"]}), "no name of a file"),
        (lambda m, red, f: f.pop("imagery/red/c/0/0/0"), "no file for the chunk imagery/red"),
        (lambda m, red, f: m.update(zarr_format=2), "no zarr v3 group"),
        (lambda m, red, f: red.update(codecs=[]), r"the codecs \[\]"),
        (lambda m, red, f: inner(red)["codecs"].pop(), r"the codecs \['bytes'\]"),
        (lambda m, red, f: inner(red)["codecs"].reverse(), r"the codecs \['zstd', 'bytes'\]"),
        (
            lambda m, red, f: inner(red)["codecs"][0]["configuration"].update(endian="big"),
            "the codecs",
        ),
        (lambda m, red, f: inner(red)["index_codecs"].pop(), r"an index of \['bytes'\] at the end"),
        (lambda m, red, f: inner(red).update(index_location="start"), "at the start"),
        (lambda m, red, f: inner(red).update(chunk_shape=[1, 60, 64]), r"chunks \[1, 60, 64\] in"),
        (lambda m, red, f: inner(red).update(chunk_shape=[1, 64]), r"chunks \[1, 64\] in files"),
        (lambda m, red, f: red.update(dimension_names=["y", "x"]), "the dimensions"),
    ],
)
def test_a_foreign_store_cannot_ask_for_more_than_a_cube_needs(tmp_path: Path, change, told):
    path = save_cube(make_years([2018]), tmp_path / "c.zarr")
    reseal(path, change)
    with pytest.raises(StoreError, match=told):
        load_cube(path)


def test_files_that_nobody_listed_are_not_read_and_are_found(tmp_path: Path):
    path = save_cube(make_years([2018]), tmp_path / "c.zarr")
    (path / "imagery" / "red" / "c" / "0" / "0" / "9").write_bytes(b"planted")
    assert_same(make_years([2018]), load_cube(path))
    with pytest.raises(StoreError, match="1 files differ from the manifest, first imagery/red/c/0"):
        load_cube(path, verify=True)


# ---- STAC ----------------------------------------------------------------------------


def is_valid_core(thing: pystac.Item | pystac.Catalog) -> None:
    """Against the schemas that come with pystac; those of extensions would be fetched."""
    pystac.validation.validate_dict(thing.to_dict(include_self_link=False), extensions=[])


def test_each_unit_has_a_stac_item_that_the_manifest_protects(tmp_path: Path):
    path = save_cube(make_years([2018, 2019]), tmp_path / "c.zarr")
    save_cube(make_years([2020]), path)
    item = pystac.Item.from_file(path / "item.json")
    is_valid_core(item)
    assert item.id == "sim-001"
    assert item.properties["minetrace:years"] == [2018, 2019]
    assert item.properties["start_datetime"] == "2018-01-01T00:00:00Z"
    assert item.properties["end_datetime"] == "2019-12-31T23:59:59Z"
    box = make_years([2018])["imagery"].to_dataset().odc.geobox
    np.testing.assert_allclose(item.bbox, box.geographic_extent.boundingbox.bbox, atol=1e-6)
    image = item.assets["imagery"].to_dict()
    assert image["proj:code"] == "EPSG:32622"
    assert image["proj:shape"] == list(box.shape)
    assert image["proj:transform"] == list(box.affine)[:6]
    assert image["bands"] == [{"name": "red", "data_type": "float32", "nodata": "nan"}]
    assert image["cube:dimensions"]["time"]["values"][0] == "2018-01-01T00:00:00Z"
    assert image["cube:dimensions"]["x"]["extent"] == [box.boundingbox.left, box.boundingbox.right]
    assert image["cube:variables"]["red"]["dimensions"] == ["time", "y", "x"]
    assert "scene-2018" in image["processing:lineage"]
    assert "time" not in item.assets["terrain"].to_dict()["cube:dimensions"]
    later = pystac.Item.from_file(path / "years" / "2020" / "item.json")
    assert later.id == "sim-001-2020"
    assert "scene-2018" not in json.dumps(later.to_dict())
    text = (path / "item.json").read_text()
    (path / "item.json").write_text(text.replace("2019-12-31", "2029-12-31"))
    with pytest.raises(StoreError, match=r"differ from the manifest, first item\.json"):
        load_cube(path, verify=True)


def test_a_folder_of_stores_is_a_catalogue(tmp_path: Path):
    for name in ("a.zarr", "b.zarr"):
        save_cube(make_years([2018, 2019]), tmp_path / name)
    save_cube(make_years([2020]), tmp_path / "b.zarr")
    (tmp_path / "notes").mkdir()
    catalog = pystac.Catalog.from_file(write_catalog(tmp_path))
    assert sorted(i.id for i in catalog.get_items()) == ["sim-001", "sim-001", "sim-001-2020"]
    is_valid_core(catalog)
    asset = next(catalog.get_items()).assets["imagery"]
    assert Path(asset.get_absolute_href()).is_dir()
    with pytest.raises(StoreError, match="no finished store"):
        write_catalog(tmp_path / "notes")


def test_a_folder_of_stores_is_searched_like_any_source(tmp_path: Path, capsys):
    """Each unit is found by place and by any of its years; rasters are not looked for in it."""
    for name in ("a.zarr", "b.zarr"):
        save_cube(make_years([2018, 2019]), tmp_path / name)
    save_cube(make_years([2020]), tmp_path / "b.zarr")
    write_catalog(tmp_path)
    source = open_source(tmp_path)
    west, south, east, north = source.items[0].bbox
    here = shapely.box(west, south, east, north)

    def stores(years):
        return [(saved_cube(item).name, item.id) for item in search(source, here, years)]

    early = [("a.zarr", "sim-001"), ("b.zarr", "sim-001")]
    late = ("b.zarr", "sim-001-2020")
    assert stores((2019, 2019)) == early
    assert stores((2020, 2021)) == [late]
    assert stores(None) == [*early, late]
    assert search(source, shapely.box(east + 1, south, east + 2, north), None) == []
    assert load_cube(saved_cube(source.items[-1])).attrs["site_id"] == "sim-001"
    for item, store in zip(source.items, ("a.zarr", "b.zarr", "b.zarr"), strict=True):
        with pytest.raises(SourceError, match=rf"is a saved cube.*mt\.load_cube\('.*{store}'\)"):
            source.check_href(item, "imagery")
    recipe = load_recipe("landcover_only")
    with pytest.raises(SourceError, match=r"saved cube.*mt\.load_cube"):
        open_cube(here, recipe, sources=source, years=(2018, 2020))
    with pytest.raises(SourceError, match=r"no collection 'x'; its items are saved.*load_cube"):
        search(source, here, None, collection="x")
    with pytest.raises(SystemExit) as done:
        app(["catalog", "check", str(tmp_path)])
    assert not done.value.code
    assert "mt.load_cube" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("crs", "bounds", "bbox"),
    [
        ("EPSG:4326", (179.9, 1, 180.1, 1.2), (179.9, 1, -179.9, 1.2)),
        ("EPSG:32760", (820000, 7900000, 860000, 7940000), None),
        ("EPSG:3413", (-50000, -50000, 50000, 50000), (-180, 89.3, 180, 90)),
    ],
)
def test_footprints_across_the_antimeridian_and_around_a_pole(crs, bounds, bbox):
    from minetrace.store.item import _bbox, footprint

    step = 0.01 if crs == "EPSG:4326" else 1000
    box = GeoBox.from_bbox(bounds, crs, resolution=step)
    ground = footprint(xr.Dataset(coords=xr_coords(box)))
    assert ground.is_valid
    assert ground.bounds[0] >= -180
    assert ground.bounds[2] <= 180
    if bbox:
        np.testing.assert_allclose(_bbox(ground), bbox, atol=0.15)
    # few degrees wide, whatever side of 180° its parts lie on
    assert ground.area < 1 if crs != "EPSG:3413" else ground.area > 100

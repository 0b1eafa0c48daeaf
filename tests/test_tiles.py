"""HDF5 tiles of Black Marble: values, places and gaps as the files state them, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import from_bounds
from shapely.geometry import box

import minetrace as mt
from minetrace.catalog import build_catalog, item_time, open_source, search
from minetrace.cli.app import app
from minetrace.cubes.radiometry import encoding
from minetrace.errors import InputError, SourceError

h5py = pytest.importorskip("h5py", reason="h5py is an extra")

GROUP = "HDFEOS/GRIDS/VIIRS_Grid_DNB_2d/Data Fields"
RADIANCE = "NearNadir_Composite_Snow_Free"
SIDE = 24
"""Pixels of a tile's side; real ones have 2,400."""
COLLECTIONS = {"001": ("u2", 65535, 0.1), "002": ("f4", -999.9, 1.0)}


def name_of(tile="h10v04", date="2019032", product="VNP46A3", collection="001") -> str:
    return f"{product}.A{date}.{tile}.{collection}.2021125122613.h5"


def layers(seed=0, collection="001", side=SIDE) -> dict[str, np.ndarray]:
    """Radiance, counts and quality of a tile, gaps of all kinds among them."""
    rng = np.random.default_rng(seed)
    dtype, fill, _ = COLLECTIONS[collection]
    radiance = rng.integers(0, 500, (side, side)).astype(dtype)
    counts = rng.integers(1, 20, (side, side)).astype("u2")
    quality = (counts <= 3).astype("u1")
    # filled from other dates; nothing at all
    quality[0, :5], counts[0, :5] = 2, 0
    radiance[1, :5], counts[1, :5], quality[1, :5] = fill, 65535, 255
    return {RADIANCE: radiance, f"{RADIANCE}_Num": counts, f"{RADIANCE}_Quality": quality}


def write_h5(path: Path, arrays: dict[str, np.ndarray], *, centres=False, **attrs) -> Path:
    """A tile in the layout of the product; ``attrs`` are further ones of the radiance."""
    column, row = int(path.name[18:20]), int(path.name[21:23])
    collection = path.name.split(".")[3]
    _, fill, scale = COLLECTIONS[collection]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        group = file.create_group(GROUP)
        for field, values in arrays.items():
            data = group.create_dataset(field, data=values, chunks=values.shape, compression="gzip")
            gap = {RADIANCE: fill, f"{RADIANCE}_Num": 65535}.get(field, 255)
            data.attrs["_FillValue"] = np.array([gap], values.dtype)
            data.attrs["long_name"] = np.bytes_("a field")
        data = group[RADIANCE]
        data.attrs["scale_factor"], data.attrs["offset"] = np.float32([scale]), np.float32([0])
        for name, value in attrs.items():
            data.attrs[name] = value
        side = len(arrays[RADIANCE])
        along = (np.arange(side) + centres / 2) * 10 / side
        group["lat"], group["lon"] = 90 - 10 * row - along, along + 10 * column - 180
        file["HDFEOS INFORMATION/StructMetadata.0"] = np.bytes_("GROUP=GridStructure")
    return path


def build(tmp_path: Path, *files: Path, **more):
    profile = more.pop("profile", "black_marble_monthly")
    build_catalog(files, tmp_path / "lights", profile=profile, **more)
    return open_source(tmp_path / "lights")


def stored(source, item, variable) -> tuple[np.ndarray, dict]:
    with rasterio.open(source.check_href(item, variable)) as src:
        return src.read(1), src.profile


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_a_tile_becomes_an_item_of_three_layers(tmp_path: Path, collection: str):
    arrays = layers(collection=collection)
    source = build(tmp_path, write_h5(tmp_path / name_of(collection=collection), arrays))
    (item,) = source.items
    dtype, fill, scale = COLLECTIONS[collection]
    assert item.id == "black_marble_monthly-h10v04-20190201"
    assert item_time(item).date().isoformat() == "2019-02-01"
    assert item.bbox == [-80, 40, -70, 50]
    radiance, profile = stored(source, item, "ntl")
    assert profile["transform"][:6] == pytest.approx((10 / SIDE, 0, -80, 0, -10 / SIDE, 50))
    assert profile["dtype"] == np.dtype(dtype).name
    assert np.float32(profile["nodata"]) == np.float32(fill)
    expected = arrays[RADIANCE].copy()
    expected[0, :5] = fill
    np.testing.assert_array_equal(radiance, expected)
    code = encoding(source, item, "ntl")
    assert (code.nodata, code.scale, code.offset) == (profile["nodata"], scale, 0.0)
    for variable, field, gap in (("n_views", "Num", 65535), ("quality", "Quality", 255)):
        values, profile = stored(source, item, variable)
        np.testing.assert_array_equal(values, arrays[f"{RADIANCE}_{field}"])
        assert encoding(source, item, variable).nodata == profile["nodata"] == gap


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_two_months_of_two_tiles_become_a_year(tmp_path: Path, collection: str):
    """From HDF5 to the annual mean by views, across the edge of two tiles."""
    made, files = {}, []
    for seed, (tile, date) in enumerate(
        (tile, date) for tile in ("h10v04", "h11v04") for date in ("2019032", "2019182")
    ):
        made[tile, date] = layers(seed, collection)
        path = tmp_path / name_of(tile, date, collection=collection)
        files.append(write_h5(path, made[tile, date], centres=True))
    build(tmp_path, *files)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('years = [2019, 2019]\n[lights]\nsource = "lights"\nweight = "n_views"\n')
    # all rows of the northern half, five columns on each side of 70° W
    edge = 5 * 10 / SIDE
    site = box(-70 - edge + 0.01, 45.01, -70 + edge - 0.01, 49.99)
    lights = mt.open_cube(site, recipe)["lights"].to_dataset().compute()
    total, weights, n_months = np.zeros((3, SIDE // 2, 10))
    for date in ("2019032", "2019182"):
        pair = [made[tile, date] for tile in ("h10v04", "h11v04")]
        radiance, counts, quality = (
            np.hstack([pair[0][f][: SIDE // 2, -5:], pair[1][f][: SIDE // 2, :5]]).astype(float)
            for f in pair[0]
        )
        seen = quality < 2
        total += np.where(seen, radiance * COLLECTIONS[collection][2] * counts, 0)
        weights += np.where(seen, counts, 0)
        n_months += seen
    assert (n_months == 0).any()
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(lights.ntl[0], total / weights, rtol=1e-6)
    np.testing.assert_array_equal(lights.n_months[0], n_months)


def test_a_year_is_built_from_the_command(tmp_path: Path, capsys):
    path = write_h5(tmp_path / name_of(date="2019001", product="VJ146A4"), layers())
    with pytest.raises(SystemExit) as done:
        app(["catalog", "build", str(path), "--source", "black_marble_annual", "--out",
             str(tmp_path / "lights")])  # fmt: skip
    assert not done.value.code
    (item,) = search(open_source(tmp_path / "lights"), box(-75, 41, -74, 42), (2019, 2019))
    assert item.common_metadata.end_datetime.year == 2019
    assert set(item.assets) == {"ntl", "n_views", "quality"}
    with pytest.raises(SystemExit):
        app(["catalog", "check", "black_marble_annual"])
    assert "ntl, n_views, quality" in capsys.readouterr().out


@pytest.mark.real
def test_real_lights_lie_on_the_lattice_of_their_tile(real_data, tmp_path: Path):
    """New York, cut out of tile h10v04 by others: put back, each pixel is in its place."""
    with rasterio.open(real_data("raster/usflite_blackmarble_nyc/nightlights.tif")) as src:
        real, bounds = src.read(86), src.bounds
    arrays = {
        RADIANCE: np.full((2400, 2400), 65535, "u2"),
        f"{RADIANCE}_Num": np.full((2400, 2400), 9, "u2"),
        f"{RADIANCE}_Quality": np.zeros((2400, 2400), "u1"),
    }
    row, col = round((50 - bounds.top) * 240), round((bounds.left + 80) * 240)
    arrays[RADIANCE][row : row + 101, col : col + 133] = np.where(np.isnan(real), 65535, real)
    source = build(tmp_path, write_h5(tmp_path / name_of(), arrays))
    with rasterio.open(source.check_href(source.items[0], "ntl")) as src:
        window = from_bounds(*bounds, src.transform)
        back = src.read(1, window=window, masked=True).astype(float).filled(np.nan)
    assert (window.row_off, window.col_off) == pytest.approx((row, col))
    np.testing.assert_array_equal(back, real)


# ── files that are not what they seem ────────────────────────────────────────────────────────────


def spoil(path: Path, how: str) -> None:
    """A sound tile with one fault."""
    if how == "no HDF5":
        path.write_bytes(b"<html>please log in</html>")
        return
    if how == "cut in half":
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        return
    other = path.with_name("other.h5")
    with h5py.File(other, "w") as file:
        file["secret"] = np.ones((SIDE, SIDE), "u2")
    raw = path.with_name("secret.bin")
    raw.write_bytes(bytes(2 * SIDE * SIDE))
    with h5py.File(path, "r+") as file:
        group = file[GROUP]
        old = group[RADIANCE]
        if how in ("lat", "text in lat"):
            values = np.full(SIDE, b"x") if how != "lat" else group["lat"][()][::-1]
            del group["lat"]
            group["lat"] = values
            return
        if how == "wrong gap":
            old.attrs["_FillValue"] = np.int64(70_000)
            return
        if how == "no gap":
            del old.attrs["_FillValue"]
            return
        if how == "no number":
            old.attrs["scale_factor"] = np.bytes_("tenths")
            return
        del group[RADIANCE]
        if how == "external link":
            group[RADIANCE] = h5py.ExternalLink(str(other), "secret")
        elif how == "soft link":
            group[RADIANCE] = h5py.SoftLink(f"/{GROUP}/{RADIANCE}_Num")
        elif how == "external storage":
            group.create_dataset(RADIANCE, (SIDE, SIDE), "u2", external=[(str(raw), 0, 1152)])
        elif how == "virtual":
            layout = h5py.VirtualLayout((SIDE, SIDE), "u2")
            layout[:] = h5py.VirtualSource(str(other), "secret", (SIDE, SIDE))
            group.create_virtual_dataset(RADIANCE, layout)
        elif how == "bomb":
            group.create_dataset(RADIANCE, (10**5, 10**5), "u2", chunks=(10, 10))
        elif how == "large chunk":
            group.create_dataset(
                RADIANCE, (SIDE, SIDE), "u1", maxshape=(None, None), chunks=(2**15, 2**14)
            )
        elif how == "cube":
            group[RADIANCE] = np.ones((2, SIDE, SIDE), "u2")
        elif how == "complex":
            group[RADIANCE] = np.ones((SIDE, SIDE), "c8")
        elif how == "group":
            group.create_group(RADIANCE)
        else:
            assert how == "missing"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no HDF5", "cannot be read as HDF5.*download it again"),
        ("cut in half", "cannot be read as HDF5"),
        ("missing", rf"has no HDFEOS.*{RADIANCE}' should be, it has .*_Num.*lat, lon"),
        ("external link", f"'{RADIANCE}' of HDFEOS.*is a link"),
        ("soft link", "is a link"),
        ("external storage", "lie in another file"),
        ("virtual", "lie in another file"),
        ("bomb", r"has \(100000, 100000\) values.*at most 256 MiB"),
        ("large chunk", "at most 256 MiB"),
        ("cube", "is uint16 with 3 dimensions"),
        ("complex", "is complex64"),
        ("group", "is no array"),
        ("lat", r"its lat runs from \[40.*h10v04 of its name begins at 50; was it renamed"),
        ("text in lat", "its lat runs from"),
        ("wrong gap", "the _FillValue 70000 of .* is no uint16"),
        ("no gap", "has no gap value"),
        ("no number", "attribute scale_factor is"),
    ],
)
def test_tiles_that_are_not_what_they_seem_are_refused(tmp_path: Path, how: str, message: str):
    path = write_h5(tmp_path / name_of(), layers())
    spoil(path, how)
    with pytest.raises(SourceError, match=message) as caught:
        build(tmp_path, path)
    assert path.name in str(caught.value)
    assert not (tmp_path / "lights").exists()


def test_a_renamed_tile_is_refused(tmp_path: Path):
    path = write_h5(tmp_path / name_of("h10v04"), layers())
    with pytest.raises(SourceError, match=r"tile h10v05 of its name begins at 40"):
        build(tmp_path, path.rename(tmp_path / name_of("h10v05")))
    with pytest.raises(SourceError, match="there is no h36v04"):
        build(tmp_path, tmp_path / name_of("h36v04"))


def test_tiles_are_neither_linked_nor_read_without_h5py(tmp_path: Path, monkeypatch):
    path = write_h5(tmp_path / name_of(), layers())
    with pytest.raises(InputError, match="build without link"):
        build(tmp_path, path, link=True)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"pip install 'minetrace\[hdf5\]'"):
        build(tmp_path, path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('match = "(?P<year>.)"\nfields = { ntl = "a" }', "need the groups 'h', 'v'"),
        ('match = "(?P<h>.)(?P<v>.)(?P<year>.)"\nfields = { ntl = "a" }\nvariable = "ntl"',
         "one of variable, variables and fields"),
        ('match = "(?P<h>.)(?P<v>.)(?P<year>.)"\nfields = { ntl = "a" }\n'
         "unseen = { ntl = { flag = [2] } }", "unseen names flag"),
    ],
)  # fmt: skip
def test_patterns_of_tiles_are_checked(tmp_path: Path, text: str, fault: str):
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\nkind = "files"\nhref = "h"\n[[files]]\n{text}\n')
    with pytest.raises(SourceError, match=fault):
        open_source(path)

"""A STAC item for each committed unit, and a catalogue over a folder of stores."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import pystac
import xarray as xr
from pyproj import Transformer
from shapely import MultiPolygon, Polygon, box, make_valid, unary_union
from shapely.affinity import translate
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from minetrace._version import __version__
from minetrace.catalog.source import CUBE_YEARS
from minetrace.errors import StoreError
from minetrace.store.manifest import ROOT, unit_names, unseal
from minetrace.store.place import Folder

ITEM = "item.json"
EXTENSIONS = [
    "https://stac-extensions.github.io/datacube/v2.2.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
]
ZARR = "application/vnd.zarr; version=3"


def cube_item(cube: xr.DataTree, *, unit: str) -> dict[str, Any]:
    """STAC item of a cube, or of the part of it that makes one unit of a store.

    Each node is an asset with the grid of its own. Sources are named by collection and item id;
    addresses are left out, since they may be signed.
    """
    nodes = {n: c.to_dataset(inherit=False) for n, c in cube.children.items()}
    ground = unary_union([footprint(ds) for ds in nodes.values()])
    times = [t for ds in nodes.values() if "time" in ds.dims for t in ds["time"].values]
    years = sorted({int(str(t)[:4]) for t in times})
    site = str(cube.attrs.get("site_id") or "cube")
    item = pystac.Item(
        id="-".join([site, *unit.split("/")[1:]]),
        geometry=mapping(ground),
        bbox=_bbox(ground),
        datetime=None,
        properties={
            # STAC asks for a span even of ground that has no date
            "start_datetime": _instant(min(times)) if years else "1900-01-01T00:00:00Z",
            "end_datetime": f"{years[-1] if years else 2100}-12-31T23:59:59Z",
            "processing:software": {"minetrace": __version__},
            CUBE_YEARS: years,
            **{f"minetrace:{k}": str(v) for k, v in cube.attrs.items() if k in _TEXTS},
        },
        stac_extensions=EXTENSIONS,
        assets={name: _asset(name, ds) for name, ds in nodes.items()},
    )
    return item.to_dict(include_self_link=False, transform_hrefs=False)


_TEXTS = ("site_id", "recipe", "recipe_hash")


def write_catalog(folder: str | Path) -> Path:
    """Write ``catalog.json``, which lists the items of all stores in a folder.

    Parameters
    ----------
    folder
        Folder whose direct subfolders are stores; others are left out. Links are relative, so
        that the folder may be moved.

    Returns
    -------
    Path
        The catalogue, a static STAC catalogue.

    Raises
    ------
    StoreError
        No subfolder is a finished store, or one is damaged.
    """
    root = Path(folder)
    catalog = pystac.Catalog(root.resolve().name, f"Cubes saved by minetrace {__version__}")
    for path in sorted(p.parent for p in root.glob(f"*/{ITEM}") if (p.parent / ROOT).is_file()):
        place = Folder(path)
        for unit in ("", *sorted(unit_names(list(place.sizes("years"))))):
            text = place.read(f"{unit}/{ROOT}" if unit else ROOT)
            if text is None:
                continue
            unseal(text, unit=unit, where=f"{path}/{unit}".rstrip("/"))
            href = "/".join(filter(None, (".", path.name, unit, ITEM)))
            catalog.add_link(pystac.Link("item", href, "application/geo+json"))
    if not catalog.get_item_links():
        raise StoreError(f"{root} holds no finished store; save cubes into its subfolders")
    part = root / f".catalog.json.{os.getpid()}"
    part.write_text(json.dumps(catalog.to_dict(include_self_link=False), indent=1), "utf-8")
    return part.replace(root / "catalog.json")


def _asset(name: str, ds: xr.Dataset) -> pystac.Asset:
    grid = ds.odc.geobox
    epsg = grid.crs.to_epsg()
    kept = ("source", "collection", "item_ids", "items_hash", "recipe_hash", "legend_hash")
    return pystac.Asset(
        href=f"./{name}",
        media_type=ZARR,
        roles=["data"],
        extra_fields={
            "proj:code": f"EPSG:{epsg}" if epsg else None,
            **({} if epsg else {"proj:wkt2": grid.crs.to_wkt()}),
            "proj:shape": list(grid.shape),
            "proj:transform": list(grid.affine)[:6],
            "proj:bbox": list(grid.boundingbox.bbox),
            "cube:dimensions": _dimensions(ds),
            "cube:variables": {
                str(v.name): {"dimensions": list(v.dims), "type": "data", **_texts(v)}
                for v in ds.data_vars.values()
            },
            "bands": [_band(v) for v in ds.data_vars.values()],
            "processing:lineage": "; ".join(
                f"{k} {', '.join(v) if isinstance(v, list | tuple) else v}"
                for k, v in ds.attrs.items()
                if k in kept and v
            ),
        },
    )


def _dimensions(ds: xr.Dataset) -> dict[str, Any]:
    grid = ds.odc.geobox
    west, south, east, north = grid.boundingbox.bbox
    reference = grid.crs.to_epsg() or grid.crs.to_wkt()
    space = {
        axis: {
            "type": "spatial", "axis": axis, "extent": extent, "step": float(step),
            "reference_system": reference,
        }
        for axis, extent, step in (
            ("x", [west, east], grid.resolution.x), ("y", [south, north], grid.resolution.y)
        )
    }  # fmt: skip
    if "time" not in ds.dims:
        return space
    days = [_instant(t) for t in ds["time"].values]
    return {"time": {"type": "temporal", "extent": [min(days), max(days)], "values": days}, **space}


def _band(var: xr.DataArray) -> dict[str, Any]:
    gap = {"nodata": "nan"} if var.dtype.kind == "f" else {}
    return {"name": str(var.name), "data_type": str(var.dtype), **gap, **_texts(var)}


def _texts(var: xr.DataArray) -> dict[str, str]:
    names = {"long_name": "description", "units": "unit"}
    return {there: str(var.attrs[here]) for here, there in names.items() if here in var.attrs}


def _instant(time: np.datetime64) -> str:
    return f"{np.datetime_as_string(time, unit='s')}Z"


def footprint(ds: xr.Dataset) -> BaseGeometry:
    """Outline of a grid in longitude and latitude, split at 180° where it crosses it."""
    grid = ds.odc.geobox
    to_degrees = Transformer.from_crs(grid.crs.proj, "EPSG:4326", always_xy=True)
    a = grid.affine
    column, row = np.asarray(grid.boundary(17)).T
    lon, lat = to_degrees.transform(a.a * column + a.b * row + a.c, a.d * column + a.e * row + a.f)
    # an edge that jumps by nearly a turn crosses 180°
    lon = np.unwrap(lon, period=360)
    if abs(lon[-1] - lon[0]) > 180:
        # once round: a pole lies inside
        pole = np.copysign(90, lat[0])
        return box(-180, min(pole, *lat), 180, max(pole, *lat))
    outline = make_valid(Polygon(np.column_stack([lon, lat])))
    turns = (translate(outline, shift) for shift in (-360, 0, 360))
    parts = [p & box(-180, -90, 180, 90) for p in turns]
    return unary_union([p for p in parts if p.area])


def _bbox(ground: BaseGeometry) -> list[float]:
    west, south, east, north = ground.bounds
    if isinstance(ground, MultiPolygon) and east - west > 180:
        # as GeoJSON has it: the first longitude is that of the western edge, east of the other
        west = min(p.bounds[0] for p in ground.geoms if p.bounds[0] > 0)
        east = max(p.bounds[2] for p in ground.geoms if p.bounds[2] <= 0)
    return [float(v) for v in (west, south, east, north)]

"""Simulated mines with known truth: the demonstration, and the oracle of the whole chain."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from operator import index
from pathlib import Path

import geopandas as gpd

from minetrace.errors import InputError
from minetrace.simulate.products import IMAGERY_YEARS, LAYERS, LIGHTS_YEARS
from minetrace.simulate.scenario import make_mines
from minetrace.simulate.truth import truth_table
from minetrace.simulate.write import write_products, write_recipe, write_tables

__all__ = ["simulate_mines"]

MARKER = ".minetrace-simulation"
_MAX_SITES = 400


def simulate_mines(
    out: str | Path, *, sites: int = 5, years: Iterable[int] = range(1985, 2023), seed: int = 0
) -> tuple[Path, gpd.GeoDataFrame]:
    """Simulate mines and the satellite products that see them, with the truth about both.

    The scripts are a growing pit, a reclaimed one, untouched forest, natural desert, a plant
    that shows in night lights alone, an abandoned pit under moss, a pit older than the first
    layer, and one that opens between two five-yearly layers; they repeat with other shapes and
    sizes. The same arguments give the same files, byte for byte.

    Parameters
    ----------
    out
        Folder to write. A folder with an earlier simulation is replaced with all that it holds;
        any other that is not empty is refused.
    sites
        How many mines, 1 to 400.
    years
        Years to simulate. Land cover has the layers of GLC_FCS30D (1985, 1990, 1995, yearly
        2000-2022), imagery starts in 2018 and night lights in 2013; all end in 2022. Trends are
        those of the last five years.
    seed
        Not negative.

    Returns
    -------
    catalog : Path
        ``catalog.json``, a static STAC catalogue with the collections ``landcover`` (uint8
        classes, nodata 0, EPSG:4326, about 30 m), ``imagery`` (uint16 counts, nodata 0, with
        scale and offset, 20 m, UTM, and the scene classification ``scl``) and ``lights``
        (float32 nW cm⁻² sr⁻¹, nodata NaN, 15 arc-seconds). ``recipe.toml``, ``sites.gpkg``,
        ``truth.gpkg`` and ``truth.csv`` lie beside it.
    truth : GeoDataFrame
        EPSG:4326, one row per site: ``site_id, name, kind, status, stage, bsp_trend,
        ndvi_trend, ntl_trend, first_disturbance_year`` (may precede the first layer),
        ``first_disturbance_layer`` (first layer with 1 % of the site laid bare since the first) and
        ``bsp_YYYY``, the bare share of the site for each layer. All come from the scripts and
        the areas of their polygons, none from the rasters.

    Raises
    ------
    InputError
        No sites, no layer in ``years``, a negative seed, or an ``out`` that is not ours to
        replace.

    Notes
    -----
    Land-cover classes and layers follow Zhang et al. (GLC_FCS30D, doi:10.5194/essd-16-1353-2024),
    the decision tree behind ``status`` that of Xu et al.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     catalog, truth = simulate_mines(f"{folder}/demo", sites=2, years=[2010, 2011, 2012])
    ...     sorted(p.name for p in catalog.parent.iterdir())[1:]
    ['catalog.json', 'landcover', 'recipe.toml', 'sites.gpkg', 'truth.csv', 'truth.gpkg']
    >>> truth[["kind", "bsp_2012"]].round(2).values.tolist()
    [['growing_pit', 0.28], ['reclaimed', 0.5]]
    """
    chosen = sorted({index(y) for y in years})
    layers = [y for y in LAYERS if y in chosen]
    _check(sites, layers, seed)
    folder = Path(out).resolve()
    _refuse_foreign(folder)
    mines = make_mines(sites, seed)
    products = {
        "landcover": layers,
        "imagery": [y for y in IMAGERY_YEARS if y in chosen],
        "lights": [y for y in LIGHTS_YEARS if y in chosen],
    }
    last = min(chosen[-1], LAYERS[-1])
    window = range(max(chosen[0], last - 4), last + 1)
    truth = truth_table(mines, window, products)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        made = Path(scratch, "new")
        made.mkdir()
        write_products(made, mines, products, seed)
        write_tables(made, truth)
        write_recipe(made / "recipe.toml", range(chosen[0], last + 1), window, products)
        settings = {"sites": sites, "years": chosen, "seed": seed}
        made.joinpath(MARKER).write_text(json.dumps(settings) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(Path(scratch, "old"))
        made.rename(folder)
    return folder / "catalog.json", truth


def _check(sites: int, layers: Sequence[int], seed: int) -> None:
    if not 1 <= sites <= _MAX_SITES:
        raise InputError(f"{sites} sites were asked for; simulate 1 to {_MAX_SITES}")
    if not layers:
        raise InputError(
            "none of the years has a land-cover layer; include 1985, 1990, 1995 or a year from "
            f"2000 to {LAYERS[-1]}"
        )
    if seed < 0:
        raise InputError(f"the seed {seed} is negative; use 0 or more")


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder to write the simulation into")
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise InputError(
            f"{folder} holds files that no simulation wrote; give an empty or new folder"
        )

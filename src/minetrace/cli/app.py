"""Verbs: parse, call, write. Exit codes: 0 complete, 3 recorded gaps, 1 failed, 2 usage."""

from __future__ import annotations

import logging
import os
import sys
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from minetrace._version import __version__
from minetrace.errors import InputError, MinetraceError


class Exit(IntEnum):
    """Exit codes of every verb."""

    COMPLETE = 0
    FAILED = 1
    USAGE = 2
    GAPS = 3


class Product(StrEnum):
    """What a run makes."""

    PANEL = "panel"
    MAPS = "maps"
    TRENDS = "trends"
    CUBES = "cubes"


def _exit(code: int, **options: object) -> None:
    """Turn the code that every verb returns into the process's own."""
    raise typer.Exit(code)


app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Trace surface mines through time.", result_callback=_exit,
)  # fmt: skip
sites_app = typer.Typer(no_args_is_help=True, help="Check and merge site files.")
catalog_app = typer.Typer(no_args_is_help=True, help="Build, check and search catalogues.")
app.add_typer(sites_app, name="sites")
app.add_typer(catalog_app, name="catalog")

OutDir = Annotated[Path, typer.Option("--out", help="Output folder.")]
SitesFile = Annotated[Path, typer.Option("--sites", help="Vector file of mine polygons.")]
RecipeName = Annotated[str, typer.Option("--recipe", help="Recipe name or TOML file.")]
Layer = Annotated[str | None, typer.Option(help="Layer of the site file.")]
IdColumn = Annotated[str | None, typer.Option(help="Column that holds site ids.")]


def main() -> None:
    """Run the command line and exit with its code."""
    # a raster that is really a virtual one could name any file; GDAL reads this once, on loading
    os.environ.setdefault("GDAL_SKIP", "VRT")
    # what could not be read is in the failures table; odc would print it once more per attempt
    logging.getLogger("odc.loader").setLevel(logging.CRITICAL)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except MinetraceError as fault:
        _complain(str(fault))
        sys.exit(Exit.FAILED)
    except OSError as fault:
        _complain(f"{fault.filename}: {fault.strerror}" if fault.filename else str(fault))
        sys.exit(Exit.FAILED)
    except KeyboardInterrupt:
        _complain("interrupted; what was committed stays")
        sys.exit(Exit.FAILED)


def _complain(text: str) -> None:
    from minetrace.cli import console

    console.err.print(f"minetrace: {text}", style="red", markup=False, soft_wrap=True)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"minetrace {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Trace surface mines through time."""


@app.command()
def demo(
    out: OutDir = Path("demo"),
    sites: Annotated[int, typer.Option(min=1, help="Mines to simulate.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 0,
) -> int:
    """Simulate mines with known truth, run everything on them, write report.html."""
    from minetrace.cli.demo import run_demo

    return run_demo(out, sites=sites, seed=seed)


@app.command()
def doctor() -> int:
    """Print versions, GDAL drivers and what is missing."""
    from minetrace.cli.doctor import diagnose

    return diagnose()


@app.command()
def run(
    sites: SitesFile,
    recipe: RecipeName,
    out: OutDir,
    layer: Layer = None,
    id_column: IdColumn = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Units at a time.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="threads, processes, or the address of a dask scheduler."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Most that a process may take, as 8GB.")
    ] = None,
    product: Annotated[
        list[Product] | None,
        typer.Option(help="What is made; may be repeated. Default: panel and maps."),
    ] = None,
    maps: Annotated[
        bool | None,
        typer.Option("--maps/--no-maps", help="Maps of change by pixel, or none of them."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the units and stop.")] = False,
    resume: Annotated[bool, typer.Option(help="Reuse committed units.")] = True,
    report: Annotated[bool, typer.Option(help="Write report.html, of a panel.")] = True,
) -> int:
    """Trace every site of a file: tables and report, maps, rasters of trends, cubes."""
    from minetrace.cli import console
    from minetrace.cli.batch import bytes_of, print_plan, products_of, stop_on_signals
    from minetrace.report import write_report
    from minetrace.run import run_sites
    from minetrace.schema import load_recipe
    from minetrace.sites import read_sites

    loaded = load_recipe(recipe)
    limit = bytes_of(memory)
    frame = read_sites(sites, layer=layer, id_column=id_column)
    products = products_of(product, maps)
    if plan:
        print_plan(frame, loaded, products, scheduler=scheduler, workers=workers, memory=limit)
        return Exit.COMPLETE
    with stop_on_signals() as stop, console.progress("tracing") as [step]:
        result = run_sites(
            frame, loaded, out, products=products, scheduler=scheduler, workers=workers,
            memory=limit, resume=resume, progress=step, stop=stop,
        )  # fmt: skip
    console.out.print(
        f"{result.n_sites} sites traced, {result.n_reused} of {result.n_units} units "
        f"reused, {len(result.failures)} gaps recorded",
        markup=False,
    )
    if result.n_elsewhere:
        console.out.print(
            f"{result.n_elsewhere} units were committed meanwhile, by another run or a worker that "
            "died"
        )
    if report and "panel" in products:
        console.out.print(str(write_report(out)), markup=False, soft_wrap=True)
    return Exit.COMPLETE if result.complete else Exit.GAPS


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Output folder of a run.")]) -> int:
    """Write the self-contained report.html of a run."""
    from minetrace.cli import console
    from minetrace.report import write_report

    console.out.print(str(write_report(folder)), markup=False, soft_wrap=True)
    return Exit.COMPLETE


@app.command()
def cube(
    site: Annotated[str, typer.Argument(help="Site id in the site file.")],
    recipe: RecipeName,
    sites: SitesFile,
    out: Annotated[str, typer.Option("--out", help="Store: a folder, or s3://bucket/prefix.")],
    layer: Layer = None,
    id_column: IdColumn = None,
    resume: Annotated[bool, typer.Option(help="Keep the years that the store has.")] = True,
    catalog: Annotated[
        bool, typer.Option("--catalog", help="List the stores of the folder in catalog.json.")
    ] = False,
) -> int:
    """Save the cube of one site as zarr v3, or add its new years to a store."""
    from minetrace.cli import console
    from minetrace.cubes import open_cube
    from minetrace.store import save_cube, write_catalog

    if catalog and "://" in out:
        raise InputError("--catalog lists the stores of a local folder, and --out is an address")
    opened = open_cube(_site(sites, site, layer, id_column), recipe)
    console.out.print(str(save_cube(opened, out, resume=resume)), markup=False, soft_wrap=True)
    if catalog:
        console.out.print(str(write_catalog(Path(out).parent)), markup=False, soft_wrap=True)
    missing = str(opened.attrs["missing"])
    if missing:
        console.out.print(f"no items for: {missing}", markup=False)
    return Exit.GAPS if missing else Exit.COMPLETE


@sites_app.command("check")
def sites_check(
    file: Annotated[Path, typer.Argument(help="Vector file.")],
    layer: Layer = None,
    id_column: IdColumn = None,
) -> int:
    """Read a site file as the engine would and say what it repairs or leaves out."""
    from minetrace.cli import console
    from minetrace.sites import read_sites

    frame = read_sites(file, layer=layer, id_column=id_column)
    console.table(frame[["site_id", "area_km2", "source", "country"]].head(20), f"{file.name}")
    rejected, repaired = frame.attrs.get("rejected", []), frame.attrs.get("repaired", [])
    console.out.print(
        f"{len(frame)} sites, {frame.area_km2.sum():,.2f} km², "
        f"{len(repaired)} repaired, {len(rejected)} left out",
        markup=False,
    )
    for row in rejected:
        console.out.print(f"  row {row['row']}: {row['reason']}", markup=False, soft_wrap=True)
    return Exit.GAPS if rejected else Exit.COMPLETE


@sites_app.command("merge")
def sites_merge(
    files: Annotated[list[Path], typer.Argument(help="Vector files.")],
    out: Annotated[Path, typer.Option("--out", help="GeoParquet to write.")],
) -> int:
    """Join several files: overlapping and touching polygons become one site."""
    from minetrace.cli import console
    from minetrace.panel import write_geoparquet
    from minetrace.sites import merge_sites, read_sites

    frames = [read_sites(f) for f in files]
    merged = merge_sites(*frames)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_geoparquet(merged, out)
    console.out.print(
        f"{sum(map(len, frames))} polygons → {len(merged)} sites, "
        f"{merged.area_km2.sum():,.2f} km²: {out}",
        markup=False,
        soft_wrap=True,
    )
    return Exit.GAPS if any(f.attrs.get("rejected") for f in frames) else Exit.COMPLETE


@catalog_app.command("list")
def catalog_list() -> int:
    """List the sources that ship with minetrace."""
    from minetrace.cli.catalog import list_sources

    list_sources()
    return Exit.COMPLETE


@catalog_app.command("build")
def catalog_build(
    files: Annotated[list[Path], typer.Argument(help="Rasters (bands are times) or HDF5 tiles.")],
    out: OutDir,
    source: Annotated[
        str | None, typer.Option(help="Known product, as glc_fcs30d, or your own TOML.")
    ] = None,
    product: Annotated[
        Literal["landcover", "lights", "imagery", "terrain"] | None,
        typer.Option(help="Cube node; default landcover."),
    ] = None,
    variable: Annotated[str | None, typer.Option(help="Cube variable (imagery: a band).")] = None,
    legend: Annotated[str | None, typer.Option(help="Check class codes against it.")] = None,
    times: Annotated[
        Path | None, typer.Option(help="CSV with a column `date`, one row per band.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Physical = stored × scale + offset; default 1.")
    ] = None,
    offset: Annotated[float | None, typer.Option(help="See --scale; default 0.")] = None,
    link: Annotated[bool, typer.Option(help="Leave the rasters where they are.")] = False,
) -> int:
    """Turn plain rasters into a static STAC catalogue."""
    from minetrace.catalog import build_catalog
    from minetrace.cli import console

    with console.progress("layers") as [step]:
        path = build_catalog(
            files, out, profile=source, product=product, variable=variable, legend=legend,
            times=None if times is None else _dates(times), scale=scale, offset=offset, link=link,
            progress=lambda done, total: step(done, total, ""),
        )  # fmt: skip
    console.out.print(str(path), markup=False, soft_wrap=True)
    return Exit.COMPLETE


def _dates(path: Path) -> list[str]:
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=str)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as err:
        raise InputError(f"{path} is no CSV with a column 'date': {err}") from err
    if "date" not in frame:
        raise InputError(f"{path} has no column 'date'; it has {', '.join(frame.columns)}")
    return [str(date) for date in frame["date"]]


@catalog_app.command("check")
def catalog_check(
    name: Annotated[str, typer.Argument(help="Source name or path.")],
    collection: Annotated[str | None, typer.Option(help="Collection to look in.")] = None,
) -> int:
    """Ask a source for one item and say which bands, hosts or keys are missing."""
    from minetrace.cli.catalog import check_source

    return Exit.COMPLETE if check_source(name, collection) else Exit.GAPS


@catalog_app.command("search")
def catalog_search(
    name: Annotated[str, typer.Argument(help="Source name or path.")],
    years: Annotated[str, typer.Option(help="first:last, both included.")],
    bbox: Annotated[str | None, typer.Option(help="west,south,east,north in degrees.")] = None,
    site: Annotated[str | None, typer.Option(help="Site id in --sites, instead of --bbox.")] = None,
    sites: Annotated[Path | None, typer.Option(help="Vector file of mine polygons.")] = None,
    collection: Annotated[str | None, typer.Option(help="Collection to search.")] = None,
    layer: Layer = None,
    id_column: IdColumn = None,
) -> int:
    """List the items of a source for a box or a site and a span of years."""
    from shapely.geometry import box

    from minetrace.cli.catalog import search_source

    first, last = _numbers(years, ":", 2, "--years first:last")
    if bbox is not None and site is None and sites is None:
        west, south, east, north = _numbers(bbox, ",", 4, "--bbox west,south,east,north")
        place = box(west, south, east, north)
        if west > east:
            place = box(west, south, 180, north).union(box(-180, south, east, north))
    elif bbox is None and site is not None and sites is not None:
        place = _site(sites, site, layer, id_column).geometry.iloc[0]
    else:
        raise typer.BadParameter("give either --bbox, or --site with --sites")
    some = search_source(name, place, (int(first), int(last)), collection)
    return Exit.COMPLETE if some else Exit.GAPS


def _site(file: Path, site: str, layer: str | None, id_column: str | None) -> Any:
    """Row of one site of a file."""
    from minetrace.sites import read_sites

    frame = read_sites(file, layer=layer, id_column=id_column)
    row = frame[frame.site_id == site]
    if row.empty:
        raise InputError(f"{file} has no site {site!r}; `minetrace sites check` lists the ids")
    return row


def _numbers(text: str, sep: str, count: int, usage: str) -> list[float]:
    try:
        values = [float(v) for v in text.split(sep)]
    except ValueError:
        values = []
    if len(values) != count:
        raise typer.BadParameter(f"give {usage}, not {text!r}")
    return values

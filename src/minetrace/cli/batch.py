"""What a batch run needs of the command line: sizes, and signals that end it cleanly."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import typer

from minetrace.cli import console

if TYPE_CHECKING:
    import geopandas as gpd

    from minetrace.schema import Recipe

_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30,
          "ti": 2**40}  # fmt: skip


def bytes_of(text: str | None) -> int | None:
    """Bytes of a size such as ``8GB``, ``512MiB`` or a number.

    Examples
    --------
    >>> bytes_of("8GB"), bytes_of("1.5 GiB"), bytes_of("4096")
    (8000000000, 1610612736, 4096)
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]i?|)b?\s*", text.lower())
    try:
        size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    except ValueError:
        size = 0
    if size < 1:
        raise typer.BadParameter(f"give a size such as 8GB or 512MiB, not {text!r}")
    return size


def products_of(named: Sequence[str] | None, maps: bool | None) -> tuple[str, ...]:
    """Products of a run: the named ones or the usual, with or without maps if that is said.

    Examples
    --------
    >>> products_of(None, None), products_of(None, False), products_of(["trends"], True)
    (('panel', 'maps'), ('panel',), ('trends', 'maps'))
    """
    wanted = dict.fromkeys(named or ("panel", "maps"))
    if maps:
        wanted["maps"] = None
    elif maps is False:
        wanted.pop("maps", None)
    return tuple(wanted)


def print_plan(
    sites: gpd.GeoDataFrame, recipe: Recipe, products: Sequence[str], *,
    scheduler: str | None, workers: int | None, memory: int | None,
) -> None:  # fmt: skip
    """Print what a run would do and take; refuse one that needs more than ``memory``."""
    from minetrace.cubes import open_sources
    from minetrace.run import plan_units
    from minetrace.run.batch import units_at_once
    from minetrace.run.budget import budget, size_text
    from minetrace.run.plan import CUBES, check_products

    check_products(products, recipe)
    sources = open_sources(recipe if CUBES in products else recipe.annual)
    units = plan_units(sites, recipe, sources, products=products)
    cost = budget(sites, units, recipe, sources, units_at_once=units_at_once(scheduler, workers))
    kinds = ", ".join(
        f"{n} of {product} (up to {size_text(cost.product_bytes[product])})"
        for product, n in cost.n_units.items()
    )
    lines = [f"{cost.n_sites} sites in {len(units)} units, each one task: {kinds}"]
    if cost.n_blocks:
        lines.append(
            f"land cover: {cost.n_blocks:,} blocks to decode, {size_text(cost.decoded_bytes)} "
            f"({size_text(cost.stored_bytes)} in local files)"
        )
    lines.append(
        f"memory: up to {size_text(cost.peak_bytes)} a process, which does {cost.units_at_once} "
        f"units at a time, {size_text(cost.unit_bytes)} the largest"
    )
    for line in lines:
        console.out.print(line, markup=False, soft_wrap=True)
    cost.require(memory)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Event that SIGTERM and Ctrl-C set: units in hand are finished. A second Ctrl-C interrupts."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()
        console.err.print("stopping: units in hand are finished first")

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Draw docs/figures/clouds.png: a scene raw, masked and composited; a quarry and its mask.

Called by make_figures.py.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

import minetrace as mt
from minetrace.cubes import native_grid
from minetrace.cubes.scenes import clear_scenes
from minetrace.schema import ImageryRecipe

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "real"))
from scenes import GROUND, QUARRY, inside, read_stack, with_quarry, write_scenes

TARGET = Path(__file__).parent / "figures" / "clouds.png"
YEAR, YEARS = 2018, range(2016, 2021)
BANDS = ("blue", "green", "red", "nir")
MASKS: dict[str, dict[str, object]] = {
    "no mask": {},
    "mask": {"mask": "scl"},
    "mask, keep_bright": {"mask": "scl", "keep_bright": True},
}
COLOURS = {"mask": "#b2182b", "mask, keep_bright": "#2166ac"}
GROUND_NDVI = (GROUND["B8"] - GROUND["B4"]) / (GROUND["B8"] + GROUND["B4"])
DPI = 110


def draw_clouds(netcdf: Path) -> Path:
    """Draw the cube as it is above, with a quarry laid into it below."""
    real = read_stack(netcdf)
    quarry, clear = with_quarry(real)
    with tempfile.TemporaryDirectory() as folder:
        plain = days_of(real, YEAR, Path(folder) / "real")
        laid = {year: days_of(quarry, year, Path(folder) / str(year)) for year in YEARS}
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    axes = figure.subplots(2, 3)
    cloudy = cloudiest_half(plain)
    picture(axes[0, 0], plain["no mask"].isel(time=cloudy), f"{day(plain['mask'], cloudy)}, raw")
    picture(axes[0, 1], plain["mask"].isel(time=cloudy), "the same, masked")
    picture(axes[0, 2], plain["mask"].median("time"), f"median of {YEAR}, masked")
    for ax, name in zip(axes[1], COLOURS, strict=False):
        views = laid[YEAR][name].red.notnull().sum("time")
        shown = ax.imshow(views, cmap="viridis", vmin=0, vmax=24)
        decorate(ax, f"clear views of {YEAR}, {name}")
        figure.colorbar(shown, ax=ax, location="bottom", shrink=0.8, pad=0.02).ax.tick_params(
            labelsize=7
        )
    errors(axes[1, 2], laid)
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET, dpi=DPI)
    few = Image.open(TARGET).convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE)
    few.save(TARGET, optimize=True)
    report(real, laid, clear)
    return TARGET


def days_of(stack: xr.Dataset, year: int, folder: Path) -> dict[str, xr.Dataset]:
    """Scenes of a year on the stack's pixels, by mask."""
    catalog = write_scenes(stack.isel(time=stack.time.dt.year.values == year), folder)
    source = mt.open_source(catalog)
    grid = native_grid(source.items, "red")
    out = {}
    for name, options in MASKS.items():
        part = ImageryRecipe.model_validate({"source": str(catalog), "bands": BANDS, **options})
        found = clear_scenes(source, source.items, part, grid)
        rows, cols = inside(found, stack)
        out[name] = found.isel(y=rows, x=cols).compute()
    return out


def cloudiest_half(scenes: dict[str, xr.Dataset]) -> int:
    """Day that is partly masked and where what is masked stands out most from what is not."""
    masked = scenes["mask"].red.isnull()
    share = masked.mean(("y", "x")).values
    raw = scenes["no mask"].red
    contrast = (raw.where(masked).mean(("y", "x")) - raw.where(~masked).mean(("y", "x"))).values
    return int(np.nanargmax(np.where((share > 0.3) & (share < 0.7), contrast, np.nan)))


def day(scenes: xr.Dataset, at: int) -> str:
    return str(scenes.time.values[at])[:10]


def picture(ax: Axes, scene: xr.Dataset, title: str) -> None:
    """True colour, hidden pixels white with a grey hatch behind."""
    colours = np.stack([scene[b].values for b in ("red", "green", "blue")], axis=-1)
    ax.set_facecolor("#d9d9d9")
    shown = np.clip(colours / 0.16, 0, 1) ** 0.8
    alpha = np.isfinite(shown).all(axis=-1).astype(float)
    ax.imshow(np.dstack([np.nan_to_num(shown), alpha]))
    decorate(ax, title)


def decorate(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize=9)
    ax.set_xticks([])
    ax.set_yticks([])


def errors(ax: Axes, laid: dict[int, dict[str, xr.Dataset]]) -> None:
    """How far the annual NDVI of the quarry's pixels is from that of the ground."""
    rows, cols = QUARRY
    for i, (name, colour) in enumerate(COLOURS.items()):
        found = [
            mt.ndvi(scenes[name].isel(y=rows, x=cols).median("time")) - GROUND_NDVI
            for scenes in laid.values()
        ]
        rms = [float(np.sqrt((e**2).mean())) for e in found]
        ax.bar(np.arange(len(YEARS)) + 0.4 * i - 0.2, rms, 0.38, color=colour, label=name)
        for x, (e, height) in enumerate(zip(found, rms, strict=True)):
            if missing := float(e.isnull().mean()):
                ax.text(
                    x + 0.4 * i - 0.2, np.nan_to_num(height), f"{missing:.0%} no view", rotation=90,
                    fontsize=6, ha="center", va="bottom",
                )  # fmt: skip
    ax.set_xticks(range(len(YEARS)), [str(year) for year in YEARS])
    ax.tick_params(labelsize=7)
    ax.set_title("error of the quarry's annual NDVI (RMS)", fontsize=9)
    ax.legend(fontsize=7, frameon=False)
    ax.spines[["top", "right"]].set_visible(False)


def report(
    real: xr.Dataset, laid: dict[int, dict[str, xr.Dataset]], clear: NDArray[np.bool_]
) -> None:
    """Say what the docs quote."""
    rows, cols = QUARRY
    for year, scenes in laid.items():
        truth = clear[real.time.dt.year.values == year][:, rows, cols]
        for name in COLOURS:
            seen = scenes[name].red.notnull().values[:, rows, cols]
            sys.stdout.write(
                f"{year} {name}: {seen[truth].mean():.1%} of clear views, "
                f"{seen[~truth].mean():.1%} of the hidden ones\n"
            )


__all__ = ["draw_clouds"]

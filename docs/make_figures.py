"""Draw the figures of the README and the docs.

``demo.png`` from the output folder of the demo: run ``make demo``, then
``.venv/bin/python docs/make_figures.py demo``. ``clouds.png`` from the Sentinel-2 cube of the real
data: ``.venv/bin/python docs/make_figures.py sentinel2_cube_subset_romania_10m.nc``.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from cloud_figure import draw_clouds
from matplotlib.figure import Figure
from PIL import Image

from minetrace.report import RunFolder, load_run
from minetrace.report.figures import site_maps, site_series
from minetrace.report.maps import MapIndex, index_maps
from minetrace.report.style import WIDTH
from minetrace.schema import PRODUCTS

DPI = 150
SITES = {"sim-001": "A pit that grows", "sim-002": "A mine that is reclaimed"}
TARGET = Path(__file__).parent / "figures" / "demo.png"


def draw(demo: Path) -> Path:
    """Draw one column a site: its maps above its series."""
    run = load_run(demo / "run")
    maps = index_maps(run.maps)
    sheet = grid([column(run, maps, site_id, title) for site_id, title in SITES.items()])
    TARGET.parent.mkdir(exist_ok=True)
    few = sheet.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(TARGET, optimize=True)
    return TARGET


def column(run: RunFolder, maps: MapIndex, site_id: str, title: str) -> list[Image.Image]:
    """Heading, maps and series of one site."""
    row = run.table[run.table["site_id"] == site_id].iloc[0]
    layers = {product: run.info.years_of(product) for product in PRODUCTS}
    if run.legend is None:
        raise SystemExit(f"{run.path} has no land cover: it is no output of the demo")
    sheet = site_maps(
        row.geometry, maps, legend=run.legend, layers=layers["landcover"], years=run.info.years
    )
    series = site_series(
        run.panel, row, transition_areas=run.transition_areas, layers=layers,
        status_years=run.info.status.years, alpha=run.info.status.alpha,
    )  # fmt: skip
    if sheet is None:
        raise SystemExit(f"{run.path} has no map of {site_id}")
    heading = Figure(figsize=(WIDTH, 0.34))
    heading.text(0.5 / WIDTH, 0.4, f"{title}: {row['status']}", fontsize=12, weight="bold")
    return [pixels(heading), pixels(sheet), pixels(series)]


def pixels(figure: Figure) -> Image.Image:
    """Rasterise a figure."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    return Image.open(out).convert("RGB")


def grid(columns: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Put pictures side by side, each row as high as its highest picture."""
    gap = DPI // 4
    width = columns[0][0].width + gap
    heights = [max(cell.height for cell in row) for row in zip(*columns, strict=True)]
    sheet = Image.new("RGB", (width * len(columns) - gap, sum(heights)), "white")
    for x, cells in enumerate(columns):
        for y, cell in enumerate(cells):
            sheet.paste(cell, (x * width, sum(heights[:y])))
    return sheet


if __name__ == "__main__":
    given = Path(sys.argv[1])
    made = draw_clouds(given) if given.suffix == ".nc" else draw(given)
    sys.stdout.write(f"{made}\n")

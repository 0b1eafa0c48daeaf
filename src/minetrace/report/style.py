"""One look for every figure: colours, marks, type, and the two ways to write a figure out.

The status and cover colours are those of Okabe and Ito (Color Universal Design, 2008), which
stay apart in the common colour-vision deficiencies; years are shown by a part of viridis.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from PIL import Image

WIDTH = 7.2
"""Width of a full-width figure in inches: two columns of a journal."""

INK = "#1a1a1a"
MUTED = "#5c5c5c"
HAIRLINE = "#d8d8d8"
OBSERVED = "#eceae6"
"""Land that was observed and where nothing of interest happened."""
UNKNOWN_CLASS = "#8a8a8a"


@dataclass(frozen=True)
class Mark:
    """How a status is drawn: never by colour alone."""

    color: str
    marker: str
    """Marker of matplotlib."""


STATUS_MARKS: dict[str, Mark] = {
    "active": Mark("#D55E00", "^"),
    "closed": Mark("#0072B2", "s"),
    "undefined": Mark("#5c5c5c", "o"),
}
COVER_COLORS: dict[str, str] = {
    "cropland": "#E69F00",
    "forest": "#009E73",
    "shrubland": "#CC79A7",
    "grassland": "#F0E442",
    "sparse": "#B9B3A8",
}
SERIES_COLORS: dict[str, str] = {"bsp": "#A3480A", "ndvi": "#00754F", "ntl": "#1F4E8C"}

_RC: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.0,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a class name is a dollar sign
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 8.0,
    "axes.linewidth": 0.6,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 5.0,
    "axes.titley": 1.0,  # searching the place takes a fifth of the drawing time
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": HAIRLINE,
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handlelength": 1.2,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.4,
    "lines.linewidth": 1.1,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "minetrace",
}


styled = mpl.rc_context(_RC)
"""Decorator: draw under this look, then put the user's own settings back."""


def year_colors() -> Colormap:
    """Colour map of years: viridis without the pale end that vanishes on paper."""
    full = mpl.colormaps["viridis_r"]
    return ListedColormap([full(0.06 + 0.94 * i / 255) for i in range(256)], "minetrace_years")


@styled
def to_svg(figure: Figure) -> bytes:
    """Figure as SVG; equal figures give equal bytes."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


@styled
def to_png(figure: Figure, *, dpi: int = 170) -> bytes:
    """Figure as PNG of at most 256 colours: enough for maps, at a third of the size."""
    full = io.BytesIO()
    figure.savefig(full, format="png", dpi=dpi, pil_kwargs={"compress_level": 0})
    image = Image.open(full).convert("RGB")
    out = io.BytesIO()
    image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(out, "PNG")
    return out.getvalue()

"""Which cells of a grid each site covers, and how much of each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from minetrace.errors import InputError
from minetrace.grid import area_spline
from minetrace.kernels.coverage import cover_runs
from minetrace.kernels.runs import Runs
from minetrace.kernels.strips import Cells, cell_areas
from minetrace.zones.outline import on_grid, polygon_parts, require_north_up, site_ids

Coverage = Literal["fraction", "centre"]
"""``fraction``: the exact share of each pixel; ``centre``: pixels whose centre lies inside."""

_WINDOW_CELLS = 2**22
_PARTS = 30
"""Binary digits of a pixel's area and of its share that enter sums."""


@dataclass(frozen=True, eq=False)
class Zones:
    """Coverage weights of sites, kept as runs of cells along the rows of a grid.

    Only cells that a site covers in part store a weight. The cells of a site are in order row by
    row from the top, each row from the left.
    """

    site_ids: tuple[str, ...]
    runs: Runs
    edge: NDArray[np.int64]
    """int64 ``(run,)``: place of the run's first weight in ``partial``, -1 for whole cells."""
    partial: NDArray[np.float64]
    """Shares of the partial cells inside the site, above 0 and below 1."""
    shape: tuple[int, int]
    """Rows and columns of the grid."""

    def __len__(self) -> int:
        return len(self.site_ids)

    @property
    def n_cells(self) -> int:
        """Cells of all sites; a cell of two sites counts twice."""
        return int(self._lengths.sum())

    @property
    def offsets(self) -> NDArray[np.int64]:
        """int64 ``(site + 1,)``: the cells of site i are ``offsets[i]:offsets[i + 1]``."""
        return np.append(self.runs.cell, self.n_cells)[self.runs.offsets]

    @property
    def rows(self) -> NDArray[np.int32]:
        """int32 ``(cell,)``, written out at each call."""
        return np.repeat(self.runs.row, self._lengths)

    @property
    def cols(self) -> NDArray[np.int32]:
        """int32 ``(cell,)``, written out at each call."""
        from_cell = np.repeat(self.runs.start - self.runs.cell, self._lengths)
        return (np.arange(from_cell.size) + from_cell).astype(np.int32)

    @property
    def weight(self) -> NDArray[np.float64]:
        """Share of each cell inside its site, written out at each call."""
        weight = np.ones(self.n_cells)
        weight[np.repeat(self.edge >= 0, self._lengths)] = self.partial
        return weight

    @property
    def _lengths(self) -> NDArray[np.int32]:
        return self.runs.stop - self.runs.start


def cover(sites: gpd.GeoDataFrame, geobox: GeoBox, *, coverage: Coverage = "fraction") -> Zones:
    """Share of every grid cell inside every site.

    Parameters
    ----------
    sites
        Polygons in any CRS, with a unique ``site_id``. Sites may overlap: each gets its full
        share. A row whose geometry is missing, empty, not finite or off the grid gets no cells.
    geobox
        North-up grid.
    coverage
        ``"fraction"`` for exact shares, ``"centre"`` for whole pixels by their centre. A centre
        on the common edge of two sites belongs to one of them.

    Returns
    -------
    Zones
        Rows in the order of ``sites``.

    Raises
    ------
    GridError
        The grid is rotated, not north-up, or has no CRS.
    SiteError
        No ``site_id`` column, repeated ids, or no CRS.
    InputError
        Unknown ``coverage``.

    Notes
    -----
    Straight edges of the sites' own CRS bend on the grid: they are divided until they stray from
    the true curve by less than 1/1000 pixel. Where an edge is divided depends on that edge alone,
    so sites that share it share every point of it. Shares are exact in float64; those within
    1e-10 of 0 or 1 are taken for 0 or 1, so the parts of a partition add up to the whole to about
    1e-9.

    Examples
    --------
    >>> from shapely.geometry import box
    >>> grid = GeoBox.from_bbox((0, 0, 3, 3), "EPSG:32622", shape=(3, 3))
    >>> sites = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[box(0.5, 0.5, 2.5, 2.5)],
    ...                          crs="EPSG:32622")
    >>> zones = cover(sites, grid)
    >>> float(zones.weight.sum()), zones.weight[:3].tolist()
    (4.0, [0.25, 0.5, 0.25])
    """
    if coverage not in get_args(Coverage):
        raise InputError(f"coverage is {coverage!r}; use one of {get_args(Coverage)}")
    require_north_up(geobox)
    ids = site_ids(sites)
    parts, owner = polygon_parts(sites.geometry.to_numpy())
    xy, rings, polygons = on_grid(parts, sites.crs, geobox)
    zones = polygons[np.searchsorted(owner, np.arange(len(ids) + 1))]
    n_rows, n_cols = int(geobox.shape[0]), int(geobox.shape[1])
    offsets, table, partial = cover_runs(
        xy, rings, zones, n_rows, n_cols, coverage == "centre", _WINDOW_CELLS
    )
    row, start, stop = np.ascontiguousarray(table[:, :3].T, np.int32)
    cell = np.cumsum(stop - start, dtype=np.int64) - (stop - start)
    edge = np.ascontiguousarray(table[:, 3])
    # a copy, as the buffer has room for more
    return Zones(ids, Runs(offsets, row, start, stop, cell), edge, partial.copy(), (n_rows, n_cols))


def cell_km2(zones: Zones, geobox: GeoBox) -> NDArray[np.float64]:
    """Area on the ellipsoid of the part of every cell that lies inside its site, km².

    Areas are rounded to a power of two of about a billionth of a pixel. Sums of up to some 8
    million pixels are therefore exact: their order, and any division of them, changes no digit.
    """
    area: NDArray[np.float64] = cell_areas(cells_on(zones, geobox))
    side = 111.32 if geobox.crs is not None and geobox.crs.geographic else 1e-3
    pixel = abs(geobox.affine.a * geobox.affine.e) * side**2
    parts = 2.0 ** (_PARTS - math.floor(math.log2(pixel)))
    area *= parts / 1e6
    np.rint(area, out=area)
    area /= parts
    return area


def cell_shares(zones: Zones) -> NDArray[np.float64]:
    """Share of every cell inside its site, in whole multiples of 2⁻³⁰.

    Sums up to 8 million cells are exact, as those of `cell_km2` are.
    """
    share = zones.weight
    share *= 2.0**_PARTS
    np.rint(share, out=share)
    share /= 2.0**_PARTS
    return share


def cells_on(zones: Zones, geobox: GeoBox) -> Cells:
    """Cells of the zones as the kernels take them, or `InputError` for another grid."""
    if tuple(geobox.shape) != zones.shape:
        raise InputError(
            f"the zones were made for a grid of {zones.shape} pixels, the data have "
            f"{tuple(geobox.shape)}: call cover() with the data's own grid"
        )
    return Cells(zones.runs, zones.edge, zones.partial, *area_spline(geobox))

"""Rings around sites, as polygons: statistics of the surroundings on any layer's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import geopandas as gpd
import numpy as np
import shapely
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from minetrace.errors import InputError, SiteError
from minetrace.grid import transformer, utm_crs
from minetrace.sites.outline import LONLAT, mend, require_lonlat

_DENSE = 0.001
"""Degrees between the points of straight edges when they are projected."""
_EDGE_M = 250.0
"""Longest edge of a ring, metres: it bends when it goes back to degrees."""
_ARC = 64
"""Segments of a quarter circle; a chord strays 0.01 % of the distance."""


def site_rings(
    sites: gpd.GeoDataFrame, *, distances_m: Sequence[float] = (1000.0, 5000.0, 10000.0)
) -> gpd.GeoDataFrame:
    """Rings of ground around each site: from its outline to the first distance, and so on.

    Rings lie outside the site, but may hold other sites and overlap the rings of neighbours. Feed
    them to `minetrace.zonal_statistics` as sites.

    Parameters
    ----------
    sites
        Sites in EPSG:4326 with a ``site_id``.
    distances_m
        Outer limits, metres, increasing.

    Returns
    -------
    GeoDataFrame
        One row a site and ring, EPSG:4326: ``site_id`` (``"<site>:<ring>"``, unique), ``around``
        (id of the site), ``ring`` (1, 2, …), ``from_m``, ``to_m``, ``geometry``. Distances are
        those of the site's UTM zone, true to 0.1 %, as in a cube's ``/rings``.

    Raises
    ------
    InputError, SiteError
        Distances that do not increase from above 0; a CRS other than EPSG:4326; a ring round a
        pole.

    Examples
    --------
    >>> from shapely.geometry import box
    >>> pit = gpd.GeoDataFrame({"site_id": ["a"]}, geometry=[box(10, 0, 10.01, 0.01)], crs=4326)
    >>> site_rings(pit, distances_m=[500, 2000])[["site_id", "around", "from_m", "to_m"]]
      site_id around  from_m    to_m
    0     a:1      a     0.0   500.0
    1     a:2      a   500.0  2000.0
    """
    limits = [0.0, *map(float, distances_m)]
    if len(limits) < 2 or (np.diff(limits) <= 0).any() or not np.isfinite(limits).all():
        raise InputError(f"distances_m are {list(distances_m)}; give increasing metres above 0")
    require_lonlat(sites.crs, "rings need sites")
    rows = [
        {"site_id": f"{site_id}:{i}", "around": site_id, "ring": i, "from_m": near, "to_m": far,
         "geometry": ring}
        for site_id, geometry in zip(sites["site_id"], sites.geometry, strict=True)
        for i, (near, far, ring) in enumerate(_rings(str(site_id), geometry, limits), 1)
    ]  # fmt: skip
    columns = ["site_id", "around", "ring", "from_m", "to_m", "geometry"]
    return gpd.GeoDataFrame(rows, columns=columns, geometry="geometry", crs=LONLAT)


def _rings(
    site_id: str, geometry: BaseGeometry, limits: Sequence[float]
) -> list[tuple[float, float, BaseGeometry]]:
    plane = str(utm_crs(geometry))
    dense = shapely.segmentize(geometry, _DENSE)
    site = shapely.make_valid(_projected(dense, transformer(LONLAT, plane)))
    back = transformer(plane, LONLAT)
    inner, out = site, []
    for near, far in pairwise(limits):
        outer = site.buffer(far, quad_segs=_ARC)
        ring = shapely.segmentize(shapely.difference(outer, inner), _EDGE_M)
        made, why = mend(_projected(ring, back))
        if made is None:
            raise SiteError(f"site {site_id!r}: the ring to {far:g} m is {why}")
        out.append((near, far, made))
        inner = outer
    return out


def _projected(shape: BaseGeometry, to: Transformer) -> BaseGeometry:
    return shapely.transform(shape, lambda xy: np.column_stack(to.transform(xy[:, 0], xy[:, 1])))

"""Mine polygons: read, repair, identify, measure and merge them.

A site is a Polygon or MultiPolygon in EPSG:4326 with ``site_id, geometry, area_km2, source,
country``. A fault of the file is a `SiteError`; a fault of one row leaves that row out, names it
in ``attrs["rejected"]`` and warns once.
"""

from minetrace.sites.merge import merge_sites
from minetrace.sites.outline import geodesic_area_km2
from minetrace.sites.read import SiteWarning, read_sites
from minetrace.sites.rings import site_rings

__all__ = ["SiteWarning", "geodesic_area_km2", "merge_sites", "read_sites", "site_rings"]

"""The figures of the report, for notebooks too.

Each function returns a matplotlib Figure that belongs to no pyplot state: as the last value of a
notebook cell it shows itself (under ``%matplotlib inline``), and ``figure.savefig("name.pdf")``
writes it.
"""

from minetrace.report.atlas import site_maps, status_map
from minetrace.report.charts import ChangeRates, annual_change, change_rates, site_series

__all__ = [
    "ChangeRates", "annual_change", "change_rates", "site_maps", "site_series", "status_map",
]  # fmt: skip

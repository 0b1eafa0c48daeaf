"""Land disturbance and reclamation from yearly land cover."""

from minetrace.change.areas import (
    bare_surface_percentage,
    class_areas,
    land_account,
    land_sums,
    transition_areas,
)
from minetrace.change.codes import code_kinds, refuse_unknown
from minetrace.change.pixels import transitions
from minetrace.change.sums import LandAccount, LandSums, sum_land

__all__ = [
    "LandAccount", "LandSums", "bare_surface_percentage", "class_areas", "code_kinds",
    "land_account", "land_sums", "refuse_unknown", "sum_land", "transition_areas", "transitions",
]  # fmt: skip

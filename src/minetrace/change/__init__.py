"""Land disturbance and reclamation from yearly land cover."""

from minetrace.change.areas import (
    LandAccount,
    bare_surface_percentage,
    class_areas,
    land_account,
    transition_areas,
)
from minetrace.change.pixels import transitions

__all__ = [
    "LandAccount", "bare_surface_percentage", "class_areas", "land_account", "transition_areas",
    "transitions",
]  # fmt: skip

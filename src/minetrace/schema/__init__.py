"""The nouns of minetrace: legends, cube variables, table columns, recipes."""

from minetrace.schema.legend import COVERS, GROUPS, UNKNOWN, Kind, LandClass, Legend, load_legend
from minetrace.schema.recipe import (
    ChangeRecipe,
    Composite,
    ImageryRecipe,
    LandcoverRecipe,
    LightsRecipe,
    Recipe,
    RingsRecipe,
    StatusRecipe,
    TerrainRecipe,
    load_recipe,
)
from minetrace.schema.tables import (
    FAILURES,
    SITE_PANEL,
    SITE_TABLE,
    SITES,
    STAGES,
    STATUSES,
    TRANSITION_AREAS,
    check_table,
)
from minetrace.schema.variables import (
    BANDS,
    CHANGE,
    NODES,
    PRODUCTS,
    TREND,
    Variable,
    fill_value,
    label,
    validate,
)

__all__ = [
    "BANDS", "CHANGE", "COVERS", "FAILURES", "GROUPS", "NODES", "PRODUCTS", "SITES",
    "SITE_PANEL", "SITE_TABLE", "STAGES", "STATUSES", "TRANSITION_AREAS", "TREND", "UNKNOWN",
    "ChangeRecipe", "Composite", "ImageryRecipe", "Kind", "LandClass", "LandcoverRecipe",
    "Legend", "LightsRecipe", "Recipe", "RingsRecipe", "StatusRecipe", "TerrainRecipe",
    "Variable", "check_table", "fill_value", "label", "load_legend", "load_recipe", "validate",
]  # fmt: skip

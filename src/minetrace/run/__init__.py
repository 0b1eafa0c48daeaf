"""The batch engine: plan units, do each once, commit it, gather the tables."""

from minetrace.run.batch import RunResult, run_sites
from minetrace.run.plan import Unit, plan_units
from minetrace.run.unit import UnitResult, analyse

__all__ = ["RunResult", "Unit", "UnitResult", "analyse", "plan_units", "run_sites"]

"""The batch engine: plan units, do each once, commit it, gather the tables."""

from minetrace.run.batch import RunResult, run_sites
from minetrace.run.plan import Unit, plan_units

__all__ = ["RunResult", "Unit", "plan_units", "run_sites"]

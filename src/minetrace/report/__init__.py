"""The report of a run: one self-contained HTML page, and its figures for notebooks."""

from minetrace.report.load import RunFolder, load_run
from minetrace.report.page import write_report

__all__ = ["RunFolder", "load_run", "write_report"]

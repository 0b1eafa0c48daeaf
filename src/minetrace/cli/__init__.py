"""The ``minetrace`` command: one verb per stage."""

from minetrace.cli.app import main

__all__ = ["main"]

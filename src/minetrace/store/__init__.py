"""Save cubes so that a reader sees all of one or none of it, and never anything else."""

from minetrace.store.item import write_catalog
from minetrace.store.load import load_cube
from minetrace.store.save import save_cube

__all__ = ["load_cube", "save_cube", "write_catalog"]

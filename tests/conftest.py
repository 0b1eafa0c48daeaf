from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import matplotlib as mpl
import pytest
from hypothesis import settings

import realdata
from doubles import RaisingScheduler

mpl.use("Agg")

settings.register_profile("minetrace", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("minetrace")


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Path of a real file below the data folder; skips the test where it is not there."""

    def find(relative: str) -> Path:
        try:
            return realdata.find(relative)
        except FileNotFoundError as absent:
            pytest.skip(str(absent))

    return find


@pytest.fixture
def no_compute() -> Iterator[RaisingScheduler]:
    """Any dask compute inside the test raises, xarray's ``.load()`` included."""
    scheduler = RaisingScheduler()
    with dask.config.set(scheduler=scheduler):
        yield scheduler

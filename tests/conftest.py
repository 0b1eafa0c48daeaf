from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import matplotlib as mpl
import pytest
from hypothesis import settings

from doubles import RaisingScheduler

mpl.use("Agg")

settings.register_profile("minetrace", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("minetrace")

_CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Path of a real file below the data folder; skips the test where it is not there."""
    beside = _CHECKOUT.parent / "shared" / "data"
    folder = Path(os.environ.get("MINETRACE_REAL_DATA", beside))

    def find(relative: str) -> Path:
        path = folder / relative
        if not path.exists():
            pytest.skip(f"needs the real data {relative} under {folder} (or $MINETRACE_REAL_DATA)")
        return path

    return find


@pytest.fixture
def no_compute() -> Iterator[RaisingScheduler]:
    """Any dask compute inside the test raises, xarray's ``.load()`` included."""
    scheduler = RaisingScheduler()
    with dask.config.set(scheduler=scheduler):
        yield scheduler

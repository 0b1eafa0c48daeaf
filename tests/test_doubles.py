from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr


@pytest.mark.parametrize("ask", [xr.DataArray.load, xr.DataArray.compute, np.asarray])
def test_no_compute_raises_on_every_way_to_the_values(no_compute, ask):
    lazy = xr.DataArray(da.zeros((4, 4), chunks=2), dims=("y", "x"))
    with pytest.raises(AssertionError, match="the graph was computed"):
        ask(lazy + 1)


def test_no_compute_ends_with_its_test():
    assert float(da.ones(3).sum().compute()) == 3


def test_absent_real_data_skip_with_a_reason(real_data):
    with pytest.raises(pytest.skip.Exception, match="needs the real data no/such"):
        real_data("no/such.tif")

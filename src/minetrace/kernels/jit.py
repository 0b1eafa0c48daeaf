"""The one place where compiler flags are set."""

from __future__ import annotations

import numba
import numpy as np

# Numba compiles a function once more for every literal number that it is called with.
ZERO, ONE, EIGHT = np.int64(0), np.int64(1), np.int64(8)

# cache=False: cached kernels segfault under several workers (numba#4807, sgkit#869).
# No parallel=True: inside dask's threads it aborts the process (numba#9288); dask is the threads.
# error_model="numpy": without the division checks of Python, loops over quotients vectorise.
# no_cfunc_wrapper: saves a tenth of the time to compile.
jit = numba.njit(nogil=True, cache=False, error_model="numpy", no_cfunc_wrapper=True)

# For functions that a loop of one or two callers needs. Otherwise LLVM optimises and assembles each
# by itself first, and once more in its callers: the median took 1.3 s to compile instead of 0.9.
# Not for larger ones called from several places, which then take longer than before.
jit_inline = numba.njit(
    nogil=True, cache=False, error_model="numpy", no_cfunc_wrapper=True, inline="always"
)

# reassoc: sums may be taken in another order, so that they vectorise: 8 times faster than in order.
# No other freedom is given; NaN and infinity keep their meaning.
jit_sum = numba.njit(
    nogil=True, cache=False, error_model="numpy", no_cfunc_wrapper=True, fastmath={"reassoc"}
)

"""Kernels as plain Python: the same functions in a process without the compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

_CODE = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
module = __import__(sys.argv[2])
np.savez(sys.argv[4], *getattr(module, sys.argv[3])())
"""


def without_compiler(function, folder):
    """Arrays that a function of a test module, without arguments, returns uncompiled."""
    out = Path(folder) / "plain.npz"
    # affine 3 announces the end of an operator that odc-geo uses
    warnings = ("-W", "error", "-W", "ignore::PendingDeprecationWarning")
    names = (str(Path(__file__).parent), function.__module__, function.__name__)
    subprocess.run(
        [sys.executable, *warnings, "-c", _CODE, *names, str(out)],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        check=True,
    )
    with np.load(out) as found:
        return [found[key] for key in found.files]

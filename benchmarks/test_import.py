"""Time of ``import minetrace`` in a fresh interpreter, beside that of an empty one."""

import subprocess
import sys
import time


def _seconds(statement: str) -> float:
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        best = min(best, time.perf_counter() - start)
    return best


def test_import(benchmark):
    benchmark.extra_info["empty_interpreter_s"] = round(_seconds("pass"), 4)
    benchmark.extra_info["import_minetrace_s"] = round(_seconds("import minetrace"), 4)
    benchmark.extra_info["import_xarray_s"] = round(_seconds("import xarray"), 4)
    benchmark.pedantic(_seconds, args=("import minetrace",), rounds=1)

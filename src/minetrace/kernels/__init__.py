"""The arithmetic: loops over arrays, with numpy and numba only."""

"""Nothing goes in; the process keeps the memory it frees, so that the next array costs no faults.

Without this, glibc returns every large array to the kernel and asks for it again: measured on the
training loop, a quarter of the CPU time was the kernel clearing pages (9 of 34 ms a scan).
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
KEEP_BYTES = 2**30


@cache
def keep_memory() -> bool:
    """Tell glibc to keep freed memory up to 1 GiB; elsewhere nothing is done.

    Returns
    -------
    bool
        Whether the setting was taken.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    settings = ((M_MMAP_THRESHOLD, KEEP_BYTES), (M_TRIM_THRESHOLD, KEEP_BYTES), (M_TOP_PAD, 2**26))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)

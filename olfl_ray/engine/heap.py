"""Memory that a step frees stays with the process for the next one.

The C library gives each block of more than 32 MB back to the system as it is freed, and the system clears the pages of the
next one, page by page: time that an online step on a CPU loses, once activations are as large.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""glibc's names of the two settings (mallopt(3))."""
NEVER = -1


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, to the end; where the C library is not glibc, nothing changes.

    Its resident size then stays near its peak. For processes whose work is to train; call it before the first step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)

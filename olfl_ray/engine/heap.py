"""Keep the memory that a step frees in the process for the next one.

The C library returns each freed block of more than 32 MB to the system, which clears the pages of the next one, page by
page: this slows down online steps on a CPU whose activations are that large.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""glibc's numbers of the two settings (mallopt(3))."""
NEVER = -1


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees until it ends; no effect if the C library is not glibc.

    Its resident size then stays near its peak. For processes that only train; call it before the first step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)

"""How the C library keeps memory: steps of large systems need the same large arrays again and again."""

from __future__ import annotations

import ctypes

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Has this process keep the memory that it frees for its next use, instead of handing it back to the system.

    Large arrays are otherwise mapped anew at every use, and the system clears each of their pages first: of a step of
    several thousand atoms on a CPU that is a quarter. The process then holds what it once needed at its peak. It
    concerns all of the process, so nothing does it unasked; call it once, before the first step.

    Returns:
        Whether it took effect: it does with glibc (most of Linux), and nothing happens elsewhere.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))

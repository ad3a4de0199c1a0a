"""Memory that is kept from step to step."""

import ctypes
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
LARGEST = 1 << 25  # as a threshold


@cache
def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for the next step, up to blocks of 32 MiB.

    It would give it back and get it anew, page by page: a tenth of a training step, half of the decoding of a
    photo. Other C libraries do as they do.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(MMAP_THRESHOLD, LARGEST)

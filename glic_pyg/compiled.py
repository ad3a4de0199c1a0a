"""Functions compiled by Numba, their machine code kept for the next start where there is a place for it.

Compiling those that code a picture takes up to half a minute of one core. The log says so when it begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, NullCache

logger = logging.getLogger(__name__)

SHARED = (
    "simd.py",
    "products.py",
    "nn/kernels/feed_forward.py",
    "nn/kernels/feed_forward_gradients.py",
)
"""Files with functions that are compiled as parts of others', in other files."""


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function, as `numba.njit` does, and let it run beside other threads of Python.

    Args:
        options: Of `numba.njit`. There are none for threads: Numba's are OpenMP's, whom a forked process does
            not survive. `glic_pyg.threads` has others.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        dispatcher = numba.njit(nogil=True, **options)(function)
        try:
            dispatcher._cache = _Cache(function)  # what `cache=True` does
        except RuntimeError:  # no folder may be written, as in a container for reading only
            dispatcher._cache = _NoCache()
        return dispatcher

    return decorate


class _Cache(FunctionCache):
    """Numba's, which would end a call where its files are damaged or the disk is full.

    Numba looks whether the file of a function has changed; here also those of what it may have inside.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        file: Any = self._cache_file
        file._source_stamp = file._source_stamp, _shared_code()

    def load_overload(self, *arguments: Any) -> Any:
        found = None
        try:
            found = super().load_overload(*arguments)
        except Exception:  # whatever a damaged file is taken for
            with suppress(OSError):
                self.flush()
        if found is None:
            _tell("compiling, once: this takes up to half a minute")
        return found

    def save_overload(self, *arguments: Any) -> None:
        with suppress(Exception):
            super().save_overload(*arguments)


class _NoCache(NullCache):
    def load_overload(self, *_: Any) -> None:
        _tell(
            "compiling: this takes up to half a minute, each time unless NUMBA_CACHE_DIR is a writable folder"
        )


@cache
def _shared_code() -> str:
    """Return what tells one state of the code in `SHARED` from another."""
    package = Path(__file__).parent
    return sha256(b"".join((package / name).read_bytes() for name in SHARED)).hexdigest()


@cache
def _tell(message: str) -> None:
    logger.info(message)

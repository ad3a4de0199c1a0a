"""Functions compiled by Numba, their machine code kept for the next start where there is a place for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba
from numba.core.caching import FunctionCache


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function, as `numba.njit` does, and let it run beside other threads of Python.

    Args:
        options: Of `numba.njit`. There are none for threads: Numba's are OpenMP's, whom a forked process does
            not survive. `glic_pyg.threads` has others.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        dispatcher = numba.njit(nogil=True, **options)(function)
        with suppress(RuntimeError):  # no folder may be written, as in a container for reading only
            dispatcher._cache = _Cache(function)  # what `cache=True` does
        return dispatcher

    return decorate


class _Cache(FunctionCache):
    """Numba's, which would end a call where its files are damaged or the disk is full."""

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except Exception:  # whatever a damaged file is taken for
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, *arguments: Any) -> None:
        with suppress(Exception):
            super().save_overload(*arguments)

"""Work in threads, whose results do not depend on their number, and which a forked process has anew.

Compiled code runs in torch's threads: those of OpenMP spin for milliseconds after each of torch's operators,
and others would find no core. Operators of torch run in threads of our own, each by one thread.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

PARTS = 2
"""For each thread: one that begins late leaves more to the others."""

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}
_begun = False


def begin() -> None:
    """Note that torch computes from here on: with threads that a forked process does not have."""
    global _begun
    _begun = True


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Apply a function of tensors, without gradients, to each item, each call on one thread.

    So the results are, bit for bit, the same for any number of threads; there are as many as torch has.
    """
    workers = torch.get_num_threads()
    if workers == 1 or len(items) < 2:
        return [in_one_thread(function, item) for item in items]
    return list(_pool(workers).map(_as_here(function), items))


def share_out(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Apply a function of compiled code to each item, in this thread and, beside it, in others.

    Whoever is free takes the next one. In this thread torch may have all of its own threads, so the function
    may call no operator of torch that computes.
    """
    if torch.get_num_threads() == 1 or len(items) < 2:
        return [function(item) for item in items]
    results: dict[int, Result] = {}
    errors: list[BaseException] = []
    places = iter(range(len(items)))

    def work() -> None:
        try:
            for i in places:
                results[i] = function(items[i])
        except BaseException as error:
            errors.append(error)
            for _ in places:  # nobody begins another one
                pass

    _beside_each_other(_as_here(work), len(items))
    if errors:
        raise errors[0]
    return [results[i] for i in range(len(items))]


def in_one_thread(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function of tensors, without gradients, with every torch operator on one thread.

    With another number, sums run in another order.
    """
    if torch.get_num_threads() == 1:
        return function(*arguments)
    return _pool(1).submit(_as_here(function), *arguments).result()


def parts_of(length: int) -> list[int]:
    """Cut `range(length)` into parts to share out: return where each begins, and where the last ends."""
    threads = torch.get_num_threads()
    parts = max(1, min(1 if threads == 1 else PARTS * threads, length))
    return [length * part // parts for part in range(parts + 1)]


def in_ranges(function: Callable[[int, int], object], length: int) -> None:
    """Share out `range(length)`: call compiled code with where each part begins and where it ends."""
    share_out(lambda part: function(*part), list(pairwise(parts_of(length))))


def _beside_each_other(work: Callable[[], None], most: int) -> None:
    """Call a function in this thread and in others, which together are as many as torch has, or `most`."""
    begin()
    threads = torch.get_num_threads()
    if (openmp := _openmp()) is None:
        others = [_pool(threads).submit(work) for _ in range(min(threads, most) - 1)]
        try:
            work()
        finally:
            wait([other for other in others if not other.cancel()])  # whoever has not begun is too late
        return
    outside = openmp.omp_get_level()
    region = _REGION(lambda _: work())
    try:
        # All of them: OpenMP ends those that a region leaves out, and makes them anew for the next one.
        openmp.GOMP_parallel_start(region, None, threads)
        work()
    finally:  # Ctrl-C may come between any two steps, of this end, too, or before the region begins
        try:
            _end_region(openmp, outside)
        finally:
            _end_region(openmp, outside)


def _end_region(openmp: ctypes.CDLL, outside: int) -> None:
    if openmp.omp_get_level() != outside:
        openmp.GOMP_parallel_end()


_REGION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def _openmp() -> ctypes.CDLL | None:
    """Return the library of torch's OpenMP, if that has GNU's interface."""
    with suppress(AttributeError, OSError):
        library = _torch_library()
        if library.GOMP_parallel_start and library.GOMP_parallel_end:
            return library
    return None


def _torch_library() -> ctypes.CDLL:
    """Return the library in which torch computes on the CPU, and with it those that it has loaded."""
    return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))


def _as_here(function: Callable[..., Result]) -> Callable[..., Result]:
    """Let a function run in another thread in the mode of this one, without gradients."""
    return torch.inference_mode(torch.is_inference_mode_enabled())(torch.no_grad()(function))


def _pool(workers: int) -> ThreadPoolExecutor:
    """Return threads in which torch has one thread each; nothing changes for others."""
    begin()
    with _lock:
        if workers not in _pools:
            threads, pool = torch.get_num_threads(), ThreadPoolExecutor(workers)
            together = threading.Barrier(workers)  # so that each is there
            try:
                for future in [pool.submit(_settle, together) for _ in range(workers)]:
                    future.result()
            finally:
                together.abort()
                torch.set_num_threads(threads)  # the process's, which each of them has set to 1
            _pools[workers] = pool
        return _pools[workers]


def _settle(together: threading.Barrier) -> None:
    torch.get_num_threads()  # the first time that a thread asks, it gets the process's number
    torch.set_num_threads(1)
    with suppress(AttributeError, OSError):  # where torch has MKL: its number is the process's otherwise
        _torch_library().MKL_Set_Num_Threads_Local(1)
    together.wait()


def _restart() -> None:
    """Begin anew in a forked process, to which no thread but one has come along.

    GNU OpenMP would wait for its own for ever. On one thread torch does without them.
    """
    global _lock
    _lock = threading.Lock()
    _pools.clear()
    if _begun:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing is forked
    os.register_at_fork(after_in_child=_restart)

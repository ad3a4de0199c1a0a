"""Threads of our own, whose results do not depend on their number, and which a forked process has anew."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
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

    Whoever is free takes the next one. In this thread torch has all of its own threads, so the function may
    call no operator of torch that computes.
    """
    workers = min(torch.get_num_threads(), len(items))
    if workers < 2:
        return [function(item) for item in items]
    results: dict[int, Result] = {}
    places = iter(range(len(items)))

    def work() -> None:
        try:
            for i in places:
                results[i] = function(items[i])
        finally:
            for _ in places:  # after an error nobody begins another one
                pass

    others = [_pool(torch.get_num_threads()).submit(_as_here(work)) for _ in range(workers - 1)]
    try:
        work()
    finally:
        begun = [other for other in others if not other.cancel()]  # whoever has not is too late
        wait(begun)
    for other in begun:
        other.result()
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
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        library.MKL_Set_Num_Threads_Local(1)
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

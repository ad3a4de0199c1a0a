"""Threads: one number for torch and for code that Numba compiled, and results that do not depend on it."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import numba
import torch

Item, Result = TypeVar("Item"), TypeVar("Result")

_workers: ContextVar[int | None] = ContextVar("workers", default=None)


@contextmanager
def one_thread_per_operator() -> Iterator[None]:
    """Run every torch operator on one thread: with another number, sums run in another order.

    `map_in_threads` still uses as many as torch had before.
    """
    threads = torch.get_num_threads()
    token = _workers.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _workers.reset(token)


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Apply a function of tensors, without gradients, to each item, each call on one thread.

    So the results are, bit for bit, the same for any number of threads.
    """
    workers = _workers.get() or torch.get_num_threads()
    with one_thread_per_operator():
        if workers == 1:
            return [function(item) for item in items]
        quiet = torch.inference_mode(torch.is_inference_mode_enabled())(torch.no_grad()(function))
        return list(_pool(workers).map(quiet, items))


@functools.lru_cache(maxsize=1)
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not live on in a forked process


def use_torch_threads() -> int:
    """Let Numba's next parallel loop run on as many threads as torch does.

    Returns:
        That number, at most `NUMBA_NUM_THREADS`.
    """
    wanted = torch.get_num_threads()
    threads = min(wanted, numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(threads)
    if torch.get_num_threads() != wanted:  # starting Numba's threads sets OpenMP's number, torch's too
        torch.set_num_threads(wanted)
    return threads

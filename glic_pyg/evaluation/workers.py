"""Processes that work beside each other, and end with what they work for."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    begin: Callable[[int], Any],
) -> Iterator[Result]:
    """Yield results as they come, in any order; who closes the generator early waits for no others.

    Args:
        work: What each process does with an item; found by its name.
        items: To work on.
        workers: How many processes.
        begin: Called in each of them before, with 1: how many threads are its share.
    """
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=begin, initargs=(1,)) as pool:
        try:
            with _ctrl_c_is_ours():
                futures = [pool.submit(work, item) for item in items]
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            raise


@contextmanager
def _ctrl_c_is_ours() -> Iterator[None]:
    """Let processes that are started here leave Ctrl-C, which all of a terminal's get, to this one."""
    if threading.current_thread() is not threading.main_thread():  # others may not change that
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

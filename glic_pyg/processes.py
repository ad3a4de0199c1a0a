"""Processes that work beside each other, and end with what they work for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from glic_pyg.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 16
"""Items per process that are handed out before the first of them has to be done."""
TERMINATED = 128 + signal.SIGTERM

_make: Callable[[], Callable[[Any], Any]]
_work: Callable[[Any], Any] | None = None


class ProcessError(UserError, RuntimeError):
    """A process that died at its work; the message is one line for the user."""


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_processes(
    make: Callable[[], Callable[[Item], Result]], items: Iterable[Item], *, jobs: int
) -> Generator[Result, None, None]:
    """Yield results in the order of the items; who closes the generator early waits for no others.

    The processes are new ones, not forks: torch's threads do not survive a fork. They end with this one,
    however it ends, and leave Ctrl-C to it; what they are writing is then removed.

    Args:
        make: Called once in each process; returns what is done with each item. It is found by its name, or a
            partial of such a function.
        items: To work on, taken as they are needed.
        jobs: How many processes.

    Raises:
        ProcessError: a process died.
        Exception: whatever `make` and what it returns raise.
    """
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(make,)) as pool:
        handed_out: deque[Future[Result]] = deque()
        try:
            for item in items:
                with _ctrl_c_is_ours():
                    handed_out.append(pool.submit(_do, item))
                if len(handed_out) == AHEAD * jobs:
                    yield handed_out.popleft().result()
            while handed_out:
                yield handed_out.popleft().result()
        except BaseException as error:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise ProcessError(
                    f"Expected {jobs} processes that work to the end (got one that was killed; fewer take "
                    "less memory)"
                ) from error
            raise


@contextmanager
def _ctrl_c_is_ours() -> Iterator[None]:
    """Let processes that are started here leave Ctrl-C, which all of a terminal's get, to this one.

    It is put off meanwhile, and none is lost.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(make: Callable[[], Callable[[Any], Any]]) -> None:
    """Begin a process; `make` is left for the first item, whose result can be an error."""
    global _make
    _make = make
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    sys.unraisablehook = _end_again
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _do(item: Any) -> Any:
    global _work
    try:
        if _work is None:
            _work = _make()
        return _work(item)
    except SystemExit:  # raised by `_end`; the pool would take it for the item's result, and go on
        os._exit(TERMINATED)


def _end(*_: object) -> NoReturn:
    """Unwind the stack, so that what is being written is removed."""
    sys.exit(TERMINATED)


def _end_again(lost: sys.UnraisableHookArgs) -> None:
    """Try again in a moment where Python lets go of what `_end` raises: in a finaliser."""
    if isinstance(lost.exc_value, SystemExit):
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()
    else:
        sys.__unraisablehook__(lost)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

"""What each of several processes gets of the machine."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from glic_pyg.processes import cores
from glic_pyg.tiles import MemoryBoundError

STARTER = 100 << 20
"""Bytes of the process that starts the others: it has no torch."""


def share(args: Namespace) -> Namespace:
    """Return the arguments of one of the processes that work on a folder; a file is the work of one."""
    if not os.path.isdir(args.input):
        return Namespace(**vars(args) | {"jobs": 1})
    if args.jobs == 1:
        return args
    threads = max(1, (args.threads or cores()) // args.jobs)
    memory = None if args.max_memory is None else max(0, args.max_memory - STARTER) // args.jobs
    return Namespace(**vars(args) | {"threads": threads, "max_memory": memory})


@contextmanager
def telling_of_jobs(jobs: int) -> Iterator[None]:
    """Let an error about --max-memory say that it is about a share."""
    try:
        yield
    except MemoryBoundError as error:
        if jobs == 1:
            raise
        raise MemoryBoundError(f"{error} in each of {jobs} processes") from error

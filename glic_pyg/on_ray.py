"""Work on a cluster of Ray's: all that knows Ray is here."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from glic_pyg.errors import UserError, require

Item = TypeVar("Item")
Result = TypeVar("Result")

CONNECT_SECONDS = 10
AHEAD = 2
"""Tasks that are handed out for every one that can run."""
RETRIES = 3
MOST_BLOCKS = 10_000
"""That Ray Data keeps count of."""


class ClusterError(UserError, RuntimeError):
    """A cluster that is not there, or that cannot go on; the message is one line for the user."""


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a cluster, and leave it; whatever Ray raises in between is told in a line.

    Args:
        address: As Ray takes it; `local` is a cluster of this machine that ends with the work.

    Raises:
        PackageError: Ray is not installed.
        ClusterError: there is no such cluster, or the work fails on it.
    """
    require("ray", "pyarrow", extra="ray", purpose="work on Ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    local = {"include_dashboard": False} if address == "local" else {}
    host, _, port = address.rpartition(":")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if host and port.isdecimal() and "//" not in host:  # where nothing answers, Ray tries for long
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(f"Expected a Ray cluster at {address} (got {_first_line(error)})") from error
    try:
        with suppress(ValueError, TypeError):  # in a thread; a handler that is not Python's
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray takes it, and crashes
        yield
    except ray.exceptions.RayError as error:
        raise ClusterError(f"Expected work that ends well on {address} (got {_reason(error)})") from error
    finally:
        ray.shutdown()


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Be the only one on the cluster that holds a name; whoever dies holds none.

    Raises:
        ClusterError: somebody holds it.
    """
    import ray

    class Holder:
        pass

    try:
        holder = ray.remote(Holder).options(name=name, namespace="glic_pyg", num_cpus=0).remote()
    except ValueError:
        raise ClusterError(f"Expected no other start at work on {name} (got one)") from None
    try:
        yield
    finally:
        ray.kill(holder)


def in_actors(
    work: type,
    settings: Mapping[str, Any],
    items: Sequence[dict[str, Any]],
    *,
    actors: int | None = None,
    cpus: float = 1,
    gpus: float = 0,
) -> Generator[dict[str, Any], None, None]:
    """Hand out items by Ray Data; yield what comes of each, in any order.

    Ray decides where an item is worked on, how many wait, and begins again elsewhere what a dead node had.

    Args:
        work: A class; what it makes is called with items, and returns a dictionary for each.
        settings: With which it is made: once in each actor.
        items: Dictionaries.
        actors: At most so many processes; None is as many as the cluster has room for.
        cpus: Cores of each process, and its threads.
        gpus: GPUs of each process; a share of one if below 1.

    Raises:
        ClusterError: no node has so many cores and GPUs.
    """
    import ray.data

    room = _room(cpus, gpus)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, too
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=actors or room)
    dataset = ray.data.from_items(list(items), override_num_blocks=min(len(items), MOST_BLOCKS))
    results = dataset.map(
        work, fn_constructor_kwargs=dict(settings), compute=pool, num_cpus=cpus, num_gpus=gpus or None
    )
    yield from results.iter_rows()


def in_tasks(
    work: Callable[[Item], Result], items: Iterable[Item], *, cpus: float = 1, gpus: float = 0
) -> Generator[Result, None, None]:
    """Yield results in the order of the items, each worked on by a task of Ray's, in the current folder.

    What a dead node had begins again elsewhere, `RETRIES` times.

    Args:
        work: What is done with each item; found by its name, or a partial of such a function.
        items: To work on, taken as they are needed.
        cpus: Cores of each task, and its threads.
        gpus: GPUs of each task.
    """
    import ray

    task = ray.remote(_call).options(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)
    room = AHEAD * _room(cpus, gpus)
    handed_out: deque[Any] = deque()
    for item in items:
        handed_out.append(task.remote(work, item, os.getcwd()))
        if len(handed_out) == room:
            yield ray.get(handed_out.popleft())
    while handed_out:
        yield ray.get(handed_out.popleft())


def _call(work: Callable[[Any], Any], item: Any, folder: str) -> Any:
    with suppress(FileNotFoundError):  # then all paths are absolute, or not found
        os.chdir(folder)
    return work(item)


def _room(cpus: float, gpus: float) -> int:
    """Return for how many processes a cluster's nodes have cores and GPUs now.

    Raises:
        ClusterError: for none.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {kind: share for kind, share in (("CPU", cpus), ("GPU", gpus)) if share}
    room = sum(min(int(has.get(kind, 0) / share) for kind, share in wanted.items()) for has in nodes)
    if room < 1:
        found = ", ".join({f"{has.get('CPU', 0):g} and {has.get('GPU', 0):g}": None for has in nodes})
        raise ClusterError(f"Expected a node with {cpus:g} cores and {gpus:g} GPUs (got {found})")
    return room


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _reason(error: BaseException) -> str:
    """Return what went wrong in a process of the cluster: the end of the first traceback."""
    found = re.search(r"^[\w.]*(Error|Exception): .*", str(error), re.MULTILINE)
    return found[0] if found else _first_line(error)

"""What long work is at, for whoever waits for it: messages of the log `glic_pyg.progress`, of level INFO.

Nobody has to listen. The command `glic` shows the newest message where a computation takes its time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)
Item = TypeVar("Item")


def tell(doing: str) -> None:
    """Tell what begins now, in a few words."""
    logger.info(doing)


def make_room(doing: str) -> None:
    """Tell what begins now, with a bar of its own, which needs a terminal's line for itself."""
    logger.info(doing, extra={"bar": True})


def each(items: Iterable[Item], doing: str, *, total: int | None = None) -> Iterator[Item]:
    """Yield items: a terminal shows a bar, and the log is told the number of each.

    Args:
        items: What is worked on.
        doing: What is done, in a few words.
        total: The number of items, where `items` has no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    make_room(doing)
    for number, item in enumerate(tqdm(items, doing, total, leave=False, disable=None), 1):
        tell(f"{doing}, {number} of {total}")
        yield item

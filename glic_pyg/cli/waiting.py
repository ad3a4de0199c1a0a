"""What a user sees of work that takes its time: what it is at, and the seconds since the command began.

On a terminal it is a line that goes again, in a log one every so often.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from glic_pyg.cli.printing import say

if TYPE_CHECKING:
    from tqdm import tqdm

LOG = "glic_pyg.progress"
"""`glic_pyg.progress.logger`, which is not imported before there is work."""
TERMINAL_SECONDS = 2.0
"""How long a terminal stays empty; then its line moves every second."""
LOG_SECONDS = 20.0
"""Between two lines of a log."""


@contextmanager
def waiting(*, ticking: bool = True) -> Iterator[None]:
    """Show what `glic_pyg.progress` tells, until the work is done.

    Args:
        ticking: Whether the seconds go on between two messages, which takes a thread. Not for work that forks
            processes.
    """
    if sys.stderr is None:  # it was closed
        yield
        return
    log, line, ended = logging.getLogger(LOG), _Line(), threading.Event()

    def tick() -> None:
        while not ended.wait(line.pause):
            line.show()

    before = (log.level, log.propagate)
    log.addHandler(line)
    log.setLevel(logging.INFO)
    log.propagate = False
    thread = threading.Thread(target=tick, daemon=True) if ticking else None
    if thread:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread:
            thread.join()
        log.removeHandler(line)
        log.setLevel(before[0])  # which forgets what it has let through so far
        log.propagate = before[1]
        line.close()


class _Line(logging.Handler):
    """Where the newest message is shown, by one thread at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.doing = "starting"
        self.terminal = sys.stderr.isatty()
        self.pause = 1.0 if self.terminal else LOG_SECONDS
        self.begun = self.shown = time.monotonic()
        self._showing = threading.Lock()
        self._bar: tqdm[None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take a message over, and show it if it is time; or make room for a bar."""
        self.doing = record.getMessage()
        if getattr(record, "bar", False):
            with self._showing:
                self._clear()
        else:
            self.show()

    def show(self) -> None:
        """Show what is done and since when, unless a line was shown just now or there is a bar."""
        with self._showing, suppress(OSError):  # nobody reads it any more
            now = time.monotonic()
            if self.terminal:
                if now - self.begun >= TERMINAL_SECONDS:
                    self._move(f"{self.doing}, {now - self.begun:.0f} s")
            elif now - self.shown >= 0.9 * LOG_SECONDS:
                self.shown = now
                say(f"{self.doing}, {now - self.begun:.0f} s", file=sys.stderr)

    def _move(self, text: str) -> None:
        from tqdm import tqdm

        if any(bar is not self._bar for bar in getattr(tqdm, "_instances", ())):  # it tells as much
            self._clear()
            return
        if self._bar is None:
            self._bar = tqdm(bar_format="{desc}", leave=False)
        self._bar.set_description_str(text)

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def close(self) -> None:
        """Take the line away."""
        self._clear()
        super().close()


class Times(NamedTuple):
    """How long something took.

    Args:
        seconds: That the user waited.
        coding_seconds: Of them for the codec and the picture's file, without start and model.
    """

    seconds: float
    coding_seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s (coding {self.coding_seconds:.2f} s)"


class Stopwatch:
    """What the user waits for one file after the other.

    Args:
        begun: When the command began, by `time.perf_counter`.
    """

    def __init__(self, begun: float) -> None:
        self._last = begun

    def lap(self, *, coding: float) -> Times:
        """Return the times of the file that is done: since the one before, or since the command began."""
        before, self._last = self._last, time.perf_counter()
        return Times(self._last - before, coding)

"""What a user sees of the search for better latents, and how Ctrl-C ends it: with the best so far."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from tqdm import tqdm

from glic_pyg.progress import make_room


class Refining:
    """A bar of the steps with the gain so far, for a picture at a time.

    While there is one, Ctrl-C ends the search and lets the file be written; pressed again, it ends all.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._bar: tqdm | None = None
        self._before: signal._HANDLER = None

    def __enter__(self) -> Refining:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            if self._before is not None:
                signal.signal(signal.SIGINT, self._before)
                self._before = None

    def watch(self, done: int, steps: int, gain: float) -> bool:
        """Show the step; return whether the user wants no more, see `glic_pyg.refinement.Watch`."""
        if self._bar is None:
            make_room("refining")
            self._bar = tqdm(total=steps, unit="step", leave=False, disable=None)
            if threading.current_thread() is threading.main_thread():
                self._before = signal.signal(signal.SIGINT, self._stop)
        self._bar.set_postfix_str(f"gain {100 * gain:.2f} %", refresh=False)
        self._bar.update(done - self._bar.n)
        return self.stopped

    def _stop(self, _: int, __: FrameType | None) -> None:
        self.stopped = True
        signal.signal(signal.SIGINT, self._before)

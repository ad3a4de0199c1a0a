"""Pictures that end the process which codes them, as by its memory: known by what it noted before."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from glic_pyg.bulk.table import mark_name
from glic_pyg.places import Place

TRIES = 2
"""Processes that may die at a picture which they were known to be at."""
WHOLE = ""
"""What a process is at that codes no picture of its batch: it reads, or writes a shard."""


class Mark:
    """A file that tells what is being done for a batch; whoever finds one knows that its process has died.

    The first process of a batch notes nothing but that it is there: that costs three requests. Those that
    come after a death note each picture before they code it, and begin none at which `TRIES` of them have
    died.

    Args:
        place: Where the marks are.
        batch: The batch that is begun.
    """

    def __init__(self, place: Place, batch: str) -> None:
        self.place, self.name = place, mark_name(batch)
        self._deaths: Counter[str] = Counter()
        notes = self._notes()
        self._is_first = notes is None
        if notes is None:
            self._note(None)
            return
        self._deaths.update(notes["deaths"])
        if notes["at"] is not None:
            self._deaths[notes["at"]] += 1

    def begin(self, path: str = WHOLE) -> str:
        """Note that a picture is begun, or what is done for the batch as a whole.

        Returns:
            Why it must not be begun; nothing if it may.
        """
        if (died := self._deaths[path]) >= TRIES:
            what = path or "its batch"
            return f"Expected a file that its process outlives (got {what}, at which {died} have died)"
        if not self._is_first:
            self._note(path)
        return ""

    def remove(self) -> None:
        """Remove the mark of a batch that is done."""
        self.place.remove(self.name)

    def _notes(self) -> dict[str, Any] | None:
        """Return what a process that died has noted; None if there was none."""
        try:
            text = self.place.read(self.name, 1 << 30).getvalue()
        except FileNotFoundError:
            return None
        try:
            return json.loads(text)
        except ValueError:  # half of a file, which some file systems keep: its process died while it noted
            return {"at": None, "deaths": {}}

    def _note(self, at: str | None) -> None:
        self.place.write(self.name, json.dumps({"at": at, "deaths": self._deaths}).encode())

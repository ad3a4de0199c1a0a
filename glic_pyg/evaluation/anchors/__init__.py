"""Published rate-distortion points, with their sources: `kodak/dcae`, `tecnick/vtm-9.1`, ..."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from glic_pyg.errors import UsageError

FOLDER = Path(__file__).parent
PICTURES = {"kodak": 24, "tecnick": 100, "clic": 41}
"""How many pictures the points of each data set are means of."""
DATASETS = tuple(PICTURES)


def anchor_names() -> list[str]:
    """Return all names, `dataset/codec`."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*.json"))


def load_anchor(name: str) -> dict[str, Any]:
    """Return a codec's published points: `name`, `source` and `results` as CompressAI lays them out.

    Raises:
        UsageError: no such name; the nearest ones are told.
    """
    names = anchor_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UsageError(f"Expected a .json file or published points such as kodak/dcae (got {name}){hint}")
    return json.loads((FOLDER / f"{name}.json").read_text())


def load_paper_table() -> dict[str, Any]:
    """Return the main table of the paper: `source` and `rows`."""
    return json.loads((FOLDER / "paper_table.json").read_text())

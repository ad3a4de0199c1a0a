"""Names of what is made of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path


def output_names(paths: Sequence[Path], suffix: str, owner: Callable[[Path], str | None]) -> list[Path]:
    """Return names for what is made of files: each with another suffix, or else with one more.

    A name that an earlier call gave to a file, such as `a.glic` to `a.png`, stays this file's. Where two
    files would get one name that is nobody's yet, they get `a.png.glic` and `a.jpg.glic`.

    Args:
        paths: The files, relative to their folder.
        suffix: Of the names.
        owner: Returns the name of the file that an earlier call made an output of; None if there is none.
    """
    names = {path: path.with_suffix(suffix) for path in paths}
    owners = {name: owner(name) for name in names.values()}
    while True:
        count = Counter(names.values())
        clashing = {
            path: path.with_name(path.name + suffix)
            for path, name in names.items()
            if owners.get(name) not in (None, path.name) or (count[name] > 1 and owners.get(name) is None)
        }
        if clashing.items() <= names.items():
            return list(names.values())
        names |= clashing

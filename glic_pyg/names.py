"""Names of what is made of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path


def output_names(paths: Sequence[Path], suffix: str, owner: Callable[[Path], str | None]) -> list[Path]:
    """Return names for what is made of files: each with another suffix, or else with one more.

    A file keeps the name that an earlier call gave it, such as `a.glic` to `a.png`. Where two files would get
    one name that is nobody's yet, they get `a.png.glic` and `a.jpg.glic`.

    Args:
        paths: The files, relative to their folder.
        suffix: Of the names.
        owner: Returns the name of the file that an earlier call made an output of; None if there is none.
    """
    longer = {path: path.with_name(path.name + suffix) for path in paths}
    names: dict[Path, Path] = {}
    owners: dict[Path, str | None] = {}
    for path in paths:
        both = path.with_suffix(suffix), longer[path]
        owners |= {name: owner(name) for name in both}
        names[path] = next((name for name in both if owners[name] == path.name), both[0])
    while True:
        count = Counter(names.values())
        fixed = {name for path, name in names.items() if name == longer[path]}
        clashing = {
            path: longer[path]
            for path, name in names.items()
            if owners[name] not in (None, path.name)
            or (count[name] > 1 and (owners[name] is None or name in fixed))
        }
        if clashing.items() <= names.items():
            return list(names.values())
        names |= clashing

"""Finding files in folders, and writing them so that a reader never sees half of one."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files in a folder and below that have one of the suffixes (lower case), sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Let an `OSError` name the file to be written: not a temporary one, nor none, as a full disk does."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` on success, remove it on failure.

    Args:
        path: The file to make or replace; missing folders are made.

    Raises:
        IsADirectoryError: `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"Expected a file name for the output (got the folder {path})")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with naming(path):
            yield aside
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)

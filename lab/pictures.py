"""The pictures that a rig works on."""

from __future__ import annotations

from pathlib import Path

from glic_pyg.errors import FileError
from glic_pyg.files import files_below
from glic_pyg.picture import picture_suffixes


def pictures_below(folder: Path) -> list[Path]:
    """Return the pictures in a folder and below.

    Raises:
        FileError: there are none.
    """
    paths = files_below(folder, picture_suffixes())
    if not paths:
        raise FileError(f"Expected a folder with pictures (got {folder})")
    return paths

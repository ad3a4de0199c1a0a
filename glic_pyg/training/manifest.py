"""The pictures of a run as a table, so that another run can have the same."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from glic_pyg.config import ConfigError
from glic_pyg.files import csv_text, write_file


@dataclass(frozen=True)
class Picture:
    """A file as it was when a run began.

    Args:
        name: Path relative to the data set's folder, with forward slashes; of several folders, the folder's
            name before.
        width: In pixels.
        height: In pixels.
        bytes: Of the file.
        sha256: Of the file, hexadecimal.
    """

    name: str
    width: int
    height: int
    bytes: int
    sha256: str


COLUMNS = [field.name for field in fields(Picture)]


def describe(pictures: Sequence[Path], *, folders: Mapping[str, Path]) -> list[Picture]:
    """Return the table of some files in folders and below; reads all their bytes.

    Args:
        pictures: The files.
        folders: By what the names of their files begin with.
    """
    rows = []
    for path in tqdm(pictures, desc="hashes", leave=False, disable=None):
        with Image.open(path) as image:
            width, height = image.size
        data = path.read_bytes()
        prefix = next(prefix for prefix, folder in folders.items() if path.is_relative_to(folder))
        name = prefix + path.relative_to(folders[prefix]).as_posix()
        rows.append(Picture(name, width, height, len(data), hashlib.sha256(data).hexdigest()))
    return rows


def write(pictures: Sequence[Picture], path: Path) -> None:
    """Write a table as CSV."""
    write_file(path, csv_text(COLUMNS, map(asdict, pictures)))


def check(path: Path, *, folders: Mapping[str, Path]) -> list[Path]:
    """Return the files that a table lists; further ones in the folders do not matter.

    Args:
        path: The table.
        folders: By what the names of their files begin with.

    Raises:
        ConfigError: the table cannot be read, or a file is missing or another than it was.
    """
    try:
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"Expected a manifest (got {path}: {error})") from error
    if header != COLUMNS:
        raise ConfigError(f"Expected a manifest of {', '.join(COLUMNS)} (got {path} of {', '.join(header)})")
    wanted = [tuple(row) for row in rows]
    paths = [_path(row[0], folders) for row in wanted]
    wrong = [path for path in paths if not path.is_file()]
    if not wrong:
        found = describe(paths, folders=folders)
        wrong = [
            path
            for path, row, picture in zip(paths, wanted, found, strict=True)
            if row != tuple(map(str, astuple(picture)))
        ]
    if wrong:
        raise ConfigError(
            f"Expected the pictures of {path} in {', '.join(map(str, folders.values()))} "
            f"(got {len(wrong)} missing or changed, the first {wrong[0]})"
        )
    return paths


def _path(name: str, folders: Mapping[str, Path]) -> Path:
    """Return the file of a name; where no folder is named so, one that is not there."""
    prefix = next((prefix for prefix in folders if name.startswith(prefix)), "")
    return folders.get(prefix, next(iter(folders.values()))) / name.removeprefix(prefix)

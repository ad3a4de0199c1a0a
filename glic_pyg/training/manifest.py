"""The pictures of a run as a table, so that another run can have the same."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from PIL import Image

from glic_pyg.errors import FileError
from glic_pyg.files import csv_text, printable, read_file, write_file
from glic_pyg.ledger import hash_file
from glic_pyg.progress import each
from glic_pyg.training.sources import Folder, Part, Source, is_in, name_in, parts

MOST_BYTES = 1 << 30
"""Of a table."""


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


def describe(pictures: Sequence[Source], *, folders: Mapping[str, Folder]) -> list[Picture]:
    """Return the table of some pictures; reads all bytes of files.

    Args:
        pictures: Files, and parts of shards.
        folders: By what the names of their pictures begin with.
    """
    rows = []
    for source in each(pictures, "hashing pictures"):
        prefix = next(prefix for prefix, folder in folders.items() if is_in(source, folder))
        name = prefix + name_in(source, folders[prefix])
        if isinstance(source, Part):
            rows.append(Picture(name, source.width, source.height, source.bytes, source.sha256))
            continue
        with Image.open(source) as image:
            width, height = image.size
        data = source.read_bytes()
        rows.append(Picture(name, width, height, len(data), hashlib.sha256(data).hexdigest()))
    return rows


def write(pictures: Sequence[Picture], path: Path) -> None:
    """Write a table as CSV."""
    write_file(path, csv_text(COLUMNS, map(asdict, pictures)))


def check(path: Path, *, folders: Mapping[str, Folder]) -> list[Source]:
    """Return the pictures that a table lists; further ones in the folders do not matter.

    Args:
        path: The table.
        folders: By what the names of their pictures begin with.

    Raises:
        FileError: the table cannot be read, or a picture is missing or another than it was.
    """
    rows = _read(path)
    shards = {prefix: parts(folder) for prefix, folder in folders.items()}
    paths = [_source(row.name, folders, shards) for row in rows]
    wrong = [
        source
        for source, row in zip(each(paths, "hashing pictures"), rows, strict=True)
        if _hash(source) != row.sha256
    ]
    if wrong:
        raise FileError(
            f"Expected the pictures of {path} in {', '.join(map(str, folders.values()))} "
            f"(got {len(wrong)} missing or changed, the first {printable(wrong[0])})"
        )
    return paths


def _read(path: Path) -> list[Picture]:
    """Read a table; its names do not lead out of their folder."""
    try:
        text = read_file(path, MOST_BYTES).getvalue().decode("utf-8", "surrogateescape")
        header, *lines = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    except (OSError, csv.Error) as error:
        raise FileError(f"Expected a manifest (got {path}: {error})") from error
    if header != COLUMNS:
        found = printable(", ".join(header)[:100]) or "none"
        raise FileError(f"Expected a manifest of {', '.join(COLUMNS)} (got {path} of {found})")
    rows = []
    for number, cells in enumerate(lines, 2):
        if len(cells) != len(COLUMNS) or not all(re.fullmatch("[0-9]{1,18}", cell) for cell in cells[1:4]):
            raise FileError(f"Expected {', '.join(COLUMNS)} (got others in row {number} of {path})")
        name = Path(cells[0])
        if not cells[0] or name.anchor or ".." in name.parts or "\0" in cells[0]:
            raise FileError(
                f"Expected names of files in the data set's folder (got {cells[0][:100]!r} in {path})"
            )
        width, height, size = map(int, cells[1:4])
        rows.append(Picture(cells[0], width, height, size, cells[4]))
    return rows


def _source(name: str, folders: Mapping[str, Folder], shards: Mapping[str, Mapping[str, Part]]) -> Source:
    """Return the picture of a name; where no folder is named so, a file that is not there."""
    prefix = next((prefix for prefix in folders if name.startswith(prefix)), "")
    folder = folders.get(prefix, next(iter(folders.values())))
    name = name.removeprefix(prefix)
    return shards.get(prefix, {}).get(name) or Path(folder) / name


def _hash(source: Source) -> str | None:
    """Return the SHA-256 of a picture's bytes, hexadecimal; None if it is missing."""
    if isinstance(source, Part):
        return source.sha256
    return hash_file(source) if os.path.isfile(source) else None

"""Where a data set's pictures are: files of a folder, or parts of tar shards, as WebDataset has them.

Of a shard it is noted where in it each picture begins, so that any picture can be read alone, from object
stores too: what is drawn from shards, and how a run goes on, is as with folders.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from glic_pyg.config import ConfigError
from glic_pyg.errors import FileError
from glic_pyg.files import FileBytes, files_below
from glic_pyg.picture import picture_suffixes
from glic_pyg.places import Place
from glic_pyg.progress import each

SHARD = ".tar"


class Part(NamedTuple):
    """A picture that is a part of a shard.

    Args:
        folder: Path or URL of the data set, as it was given.
        name: Of the picture in the data set: the shard's, and its own in there.
        shard: Name of the shard, relative to the folder.
        offset: Where in the shard it begins.
        bytes: How many it has.
        width: In pixels; 0 if it is no picture.
        height: In pixels.
        sha256: Of its bytes, hexadecimal.
    """

    folder: str
    name: str
    shard: str
    offset: int
    bytes: int
    width: int
    height: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"

    def read(self) -> FileBytes:
        """Return the picture's bytes."""
        place = _place(self.folder, os.getpid())
        end = self.offset + self.bytes
        return FileBytes(place.fs.cat_file(place.path(self.shard), start=self.offset, end=end), str(self))


Source = Path | Part
Folder = Path | str
"""A folder of this machine, or a URL."""


def as_folder(dataset: str | Path) -> Folder:
    """Return a folder of this machine as a path, and a URL as it is."""
    return str(dataset).rstrip("/") if "://" in str(dataset) else Path(dataset)


def sources(folder: Folder) -> list[Source]:
    """Return all files with the names of pictures, and all such parts of shards, sorted.

    Raises:
        ConfigError: no such folder, or a URL without shards.
        FileError: a shard that cannot be read.
    """
    files: list[Source] = []
    if isinstance(folder, Path):
        if not folder.is_dir():
            raise ConfigError(f"Expected a folder of pictures (got {folder})")
        files += files_below(folder, picture_suffixes())
    found = parts(folder).values()
    if isinstance(folder, str) and not found:
        raise ConfigError(f"Expected tar shards with pictures at {folder} (got none)")
    return [*files, *found]


def parts(folder: Folder) -> dict[str, Part]:
    """Return the pictures in a folder's shards by their names; reads all bytes of a shard, once in a process.

    Raises:
        FileError: a shard that cannot be read.
    """
    shards = sorted(Place(str(folder)).files({SHARD}).items())
    found: dict[str, Part] = {}
    for shard, size in each(shards, "reading shards") if shards else ():
        found |= {part.name: part for part in _parts(str(folder), shard, size)}
    return found


@lru_cache(maxsize=1 << 16)
def _parts(folder: str, shard: str, size: int) -> tuple[Part, ...]:
    """Return the pictures in a shard of so many bytes."""
    try:
        return tuple(_read_parts(folder, shard))
    except tarfile.TarError as error:
        raise FileError(f"Expected a tar shard (got {folder}/{shard}: {error})") from error


def _read_parts(folder: str, shard: str) -> Iterator[Part]:
    place = Place(folder)
    with place.fs.open(place.path(shard), "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() and not member.issparse() else None
            if content is None or Path(member.name).suffix.lower() not in picture_suffixes():
                continue
            data = content.read()
            try:
                with Image.open(io.BytesIO(data)) as image:
                    width, height = image.size
            except Exception:  # Pillow's plugins raise nearly anything on damaged files
                width = height = 0
            name = f"{shard}/{Path(member.name).as_posix()}"
            digest = hashlib.sha256(data).hexdigest()
            yield Part(folder, name, shard, member.offset_data, len(data), width, height, digest)


@lru_cache(maxsize=8)
def _place(folder: str, process: int) -> Place:
    """Return a place; a process that was forked takes no other's connections."""
    return Place(folder)


def name_in(source: Source, folder: Folder) -> str:
    """Return the name of a picture in its data set, with forward slashes."""
    return source.name if isinstance(source, Part) else source.relative_to(folder).as_posix()


def is_in(source: Source, folder: Folder) -> bool:
    """Return whether a picture is of a data set."""
    if isinstance(source, Part):
        return source.folder == str(folder)
    return isinstance(folder, Path) and source.is_relative_to(folder)


def by_name(source: Source) -> tuple[bool, Source]:
    """Return by what sources are sorted: files first."""
    return isinstance(source, Part), source

"""Folders of this machine and of object stores, by path or URL."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from glic_pyg.errors import FileError, PackageError
from glic_pyg.files import READ_AT_ONCE, FileBytes, files_below, read_file, write_file


class Place:
    """A folder, or what an object store has below a URL; names are relative, with forward slashes.

    Attributes:
        url: The URL, or the absolute path of a folder of this machine.

    Args:
        url: A path, or a URL as fsspec takes it; without fsspec's package for a kind of store, Arrow's own.

    Raises:
        PackageError: neither knows such a store.
        FileError: no such URL, or a store that does not answer.
    """

    def __init__(self, url: str) -> None:
        self.fs, root = _file_system(url)
        self.root = root.rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self.url = (self.root or "/") if self.is_local else url

    def path(self, name: str = "") -> str:
        """Return the path of a file, as the file system takes it."""
        return f"{self.root}/{name}" if name else self.root or "/"

    def files(self, suffixes: Collection[str]) -> dict[str, int]:
        """Return the names of the files below that have one of the suffixes (lower case), and their bytes."""
        if self.is_local:
            folder = Path(self.path())
            found = files_below(folder, suffixes)
            return {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}
        self.fs.invalidate_cache()
        sizes = {
            path[len(self.root) :].lstrip("/"): about["size"] or 0
            for path, about in self.fs.find(self.path(), detail=True).items()
        }
        return {name: size for name, size in sizes.items() if Path(name).suffix.lower() in suffixes}

    def is_empty(self) -> bool:
        """Return whether there is nothing."""
        return not self.fs.exists(self.path()) or not self.fs.ls(self.path(), detail=False)

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        return self.fs.exists(self.path(name))

    def hash(self, name: str) -> str | None:
        """Return the SHA-256 of a file's bytes, hexadecimal; None if there is none."""
        digest = hashlib.sha256()
        try:
            with self.fs.open(self.path(name), "rb") as file:
                while part := file.read(READ_AT_ONCE):
                    digest.update(part)
        except FileNotFoundError:
            return None
        return digest.hexdigest()

    def read(self, name: str, most: int | Callable[[bytes], int]) -> FileBytes:
        """Read a file, see `read_file`."""
        with self.fs.open(self.path(name), "rb") as file:
            data = read_file(file, most)
        data.name = name
        return data

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file to this machine."""
        self.fs.get_file(self.path(name), str(path))

    def write(self, name: str, data: bytes | Path) -> None:
        """Write a file as a whole, as object stores do by themselves: some bytes, or another file's."""
        if self.is_local:
            path = Path(self.path(name))
            if isinstance(data, bytes):
                write_file(path, data)
            else:
                with data.open("rb") as file:
                    write_file(path, lambda to: shutil.copyfileobj(file, to))
        elif isinstance(data, bytes):
            self.fs.pipe_file(self.path(name), data)
        else:
            self.fs.put_file(str(data), self.path(name))

    def remove(self, name: str) -> None:
        """Remove a file, unless it is gone, as by a node that was thought to be dead."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))

    def is_same(self, other: Place) -> bool:
        """Return whether both are one folder."""
        return type(self.fs) is type(other.fs) and self._real() == other._real()

    def overlaps(self, other: Place) -> bool:
        """Return whether one lies within the other."""
        a, b = self._real(), other._real()
        return type(self.fs) is type(other.fs) and (a.startswith(b) or b.startswith(a))

    def _real(self) -> str:
        """Return the path without links, and with one slash at its end."""
        root = os.path.realpath(self.path()) if self.is_local else self.root
        return root.rstrip("/") + "/"


def _file_system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a path or URL, and the path there."""
    if "://" not in url:  # which fsspec takes apart at ::
        return LocalFileSystem(), Path(url).expanduser().absolute().as_posix()
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        return _by_arrow(url, error)
    except ValueError as error:
        raise FileError(f"Expected a path or a URL (got {url}: {error})") from error


def _by_arrow(url: str, reason: ImportError) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return Arrow's file system of a URL, and the path there."""
    try:
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow.fs import FileSystem

        fs, path = FileSystem.from_uri(url)
    except (ImportError, ValueError, NotImplementedError):
        raise PackageError(f"Expected a package that reads {url} (got none: {reason})") from reason
    except OSError as error:
        raise FileError(f"Expected a URL that answers (got {url}: {error})") from error
    return ArrowFSWrapper(fs), path

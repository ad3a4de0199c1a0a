"""Files: finding and reading them within bounds, and writing them so that nobody ever sees half of one."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import secrets
import socket
import stat
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from glic_pyg.errors import FileError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LEFTOVER = re.compile(r"\.glic_pyg-[0-9a-f]{16}\.partial")
"""Names of files that are being written."""
LEFTOVER_SECONDS = 60
"""A younger one may not be locked yet."""
READ_AT_ONCE = 1 << 20
MOST_JSON_BYTES = 1 << 26


class FileBytes(io.BytesIO):
    """A file's bytes in memory; its text is the file's name."""

    def __init__(self, data: bytes, name: str | Path) -> None:
        super().__init__(data)
        self.name = str(name)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return repr(self.name)


def printable(text: object) -> str:
    r"""Return a text on one line that cannot steer a terminal: what is not printable is escaped, as \x1b."""
    return "".join(c if c.isprintable() else _escaped(c) for c in str(text))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files in a folder and below that have one of the suffixes (lower case), sorted.

    A folder that is there and cannot be read is told by a warning.
    """

    def warn(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            warnings.warn(f"{error.strerror}: {error.filename}: left out", stacklevel=2)

    return sorted(
        path
        for place, _, names in os.walk(folder, onerror=warn)
        for path in (Path(place, name) for name in names)
        if path.suffix.lower() in suffixes and os.path.isfile(path)
    )


def read_file(source: str | Path | BinaryIO, most: int | Callable[[bytes], int]) -> FileBytes:
    """Read a file, pipe or device of a bounded number of bytes.

    Args:
        source: Its name, or an open file.
        most: Bytes, or a function that tells them from the file's first ones; hardly more are read.

    Raises:
        FileError: it has more bytes.
        OSError: it cannot be read.
    """
    if isinstance(source, str | Path):
        with naming(source), open(source, "rb") as file:
            return _read(file, most, source)
    return _read(source, most, getattr(source, "name", "input"))


def _read(file: BinaryIO, most: int | Callable[[bytes], int], name: str | Path) -> FileBytes:
    data, size = FileBytes(b"", name), 0
    with suppress(io.UnsupportedOperation, AttributeError):  # of a file that is not the system's
        size = os.fstat(file.fileno()).st_size  # 0 of pipes and devices
    while part := file.read(READ_AT_ONCE):
        data.write(part)
        if callable(most):
            most = most(part)
        if max(size, data.tell()) > most:
            raise FileError(f"Expected a file of at most {most} bytes (got {name} with more)")
    data.seek(0)
    return data


def read_json(path: Path) -> Any:
    """Return what a JSON file says.

    Raises:
        FileError: no such file, or it is not JSON, too large, or too deep.
    """
    try:
        return json.loads(read_file(path, MOST_JSON_BYTES).getvalue().decode("utf-8-sig"))
    except OSError as error:
        raise FileError(f"Expected a JSON file (got {path}: {error.strerror})") from error
    except RecursionError as error:
        raise FileError(f"Expected a JSON file (got {path}: nested too deep)") from error
    except FileError:
        raise
    except ValueError as error:  # numbers of thousands of digits among them
        raise FileError(f"Expected a JSON file (got {path}: {error})") from error


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Let an `OSError` name this file: not a temporary one, nor none, as a full disk does."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise


def write_file(path: str | Path, data: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Write a file: it is there as a whole, also after a crash, or as it was before.

    Symbolic links are followed. A file that is replaced keeps its permissions. Devices, pipes, sockets and
    open files such as /dev/stdout are written into.

    Args:
        path: The file to make or replace; missing folders are made.
        data: Its bytes, its text, which becomes UTF-8, or a function that writes it into an open file.

    Raises:
        IsADirectoryError: `path` is a folder.
        OSError: it cannot be written.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogateescape")
    write = data if callable(data) else lambda file: file.write(data)
    with naming(path):
        target = follow_links(Path(path))
        if target.is_dir():
            raise IsADirectoryError(f"Expected a file name for the output (got the folder {path})")
        if is_stream(target):
            whole = io.BytesIO()
            write(whole)
            with _opened_stream(target) as file:
                file.write(whole.getvalue())
        else:
            _replace(target, write)


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Return a table as CSV, its first line the names of its columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _replace(target: Path, write: Callable[[BinaryIO], object]) -> None:
    folder = target.parent
    make_folder(folder)
    remove_leftovers(folder.resolve())
    old = target.stat() if target.exists() else None
    if old is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    aside = folder / f".glic_pyg-{secrets.token_hex(8)}.partial"
    try:
        with open(aside, "xb") as file:
            with suppress(OSError):  # file systems without locks
                lock_file(file)
            if old is not None and hasattr(os, "fchmod"):
                with suppress(OSError):  # only root may give files away
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fchmod(file.fileno(), old.st_mode & 0o777)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
        _sync(folder)
    finally:
        aside.unlink(missing_ok=True)


def lock_file(file: BinaryIO) -> None:
    """Lock an open file until it is closed, or its process has died.

    Raises:
        BlockingIOError: somebody else has locked it.
        OSError: its file system, or this system, has no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless they are there.

    Raises:
        NotADirectoryError: one of them is a file.
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # which tells of the file that is to be written
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def _sync(folder: Path) -> None:
    """Let a renaming outlast a crash; some systems cannot open folders."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def follow_links(path: Path) -> Path:
    """Return what a chain of symbolic links leads to; the links of /proc stand for open files, and stay.

    Raises:
        OSError: links that lead round in a circle.
    """
    for _ in range(40):
        if _open_number(path) is not None or not path.is_symlink():
            return path
        path = path.parent / os.readlink(path)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def identity(path: Path) -> tuple[int, int] | None:
    """Return what all names of a file have in common, links among them; None if it cannot be looked at."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def is_stream(path: Path) -> bool:
    """Return whether a path, links followed, is to be written into: a device, pipe, socket or open file."""
    return _open_number(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def _open_number(path: Path) -> int | None:
    """Return the number of an open file of this process that a path stands for, such as /dev/fd/1."""
    if not path.name.isdecimal():
        return None
    places = ("/dev/fd", f"/proc/{os.getpid()}/fd")
    return int(path.name) if os.path.realpath(path.parent) in places else None


@contextmanager
def _opened_stream(path: Path) -> Iterator[BinaryIO]:
    number = _open_number(path)
    if number is not None:
        if sys.stdout is not None:  # it was closed
            sys.stdout.flush()
        with open(os.dup(number), "wb") as file:
            yield file
    elif path.is_socket():
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            with connection.makefile("wb") as file:
                yield file
    else:
        with open(path, "wb", opener=lambda name, _: os.open(name, os.O_WRONLY)) as file:
            yield file


@cache
def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes have left in a folder; once in a process.

    What is removed has such a name, and no process writes it, since that would hold a lock on it.

    Args:
        folder: Its absolute path.
    """
    if fcntl is None or not folder.is_dir():
        return
    for name in os.listdir(folder):
        if LEFTOVER.fullmatch(name):
            with suppress(OSError):
                number = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                with open(number, "rb") as file:
                    about = os.fstat(number)
                    if stat.S_ISREG(about.st_mode) and time.time() - about.st_mtime > LEFTOVER_SECONDS:
                        lock_file(file)
                        (folder / name).unlink()

"""What the tools wrote into a folder: so that they know what is done, and overwrite nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glic_pyg.errors import FileError
from glic_pyg.files import follow_links, is_stream, make_folder, naming, remove_leftovers, write_file

NAME = ".glic_pyg.jsonl"
KEYS = ("name", "sha256", "source", "made")
MOST_BYTES = 1 << 28
"""A longer file is none of ours."""


class Ledger:
    r"""The hidden file of a folder in which a line of JSON tells of every file that a tool wrote there.

    A line has the file's `name`, the `sha256` of its bytes and, for converted files, the name of their
    `source` and `made`, a hash of the source's bytes and of all settings. It is written before its file, so
    that whatever an interrupted call leaves is known. A line that is something else tells nothing.

    Several processes may write it at once, since lines are only appended.

    Args:
        folder: The folder; it need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._position = 0
        self._made: dict[tuple[str, str], str] = {}
        self._sources: dict[str, str] = {}
        remove_leftovers(folder.resolve())
        self.read()

    def read(self) -> None:
        """Read what has been appended since the last time."""
        data = _read(self.path, self._position)
        for line in data.split(b"\n"):
            try:
                fields = json.loads(line)
                name, digest, source, made = (str(fields[key]) for key in KEYS)
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
            self._made[name, digest] = made
            self._sources[name] = source
        self._position += max(0, data.rfind(b"\n"))  # the last line may be half written

    def has(self, path: Path) -> bool:
        """Return whether a file of the folder is as a tool wrote it."""
        return path.name in self._sources and (path.name, hash_file(path)) in self._made

    def made(self, path: Path) -> str | None:
        """Return `made` of a file of the folder; None if it is not as a tool wrote it."""
        if path.name not in self._sources or not os.path.isfile(path):
            return None
        return self._made.get((path.name, hash_file(path)))

    def source(self, path: Path) -> str | None:
        """Return `source` of a file of the folder; None if no tool wrote one of this name."""
        return self._sources.get(path.name) if os.path.exists(path) else None  # a name may be too long

    def note(self, name: str, digest: str, *, source: str = "", made: str = "") -> None:
        """Append a line, and see to it that it outlasts a crash.

        Raises:
            OSError: it cannot be written.
        """
        if self._made.get((name, digest)) == made and self._sources[name] == source:
            return
        # A line begins with its line break: what a killed process left unfinished spoils itself only.
        line = "\n" + json.dumps(dict(zip(KEYS, (name, digest, source, made), strict=True)))
        make_folder(self.path.parent)
        with open(self.path, "ab", opener=_without_links) as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self.read()


def _read(path: Path, position: int) -> bytes:
    try:
        with open(path, "rb", opener=_without_links) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
                return b""
            file.seek(position)
            return file.read(MOST_BYTES)
    except OSError:
        return b""


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_bytes(data: bytes | memoryview) -> str:
    """Return the SHA-256 of some bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def made_of(digest: str, settings: Mapping[str, Any]) -> str:
    """Return what stands for a source's bytes and all settings, hexadecimal.

    Args:
        digest: SHA-256 of the source's bytes.
        settings: Whatever else the bytes that are made depend on, JSON values.
    """
    return hash_bytes(json.dumps([digest, dict(settings)], sort_keys=True).encode())


def check_output(
    path: Path, *, inputs: Iterable[Path] = (), force: bool = False, ledger: Ledger | None = None
) -> None:
    """Refuse to write a file where that would cost somebody another one.

    Args:
        path: To be written. A device, pipe or open file is written into, and costs nothing.
        inputs: Files to be read, which must be other ones, by whatever name.
        force: Whether a file that no tool wrote, or that was changed since, may be overwritten.
        ledger: Of its folder, if it has been read.

    Raises:
        FileError: it may not be written.
        OSError: that cannot be found out.
    """
    with naming(path):
        target = follow_links(path)
        if is_stream(target) or not target.exists():
            return
        if target.is_dir():
            raise FileError(f"Expected a file name for the output (got the folder {path})")
        for source in inputs:
            if source.exists() and source.samefile(target):
                raise FileError(f"Expected another file for the output than {source} (got the same)")
        if not force and not (ledger or Ledger(target.parent)).has(target):
            raise FileError(
                f"Expected an output that is new or that an earlier call wrote (got {path}); "
                "--force overwrites it"
            )


def note_output(path: Path) -> None:
    """Note that a tool has written a file."""
    target = follow_links(path)
    if not is_stream(target):
        Ledger(target.parent).note(target.name, hash_file(target))


@contextmanager
def writing(*outputs: Path | None, inputs: Iterable[str | Path | None] = (), force: bool) -> Iterator[None]:
    """Refuse outputs that would cost somebody a file, before any work is done; afterwards note them as ours.

    Args:
        outputs: Files that the body writes.
        inputs: Files that it reads.
        force: Whether files may be overwritten that no earlier call wrote.

    Raises:
        FileError: an output that may not be written, or two of one name.
        OSError: one that cannot be.
    """
    paths = [path for path in outputs if path is not None]
    sources = [Path(source) for source in inputs if source is not None]
    for path in paths:
        check_output(path, inputs=sources, force=force)
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise FileError(f"Expected outputs of different names (got {', '.join(map(str, paths))})")
    before = [_state(path) for path in paths]
    try:
        yield
    finally:
        for path, state in zip(paths, before, strict=True):
            if _state(path) != state:
                note_output(path)


def write_folder(
    folder: Path, contents: Mapping[str, bytes], *, inputs: Iterable[str | Path] = (), force: bool
) -> list[Path]:
    """Write files of a folder and note them as ours; nothing is written where one may not be.

    Args:
        folder: Made if need be.
        contents: Names, which may have folders of their own, and bytes.
        inputs: See `writing`.
        force: See `writing`.

    Returns:
        The files.

    Raises:
        FileError, OSError: see `writing`.
    """
    paths = [folder / name for name in contents]
    with writing(*paths, inputs=inputs, force=force):
        for path, data in zip(paths, contents.values(), strict=True):
            write_file(path, data)
    return paths


def _state(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is written; None if there is none."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return about.st_dev, about.st_ino, about.st_mtime_ns

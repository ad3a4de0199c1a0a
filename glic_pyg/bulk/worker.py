"""One of many processes: it reads a batch of files, codes what is missing, and writes files and rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from glic_pyg.bulk.coders import Coder, failed_row, message_of
from glic_pyg.bulk.deaths import Mark
from glic_pyg.bulk.shards import code_shard, is_shard
from glic_pyg.bulk.table import part_name, write_rows
from glic_pyg.errors import UserError
from glic_pyg.files import FileBytes
from glic_pyg.ledger import hash_bytes, hash_file, made_of
from glic_pyg.places import Place

READERS = 8
"""Files that are read at the same time."""


class File(NamedTuple):
    """A file to code.

    Args:
        name: Relative to the source.
        output: Of what is made of it, relative to the target; empty if nothing is written.
        made: Of what an earlier start made of it, see `made_of`; empty if it made nothing.
        sha256: Of the output then.
    """

    name: str
    output: str
    made: str = ""
    sha256: str = ""


class Worker:
    """Codes batches of files; engines call it.

    A batch whose rows are there is done: so an engine may hand it out again. The rows are written last, and
    every file as a whole: what dies on the way loses nothing that was written, and a batch that is begun
    again writes the same, but for a picture at which its processes die, see `Mark`.

    Args:
        coder: The class of what codes.
        settings: Its arguments.
        source: Path or URL of the place with the files.
        target: Path or URL of the place for what is made.
    """

    def __init__(self, coder: type[Coder], settings: Mapping[str, Any], source: str, target: str) -> None:
        self._make = partial(coder, **settings)
        self.source, self.target = Place(source), Place(target)

    @cached_property
    def coder(self) -> Coder:
        """What codes; made for the first batch, where an engine tells in a line why it cannot be."""
        return self._make()

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Code a batch.

        Args:
            item: Its name, `batch`, and its `files`, each a list of what a `File` has.

        Returns:
            `files`: their number.
        """
        files = [File(*file) for file in item["files"]]
        part = part_name(item["batch"])
        if not self.target.exists(part):
            mark = Mark(self.target, item["batch"])
            if error := mark.begin():
                rows = [_failed(file, error) for file in files]
            else:
                rows = self._batch(files, mark)
            write_rows(self.target, part, rows)
            mark.remove()
        return {"files": len(files)}

    def _batch(self, files: Sequence[File], mark: Mark) -> list[dict[str, Any]]:
        read_one = partial(self._read, most=self.coder.most_bytes)  # made here: once, and no file's error
        with ThreadPoolExecutor(READERS) as pool:
            read = pool.map(read_one, files)
            return [
                row for file, data in zip(files, read, strict=True) for row in self._rows(file, data, mark)
            ]

    def _read(self, file: File, most: Callable[[bytes], int]) -> FileBytes | Exception | None:
        """Return the bytes of a picture, or why there are none; None of a shard, which may be large."""
        if is_shard(file.name):
            return None
        try:
            return self.source.read(file.name, most)
        except (UserError, OSError) as error:
            return error

    def _rows(self, file: File, data: FileBytes | Exception | None, mark: Mark) -> list[dict[str, Any]]:
        """Return the rows of what is made of a file, none of what is there."""
        try:
            if isinstance(data, Exception):
                raise data
            if data is None:
                return self._shard(file, mark)
            return self._picture(file, data.getvalue(), mark)
        except (UserError, OSError) as error:
            return [_failed(file, message_of(error))]

    def _picture(self, file: File, data: bytes, mark: Mark) -> list[dict[str, Any]]:
        made = made_of(hash_bytes(data), self.coder.settings)
        if self._is_done(file, made):
            return []
        if error := mark.begin(file.name):
            return [_failed(file, error)]
        row = self.coder.row(file.name, data)
        digest = ""
        if file.output and not row["error"]:
            self.target.write(file.output, row["bytes"])
            digest = hash_bytes(row["bytes"])
        return [_row(file, "", row, made, digest)]

    def _shard(self, file: File, mark: Mark) -> list[dict[str, Any]]:
        with TemporaryDirectory() as folder:
            source, target = Path(folder, "source"), Path(folder, "target")
            self.source.fetch(file.name, source)
            made = made_of(hash_file(source), self.coder.settings)
            if self._is_done(file, made):
                return []
            coded = code_shard(self.coder, file.name, source, target if file.output else None, mark.begin)
            rows = [_row(file, member, row, made, "") for member, row in coded]
            mark.begin()
            if file.output:
                self.target.write(file.output, target)
                digest = hash_file(target)
                rows = [row | {"sha256": digest} for row in rows]
        return rows

    def _is_done(self, file: File, made: str) -> bool:
        return made == file.made and (not file.output or self.target.hash(file.output) == file.sha256)


def _failed(file: File, error: str) -> dict[str, Any]:
    """Return the row of a file of which nothing was made."""
    return _row(file, "", failed_row(error), "", "")


def _row(file: File, member: str, row: Mapping[str, Any], made: str, digest: str) -> dict[str, Any]:
    """Return a picture's row of the table, without its bytes."""
    return {
        **row,
        "path": file.name,
        "member": member,
        "output": "" if row["error"] else file.output,
        "bytes": len(row["bytes"]),
        "made": made,
        "sha256": digest,
    }

"""A whole collection of pictures through an engine: what is missing is done, and told in one table.

files of the source --> batches --> engine: `Worker`s --> outputs, and parts of the table --> the table
        ^                                                                                         |
        +------------- what an earlier start has made, by its rows --------------------------------+
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glic_pyg.bulk.coders import Coder
from glic_pyg.bulk.shards import SHARDS, is_shard
from glic_pyg.bulk.table import LOCK, PARTS, RESULTS, merge_parts, of_files
from glic_pyg.bulk.worker import File, Worker
from glic_pyg.errors import FileError
from glic_pyg.files import lock_file, make_folder, printable
from glic_pyg.ledger import hash_bytes
from glic_pyg.names import output_names
from glic_pyg.places import Place
from glic_pyg.progress import each, tell

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_BYTES = 64 << 20
"""Of the pictures in a batch, unless one alone has more: they are in memory together."""

Engine = Callable[[type, Mapping[str, Any], Sequence[dict[str, Any]]], Iterable[dict[str, Any]]]
"""Makes a class with settings, in any number of processes, and calls it with each item; yields results."""


@dataclass(frozen=True)
class Summary:
    """What is in the table about the files of the source.

    Args:
        pictures: How many there are.
        new: How many of them this start has coded, or tried to.
        failed: How many could not be coded.
        seconds: That the engine took.
        first_error: Of those that failed; empty if none did.
    """

    pictures: int
    new: int
    failed: int
    seconds: float
    first_error: str


def run(
    coder: type[Coder],
    settings: Mapping[str, Any],
    source: str,
    target: str,
    *,
    engine: AbstractContextManager[Engine],
    writes: bool = True,
    batch: int = 32,
    force: bool = False,
) -> Summary:
    """Code all pictures of a source that the target has not, or not of the same bytes with the same settings.

    Args:
        coder: The class of what codes.
        settings: Its arguments.
        source: Path or URL of pictures, and of shards of them (`SHARDS`).
        target: Path or URL for what is made, and for the table.
        engine: What runs the work; it is begun when all that can be refused has been.
        writes: Whether there are outputs beside the table.
        batch: At most so many files in a batch.
        force: Whether the target may have files of others.

    Raises:
        UserError: no pictures, a target that is not ours or at which another start works, or settings that
            cannot be.
    """
    source, only = _folder_of(source)
    places = Place(source), Place(target)
    example = coder(**{**settings, "device": "cpu"})  # refuses what cannot be, before any process does
    files = _files(*places, example.suffixes, only)
    if not force and not places[1].is_empty() and not _is_ours(places[1]):
        raise FileError(
            f"Expected a target that is empty or of an earlier call (got {target}); --force writes into it"
        )
    with _alone(places[1]), engine as hand_out:
        earlier, _ = merge_parts(places[1])
        work = list(_work(list(files), earlier, example.new_suffix if writes else None))
        items = [
            {"batch": _name(some, example.settings), "files": [list(file) for file in some]}
            for some in batches(work, files, batch)
        ]
        start = time.perf_counter()
        urls = {"source": places[0].url, "target": places[1].url}
        fixed = {"coder": coder, "settings": dict(settings), **urls}
        for _ in each(hand_out(Worker, fixed, items), "coding batches", total=len(items)):
            pass
        seconds = time.perf_counter() - start
        tell("writing the table")
        table, new = merge_parts(places[1])
    table = of_files(table, files)
    errors = [error for error in table["error"].to_pylist() if error]
    return Summary(table.num_rows, new, len(errors), seconds, errors[0] if errors else "")


@contextmanager
def _alone(target: Place) -> Iterator[None]:
    """Lock a folder of this machine, or of a shared disk; the lock of a process that died is none."""
    if not target.is_local:
        yield
        return
    path = Path(target.path(LOCK))
    make_folder(path.parent)
    with open(path, "ab") as file:
        try:
            lock_file(file)
        except BlockingIOError:
            raise FileError(f"Expected no other start at work on {target.url} (got one)") from None
        except OSError as error:
            told = f"Expected locks on the disk of {target.url} (got: {error.strerror})"
            warnings.warn(f"{told}: a second start would not be noticed", stacklevel=2)
        yield


def batches(files: Sequence[File], sizes: Mapping[str, int], most: int) -> Iterator[list[File]]:
    """Yield the files in batches, the largest first, which would else be waited for at the end.

    A shard is a batch of its own. Others have as many files, and at most `BATCH_BYTES`, unless one has more.

    Args:
        files: To work on.
        sizes: Their bytes, by name.
        most: Files in a batch.
    """
    batch: list[File] = []
    room = BATCH_BYTES
    for file in sorted(files, key=lambda file: (-sizes[file.name], file.name)):
        if is_shard(file.name):
            yield [file]
            continue
        if batch and (len(batch) == most or sizes[file.name] > room):
            yield batch
            batch, room = [], BATCH_BYTES
        batch.append(file)
        room -= sizes[file.name]
    if batch:
        yield batch


def _name(batch: Sequence[File], settings: Mapping[str, Any]) -> str:
    """Return a name for a batch, by its files and all settings."""
    return hash_bytes(json.dumps([[file.name for file in batch], dict(settings)]).encode())[:32]


def _folder_of(url: str) -> tuple[str, str | None]:
    """Return the folder of a single file, and its name; of a folder itself, and no name."""
    place = Place(url)
    if not place.fs.isfile(place.root):
        return url, None
    folder, _, name = url.rstrip("/").rpartition("/")
    return folder or ("/" if url.startswith("/") else "."), name


def _files(source: Place, target: Place, suffixes: Collection[str], only: str | None) -> dict[str, int]:
    """Return the files to code, and their bytes."""
    if source.is_same(target) or (only is None and source.overlaps(target)):
        raise FileError(f"Expected a target apart from the source (got {target.url})")
    tell("looking for files")
    if only is not None:
        found = {only: source.fs.size(source.path(only))}
    else:
        found = source.files({*suffixes, *SHARDS})
    files = {}
    for name, size in found.items():
        if any("\ud800" <= character <= "\udfff" for character in name):  # Parquet's texts are UTF-8
            warnings.warn(f"Expected a name in UTF-8 (got {printable(name)}): left out", stacklevel=2)
        elif Path(name).name != RESULTS and PARTS.rstrip("/") not in Path(name).parts:
            files[name] = size
    if not files:
        raise FileError(f"Expected pictures, or shards of them, in {source.url} (got none)")
    return files


def _is_ours(target: Place) -> bool:
    return target.exists(RESULTS) or target.exists(LOCK)


def _work(names: Sequence[str], earlier: pa.Table, suffix: str | None) -> Iterator[File]:
    """Yield all files with the names of their outputs, and what an earlier start has made of them.

    Args:
        names: Of the files.
        earlier: Rows of earlier starts.
        suffix: Of outputs of pictures; None if nothing is written.
    """
    made: dict[str, File] = {}
    owners: dict[Path, str] = {}
    columns = (earlier[name].to_pylist() for name in ("path", "output", "made", "sha256", "error"))
    for name, output, what, digest, error in zip(*columns, strict=True):
        if digest or not error:
            made[name] = File(name, output, what, digest)
        if output:
            owners[Path(output)] = Path(name).name
    pictures = [name for name in names if not is_shard(name)]
    outputs: dict[str, str] = {}
    if suffix is not None:
        made_names = output_names([Path(name) for name in pictures], suffix, owners.get)
        outputs = {name: path.as_posix() for name, path in zip(pictures, made_names, strict=True)}
    for name in names:
        output = "" if suffix is None else outputs.get(name, name)
        before = made.get(name)
        if before is None or (output and before.output not in ("", output)):
            yield File(name, output)
        else:
            yield File(name, output, before.made, before.sha256)

"""Files to files, one or whole folders: what is done stays, what is somebody else's stays too."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from glic_pyg.cli.printing import USER_ERRORS, one_line, print_json, print_line, say
from glic_pyg.errors import FileError
from glic_pyg.files import (
    FileBytes,
    files_below,
    follow_links,
    identity,
    is_stream,
    naming,
    read_file,
    write_file,
)
from glic_pyg.ledger import Ledger, check_output, hash_bytes, made_of
from glic_pyg.names import output_names
from glic_pyg.processes import in_processes
from glic_pyg.progress import each, tell

STREAM = "-"
"""What stands for standard input and output."""
STANDARD_INPUT, STANDARD_OUTPUT = Path("/dev/fd/0"), Path("/dev/fd/1")


@dataclass(frozen=True)
class Converter:
    """What makes a file's bytes of another's.

    Args:
        work: Does it, with figures about it and the same as a text.
        settings: Whatever else the bytes depend on, JSON values.
        most_bytes: Of a file to convert, see `read_file`.
    """

    work: Callable[[FileBytes], tuple[bytes, Mapping[str, Any], str]]
    settings: Mapping[str, Any]
    most_bytes: int | Callable[[bytes], int]

    def hash(self, data: FileBytes) -> str:
        """Return what stands for the bytes of a file to convert and all settings."""
        return made_of(hash_bytes(data.getvalue()), self.settings)


class Task(NamedTuple):
    """A file of a folder to convert.

    Args:
        source: The file.
        target: To be written.
        same: An input that `target` is another name of; that is refused.
    """

    source: Path
    target: Path
    same: Path | None


class Outcome(NamedTuple):
    """What came of a file of a folder.

    Args:
        about: Figures, and the same as a text; None of what an earlier call has done.
        error: Why it could not be converted, one line; empty if it could.
        warnings: What there is to tell of it, if it is not told yet.
    """

    about: tuple[Mapping[str, Any], str] | None = None
    error: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conversion:
    """How files are converted.

    Args:
        begin: Makes the converter, which takes its time: once in each process that converts.
        suffixes: Of the files to convert in a folder, lower case.
        new_suffix: Of the converted files.
        force: Whether files may be overwritten that no earlier call wrote.
        inputs: Whatever else is read, the model's file for instance: none of it becomes an output.
        as_json: Whether figures are printed, in place of texts.
        jobs: How many processes convert a folder; with several, `begin` has to be found by its name.
    """

    begin: Callable[[], Converter]
    suffixes: Collection[str]
    new_suffix: str
    force: bool
    inputs: Sequence[Path] = ()
    as_json: bool = False
    jobs: int = 1

    def __call__(self, source: str, target: str) -> int:
        """Convert a file, or every file with one of the suffixes in a folder and below.

        In a folder relative names are kept. A file that cannot be converted is reported, and the others go
        on. What an earlier call has made of the same bytes with the same settings is left alone.

        Args:
            source: File, folder, or `-`.
            target: File or `-`; a folder where it is one or ends in `/`, and for a folder.

        Returns:
            The exit status: 1 if any file of the folder could not be converted.

        Raises:
            FileError: a source or target that cannot be.
            OSError: a file that cannot be read or written.
        """
        if source != STREAM and os.path.isdir(source):
            return self._convert_folder(Path(source), target)
        self._convert_one(source, target)
        return 0

    def _convert_one(self, source: str, target: str) -> None:
        if source != STREAM and (target.endswith(("/", os.sep)) or os.path.isdir(target)):
            target = str(Path(target, Path(source).name).with_suffix(self.new_suffix))
        if target.endswith(("/", os.sep)):
            raise FileError(f"Expected a file name for the output (got the folder {target})")
        for name, stream, which in ((source, sys.stdin, "input"), (target, sys.stdout, "output")):
            if name == STREAM and stream is None:
                raise FileError(f"Expected standard {which} to be open (got a closed one)")
        path = STANDARD_OUTPUT if target == STREAM else Path(target)
        read = STANDARD_INPUT if source == STREAM else Path(source)
        check_output(path, inputs=[read, *self.inputs], force=self.force)
        streams = is_stream(follow_links(path))
        converter = self.begin()
        data = read_file(sys.stdin.buffer if source == STREAM else source, converter.most_bytes)
        made = converter.hash(data)
        tell(f"converting {source}")
        result, figures, text = converter.work(data)
        if streams:
            write_file(path, result)
        else:
            _write(path, result, Ledger(follow_links(path).parent), Path(source).name, made)
        self._tell(source, target, figures, text, file=sys.stderr if streams else sys.stdout)

    def _tell(
        self, source: str | Path, target: str | Path, figures: Mapping[str, Any], text: str, *, file: TextIO
    ) -> None:
        if self.as_json:
            print_json({"input": str(source), "output": str(target), **figures}, file=file)
        else:
            say(f"{target}: {text}", file=file)

    def _convert_folder(self, source: Path, target: str) -> int:
        folder = Path(target)
        if target == STREAM or (folder.exists() and not folder.is_dir()):
            raise FileError(f"Expected a folder for the output (got {target})")
        if folder.exists() and folder.samefile(source):
            raise FileError(f"Expected another folder for the output than {source} (got the same)")
        found = files_below(source, self.suffixes)
        if not found:
            raise FileError(f"Expected files to convert in {source} (got none)")
        ledgers = {place: Ledger(folder / place) for place in {p.relative_to(source).parent for p in found}}

        def owner(name: Path) -> str | None:
            return ledgers[name.parent].source(folder / name)

        names = output_names([path.relative_to(source) for path in found], self.new_suffix, owner)
        inputs: dict[object, Path] = {identity(path): path for path in (*found, *self.inputs)}
        names = [folder / name for name in names]
        tasks = (Task(*pair, inputs.get(identity(pair[1]))) for pair in zip(found, names, strict=True))
        failed = done = 0
        with closing(self._outcomes(tasks)) as outcomes:
            told = each(outcomes, "files", total=len(found))
            for path, name, outcome in zip(found, names, told, strict=True):
                for warning in outcome.warnings:
                    warnings.warn(warning, stacklevel=1)
                if outcome.error:
                    failed += 1
                    print_line("error", outcome.error)
                elif outcome.about is None:
                    done += 1
                else:
                    self._tell(path, name, *outcome.about, file=sys.stdout)
        if done:
            file = sys.stderr if self.as_json else sys.stdout
            say(f"{done} of {len(found)} files were done already", file=file)
        if failed:
            print_line("error", f"{failed} of {len(found)} files could not be converted")
        return int(failed > 0)

    def _outcomes(self, tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
        if self.jobs == 1:
            yield from map(FolderConverter(self.begin(), force=self.force), tasks)
        else:
            yield from in_processes(partial(_begin_process, self.begin, self.force), tasks, jobs=self.jobs)


def _begin_process(begin: Callable[[], Converter], force: bool) -> Callable[[Task], Outcome]:
    return FolderConverter(begin(), force=force).quietly


class FolderConverter:
    """Converts files of folders, whatever goes wrong with one of them.

    Args:
        converter: What makes bytes of bytes.
        force: Whether files may be overwritten that no earlier call wrote.
    """

    def __init__(self, converter: Converter, *, force: bool) -> None:
        self.converter = converter
        self.force = force
        self._ledgers: dict[Path, Ledger] = {}

    def __call__(self, task: Task) -> Outcome:
        """Convert a file, unless an earlier call has done so; warnings are given as they come."""
        try:
            return Outcome(self._convert(task))
        except USER_ERRORS as error:
            text = one_line(error)
            named = isinstance(error, OSError) or str(task.source) in str(error)
            return Outcome(error=text if named else f"{task.source}: {text}")

    def quietly(self, task: Task) -> Outcome:
        """Convert a file; warnings are part of the outcome."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            outcome = self(task)
        return outcome._replace(warnings=tuple(str(warning.message) for warning in told))

    def _convert(self, task: Task) -> tuple[Mapping[str, Any], str] | None:
        """Return what there is to tell; None of what an earlier call has done."""
        source, target, same = task
        with naming(target):
            real = follow_links(target)
            if real.parent not in self._ledgers:
                self._ledgers[real.parent] = Ledger(real.parent)
            ledger = self._ledgers[real.parent]
            ledger.read()
        data = read_file(source, self.converter.most_bytes)
        made = self.converter.hash(data)
        with naming(target):
            if ledger.made(real) == made:
                return None
            check_output(target, inputs=[same] if same else [], force=self.force, ledger=ledger)
            if ledger.source(real) not in (None, source.name):
                raise FileError(f"Expected an output made of {source.name} (got {target}, of another file)")
        result, figures, text = self.converter.work(data)
        _write(target, result, ledger, source.name, made)
        return figures, text


def _write(target: Path, result: bytes, ledger: Ledger, source: str, made: str) -> None:
    with naming(target):
        ledger.note(follow_links(target).name, hash_bytes(result), source=source, made=made)
    write_file(target, result)

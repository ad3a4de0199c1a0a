"""Files to files, one or whole folders: what is done stays, what is somebody else's stays too."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from glic_pyg.cli.printing import USER_ERRORS, print_json, print_line, say
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
from glic_pyg.ledger import Ledger, check_output, hash_bytes
from glic_pyg.progress import each, tell

STREAM = "-"
"""What stands for standard input and output."""
STANDARD_INPUT, STANDARD_OUTPUT = Path("/dev/fd/0"), Path("/dev/fd/1")


@dataclass(frozen=True)
class Conversion:
    """How files are converted.

    Args:
        work: Makes a file's bytes of another's, with figures about it and the same as a text.
        settings: Whatever else the bytes depend on, JSON values.
        suffixes: Of the files to convert in a folder, lower case.
        new_suffix: Of the converted files.
        most_bytes: Of a file to convert, see `read_file`.
        force: Whether files may be overwritten that no earlier call wrote.
        inputs: Whatever else is read, the model's file for instance: none of it becomes an output.
        as_json: Whether figures are printed, in place of texts.
    """

    work: Callable[[FileBytes], tuple[bytes, Mapping[str, Any], str]]
    settings: Mapping[str, Any]
    suffixes: Collection[str]
    new_suffix: str
    most_bytes: int | Callable[[bytes], int]
    force: bool
    inputs: Sequence[Path] = ()
    as_json: bool = False

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
        data = read_file(sys.stdin.buffer if source == STREAM else source, self.most_bytes)
        made = self._hash(data)
        tell(f"converting {source}")
        result, figures, text = self.work(data)
        if streams:
            write_file(path, result)
        else:
            self._write(path, result, Ledger(follow_links(path).parent), Path(source).name, made)
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
        names = output_names([path.relative_to(source) for path in found], self.new_suffix, ledgers)
        inputs: dict[object, Path] = {identity(path): path for path in (*found, *self.inputs)}
        failed = done = 0
        for path, name in zip(each(found, "files"), names, strict=True):
            try:
                about = self._convert_of_folder(path, folder / name, ledgers[name.parent], inputs)
            except USER_ERRORS as error:
                failed += 1
                named = isinstance(error, OSError) or str(path) in str(error)
                print_line("error", error if named else f"{path}: {error}")
            else:
                if about is None:
                    done += 1
                else:
                    self._tell(path, folder / name, *about, file=sys.stdout)
        if done:
            file = sys.stderr if self.as_json else sys.stdout
            say(f"{done} of {len(found)} files were done already", file=file)
        if failed:
            print_line("error", f"{failed} of {len(found)} files could not be converted")
        return int(failed > 0)

    def _convert_of_folder(
        self, source: Path, target: Path, ledger: Ledger, inputs: Mapping[object, Path]
    ) -> tuple[Mapping[str, Any], str] | None:
        """Return what there is to tell; None of what an earlier call has done."""
        with naming(target):
            real = follow_links(target)
            if real.parent != target.parent:
                ledger = Ledger(real.parent)
            ledger.read()
        data = read_file(source, self.most_bytes)
        made = self._hash(data)
        with naming(target):
            if ledger.made(real) == made:
                return None
            same = inputs.get(identity(real))
            check_output(target, inputs=[same] if same else [], force=self.force, ledger=ledger)
            if ledger.source(real) not in (None, source.name):
                raise FileError(f"Expected an output made of {source.name} (got {target}, of another file)")
        result, figures, text = self.work(data)
        self._write(target, result, ledger, source.name, made)
        return figures, text

    def _hash(self, data: FileBytes) -> str:
        about = [hash_bytes(data.getvalue()), dict(self.settings)]
        return hash_bytes(json.dumps(about, sort_keys=True).encode())

    def _write(self, target: Path, result: bytes, ledger: Ledger, source: str, made: str) -> None:
        with naming(target):
            ledger.note(follow_links(target).name, hash_bytes(result), source=source, made=made)
        write_file(target, result)


def output_names(paths: Sequence[Path], suffix: str, ledgers: Mapping[Path, Ledger]) -> list[Path]:
    """Return names for what is made of files: each with another suffix, or else with one more.

    A name that an earlier call gave to a file, such as `a.glic` to `a.png`, stays this file's. Where two
    files would get one name that is nobody's yet, they get `a.png.glic` and `a.jpg.glic`.

    Args:
        paths: The files, relative to their folder.
        suffix: Of the names.
        ledgers: For every folder with files, what was written into that of its outputs.
    """

    def owner(name: Path) -> str | None:
        ledger = ledgers[name.parent]
        return ledger.source(ledger.path.with_name(name.name))

    names = {path: path.with_suffix(suffix) for path in paths}
    owners = {name: owner(name) for name in names.values()}
    while True:
        count = Counter(names.values())
        clashing = {
            path: path.with_name(path.name + suffix)
            for path, name in names.items()
            if owners.get(name) not in (None, path.name) or (count[name] > 1 and owners.get(name) is None)
        }
        if clashing.items() <= names.items():
            return list(names.values())
        names |= clashing

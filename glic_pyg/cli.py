"""What the command line tools share: one-line errors and warnings, exit statuses, whole folders, tables."""

from __future__ import annotations

import re
import sys
import warnings
from argparse import ArgumentParser, ArgumentTypeError
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from glic_pyg.errors import FileError, UserError
from glic_pyg.files import files_below
from glic_pyg.image import MAX_PIXELS

USER_ERRORS = (UserError, OSError)
"""What bad input raises; anything else is a bug and keeps its traceback."""


def run(main: Callable[[], int]) -> NoReturn:
    """Run a tool's `main` and exit with its status: 2 after a user's error, 130 when interrupted."""
    told: set[str] = set()

    def show(message: Warning | str, *_: object) -> None:
        if str(message) not in told:  # Python forgets what it has shown whenever a filter changes
            told.add(str(message))
            print_line("warning", message)

    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            status = main()
        except USER_ERRORS as error:
            print_line("error", error)
            status = 2
        except KeyboardInterrupt:
            status = 130
    sys.exit(status)


def add_max_pixels(parser: ArgumentParser) -> None:
    """Add the flag that bounds the size of pictures."""
    parser.add_argument(
        "--max-pixels", type=int, default=MAX_PIXELS, help="refuse larger pictures (default: %(default)s)"
    )


def add_allow_code(parser: ArgumentParser) -> None:
    """Add the flag that lets a model file name code, see `GLIC.from_pretrained`."""
    parser.add_argument(
        "--allow-code",
        action="store_true",
        help="import what the model file names beyond this package and torch_geometric.nn; it runs as code",
    )


def add_max_memory(parser: ArgumentParser) -> None:
    """Add the flag that bounds the memory of the process."""
    parser.add_argument(
        "--max-memory",
        type=_bytes,
        metavar="4G",
        help="bytes (K, M, G: times 1024) that the process may hold: larger pictures are coded in tiles",
    )


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if not match:
        raise ArgumentTypeError(f"Expected a number of bytes such as 4G (got {text})")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


def convert_files(
    source: Path,
    target: Path,
    work: Callable[[Path, Path], str],
    *,
    suffixes: Collection[str],
    new_suffix: str,
    is_done: Callable[[Path, Path], bool],
) -> int:
    """Convert a file, or every file with one of the suffixes in a folder and below, keeping relative names.

    In a folder a file that cannot be converted is reported and the others go on; what an earlier call has
    converted already is left alone.

    Args:
        source: File or folder.
        target: File, or for a folder the folder to fill.
        work: Converts one file to another and returns a line to print.
        suffixes: Of the files to convert in a folder, lower case.
        new_suffix: Of the converted files in a folder.
        is_done: Whether a file of the folder is what converting another would give; asked only if it is there
            and not older.

    Returns:
        The exit status: 1 if any file of the folder could not be converted.

    Raises:
        FileError: no file in the source, or a target that cannot be.
    """
    if not source.is_dir():
        print(work(source, target))
        return 0
    if target.resolve() == source.resolve():
        raise FileError(f"Expected another folder for the output than {source} (got the same)")
    found = files_below(source, suffixes)
    if not found:
        raise FileError(f"Expected files to convert in {source} (got none)")
    failed = done = 0
    names = output_names([path.relative_to(source) for path in found], new_suffix)
    for path, name in zip(tqdm(found, unit="file", disable=None), names, strict=True):
        if _is_newer(target / name, path) and is_done(path, target / name):
            done += 1
            continue
        try:
            line = work(path, target / name)
        except USER_ERRORS as error:
            failed += 1
            named = isinstance(error, OSError) or str(path) in str(error)
            print_line("error", error if named else f"{path}: {error}")
        else:
            with tqdm.external_write_mode():
                print(line)
    if done:
        print(f"{done} of {len(found)} files were done already")
    if failed:
        print_line("error", f"{failed} of {len(found)} files could not be converted")
    return int(failed > 0)


def _is_newer(target: Path, source: Path) -> bool:
    return target.is_file() and target.stat().st_mtime >= source.stat().st_mtime


def output_names(paths: Iterable[Path], suffix: str) -> list[Path]:
    """Replace each path's suffix; where two would get the same name, append to the whole names instead."""
    names = {path: path.with_suffix(suffix) for path in paths}
    while True:
        count = Counter(names.values())
        clashing = {
            path: path.with_name(path.name + suffix) for path, name in names.items() if count[name] > 1
        }
        if clashing.items() <= names.items():
            return list(names.values())
        names |= clashing


def aligned(lines: Sequence[Sequence[str]], *, labels: int = 1) -> str:
    """Return a table as text.

    Args:
        lines: Its cells; every line has as many.
        labels: How many columns, the first ones, are flush left; the others are flush right.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < labels else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def print_line(kind: str, message: object) -> None:
    """Print an error or warning, `kind`, to standard error as one line."""
    if isinstance(message, OSError) and message.filename is not None:
        message = f"{message.strerror}: {message.filename}"
    with tqdm.external_write_mode(file=sys.stderr):
        print(f"{kind}: {' '.join(str(message).split())}", file=sys.stderr)

"""What the command line tools share: flags, one-line errors and warnings, exit statuses, outputs, tables."""

from __future__ import annotations

import argparse
import logging
import math
import os
import re
import signal
import sys
import warnings
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

from tqdm import tqdm

from glic_pyg.errors import FileError, UserError
from glic_pyg.files import printable
from glic_pyg.image import MAX_PIXELS
from glic_pyg.ledger import check_output, note_output

USER_ERRORS = (UserError, OSError)
"""What bad input raises; anything else is a bug and keeps its traceback."""

TERMINATED = 128 + signal.SIGTERM


def run(main: Callable[[], int]) -> NoReturn:
    """Run a tool's `main` and exit with its status.

    It is 2 after a user's error, 130 when interrupted, and 143 when terminated; what is being written is then
    removed.
    """
    told: set[str] = set()

    def show(message: Warning | str, *_: object) -> None:
        if str(message) not in told:  # Python forgets what it has shown whenever a filter changes
            told.add(str(message))
            print_line("warning", message)

    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it was closed
            stream.reconfigure(errors="backslashreplace")  # whatever a terminal's encoding lacks
    with warnings.catch_warnings(), _ending_on_sigterm():
        warnings.showwarning = show
        try:
            status = main()
            print(end="", flush=True)
        except BrokenPipeError as error:
            status = 2
            if error.filename is None:  # whoever read what was printed has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            else:
                print_line("error", error)
        except USER_ERRORS as error:
            print_line("error", error)
            status = 2
        except MemoryError:
            print_line("error", "Expected enough memory (got no more)")
            status = 2
        except KeyboardInterrupt:
            status = 130
    sys.exit(status)


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does."""

    def end(*_: object) -> NoReturn:
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Parser(argparse.ArgumentParser):
    """A parser of a tool's command line, whose errors are one line.

    Args:
        description: The tool's docstring, shown as it is.
    """

    def __init__(self, description: str | None = None, **settings: Any) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, formatter_class=form, **settings)

    def error(self, message: str) -> NoReturn:
        """Print an error and exit with status 2."""
        print_line("error", message)
        sys.exit(2)


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add the flag that lets files be overwritten."""
    text = "overwrite files that no earlier call wrote, or that were changed since"
    parser.add_argument("--force", action="store_true", help=text)


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add the flag that bounds the size of pictures."""
    parser.add_argument(
        "--max-pixels", type=count, default=MAX_PIXELS, help="refuse larger pictures (default: %(default)s)"
    )


def add_allow_code(parser: argparse.ArgumentParser) -> None:
    """Add the flag that lets a model file name code, see `GLIC.from_pretrained`."""
    parser.add_argument(
        "--allow-code",
        action="store_true",
        help="import what the model file names beyond this package and torch_geometric.nn; it runs as code",
    )


def add_max_memory(parser: argparse.ArgumentParser) -> None:
    """Add the flag that bounds the memory of the process."""
    parser.add_argument(
        "--max-memory",
        type=size,
        metavar="4G",
        help="bytes (K, M, G: times 1024) that the process may hold: larger pictures are coded in tiles",
    )


def size(text: str) -> int:
    """Return a flag's number of bytes, such as 4G."""
    match = re.fullmatch(r"([0-9]{1,18})([KMG]?)", text)
    if not match:
        raise ArgumentTypeError(f"Expected a number of bytes such as 4G (got {text})")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


def count(text: str) -> int:
    """Return a flag's whole number of at least 1."""
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < 1:
        raise ArgumentTypeError(f"Expected a whole number of at least 1 (got {text})")
    return int(text)


def whole(text: str) -> int:
    """Return a flag's whole number of at least 0."""
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ArgumentTypeError(f"Expected a whole number of at least 0 (got {text})")
    return int(text)


def positive(text: str) -> float:
    """Return a flag's number above 0."""
    return _number(text, lambda value: value > 0, "above 0")


def nonnegative(text: str) -> float:
    """Return a flag's number of at least 0."""
    return _number(text, lambda value: value >= 0, "of at least 0")


def _number(text: str, holds: Callable[[float], bool], which: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and holds(value)):
        raise ArgumentTypeError(f"Expected a number {which} (got {text})")
    return value


def file_name(text: str) -> Path:
    """Return a flag's name of a file to write: none that ends as a folder's does."""
    if not text or text.endswith(("/", os.sep)):
        raise ArgumentTypeError(f"Expected a file name for the output (got {text or 'nothing'})")
    return Path(text)


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


def _state(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is written; None if there is none."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return about.st_dev, about.st_ino, about.st_mtime_ns


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


def say(text: object, *, file: TextIO | None = None) -> None:
    """Print a line, by default to standard output."""
    file = file or sys.stdout
    with tqdm.external_write_mode(file=file):
        print(printable(text), file=file)


def print_line(kind: str, message: object) -> None:
    """Print an error or warning, `kind`, to standard error as one line."""
    if isinstance(message, OSError) and message.filename is not None:
        message = f"{message.strerror}: {message.filename}"
    say(f"{kind}: {' '.join(str(message).split())}", file=sys.stderr)


def show_log() -> None:
    """Let messages of the log be lines of standard error."""

    class OneLine(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return printable(record.getMessage())

    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    logging.basicConfig(handlers=[handler])

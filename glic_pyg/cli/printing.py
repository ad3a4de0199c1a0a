"""Lines, tables and JSON on standard output and standard error."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any, TextIO

from glic_pyg.errors import UserError
from glic_pyg.files import printable

CHUNK_NAMES = {"ALPH": "alpha", "EXIF": "EXIF data", "XMP ": "XMP data", "ICCP": "colour profile"}
"""Of .glic files, as users call them."""
USER_ERRORS = (UserError, OSError)
"""What bad input raises; anything else is a bug and keeps its traceback."""


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
        ).rstrip()
        for line in lines
    )


def say(text: object, *, file: TextIO | None = None) -> None:
    """Print a line, by default to standard output; a progress bar makes room for it."""
    file = file or sys.stdout
    tqdm = sys.modules.get("tqdm")  # without it there is no bar
    with tqdm.tqdm.external_write_mode(file=file) if tqdm else nullcontext():
        print(printable(text), file=file)


def say_lines(text: str) -> None:
    """Print lines, a table for instance, to standard output as `say` does."""
    for line in text.split("\n"):
        say(line)


def print_line(kind: str, message: object) -> None:
    """Print an error or warning, `kind`, to standard error as one line, if that can be written."""
    with suppress(OSError):
        say(f"{kind}: {one_line(message)}", file=sys.stderr)


def one_line(message: object) -> str:
    """Return an error or warning as one line; the system's errors say their file's name last."""
    if isinstance(message, OSError) and message.filename is not None:
        message = f"{message.strerror}: {message.filename}"
    return " ".join(str(message).split())


def print_json(value: Any, *, file: TextIO | None = None) -> None:
    """Print a value as a line of JSON, with null for numbers that are none or infinite."""
    say(json.dumps(_finite(value)), file=file)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def show_log(*names: str) -> None:
    """Let messages of the log be lines of standard error.

    Args:
        names: Whose messages are shown even if they are no warnings.
    """
    for name in names:
        logging.getLogger(name).setLevel(logging.INFO)

    class OneLine(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage(), file=sys.stderr)

    logging.basicConfig(handlers=[OneLine()])

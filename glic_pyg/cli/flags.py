"""The flags that commands share, each with one name and one help text, and the kinds of their values."""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from glic_pyg.cli.printing import print_line
from glic_pyg.limits import MAX_PIXELS

MODEL = "glic_nano"
METHODS = ("cubic", "pchip", "akima")
"""`glic_pyg.evaluation.bd.METHODS`, which is not imported to read arguments."""
MOST_THREADS = 1024
MOST_JOBS = 256


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and say which known word an unknown one resembles.

    Args:
        description: A docstring, shown as it is.
    """

    def __init__(self, description: str | None = None, **settings: Any) -> None:
        super().__init__(description=description, formatter_class=_Help, allow_abbrev=False, **settings)

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Return what the arguments say, a Namespace unless another is given, or end with an error's line."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = getattr(parsed, "flags", self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{_resembling(unknown[0], flags)}")
        return parsed

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            message = f"Expected one of {', '.join(names)} (got {value}){_resembling(str(value), names)}"
            raise argparse.ArgumentError(action, message)

    def error(self, message: str) -> NoReturn:
        """Print an error and exit with status 2."""
        print_line("error", message)
        sys.exit(2)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Texts begin beside the names of all commands: argparse forgets how far those are indented."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)
        self._action_max_length = 14


def _resembling(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word.partition("=")[0], list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def add_model(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the flags that say which model codes."""
    about = "name of a model, or path of a checkpoint (default: glic_nano)"
    if several:
        parser.add_argument("--model", nargs="+", default=[MODEL], metavar="NAME|PATH", help=about)
    else:
        parser.add_argument("--model", default=MODEL, metavar="NAME|PATH", help=about)
    add_allow_code(parser)


def add_allow_code(parser: argparse.ArgumentParser) -> None:
    """Add the flag that lets a checkpoint name code, see `GLIC.from_pretrained`."""
    parser.add_argument(
        "--allow-code",
        action="store_true",
        help="import what the checkpoint names beyond this package and torch_geometric.nn; it runs as code",
    )


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what computes."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    add_threads(parser)


def add_accelerator(parser: argparse._ActionsContainer) -> None:
    """Add the flags that say what trains."""
    kinds = ("auto", "cpu", "cuda")
    about = "%(choices)s; auto takes a GPU where there is one (default: %(default)s)"
    parser.add_argument("--device", choices=kinds, default="auto", help=about)
    add_threads(parser)


def add_threads(parser: argparse._ActionsContainer) -> None:
    """Add the flag that bounds the threads of the process."""
    parser.add_argument(
        "--threads", type=threads, metavar="N", help="of the CPU, in all (default: one per core)"
    )


def add_jobs(parser: argparse.ArgumentParser, about: str) -> None:
    """Add the flag that says how many processes work; they share --threads and --max-memory."""
    parser.add_argument(
        "--jobs",
        type=jobs,
        default=1,
        metavar="N",
        help=f"processes, or auto for as many as there are cores; {about} (default: %(default)s)",
    )


def add_ray(parser: argparse.ArgumentParser, **settings: Any) -> None:
    """Add the flag that says which cluster works."""
    about = "work on a cluster of Ray's: its address, or local for all cores of this machine"
    parser.add_argument("--ray", metavar="ADDRESS", help=about, **settings)


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """Add the flag that says where pictures are."""
    about = "folders of pictures, searched recursively"
    parser.add_argument("-d", "--dataset", type=Path, nargs="+", metavar="FOLDER", help=about, required=True)


def add_training_set(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the flag that says where pictures to train on are."""
    about = "folders of pictures or tar shards, searched recursively, or URLs of shards"
    parser.add_argument("-d", "--dataset", nargs="+", metavar="FOLDER", help=about, required=required)


def add_output_folder(parser: argparse.ArgumentParser, **settings: Any) -> None:
    """Add the flag that says where results go."""
    about = "folder for what is made" + (" (default: %(default)s)" if "default" in settings else "")
    settings = settings or {"required": True}
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help=about, **settings)


def add_bd(parser: argparse.ArgumentParser, *, bpp: tuple[float, float] | None) -> None:
    """Add the flags of BD-rates.

    Args:
        parser: Of the command.
        bpp: The range of rates unless another is asked for.
    """
    parser.add_argument(
        "--method", choices=METHODS, default="cubic", help="interpolation of BD-rates (default: %(default)s)"
    )
    default = "all" if bpp is None else "{:g} {:g}".format(*bpp)
    parser.add_argument(
        "--bpp",
        type=nonnegative,
        nargs=2,
        default=bpp,
        metavar=("LEAST", "MOST"),
        help=f"bits per pixel between which curves are compared (default: {default})",
    )


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add the flag that lets files be overwritten."""
    text = "overwrite files that no earlier call wrote, or that were changed since"
    parser.add_argument("--force", action="store_true", help=text)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the flag that makes results readable for programs."""
    parser.add_argument("--json", action="store_true", help="print results as JSON, a line each")


def add_effort(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how long better latents are looked for."""
    parser.add_argument(
        "--effort",
        type=whole,
        default=0,
        choices=range(5),
        metavar="N",
        help="0 to 4: look for smaller files of the same picture in 0, 25, 50, 100 or 400 steps, each of "
        "about twice as long as decoding (default: %(default)s)",
    )
    parser.add_argument(
        "--lambda",
        type=positive,
        dest="lmbda",
        metavar="L",
        help="of the training of a model of one quality, which --effort needs if its file does not note it",
    )
    parser.add_argument(
        "--distortion",
        choices=("mse", "ms-ssim"),
        help="what --effort makes small beside the file (default: what the model was trained for)",
    )


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add the flag that bounds the size of pictures."""
    parser.add_argument(
        "--max-pixels",
        type=count,
        default=MAX_PIXELS,
        metavar="N",
        help="refuse larger pictures (default: %(default)s)",
    )


def add_max_memory(parser: argparse.ArgumentParser) -> None:
    """Add the flag that bounds the memory of the process."""
    parser.add_argument(
        "--max-memory",
        type=size,
        metavar="4G",
        help="bytes (K, M, G: times 1024) that may be held in all: larger pictures are coded in tiles",
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


def threads(text: str) -> int:
    """Return a flag's number of threads; OpenMP ends a process that asks for more than there can be."""
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MOST_THREADS:
        raise ArgumentTypeError(f"Expected a number of threads in 1..{MOST_THREADS} (got {text})")
    return int(text)


def jobs(text: str) -> int:
    """Return a flag's number of processes: `auto` is as many as there are cores."""
    if text == "auto":
        from glic_pyg.processes import cores

        return cores()
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= MOST_JOBS:
        raise ArgumentTypeError(f"Expected auto or a number of processes in 1..{MOST_JOBS} (got {text})")
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


def add_conversion(parser: argparse.ArgumentParser) -> None:
    """Add what conversions of a file, a folder or a pipe have in common: bounds, machine, output."""
    add_max_pixels(parser)
    add_max_memory(parser)
    add_machine(parser)
    add_jobs(parser, "for a folder")
    add_force(parser)
    add_json(parser)

"""Which commands there are, how one is chosen, and how each ends: the one place that prints errors."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import shlex
import signal
import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from types import ModuleType
from typing import NoReturn

from glic_pyg import __version__
from glic_pyg.cli.flags import Parser
from glic_pyg.cli.printing import USER_ERRORS, print_line, show_log
from glic_pyg.cli.waiting import waiting
from glic_pyg.errors import interruption

DESCRIPTION = """Graph-based learned image compression.

    glic compress photo.jpg -o photo.glic
    glic decompress photo.glic -o photo.png
    glic COMMAND --help"""

COMMANDS = {
    "compress": "compress pictures to .glic files",
    "decompress": "restore the pictures of .glic files",
    "bulk": "code many pictures on a cluster",
    "info": "tell what a .glic file or a checkpoint is",
    "graph": "look at the graphs that a model builds for a photo",
    "train": "train a model on folders of photos",
    "curves": "draw the curves of training runs",
    "ablate": "train variants of a model alike, and compare them",
    "evaluate": "measure codecs on folders of pictures",
    "bd-rate": "compare rate-distortion curves",
    "report": "make a page of what evaluate measured",
    "datasets": "check that a folder holds a data set as published",
    "import": "convert a checkpoint of the authors",
    "export": "write a model's networks as ONNX graphs",
    "viewer": "write a page that shows .glic files in a browser",
    "demo": "compress a photo, restore it, draw its graphs",
    "completion": "print what lets a shell complete words",
}
"""Names, and what they do."""
FORKING = ("train", "ablate")
"""Commands whose processes fork others."""
TERMINATED = 128 + signal.SIGTERM


def main(*words: str) -> NoReturn:
    """Do what the process's arguments say, after these words, and exit with the status."""
    gc.set_threshold(50_000, 20, 20)  # else a fifth of a start goes into looking for garbage, in vain,
    atexit.register(gc.freeze)  # and as much of the end
    wait_briefly()
    take_large_pages()
    run(lambda: run_command([*words, *sys.argv[1:]]))


def wait_briefly() -> None:
    """Let threads that wait for others spin for microseconds, not milliseconds, then sleep.

    On busy cores GNU's OpenMP, torch's on Linux, spends ten times the work on waiting otherwise; on free ones
    this costs nothing that can be measured. It reads its settings when torch is imported, the user's stay.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def take_large_pages() -> None:
    """Let torch ask Linux for memory in pages of 2 MB: a tenth of coding goes into taking 4 kB at a time.

    It reads its setting when it takes memory first, the user's stays.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def run_command(arguments: Sequence[str]) -> int:
    """Read the arguments, then import and run what they ask for; return the exit status."""
    known = Namespace(command_line=shlex.join(["glic", *arguments]), begun=time.perf_counter())
    args = make_parser(arguments[:1]).parse_args(arguments, known)
    with waiting(ticking=arguments[0] not in FORKING):
        return args.run(args)


def make_parser(chosen: Collection[str] = tuple(COMMANDS)) -> Parser:
    """Return the parser of all commands, with the arguments of those that are chosen."""
    parser = Parser(DESCRIPTION, prog="glic")
    parser.add_argument("--version", action="version", version=f"glic_pyg {__version__}")
    parsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, about in COMMANDS.items():
        if name in chosen:
            module = command_module(name)
            command = parsers.add_parser(name, help=about, description=module.__doc__)
            module.add_arguments(command)
            command.set_defaults(run=module.run, flags=list(command._option_string_actions))
        else:
            parsers.add_parser(name, help=about)
    return parser


def command_module(name: str) -> ModuleType:
    """Return the module of a command; `import` is no name that Python allows one."""
    room = "import_" if name == "import" else name.replace("-", "_")
    return importlib.import_module(f"glic_pyg.cli.{room}")


def run(work: Callable[[], int]) -> NoReturn:
    """Do some work and exit with the status that it returns.

    It is 2 after a user's error, 130 when interrupted, and 143 when terminated; what is being written is then
    removed.
    """
    told: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in told:  # Python forgets what it has shown whenever a filter changes
            told.add(str(message))
            print_line("warning", message)

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # it may be closed, or somebody else's
            stream.reconfigure(errors="backslashreplace")  # whatever a terminal's encoding lacks
    if sys.stderr is not None and sys.stderr.isatty():
        show_log("glic_pyg.compiled")
    with warnings.catch_warnings(), _ending_on_sigterm():
        warnings.showwarning = show
        try:
            status = work()
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
        except (KeyboardInterrupt, Exception) as error:
            reason = interruption(error)
            if reason is None:
                raise
            if isinstance(reason, SystemExit):
                raise reason from None
            print_line("error", "interrupted")
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

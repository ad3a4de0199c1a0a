"""The command `glic`.

words -> main: which command -> its module: flags -> run: imports torch, and calls a function of the package

A module per command has its help as docstring, `add_arguments(parser)` and `run(args)`, the exit status. Only
`run` imports what takes long: help and a typo are answered at once.
"""

from glic_pyg.cli.flags import (  # noqa: F401 - for tools that are no commands yet
    Parser,
    count,
    file_name,
    nonnegative,
    positive,
    size,
    whole,
)
from glic_pyg.cli.flags import add_force as add_force
from glic_pyg.cli.main import run  # noqa: F401
from glic_pyg.cli.printing import aligned, print_line, say, show_log  # noqa: F401
from glic_pyg.ledger import writing  # noqa: F401


def add_allow_code(parser):
    """Add the flag."""
    parser.add_argument("--allow-code", action="store_true")

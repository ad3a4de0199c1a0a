"""Check that a folder holds a data set as it was published.

    glic datasets verify kodak DIR

Exit status 0 if it does, 1 if not; every difference is a line.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from glic_pyg.cli.printing import say

DATASETS = ("kodak",)
"""`glic_pyg.evaluation.datasets.DATASETS`, which is not imported to read arguments."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verify = verbs.add_parser("verify", help="compare names, sizes and pixels", description=__doc__)
    verify.add_argument("dataset", choices=DATASETS, help="its name")
    verify.add_argument("folder", type=Path, help="where its pictures are")


def run(args: Namespace) -> int:
    """Compare."""
    from glic_pyg.evaluation.datasets import problems

    lines = problems(args.dataset, args.folder)
    for line in lines or [f"{args.folder} is {args.dataset}"]:
        say(line)
    return int(bool(lines))

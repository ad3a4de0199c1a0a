"""Check that a folder holds a data set as it was published.

    python tools/datasets.py verify kodak DIR

Exit status 0 if it does, 1 if not; every difference is a line.
"""

from __future__ import annotations

from pathlib import Path

from glic_pyg import cli
from glic_pyg.evaluation.datasets import DATASETS, problems


def main() -> int:
    """Parse the command line and compare."""
    parser = cli.Parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verify = commands.add_parser("verify", help="compare names, sizes and pixels")
    verify.add_argument("dataset", choices=DATASETS)
    verify.add_argument("folder", type=Path)
    args = parser.parse_args()
    lines = problems(args.dataset, args.folder)
    print("\n".join(lines) if lines else f"{args.folder} is {args.dataset}")
    return int(bool(lines))


if __name__ == "__main__":
    cli.run(main)

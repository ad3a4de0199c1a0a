"""Draw the curves of training runs: loss, bits per pixel and PSNR of the held-out pictures, per quality.

glic curves runs/nano -o curves.svg
glic curves runs/first runs/second -o curves.png    # the second began with the first's weights
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from glic_pyg.cli import flags
from glic_pyg.cli.printing import say


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="output folders of glic train, end to end")
    add("-o", "--output", type=flags.file_name, required=True, help=".png or .svg")
    flags.add_force(parser)


def run(args: Namespace) -> int:
    """Draw."""
    from glic_pyg.figures import save_figure
    from glic_pyg.ledger import writing
    from glic_pyg.training.curves import draw_runs

    tables = [run / "eval.csv" for run in args.runs]
    with writing(args.output, inputs=tables, force=args.force):
        save_figure(draw_runs(tables), args.output)
    say(args.output)
    return 0

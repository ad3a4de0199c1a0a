"""Draw the curves of training runs: loss, bits per pixel and PSNR of the held-out pictures, per quality.

glic curves runs/nano -o curves.svg
glic curves runs/first runs/second -o curves.png    # the second began with the first's weights

Of a run without an evaluation yet, the training crops are drawn, and it is told when the first one comes.
"""

from __future__ import annotations

import sys
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
    from glic_pyg.training.curves import draw_runs, evaluations_of, next_evaluation

    tables = [run / name for run in args.runs for name in ("eval.csv", "log.csv")]
    with writing(args.output, inputs=tables, force=args.force):
        save_figure(draw_runs(args.runs), args.output)
    say(args.output)
    if not evaluations_of(args.runs[-1]):
        say(next_evaluation(args.runs[-1]), file=sys.stderr)
    return 0

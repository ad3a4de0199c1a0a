"""Draw the curves of training runs: loss, bits per pixel and PSNR of the held-out pictures, per quality.

python tools/curves.py runs/nano -o curves.svg
python tools/curves.py runs/first runs/second -o curves.png    # the second began with the first's weights
"""

from __future__ import annotations

import argparse
from pathlib import Path

from glic_pyg import cli
from glic_pyg.inspection.drawings import save_figure
from glic_pyg.training.curves import draw_runs
from glic_pyg.training.run_folder import RunFolder


def main() -> int:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="output folders of tools/train.py, end to end")
    add("-o", "--output", type=Path, required=True, help=".png or .svg")
    args = parser.parse_args()
    save_figure(draw_runs([RunFolder(run).eval for run in args.runs]), args.output)
    print(args.output)
    return 0


if __name__ == "__main__":
    cli.run(main)

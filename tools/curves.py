"""Draw the curves of training runs: loss, bits per pixel and PSNR of the held-out pictures, per quality.

python tools/curves.py runs/nano -o curves.svg
python tools/curves.py runs/first runs/second -o curves.png    # the second began with the first's weights
"""

from __future__ import annotations

from pathlib import Path

from glic_pyg import cli
from glic_pyg.inspection.drawings import save_figure
from glic_pyg.training.curves import draw_runs
from glic_pyg.training.run_folder import RunFolder


def main() -> int:
    """Parse the command line and draw."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="output folders of tools/train.py, end to end")
    add("-o", "--output", type=cli.file_name, required=True, help=".png or .svg")
    cli.add_force(parser)
    args = parser.parse_args()
    tables = [RunFolder(run).eval for run in args.runs]
    with cli.writing(args.output, inputs=tables, force=args.force):
        save_figure(draw_runs(tables), args.output)
    cli.say(args.output)
    return 0


if __name__ == "__main__":
    cli.run(main)

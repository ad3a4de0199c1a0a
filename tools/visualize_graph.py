"""Draw the graphs that a model builds for a photo: chosen nodes' neighbours, score, quota and degrees.

    python tools/visualize_graph.py photo.png
    python tools/visualize_graph.py photo.png --stage g_a.2 --node 10 20 --node 30 5 -o graph.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from glic_pyg import cli
from glic_pyg.codec import GLIC
from glic_pyg.files import replacing
from glic_pyg.image import read_image
from glic_pyg.inspection import STAGES, limit_size
from glic_pyg.inspection.drawings import NodeError, graph_picture


def main() -> int:
    """Parse the command line, draw, print the figure's name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("input", type=Path, help="photo, in any format that Pillow reads")
    add("-o", "--output", type=Path, help="figure, PNG (default: INPUT_graph.png beside the photo)")
    add("--model", default="glic_nano", help="name or path of a checkpoint (default: %(default)s)")
    add("--stage", choices=STAGES, default=STAGES[0], help="graph stage (default: %(default)s)")
    add(
        "--node",
        dest="nodes",
        action="append",
        type=int,
        nargs=2,
        metavar=("ROW", "COL"),
        help="node to show, of the stage's map; may be repeated (default: a flat part, an edge, a texture)",
    )
    args = parser.parse_args()
    output = args.output or args.input.with_name(args.input.stem + "_graph.png")
    model, image = GLIC.from_pretrained(args.model), limit_size(read_image(args.input))
    try:
        figure = graph_picture(model, image, stage=args.stage, nodes=args.nodes)
    except NodeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with replacing(output) as aside:
        figure.savefig(aside, format="png")
    print(output)
    return 0


if __name__ == "__main__":
    cli.run(main)

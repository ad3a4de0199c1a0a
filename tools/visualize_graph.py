"""Look at the graphs that a model builds for a photo: chosen nodes' neighbours, score, quota and degrees.

python tools/visualize_graph.py photo.png
python tools/visualize_graph.py photo.png --stage g_a.2 --node 10 20 --node 30 5 -o graph.svg
python tools/visualize_graph.py photo.png --html graph.html
python tools/visualize_graph.py photo.png --summary --export graphs.pt
python tools/visualize_graph.py photo.png --erf erf.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from glic_pyg import cli
from glic_pyg.codec import GLIC
from glic_pyg.config import ConfigError
from glic_pyg.image import read_image
from glic_pyg.inspection import (
    STAGES,
    export_graphs,
    graph_page,
    limit_size,
    node_size,
    run_stages,
    stage_graphs,
    summary_table,
)
from glic_pyg.inspection.drawings import erf_picture, graph_picture, save_figure


def main() -> int:
    """Parse the command line, make what is asked for, print the files' names."""
    args = _parser().parse_args()
    others = (args.html, args.export, args.erf, args.summary or None)
    output = args.output
    if output is None and all(other is None for other in others):
        output = args.input.with_name(args.input.stem + "_graph.png")
    with cli.writing(output, *others[:3], inputs=[args.input, args.model], force=args.force):
        _draw(args, output)
    return 0


def _draw(args: argparse.Namespace, output: Path | None) -> None:
    model = GLIC.from_pretrained(args.model, allow_code=args.allow_code)
    image = limit_size(read_image(args.input))
    kinds = [part.name for part in model.config.graph.candidates]
    if kinds != ["local", "global"] or model.config.aggregation.name != "attention":
        raise ConfigError(
            "Expected a model with attention on a local and a global graph "
            f"(got {model.config.aggregation.name} on {', '.join(kinds) or 'none'})"
        )
    figures = {}
    if output is not None:
        figures[output] = graph_picture(
            model,
            image,
            stage=args.stage,
            nodes=args.nodes,
            scope=args.scope,
            by=args.by,
            head=args.head,
        )
    if args.erf is not None:
        figures[args.erf] = erf_picture(model, image, stage=args.stage, nodes=args.nodes)
    for path, figure in figures.items():
        save_figure(figure, path)
    if args.html is not None:
        graph_page(model, image, title=args.input.name).save(args.html)
    if args.export is not None:
        graphs = stage_graphs(model, image, args.stage)
        export_graphs(graphs, args.export, node_size=node_size(image, graphs.local.map_size))
    for path in (output, args.erf, args.html, args.export):
        if path is not None:
            cli.say(path)
    if args.summary:
        stages = {stage: run.graphs for stage, run in run_stages(model, image).items()}
        sizes = {stage: node_size(image, graphs.local.map_size) for stage, graphs in stages.items()}
        print(cli.aligned(summary_table(stages, node_sizes=sizes), labels=2))


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("input", type=Path, help="photo, in any format that Pillow reads")
    add(
        "-o",
        "--output",
        type=cli.file_name,
        help="figure, PNG or SVG (default, if nothing else is asked for: INPUT_graph.png beside the photo)",
    )
    add("--html", type=cli.file_name, help="page of all stages' graphs, to look at in a browser")
    add("--export", type=cli.file_name, help="both graphs of the stage: .pt (PyG), .json or .graphml")
    add("--summary", action="store_true", help="print a table about the graphs of all stages")
    add(
        "--erf",
        type=cli.file_name,
        help="figure of the effective receptive fields at nodes, of at most 2^20 pixels",
    )
    add("--model", default="glic_nano", help="name or path of a checkpoint (default: %(default)s)")
    cli.add_allow_code(parser)
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
    add(
        "--scope",
        choices=("local", "global", "both"),
        default="both",
        help="graphs in the figure (default: %(default)s)",
    )
    add(
        "--by",
        choices=("similarity", "attention"),
        default="similarity",
        help="what colours the figure's neighbours (default: %(default)s)",
    )
    add("--head", type=int, help="attention head, from 0 (default: the mean of all)")
    cli.add_force(parser)
    return parser


if __name__ == "__main__":
    cli.run(main)

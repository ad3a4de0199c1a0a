"""Look at the graphs that a model builds for a photo: chosen nodes' neighbours, score, quota and degrees.

glic graph photo.png
glic graph photo.png --stage g_a.2 --node 10 20 --node 30 5 -o graph.svg
glic graph photo.png --html graph.html
glic graph photo.png --summary --export graphs.pt
glic graph photo.png --export part.graphml --node 30 35 --hops 1
glic graph photo.png --erf erf.png
"""

from __future__ import annotations

import warnings
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from glic_pyg.cli import flags
from glic_pyg.cli.printing import aligned, print_json, say, say_lines
from glic_pyg.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from glic_pyg.graph.grid import MapSize
    from glic_pyg.inspection.stages import Graphs

STAGES = ("g_a.1", "g_a.2", "g_s.1", "g_s.2")
"""`glic_pyg.inspection.STAGES`, which is not imported to read arguments."""
MANY_BYTES = 20_000_000
"""More than most programs open as a text."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("input", type=Path, help="photo, in any format that Pillow reads")
    add(
        "-o",
        "--output",
        type=flags.file_name,
        metavar="FILE",
        help="figure, PNG or SVG (default, if nothing else is asked for: INPUT_graph.png beside the photo)",
    )
    page = "page of all stages' graphs, to look at in a browser"
    add("--html", type=flags.file_name, metavar="FILE", help=page)
    graphs = "both graphs of the stage: .pt (PyG), .json or .graphml"
    add("--export", type=flags.file_name, metavar="FILE", help=graphs)
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        "--hops",
        type=flags.count,
        metavar="N",
        help="export only the nodes of --node, and those that reach them over N edges",
    )
    part.add_argument(
        "--region",
        type=flags.whole,
        nargs=4,
        metavar=("TOP", "LEFT", "HEIGHT", "WIDTH"),
        help="export only this part of the stage's map, in nodes",
    )
    add("--summary", action="store_true", help="print a table about the graphs of all stages")
    fields = "figure of the effective receptive fields at nodes, of at most 2^20 pixels"
    add("--erf", type=flags.file_name, metavar="FILE", help=fields)
    flags.add_model(parser)
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
    add("--head", type=int, metavar="N", help="attention head, from 0 (default: the mean of all)")
    flags.add_machine(parser)
    flags.add_force(parser)
    flags.add_json(parser)


def run(args: Namespace) -> int:
    """Make what is asked for, print the files' names."""
    from glic_pyg.ledger import writing

    if args.export is None and (args.hops or args.region):
        raise UsageError("Expected --export with --hops or --region (got none)")
    if args.hops and not args.nodes:
        raise UsageError("Expected --node with --hops (got none)")
    others = (args.html, args.export, args.erf, args.summary or None)
    output = args.output
    if output is None and all(other is None for other in others):
        output = args.input.with_name(args.input.stem + "_graph.png")
    with writing(output, *others[:3], inputs=[args.input, args.model], force=args.force):
        _draw(args, output)
    return 0


def _draw(args: Namespace, output: Path | None) -> None:
    from glic_pyg.cli.machine import load_model
    from glic_pyg.config import ConfigError
    from glic_pyg.image import read_image
    from glic_pyg.inspection import (
        export_graphs,
        graph_page,
        limit_size,
        node_size,
        run_model,
        run_stages,
        summarize,
        summary_table,
    )
    from glic_pyg.inspection.stages import SCOPES, stages_with_graphs
    from glic_pyg.progress import tell

    model = load_model(args)
    image = limit_size(read_image(args.input))
    kinds = [part.name for part in model.config.graph.candidates]
    if kinds != ["local", "global"] or model.config.aggregation.name != "attention":
        raise ConfigError(
            "Expected a model with attention on a local and a global graph "
            f"(got {model.config.aggregation.name} on {', '.join(kinds) or 'none'})"
        )
    if args.stage not in (having := stages_with_graphs(model)):
        raise ConfigError(
            f"Expected --stage to be one of {', '.join(having)} (got {args.stage}, which has no graphs)"
        )
    whole = run_model(model, image) if args.html else None
    runs = whole.stages if whole else run_stages(model, image, having if args.summary else [args.stage])
    run = runs[args.stage]
    if output is not None or args.erf is not None:
        from glic_pyg.figures import save_figure
        from glic_pyg.inspection.drawings import erf_picture, graph_picture

        chosen = {"stage": args.stage, "nodes": args.nodes, "run": run}
        figures = {}
        if output is not None:
            looks = {"scope": args.scope, "by": args.by, "head": args.head}
            figures[output] = graph_picture(model, image, **chosen, **looks)
        if args.erf is not None:
            figures[args.erf] = erf_picture(model, image, **chosen)
        for path, figure in figures.items():
            tell(f"drawing {path}")
            save_figure(figure, path)
    if args.html is not None:
        graph_page(model, image, title=args.input.name, run=whole).save(args.html)
    if args.export is not None:
        map_size = run.pair.local.map_size
        export_graphs(
            run.pair,
            args.export,
            node_size=node_size(image, map_size),
            nodes=_part(args, run.pair, map_size),
        )
        size = args.export.stat().st_size
        if size > MANY_BYTES and args.export.suffix.lower() != ".pt":
            parts = "--hops and --region export a part"
            warnings.warn(f"{args.export} has {size / 1e6:.0f} MB; {parts}", stacklevel=2)
    written = [path for path in (output, args.erf, args.html, args.export) if path is not None]
    stages = {stage: run.pair for stage, run in runs.items()} if args.summary else {}
    sizes = {stage: node_size(image, graphs.local.map_size) for stage, graphs in stages.items()}
    if args.json:
        rows = [
            {"stage": stage, "graph": scope, **vars(summarize(graph, node_size=sizes[stage]))}
            for stage, graphs in stages.items()
            for scope, graph in zip(SCOPES, graphs, strict=True)
        ]
        print_json({"written": list(map(str, written)), "summary": rows})
        return
    for path in written:
        say(path)
    if stages:
        say_lines(aligned(summary_table(stages, node_sizes=sizes), labels=2))


def _part(args: Namespace, graphs: Graphs, map_size: MapSize) -> Tensor | None:
    """Return the ids of the nodes to export; None of all."""
    from glic_pyg.inspection import node_id, nodes_within, region_nodes

    if args.region:
        return region_nodes(map_size, *args.region)
    if args.hops:
        return nodes_within(graphs, [node_id(tuple(node), map_size) for node in args.nodes], args.hops)
    return None

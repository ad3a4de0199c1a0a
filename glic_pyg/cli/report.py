"""Make a report of what `glic evaluate` measured: curves, tables, pictures side by side.

    glic report results/ -o report/
    glic report results/ -o report/ --compare kodak/vtm-compressai --benchmark costs.json

The folder gets `report.html`, one file that needs no network, and the curves as PNG and SVG.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from glic_pyg.cli import flags
from glic_pyg.cli.printing import say


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("results", type=Path, help="output folder of glic evaluate")
    flags.add_output_folder(parser)
    add("--compare", nargs="+", default=[], metavar="NAME", help="published points (glic bd-rate --list)")
    add("--benchmark", type=Path, metavar="FILE", help="JSON of lab/benchmark.py")
    flags.add_bd(parser, bpp=(0.1, 0.9))
    add(
        "--pictures",
        type=flags.whole,
        default=3,
        metavar="N",
        help="how many to show (default: %(default)s)",
    )
    add(
        "--picture-bpp",
        type=flags.positive,
        default=0.25,
        metavar="B",
        help="rate to show them at (default: %(default)s)",
    )
    flags.add_allow_code(parser)
    flags.add_machine(parser)
    flags.add_force(parser)


def run(args: Namespace) -> int:
    """Read the results, write the report."""
    from glic_pyg.cli.machine import prepare
    from glic_pyg.evaluation.report import write_report

    prepare(args)
    page = write_report(
        args.results,
        args.output,
        compare=args.compare,
        benchmark=args.benchmark,
        method=args.method,
        bpp=args.bpp,
        pictures=args.pictures,
        picture_bpp=args.picture_bpp,
        device=args.device,
        allow_code=args.allow_code,
        force=args.force,
        command=args.command_line,
    )
    say(page)
    return 0

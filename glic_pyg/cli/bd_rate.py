"""Compare rate-distortion curves: BD-rate and BD-PSNR, by package bjontegaard.

    glic bd-rate --anchor results/jpeg.json --compare results/glic_nano.json results/webp.json
    glic bd-rate --anchor kodak/vtm-compressai --compare kodak/glic results/glic_nano.json
    glic bd-rate --anchor vtm-9.1 --compare dcae hpcm-base lalic
    glic bd-rate --paper

A curve is a results file in CompressAI's layout (`glic evaluate` writes them), or published points by name
(--list); an anchor's name without a data set means each that has points of it. Where a table of pictures lies
beside two files, the mean of the pictures' BD-rates is told too. What cannot be compared is told in a line,
the others go on, and the exit status is 2.
"""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glic_pyg.cli import flags
from glic_pyg.cli.printing import aligned, print_json, print_line, say, say_lines
from glic_pyg.errors import UsageError, UserError
from glic_pyg.evaluation.anchors import DATASETS, anchor_names, load_paper_table

if TYPE_CHECKING:
    from glic_pyg.evaluation.compare import Comparison

METRICS = ("psnr-rgb", "ms-ssim-rgb", "ms-ssim-db-rgb")
"""`glic_pyg.evaluation.compare.METRICS`, which is not imported to read arguments."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--anchor", metavar="FILE|NAME", help="what the others are compared with")
    add("--compare", nargs="+", default=[], metavar="FILE|NAME", help="the others")
    add("--metric", choices=METRICS, default="psnr-rgb", help="default: %(default)s")
    flags.add_bd(parser, bpp=None)
    add("--paper", action="store_true", help="rebuild the paper's table from published points")
    add("--list", action="store_true", help="list the published points")
    flags.add_json(parser)


def run(args: Namespace) -> int:
    """Print the deltas; 2 if a curve cannot be compared."""
    if args.list:
        say_lines("\n".join(anchor_names()))
    elif args.paper:
        _print_paper(args)
    elif args.anchor is None or not args.compare:
        raise UsageError("Expected --anchor and --compare, or --paper, or --list (got neither)")
    else:
        known = anchor_names()
        datasets = [dataset for dataset in DATASETS if f"{dataset}/{args.anchor}" in known]
        if not datasets:
            return _compare(args.anchor, args.compare, args)
        status = 0
        for dataset in datasets:
            names = [name if _has_place(name) else f"{dataset}/{name}" for name in args.compare]
            status = max(status, _compare(f"{dataset}/{args.anchor}", names, args))
        return status
    return 0


def _has_place(name: str) -> bool:
    """Return whether a name is a file's or has a data set."""
    return name.endswith(".json") or "/" in name


def _compare(anchor: str, names: Sequence[str], args: Namespace) -> int:
    """Print a line for each name; return 2 if one cannot be compared, else 0."""
    from glic_pyg.evaluation.compare import compare, load_curve

    load_curve(anchor, metric=args.metric)  # one that is none ends the command, not each comparison
    compared: list[Comparison] = []
    errors = []
    for name in names:
        try:
            bpp = args.bpp or (0, math.inf)
            compared.append(compare(anchor, name, metric=args.metric, method=args.method, bpp=bpp))
        except UserError as error:
            errors.append(error)
    if args.json:
        for result in compared:
            means = result.means._asdict()
            print_json({"anchor": anchor} | vars(result) | {"delta": vars(result.delta), "means": means})
    else:
        limits = ", {:g} to {:g} bpp".format(*args.bpp) if args.bpp else ""
        say(f"{args.metric} against {anchor}, {args.method}{limits}{_in_common(compared)}")
        for result in compared:
            say(f"{result.name:{max(map(len, names))}}  {_text(result, args.metric)}")
    for reason in errors:
        print_line("error", reason)
    return 2 if errors else 0


def _in_common(compared: Sequence[Comparison]) -> str:
    """Return what holds for all comparisons: the pictures, and how far the curves overlap."""
    text = ""
    if len(counts := {result.means.count for result in compared}) == 1 and (count := counts.pop()):
        text += f", means of {count} picture{'s' if count > 1 else ''}"
    if overlaps := [result.delta.overlap for result in compared]:
        least, most = f"{min(overlaps):.0%}", f"{max(overlaps):.0%}"
        text += f", overlap {least}" + (f" to {most}" if most != least else "")
    return text


def _text(result: Comparison, metric: str) -> str:
    unit = "" if metric == "ms-ssim-rgb" else " dB"
    text = result.delta.text(unit=unit)
    if result.delta.thin:
        text += f"; overlap {result.delta.overlap:.0%} (thin!)"
    if result.flat:
        text += f"; {result.flat} of {result.points} points left out: more bits did not make them better"
    if result.picture_rate is not None:
        some = f"{result.compared} of " if result.compared < result.pictures else ""
        text += f"; mean over {some}{result.pictures} pictures {result.picture_rate:+.2f} %"
    return text


def _print_paper(args: Namespace) -> None:
    from glic_pyg.evaluation.paper import VTM, rebuild_table

    cells = rebuild_table(method=args.method)
    if args.json:
        for cell in cells:
            print_json(vars(cell) | {"verdict": cell.verdict})
        return
    say_lines(load_paper_table()["source"]["paper"])
    say_lines(f"BD-rate in % of PSNR (RGB), {args.method}, against {', '.join(VTM.values())}")
    say_lines("Published, then computed from published points\n")
    lines = [["", *(text for dataset in DATASETS for text in (dataset, "computed", ""))]]
    for name in dict.fromkeys(cell.method for cell in cells):
        line = [name]
        for cell in (cell for cell in cells if cell.method == name):
            numbers = (cell.published, cell.computed)
            line += ["-" if math.isnan(value) else f"{value:.2f}" for value in numbers] + [cell.verdict]
        lines.append(line)
    say_lines(aligned(lines))
    told = [cell for cell in cells if not math.isnan(cell.published)]
    say_lines(f"\n{sum(cell.verdict == 'reproduced' for cell in told)} of {len(told)} cells reproduced")

"""Compare rate-distortion curves: BD-rate and BD-PSNR, by package bjontegaard.

    python tools/bd_rate.py --anchor results/jpeg.json --compare results/glic_nano.json results/webp.json
    python tools/bd_rate.py --anchor kodak/vtm-compressai --compare kodak/glic results/glic_nano.json
    python tools/bd_rate.py --anchor vtm-9.1 --compare dcae hpcm-base lalic
    python tools/bd_rate.py --paper

A curve is a results file in CompressAI's layout (tools/evaluate.py writes them), or published points by name
(--list); an anchor's name without a data set means each that has points of it. Where a table of pictures lies
beside two files, the mean of the pictures' BD-rates is told too. What cannot be compared is told in a line,
the others go on, and the exit status is 2.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from glic_pyg import cli
from glic_pyg.errors import UsageError, UserError
from glic_pyg.evaluation.anchors import DATASETS, anchor_names, load_paper_table
from glic_pyg.evaluation.bd import METHODS, Curve, CurveError, Delta, delta
from glic_pyg.evaluation.measure import Table
from glic_pyg.evaluation.paper import VTM, curve, rebuild_table
from glic_pyg.evaluation.results import read_results
from glic_pyg.metrics import decibels

THIN = 0.75
METRICS = {
    "psnr-rgb": lambda row: row.psnr,
    "ms-ssim-rgb": lambda row: row.ms_ssim,
    "ms-ssim-db-rgb": lambda row: decibels(row.ms_ssim),
}
"""Columns of results, and the same of a row."""


def main() -> int:
    """Parse the command line and print the deltas."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--anchor", metavar="FILE|NAME", help="what the others are compared with")
    add("--compare", nargs="+", default=[], metavar="FILE|NAME", help="the others")
    add("--metric", choices=list(METRICS), default="psnr-rgb", help="default: %(default)s")
    add("--method", choices=METHODS, default="cubic", help="of interpolation (default: %(default)s)")
    add(
        "--bpp",
        type=cli.nonnegative,
        nargs=2,
        metavar=("LEAST", "MOST"),
        help="leave out points beyond these rates",
    )
    add("--paper", action="store_true", help="rebuild the paper's table from published points")
    add("--list", action="store_true", help="list the published points")
    args = parser.parse_args()
    if args.list:
        print("\n".join(anchor_names()))
    elif args.paper:
        _print_paper(args.method)
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


def _compare(anchor_name: str, names: Sequence[str], args: argparse.Namespace) -> int:
    """Print a line for each name; return 2 if one cannot be compared, else 0."""
    least, most = args.bpp or (0, math.inf)
    limits = f", {least:g} to {most:g} bpp" if args.bpp else ""
    anchor = _load(anchor_name, args.metric).within(least, most)
    print(f"{args.metric} against {anchor_name}, {args.method}{limits}")
    width, status = max(map(len, names)), 0
    for name in names:
        try:
            test = _load(name, args.metric).within(least, most)
            result = delta(anchor, test, method=args.method)
            deltas, count = _per_picture(anchor_name, name, args)
        except UserError as error:
            cli.print_line("error", error)
            status = 2
            continue
        thin = " (thin!)" if result.overlap < THIN else ""
        unit = "" if args.metric == "ms-ssim-rgb" else " dB"
        line = f"{name:{width}}  {result.text(unit=unit)}, overlap {result.overlap:.0%}{thin}"
        if flat := len(test.rates) - len(test.sorted().rates):
            line += f"; {flat} of {len(test.rates)} points left out: more bits did not make them better"
        if deltas:
            mean = statistics.fmean(result.rate for result in deltas)
            some = f"{len(deltas)} of {count}" if len(deltas) < count else f"{count}"
            line += f"; mean over {some} pictures {mean:+.2f} %"
        print(line)
    return status


def _load(name: str, metric: str) -> Curve:
    if not name.endswith(".json"):
        return curve(name, metric=metric)
    content = read_results(Path(name))
    return Curve.of(f"{name} ({content['name']})", content["results"], metric=metric)


def _per_picture(anchor: str, test: str, args: argparse.Namespace) -> tuple[list[Delta], int]:
    """Return a delta per picture that both have in the tables beside them, and how many those are.

    There are no deltas of pictures that have too few points within the range, or some without a score.
    """
    least, most = args.bpp or (0, math.inf)
    curves: list[dict[str, Curve]] = []
    for name in (anchor, test):
        path = Path(name)
        if path.suffix != ".json" or not (path.parent / "pictures.csv").exists():
            return [], 0
        means = read_results(path)
        rows = Table(path.parent / "pictures.csv").rows_of(means)
        curves.append(
            {
                picture: Curve(
                    f"{means['name']}, {picture}",
                    tuple(row.bpp for row in rows if row.picture == picture),
                    tuple(METRICS[args.metric](row) for row in rows if row.picture == picture),
                ).within(least, most)
                for picture in {row.picture for row in rows}
            }
        )
    deltas, pictures = [], sorted(curves[0].keys() & curves[1].keys())
    for picture in pictures:
        with suppress(CurveError):
            deltas.append(delta(curves[0][picture], curves[1][picture], method=args.method))
    return deltas, len(pictures)


def _print_paper(method: str) -> None:
    print(load_paper_table()["source"]["paper"])
    print(f"BD-rate in % of PSNR (RGB), {method}, against {', '.join(VTM.values())}")
    print("Published, then computed from published points:\n")
    cells = rebuild_table(method=method)
    print(f"{'':12}" + "".join(f"{dataset:36}" for dataset in DATASETS))
    for name in dict.fromkeys(cell.method for cell in cells):
        texts = []
        for cell in cells:
            if cell.method == name:
                numbers = [
                    "     -" if math.isnan(value) else f"{value:6.2f}"
                    for value in (cell.published, cell.computed)
                ]
                texts.append(f"{' '.join(numbers)}  {cell.verdict}")
        print(f"{name:12}" + "".join(f"{text:36}" for text in texts).rstrip())
    told = [cell for cell in cells if not math.isnan(cell.published)]
    print(f"\n{sum(cell.verdict == 'reproduced' for cell in told)} of {len(told)} cells reproduced")


if __name__ == "__main__":
    cli.run(main)

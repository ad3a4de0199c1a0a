"""Make a report of what tools/evaluate.py measured: curves, tables, pictures side by side.

    python tools/report.py results/ -o report/
    python tools/report.py results/ -o report/ --compare kodak/vtm-compressai --benchmark costs.json

The folder gets `report.html`, one file that needs no network, and the curves as PNG and SVG.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from glic_pyg import cli
from glic_pyg.errors import FileError
from glic_pyg.evaluation.bd import METHODS, Curve, CurveError, delta
from glic_pyg.evaluation.curves import draw_curves
from glic_pyg.evaluation.measure import Row, Table, cached_codec
from glic_pyg.evaluation.paper import curve
from glic_pyg.evaluation.report import Comparison, Restored, build_report, complexity_rows
from glic_pyg.evaluation.results import read_results
from glic_pyg.files import read_json, write_file
from glic_pyg.image import ImageError, read_image
from glic_pyg.metrics import bpp, psnr

SCORES = {"psnr-rgb": "PSNR (RGB) in dB", "ms-ssim-db-rgb": "MS-SSIM in dB"}


def main() -> int:
    """Parse the command line, read the results, write the report."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("results", type=Path, help="output folder of tools/evaluate.py")
    add("-o", "--output", type=Path, required=True, help="folder")
    add("--compare", nargs="+", default=[], metavar="NAME", help="published points (tools/bd_rate.py --list)")
    add("--benchmark", type=Path, metavar="FILE", help="JSON of tools/benchmark.py")
    add("--method", choices=METHODS, default="cubic", help="of BD-rates (default: %(default)s)")
    add("--bpp", type=cli.nonnegative, nargs=2, default=(0.1, 0.9), help="range of rates (default: 0.1 0.9)")
    add("--pictures", type=cli.whole, default=3, help="how many to show (default: %(default)s)")
    add("--picture-bpp", type=cli.positive, default=0.25, help="rate to show them at (default: %(default)s)")
    cli.add_allow_code(parser)
    cli.add_force(parser)
    args = parser.parse_args()
    page = args.output / "report.html"
    kinds = [(metric, kind) for metric in SCORES for kind in ("png", "svg")]
    curves = {(metric, kind): args.output / f"{metric}.{kind}" for metric, kind in kinds}
    with cli.writing(page, *curves.values(), inputs=[args.benchmark], force=args.force):
        _write(args, page, curves)
    cli.say(page)
    return 0


def _write(args: argparse.Namespace, page: Path, curve_files: Mapping[tuple[str, str], Path]) -> None:
    results = _read_results(args.results)
    complexity = _read_benchmark(args.benchmark) if args.benchmark else []
    table = Table(args.results / "pictures.csv")
    rows = [(result, table.rows_of(result)) for result in results]
    names = sorted({row.picture for _, some in rows for row in some})

    figures, comparisons = {}, []
    for metric, label in SCORES.items():
        curves = _curves(results, args.compare, metric)
        if not curves:
            continue
        figure = draw_curves(curves, score=label, most_bpp=args.bpp[1])
        about = f"{label} against bits per pixel, means over the pictures"
        if missing := _without_score(curves):
            about += f"; without a point of {missing}, which have no finite mean"
        figures[about] = figure
        for kind in ("png", "svg"):
            write_file(curve_files[metric, kind], partial(figure.savefig, format=kind, dpi=160))
        caption = f"BD-rate in % of the row against the column, {label}, {args.method}, "
        caption += "{:g} to {:g} bpp (overlap of the scores)".format(*args.bpp)
        comparisons.append(Comparison(caption, *_delta_table(curves, args)))

    text = build_report(
        title=f"Codecs compared on {len(names)} pictures",
        command=shlex.join(["python", *sys.argv]),
        results=results,
        comparisons=comparisons,
        figures=figures,
        complexity=complexity,
        pictures=_pictures(names, rows, args),
    )
    write_file(page, text.encode("utf-8", "backslashreplace"))  # names may be no text


def _read_results(folder: Path) -> list[dict[str, Any]]:
    """Return the codecs' results, those of GLIC first."""
    results = [read_results(path) for path in sorted(folder.glob("*.json"))]
    if not results:
        raise FileError(f"Expected results of tools/evaluate.py in {folder} (got none)")
    return sorted(results, key=lambda result: "identity" not in result["settings"])


def _read_benchmark(path: Path) -> list[list[str]]:
    content = read_json(path)
    try:
        return complexity_rows(content)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise FileError(f"Expected rows of tools/benchmark.py (got {path}: {error!r})") from error


def _curves(results: Sequence[dict[str, Any]], names: Sequence[str], metric: str) -> list[Curve]:
    """Return the curves with at least one score; not all results have MS-SSIM."""
    curves = []
    made = [partial(Curve.of, result["name"], result["results"]) for result in results]
    for make in [*made, *(partial(curve, name) for name in names)]:
        try:
            curves.append(make(metric=metric))
        except CurveError:
            if metric == "psnr-rgb":
                raise
    return [curve for curve in curves if any(map(math.isfinite, curve.scores))]


def _without_score(curves: Sequence[Curve]) -> str:
    points = (
        f"{curve.name} at {rate:.3g} bpp"
        for curve in curves
        for rate, score in zip(curve.rates, curve.scores, strict=True)
        if not math.isfinite(score)
    )
    return ", ".join(points)


def _delta_table(curves: Sequence[Curve], args: argparse.Namespace) -> tuple[list[list[str]], list[str]]:
    """Return the cells, and why some have no figure."""
    rows = [["", *(anchor.name for anchor in curves)]]
    limited = [curve.within(*args.bpp) for curve in curves]
    reasons: dict[str, None] = {}
    for test in limited:
        cells = []
        for anchor in limited:
            if anchor is test:
                cells.append("")
                continue
            try:
                result = delta(anchor, test, method=args.method)
                cells.append(f"{result.rate:+.2f} ({result.overlap:.0%})")
            except CurveError as error:
                cells.append("-")
                reasons[str(error)] = None
        rows.append([test.name, *cells])
    return rows, list(reasons)


def _pictures(
    names: Sequence[str], rows: Sequence[tuple[dict[str, Any], list[Row]]], args: argparse.Namespace
) -> dict[str, Any]:
    """Restore some pictures, spread over all of them, with every codec at the quality nearest in rate."""
    chosen = names[:: max(1, len(names) // max(1, args.pictures))][: args.pictures]
    shown: dict[str, Any] = {}
    for name in tqdm(chosen, desc="pictures", disable=None):
        try:
            x, restored = read_image(name), []
        except ImageError as error:
            warnings.warn(f"{name} is not shown: {error}", stacklevel=1)
            continue
        for result, all_rows in rows:
            some = [row for row in all_rows if row.picture == name]
            if not some:
                continue
            nearest = min(some, key=lambda row: abs(row.bpp - args.picture_bpp))
            try:
                restored.append(_restore(nearest, result, x, allow_code=args.allow_code))
            except Exception as error:  # of codecs of libraries, or a model that is no longer there
                warnings.warn(f"{name} by {result['name']} is not shown: {error}", stacklevel=1)
        shown[Path(name).name if Path(name).name not in shown else name] = (x, restored)
    return shown


def _restore(row: Row, result: dict[str, Any], x: Any, *, allow_code: bool) -> Restored:
    codec = cached_codec(result["codec"], allow_code=allow_code)
    data = codec.encode(x, None if row.quality != row.quality else row.quality)
    x_hat = codec.decode(data)
    return Restored(row.codec, bpp(data, x), psnr(x, x_hat), x_hat)


if __name__ == "__main__":
    cli.run(main)

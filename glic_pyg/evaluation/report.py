"""What an evaluation measured as one page and pictures of its curves."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from glic_pyg.errors import FileError
from glic_pyg.evaluation.bd import Curve, CurveError, Method, delta
from glic_pyg.evaluation.curves import draw_curves
from glic_pyg.evaluation.measure import Row, Table, cached_codec
from glic_pyg.evaluation.paper import curve
from glic_pyg.evaluation.report_page import Comparison, Restored, build_page, complexity_rows
from glic_pyg.evaluation.results import read_results
from glic_pyg.figures import save_figure
from glic_pyg.files import read_json, write_file
from glic_pyg.image import ImageError, read_image
from glic_pyg.ledger import writing
from glic_pyg.metrics import bpp as bits_per_pixel
from glic_pyg.metrics import psnr

SCORES = {"psnr-rgb": "PSNR (RGB) in dB", "ms-ssim-db-rgb": "MS-SSIM in dB"}


def write_report(
    results: Path,
    output: Path,
    *,
    compare: Sequence[str] = (),
    benchmark: Path | None = None,
    method: Method = "cubic",
    bpp: tuple[float, float] = (0.1, 0.9),
    pictures: int = 3,
    picture_bpp: float = 0.25,
    device: str = "cpu",
    allow_code: bool = False,
    force: bool = False,
    command: str = "",
) -> Path:
    """Write `report.html`, one file that needs no network, and its curves as PNG and SVG; return its path.

    Args:
        results: Output folder of `evaluate`.
        output: Folder to write into.
        compare: Names of published points.
        benchmark: JSON of `lab/benchmark.py`.
        method: Of BD-rates.
        bpp: The rates between which curves are compared.
        pictures: How many are shown.
        picture_bpp: Rate to show them at.
        device: Where models compute.
        allow_code: See `GLIC.from_pretrained`.
        force: Whether files may be overwritten that no earlier call wrote.
        command: That asks for it.

    Raises:
        FileError: a folder without results, a file that is none of a benchmark, or an output that may not
            be written.
        CurveError: results without PSNR.
        UsageError: no published points of some name.
    """
    page = output / "report.html"
    curve_files = [output / f"{metric}.{kind}" for metric in SCORES for kind in ("png", "svg")]
    inputs = [benchmark, *results.glob("*.json"), results / "pictures.csv"]
    with writing(page, *curve_files, inputs=inputs, force=force):
        found = _read_results(results)
        complexity = _read_benchmark(benchmark) if benchmark else []
        table = Table(results / "pictures.csv")
        rows = [(result, table.rows_of(result)) for result in found]
        names = sorted({row.picture for _, some in rows for row in some})

        figures, comparisons = {}, []
        for metric, label in SCORES.items():
            curves = _curves(found, compare, metric)
            if not curves:
                continue
            figure = draw_curves(curves, score=label, most_bpp=bpp[1])
            about = f"{label} against bits per pixel, means over the pictures"
            if missing := _without_score(curves):
                about += f"; without a point of {missing}, which have no finite mean"
            figures[about] = figure
            for kind in ("png", "svg"):
                save_figure(figure, output / f"{metric}.{kind}")
            caption = f"BD-rate in % of the row against the column, {label}, {method}, "
            caption += "{:g} to {:g} bpp (overlap of the scores)".format(*bpp)
            comparisons.append(Comparison(caption, *_delta_table(curves, method=method, bpp=bpp)))

        restore = partial(_restore, allow_code=allow_code, device=device)
        text = build_page(
            title=f"Codecs compared on {len(names)} pictures",
            command=command,
            results=found,
            comparisons=comparisons,
            figures=figures,
            complexity=complexity,
            pictures=_pictures(names, rows, count=pictures, bpp=picture_bpp, restore=restore),
        )
        write_file(page, text.encode("utf-8", "backslashreplace"))  # names may be no text
    return page


def _read_results(folder: Path) -> list[dict[str, Any]]:
    """Return the codecs' results, those of GLIC first."""
    results = [read_results(path) for path in sorted(folder.glob("*.json"))]
    if not results:
        raise FileError(f"Expected results of glic evaluate in {folder} (got none)")
    return sorted(results, key=lambda result: "identity" not in result["settings"])


def _read_benchmark(path: Path) -> list[list[str]]:
    content = read_json(path)
    try:
        return complexity_rows(content)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise FileError(f"Expected rows of lab/benchmark.py (got {path}: {error!r})") from error


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


def _delta_table(
    curves: Sequence[Curve], *, method: Method, bpp: tuple[float, float]
) -> tuple[list[list[str]], list[str]]:
    """Return the cells, and why some have no figure."""
    rows = [["", *(anchor.name for anchor in curves)]]
    limited = [curve.within(*bpp) for curve in curves]
    reasons: dict[str, None] = {}
    for test in limited:
        cells = []
        for anchor in limited:
            if anchor is test:
                cells.append("")
                continue
            try:
                result = delta(anchor, test, method=method)
                cells.append(f"{result.rate:+.2f} ({result.overlap:.0%})")
            except CurveError as error:
                cells.append("-")
                reasons[str(error)] = None
        rows.append([test.name, *cells])
    return rows, list(reasons)


def _pictures(
    names: Sequence[str],
    rows: Sequence[tuple[dict[str, Any], list[Row]]],
    *,
    count: int,
    bpp: float,
    restore: Callable[[Row, dict[str, Any], Tensor], Restored],
) -> dict[str, Any]:
    """Restore some pictures, spread over all of them, with every codec at the quality nearest in rate."""
    chosen = names[:: max(1, len(names) // max(1, count))][:count]
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
            nearest = min(some, key=lambda row: abs(row.bpp - bpp))
            try:
                restored.append(restore(nearest, result, x))
            except Exception as error:  # of codecs of libraries, or a model that is no longer there
                warnings.warn(f"{name} by {result['name']} is not shown: {error}", stacklevel=1)
        shown[Path(name).name if Path(name).name not in shown else name] = (x, restored)
    return shown


def _restore(row: Row, result: dict[str, Any], x: Tensor, *, allow_code: bool, device: str) -> Restored:
    settings = result["settings"]
    codec = cached_codec(
        result["codec"],
        allow_code=allow_code,
        device=device,
        effort=settings.get("effort", 0),
        lmbda=settings.get("lambda"),
    )
    data = codec.encode(x, None if row.quality != row.quality else row.quality)
    x_hat = codec.decode(data)
    return Restored(row.codec, bits_per_pixel(data, x), psnr(x, x_hat), x_hat)

"""What an evaluation measured as one page and pictures of its curves."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from glic_pyg.errors import FileError, interruption
from glic_pyg.evaluation.bd import Curve, CurveError, Delta, Method, Pictures, delta
from glic_pyg.evaluation.codecs import Codec, Options
from glic_pyg.evaluation.curves import draw_curves
from glic_pyg.evaluation.measure import Row, Table, cached_codec
from glic_pyg.evaluation.paper import curve
from glic_pyg.evaluation.report_page import Comparison, build_page, complexity_rows
from glic_pyg.evaluation.results import read_results
from glic_pyg.evaluation.viewer import Restored, shown_picture
from glic_pyg.figures import save_figure
from glic_pyg.files import read_json, write_file
from glic_pyg.image import read_image
from glic_pyg.ledger import writing
from glic_pyg.picture import ImageError
from glic_pyg.progress import each

MOST_BYTES = 14_000_000
"""Of the pictures in a page."""
SCORES = {"psnr-rgb": ("PSNR", "PSNR (RGB) in dB"), "ms-ssim-db-rgb": ("MS-SSIM", "MS-SSIM in dB")}
"""Columns of results: what to call them, without and with their units."""


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

        comparisons = []
        for metric, (name, label) in SCORES.items():
            if curves := _curves(found, compare, metric):
                figure = draw_curves(_named(curves), score=label, most_bpp=bpp[1])
                for kind in ("png", "svg"):
                    save_figure(figure, output / f"{metric}.{kind}")
                comparisons.append(_compare(name, label, curves, method=method, bpp=bpp))

        counts = sorted({some.count for one in comparisons[:1] for some in _pictures_of(one.curves)})
        of_pictures = (
            f"{counts[0]} picture{'s' if counts[0] != 1 else ''}" if len(counts) == 1 else "pictures"
        )
        text = build_page(
            title=f"{len(found)} codecs compared on {of_pictures}",
            about=f"BD-rates between {bpp[0]:g} and {bpp[1]:g} bits per pixel, means of {of_pictures}.",
            command=command,
            results=found,
            comparisons=comparisons,
            most_bpp=bpp[1],
            complexity=complexity,
            pictures=_shown(
                names,
                rows,
                count=pictures,
                bpp=picture_bpp,
                load=partial(_load, allow_code=allow_code, device=device),
            ),
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
    made = [
        partial(
            Curve.of,
            result["name"],
            result["results"],
            pictures=Pictures(digest=result["pictures_sha256"]),
        )
        for result in results
    ]
    for make in [*made, *(partial(curve, name) for name in names)]:
        try:
            curves.append(make(metric=metric))
        except CurveError:
            if metric == "psnr-rgb":
                raise
    return [curve for curve in curves if any(map(math.isfinite, curve.scores))]


def _pictures_of(curves: Sequence[Curve]) -> list[Pictures]:
    """Return the pictures of the curves that can be compared with the first one, where they are told."""
    first = curves[0].pictures
    return [one.pictures for one in curves if one.pictures.count and not one.pictures.unlike(first)]


def _named(curves: Sequence[Curve]) -> list[Curve]:
    """Return the curves, those of other pictures than the first one's with a name that says so."""
    first = curves[0].pictures
    return [
        replace(one, name=f"{one.name} ({one.pictures.text()})") if one.pictures.unlike(first) else one
        for one in curves
    ]


def _compare(
    name: str, label: str, curves: Sequence[Curve], *, method: Method, bpp: tuple[float, float]
) -> Comparison:
    """Compare every curve with every other."""
    limited = [one.within(*bpp) for one in curves]
    deltas = [[None if a is b else _delta(b, a, method) for b in limited] for a in limited]
    overlaps = [cell.overlap for row in deltas for cell in row if isinstance(cell, Delta)]
    caption = "{}, {:g} to {:g} bpp".format(method, *bpp)
    if len(counts := {some.count for some in _pictures_of(curves)}) == 1:
        caption += f", means of {counts.pop()} pictures"
    if overlaps:
        caption += f"; curves overlap by {min(overlaps):.0%} to {max(overlaps):.0%} of the shorter one"
    return Comparison(name, label, curves, deltas, caption)


def _delta(anchor: Curve, test: Curve, method: Method) -> Delta | CurveError:
    try:
        return delta(anchor, test, method=method)
    except CurveError as error:
        return error


def _shown(
    names: Sequence[str],
    rows: Sequence[tuple[dict[str, Any], list[Row]]],
    *,
    count: int,
    bpp: float,
    load: Callable[[dict[str, Any]], Codec],
) -> list[dict[str, Any]]:
    """Restore some pictures, spread over all of them.

    The first codec has the quality that comes nearest to the rate, the others make files as large as its.
    """
    chosen = names[:: max(1, len(names) // max(1, count))][:count]
    shown: list[dict[str, Any]] = []
    for name in each(chosen, "coding pictures at the same rate"):
        try:
            x = read_image(name)
        except ImageError as error:
            warnings.warn(f"{name} is not shown: {error}", stacklevel=1)
            continue
        restored: list[Restored] = []
        for result, all_rows in rows:
            some = [row for row in all_rows if row.picture == name]
            if not some:
                continue
            try:
                codec = load(result)
                if restored:
                    data = codec.encode_to_size(x, len(restored[0].data))
                else:
                    nearest = min(some, key=lambda row: abs(row.bpp - bpp))
                    data = codec.encode(x, None if math.isnan(nearest.quality) else nearest.quality)
                restored.append(Restored.of(codec, x, data))
            except Exception as error:  # of codecs of libraries, or a model that is no longer there
                if ended := interruption(error):
                    raise ended from None
                warnings.warn(f"{name} by {result['name']} is not shown: {error}", stacklevel=1)
        if restored:
            short = Path(name).name
            shown.append(
                shown_picture(name if any(one["name"] == short for one in shown) else short, x, restored)
            )
        if sum(len(layer["uri"]) for one in shown for layer in one["layers"]) > MOST_BYTES:
            warnings.warn(f"{name} is not shown: pictures of more than {MOST_BYTES:,} bytes", stacklevel=1)
            shown.pop()
    return shown


def _load(result: dict[str, Any], *, allow_code: bool, device: str) -> Codec:
    settings = result["settings"]
    options = Options(
        device=device,
        effort=settings.get("effort", 0),
        lmbda=settings.get("lambda"),
        distortion=settings.get("distortion"),
        allow_code=allow_code,
    )
    return cached_codec(result["codec"], options)

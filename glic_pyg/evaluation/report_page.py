"""An evaluation as one HTML file that needs no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from glic_pyg.evaluation.bd import THIN, Curve, CurveError, Delta, PicturesError
from glic_pyg.evaluation.measure import notes
from glic_pyg.pages import fill_page

PAGES = Path(__file__).with_name("pages")
COLUMNS = {
    "quality": ("quality", "{:g}", 1),
    "bpp": ("bpp", "{:.4f}", 1),
    "payload-bpp": ("payload bpp", "{:.4f}", 1),
    "estimated-bpp": ("estimated bpp", "{:.4f}", 1),
    "psnr-rgb": ("PSNR dB", "{:.2f}", 1),
    "psnr-rgb-unrounded": ("unrounded", "{:.2f}", 1),
    "ms-ssim-rgb": ("MS-SSIM", "{:.4f}", 1),
    "ms-ssim-db-rgb": ("in dB", "{:.2f}", 1),
    "encoding_time": ("encode s", "{:.3f}", 1),
    "decoding_time": ("decode s", "{:.3f}", 1),
    "encoding_memory": ("encode MiB", "{:.1f}", 2**20),
    "decoding_memory": ("decode MiB", "{:.1f}", 2**20),
}
"""Of a codec's results: heading, format and unit."""
UNLIKE = "\u2260"
"""In place of a BD-rate between means of other pictures."""
STRONGEST = 50
"""The BD-rate in % that has the strongest colour."""
MOST_NAMED = 5
"""Codecs in the page's first sentence."""


@dataclass(frozen=True)
class Comparison:
    """Curves of a metric, and every one of them against every other.

    Args:
        metric: Name of the metric.
        label: The same, with its unit.
        curves: The curves; the first one is the one that the page is about.
        deltas: Row by row, of each curve against each other as the anchor, or why there is none; None on the
            diagonal.
        caption: How they were computed.
    """

    metric: str
    label: str
    curves: Sequence[Curve]
    deltas: Sequence[Sequence[Delta | CurveError | None]]
    caption: str


def build_page(
    *,
    title: str,
    about: str,
    command: str,
    results: Sequence[Mapping[str, Any]],
    comparisons: Sequence[Comparison],
    most_bpp: float,
    complexity: Sequence[Sequence[str]],
    pictures: Sequence[Mapping[str, Any]],
) -> str:
    """Return the page; whatever text it is given stays text.

    Args:
        title: Of the page.
        about: A line under its first sentence, after what is said of the other metrics.
        command: The command that makes it.
        results: Of the codecs, as `measure.results` returns them.
        comparisons: Of the metrics, that of PSNR first.
        most_bpp: Right end of the curves.
        complexity: A table, see `complexity_rows`; may be empty.
        pictures: See `viewer.shown_picture`.
    """
    measured = [result["name"] for result in results]
    sentences = [text for comparison in comparisons if (text := _sentence(comparison, measured))]
    return fill_page(
        PAGES / "report.html",
        title=title,
        lead=sentences[0] if sentences else title,
        about=" ".join([*sentences[1:], about]),
        command=command,
        curves=_curves(comparisons, results, most_bpp),
        matrices=[_matrix(comparison) for comparison in comparisons],
        codecs=[_codec_section(result) for result in results],
        complexity=complexity,
        pictures=pictures,
        chart_js=Markup((PAGES / "chart.umd.min.js").read_text(encoding="utf-8")),
    )


def _sentence(comparison: Comparison, measured: Sequence[str]) -> str:
    """Return the first codec against the others that were measured, in words; nothing without figures."""
    ours, *others = comparison.curves
    told = [
        (delta.rate, curve.name)
        for curve, delta in zip(others, comparison.deltas[0][1:], strict=True)
        if curve.name in measured and isinstance(delta, Delta) and not delta.thin
    ]
    if not told:
        return ""
    fewer = [f"{-rate:.1f}\u00a0% fewer than {name}" for rate, name in sorted(told) if rate < 0]
    more = [f"{rate:.1f}\u00a0% more than {name}" for rate, name in sorted(told) if rate >= 0]
    parts = [*fewer[:MOST_NAMED], *more[:MOST_NAMED]]
    parts[0] = parts[0].replace(" than", " bits than", 1)
    *first, last = parts
    whole = f"{', '.join(first)} and {last}" if first else last
    return f"For the same {comparison.metric}, {ours.name} needs {whole}."


def _curves(
    comparisons: Sequence[Comparison], results: Sequence[Mapping[str, Any]], most_bpp: float
) -> dict[str, Any]:
    """Return what `curves.js` draws."""
    qualities = {result["name"]: result["results"].get("quality", ()) for result in results}
    names = [curve.name for curve in comparisons[0].curves] if comparisons else []
    codecs = []
    for name in names:
        of_metric = [
            next((curve for curve in comparison.curves if curve.name == name), None)
            for comparison in comparisons
        ]
        ours = comparisons[0].curves[0]
        unlike = next((c.pictures.text() for c in of_metric if c and c.pictures.unlike(ours.pictures)), "")
        codecs.append(
            {
                "name": name,
                "unlike": unlike and f"{unlike}, not to be compared",
                "points": [_points(curve, qualities.get(name, ())) for curve in of_metric],
            }
        )
    return {
        "metrics": [{"label": comparison.label} for comparison in comparisons],
        "codecs": codecs,
        "most": most_bpp,
        "notes": [note for comparison in comparisons if (note := _without_score(comparison))],
    }


def _points(
    curve: Curve | None, qualities: Sequence[float | None]
) -> list[tuple[float, float, float | None]]:
    if curve is None:
        return []
    told = qualities if len(qualities) == len(curve.rates) else [None] * len(curve.rates)
    told = [quality if quality is not None and math.isfinite(quality) else None for quality in told]
    points = zip(curve.rates, curve.scores, told, strict=True)
    return sorted((point for point in points if math.isfinite(point[1])), key=lambda point: point[:2])


def _without_score(comparison: Comparison) -> str:
    points = ", ".join(
        f"{curve.name} at {rate:.3g} bpp"
        for curve in comparison.curves
        for rate, score in zip(curve.rates, curve.scores, strict=True)
        if not math.isfinite(score)
    )
    return f"{comparison.label}: without a point of {points}, which have no finite mean" if points else ""


def _matrix(comparison: Comparison) -> dict[str, Any]:
    names = [curve.name for curve in comparison.curves]
    rows = [(name, [_cell(d) for d in row]) for name, row in zip(names, comparison.deltas, strict=True)]
    # Each pair once.
    errors = [d for i, row in enumerate(comparison.deltas) for d in row[i:] if isinstance(d, CurveError)]
    reasons = dict.fromkeys(str(error) for error in errors if not isinstance(error, PicturesError))
    first = comparison.curves[0].pictures
    others = [curve for curve in comparison.curves if curve.pictures.unlike(first)]
    if any(isinstance(d, Delta) and d.thin for row in comparison.deltas for d in row):
        reasons[f"* thin: less than {THIN:.0%} of the shorter curve's scores are in common"] = None
    reasons |= dict.fromkeys(f"{UNLIKE} {curve.name}: means of {curve.pictures.text()}" for curve in others)
    return {
        "label": comparison.label,
        "caption": comparison.caption,
        "names": names,
        "rows": rows,
        "notes": list(reasons),
    }


def _cell(delta: Delta | CurveError | None) -> dict[str, Any]:
    if delta is None:
        return {"text": "", "title": "", "kind": "self"}
    if isinstance(delta, CurveError):
        text = UNLIKE if isinstance(delta, PicturesError) else "-"
        return {"text": text, "title": str(delta), "kind": "none"}
    return {
        "text": f"{delta.rate:+.1f}{'*' if delta.thin else ''}",
        "title": f"{delta.text()}, overlap {delta.overlap:.0%}",
        "kind": "thin" if delta.thin else "",
        "side": "fewer" if delta.rate < 0 else "more",
        "share": round(min(abs(delta.rate) / STRONGEST, 1) * 75),
    }


def _codec_section(result: Mapping[str, Any]) -> dict[str, Any]:
    columns = []
    for name, (heading, form, unit) in COLUMNS.items():
        values = result["results"].get(name, [])
        if any(value is not None for value in values):
            cells = ("" if value is None else form.format(value / unit) for value in values)
            columns.append([heading, *cells])
    rates = [rate for rate in result["results"]["bpp"] if rate is not None]
    points = f"{len(rates)} point{'s' if len(rates) != 1 else ''}"
    return {
        "name": result["name"],
        "range": f"{points}, {min(rates):.2f} to {max(rates):.2f} bpp" if rates else points,
        "rows": list(zip(*columns, strict=True)),
        "notes": notes(result["results"]),
        "settings": ", ".join(f"{key} {value}" for key, value in result.get("settings", {}).items()),
        "command": result.get("command", ""),
    }


def complexity_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return a table of what `lab/benchmark.py` measured; its first row is the head."""
    head = ["model", "kernels", "size", "M parameters", "TFLOPs", "encode s", "decode s", "peak GiB"]
    cells = [
        [
            Path(row["model"]).stem,
            row["kernels"] or "",
            "{} x {}".format(*row["size"]),
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['flops'] / 1e12:.3f}",
            f"{sum(row['encoding_seconds'].values()):.2f}",
            f"{sum(row['decoding_seconds'].values()):.2f}",
            f"{row['peak_memory'] / 2**30:.2f}",
        ]
        for row in rows
        if "encoding_seconds" in row
    ]
    return [head, *cells] if cells else []

"""An evaluation as one HTML file that needs no network."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from glic_pyg.image import to_pil

TEMPLATE = Path(__file__).with_name("report.html")
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


@dataclass(frozen=True)
class Restored:
    """What a codec made of a picture.

    Args:
        codec: Its name.
        bpp: Of the file.
        psnr: Of the 8-bit picture, in dB.
        x_hat: The picture, `1 x 3 x H x W` in [0, 1].
    """

    codec: str
    bpp: float
    psnr: float
    x_hat: Tensor


def build_report(
    *,
    title: str,
    command: str,
    results: Sequence[Mapping[str, Any]],
    deltas: Mapping[str, Sequence[Sequence[str]]],
    figures: Mapping[str, Figure],
    complexity: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, tuple[Tensor, Sequence[Restored]]],
) -> str:
    """Return the page.

    Args:
        title: Its heading.
        command: The command that makes it.
        results: Of the codecs, as `measure.results` returns them.
        deltas: Tables of BD-rates by caption, the first row their head.
        figures: Curves by caption.
        complexity: Rows of `tools/benchmark.py`; may be empty.
        pictures: Original and what the codecs made of it, by name.
    """
    sections = [f"<h1>{html.escape(title)}</h1>", _command(command)]
    for caption, figure in figures.items():
        sections.append(f"<figure>{_svg(figure)}<figcaption>{html.escape(caption)}</figcaption></figure>")
    for caption, rows in deltas.items():
        sections.append(_table(caption, rows))
    for result in results:
        sections.append(_results_table(result))
    if complexity:
        sections.append(_complexity_table(complexity))
    data = {
        name: {
            "original": _uri(x),
            "restored": [
                {"label": f"{r.codec}: {r.bpp:.3f} bpp, {r.psnr:.2f} dB", "uri": _uri(r.x_hat)}
                for r in restored
            ],
            "width": x.size(-1),
            "height": x.size(-2),
        }
        for name, (x, restored) in pictures.items()
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    parts = {
        "TITLE": html.escape(title),
        "SECTIONS": "\n".join(sections),
        "PICTURES": json.dumps(data).replace("</", "<\\/"),
    }
    for name, part in parts.items():
        text = text.replace(f"<!--{name}-->", part, 1)
    return text


def _command(command: str) -> str:
    return f"<p>Made by <code>{html.escape(command)}</code></p>"


def _results_table(result: Mapping[str, Any]) -> str:
    columns = []
    for name, (heading, form, unit) in COLUMNS.items():
        values = result["results"].get(name, [])
        if any(value is not None for value in values):
            cells = ("" if value is None else form.format(value / unit) for value in values)
            columns.append([heading, *cells])
    rows = list(zip(*columns, strict=True))
    settings = ", ".join(f"{key} {value}" for key, value in result.get("settings", {}).items())
    made = _command(result["command"]) if "command" in result else ""
    return f"{_table(result['name'], rows)}<p>{html.escape(settings)}</p>{made}"


def _complexity_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["model", "backend", "size", "M parameters", "TFLOPs", "encode s", "decode s", "peak GiB"]
    cells = [
        [
            Path(row["model"]).stem,
            row["backend"] or "",
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
    return _table("Complexity, by tools/benchmark.py", [head, *cells])


def _table(caption: str, rows: Sequence[Sequence[str]]) -> str:
    head, *body = ([f"<td>{html.escape(cell)}</td>" for cell in row] for row in rows)
    lines = [f"<tr>{''.join(row)}</tr>" for row in body]
    return (
        f"<table><caption>{html.escape(caption)}</caption><thead><tr>{''.join(head)}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def _uri(x: Tensor) -> str:
    """Return a picture as a data URI, without loss."""
    file = io.BytesIO()
    to_pil(x).save(file, format="WEBP", lossless=True)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"

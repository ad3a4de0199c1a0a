"""An evaluation as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from torch import Tensor

from glic_pyg.evaluation.measure import notes
from glic_pyg.figures import figure_svg
from glic_pyg.image import data_uri
from glic_pyg.pages import fill_page

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


@dataclass(frozen=True)
class Comparison:
    """A table of BD-rates.

    Args:
        caption: What is compared.
        rows: Its cells; the first row is the head.
        notes: Why some cells are empty.
    """

    caption: str
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def build_page(
    *,
    title: str,
    command: str,
    results: Sequence[Mapping[str, Any]],
    comparisons: Sequence[Comparison],
    figures: Mapping[str, Figure],
    complexity: Sequence[Sequence[str]],
    pictures: Mapping[str, tuple[Tensor, Sequence[Restored]]],
) -> str:
    """Return the page; whatever text it is given stays text.

    Args:
        title: Its heading.
        command: The command that makes it.
        results: Of the codecs, as `measure.results` returns them.
        comparisons: Tables of BD-rates.
        figures: Curves by caption.
        complexity: A table, see `complexity_rows`; may be empty.
        pictures: Original and what the codecs made of it, by name.
    """
    data = {
        name: {
            "original": _uri(x),
            "restored": [
                {"label": f"{r.codec}: {r.bpp:.3f} bpp, {r.psnr:.2f} dB", "uri": _uri(r.x_hat)}
                for r in restored
            ],
            "width": x.size(-1),
        }
        for name, (x, restored) in pictures.items()
    }
    return fill_page(
        Path(__file__).with_name("report.html"),
        title=title,
        command=command,
        figures={caption: Markup(_inner(figure_svg(figure))) for caption, figure in figures.items()},
        comparisons=comparisons,
        codecs=[_codec_section(result) for result in results],
        complexity=complexity,
        pictures=data,
    )


def _codec_section(result: Mapping[str, Any]) -> dict[str, Any]:
    columns = []
    for name, (heading, form, unit) in COLUMNS.items():
        values = result["results"].get(name, [])
        if any(value is not None for value in values):
            cells = ("" if value is None else form.format(value / unit) for value in values)
            columns.append([heading, *cells])
    return {
        "name": result["name"],
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


def _inner(svg: str) -> str:
    """Return an SVG file without what comes before its picture, which has no place in a page."""
    return svg[svg.index("<svg") :]


def _uri(x: Tensor) -> str:
    """Return a picture's address, without loss."""
    return data_uri(x, format="WEBP", lossless=True)

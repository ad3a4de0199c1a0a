"""Figures of matplotlib as files and as parts of pages."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from glic_pyg.errors import FileError
from glic_pyg.files import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure, PNG or SVG by the name's suffix.

    Raises:
        FileError: another suffix.
        OSError: a file that cannot be written.
    """
    match Path(path).suffix.lower():
        case ".png":
            write_file(path, lambda file: figure.savefig(file, format="png"))
        case ".svg":
            write_file(path, figure_svg(figure))
        case _:
            raise FileError(f"Expected a name that ends in .png or .svg for the figure (got {path})")


def figure_svg(figure: Figure) -> str:
    """Return a figure as SVG, without the time at which it was made."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()

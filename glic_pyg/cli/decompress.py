"""Restore the picture of a .glic file, or a folder of them, to any format that Pillow writes.

glic decompress photo.glic -o photo.png
glic decompress photo.glic -o photo.jpg
glic decompress coded/ -o restored/ --format webp
glic decompress - -o - < photo.glic > photo.png
"""

from __future__ import annotations

import os
import time
import warnings
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glic_pyg.cli import flags

if TYPE_CHECKING:
    from glic_pyg.cli.conversion import Converter
    from glic_pyg.files import FileBytes


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("input", help=".glic file, or folder of them, searched recursively, or -")
    add("-o", "--output", required=True, help="picture, folder, or -")
    about = "as Pillow names it, or a suffix (default: by the output's suffix; png in folders and pipes)"
    add("--format", metavar="F", help=about)
    flags.add_model(parser)
    flags.add_conversion(parser)


def run(args: Namespace) -> int:
    """Restore; return the exit status."""
    from glic_pyg.cli.conversion import Conversion
    from glic_pyg.cli.sharing import share

    format, suffix = _format(args)  # refused before the work
    args = share(args)
    convert = Conversion(
        partial(make_converter, args, format),
        suffixes={".glic"},
        new_suffix=suffix,
        force=args.force,
        inputs=[Path(args.model)],
        as_json=args.json,
        jobs=args.jobs,
    )
    return convert(args.input, args.output)


def make_converter(args: Namespace, format: str) -> Converter:
    """Load the model; return what restores with it.

    Args:
        args: The command's.
        format: Of what is restored, as Pillow names it.
    """
    from glic_pyg.bulk import Decoder
    from glic_pyg.cli.conversion import Converter
    from glic_pyg.cli.machine import load_model
    from glic_pyg.cli.sharing import telling_of_jobs
    from glic_pyg.cli.waiting import Stopwatch

    bounds = {"max_pixels": args.max_pixels, "max_memory": args.max_memory}
    decoder = Decoder(load_model(args), format=format, **bounds)
    stopwatch = Stopwatch(args.begun)

    @telling_of_jobs(args.jobs)
    def decompress(source: FileBytes) -> tuple[bytes, dict[str, Any], str]:
        start = time.perf_counter()
        coded = decoder.code(source)
        for note in coded.notes:
            warnings.warn(f"{source}: {note}", stacklevel=1)
        times = stopwatch.lap(coding=time.perf_counter() - start)
        figures = {"height": coded.height, "width": coded.width, "bpp": coded.bpp, **times._asdict()}
        return coded.data, figures, f"{coded.width} x {coded.height} from {coded.bpp:.4f} bpp, {times}"

    return Converter(decompress, decoder.settings, decoder.most_bytes)


def _format(args: Namespace) -> tuple[str, str]:
    """Return the format of what is restored, and the suffix of files that get their names here.

    Raises:
        FileError: there is no such format.
    """
    from glic_pyg.errors import FileError
    from glic_pyg.files import follow_links, is_stream
    from glic_pyg.formats import format_named, writable

    if args.format is not None:
        return format_named(args.format)
    path = Path(args.output)
    is_folder = os.path.isdir(args.input) or args.output.endswith(("/", os.sep)) or path.is_dir()
    if is_folder or args.output == "-" or is_stream(follow_links(path)):
        return "PNG", ".png"
    suffix = path.suffix.lower()
    if suffix not in writable():
        raise FileError(
            "Expected an output name that ends in .png, or as another format that Pillow writes, or --format "
            f"(got {args.output})"
        )
    return writable()[suffix], suffix

"""Restore the picture of a .glic file, or a folder of them, to 8-bit PNG.

glic decompress photo.glic -o photo.png
glic decompress coded/ -o restored/
glic decompress - -o - < photo.glic > photo.png
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glic_pyg.cli import flags

if TYPE_CHECKING:
    from glic_pyg.files import FileBytes


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("input", help=".glic file, or folder of them, searched recursively, or -")
    add("-o", "--output", required=True, help=".png file, folder, or -")
    flags.add_model(parser)
    flags.add_max_pixels(parser)
    flags.add_max_memory(parser)
    flags.add_machine(parser)
    flags.add_force(parser)
    flags.add_json(parser)


def run(args: Namespace) -> int:
    """Restore; return the exit status."""
    from glic_pyg import bitstream
    from glic_pyg.cli.conversion import Conversion
    from glic_pyg.cli.machine import load_model
    from glic_pyg.cli.waiting import Stopwatch
    from glic_pyg.container import BitstreamError
    from glic_pyg.image import png_bytes
    from glic_pyg.metrics import bpp

    model = load_model(args)
    stopwatch = Stopwatch(args.begun)

    def decompress(source: FileBytes) -> tuple[bytes, dict[str, Any], str]:
        start = time.perf_counter()
        data = source.getvalue()
        try:
            x = bitstream.decode(model, data, max_pixels=args.max_pixels, max_memory=args.max_memory)
        except BitstreamError as error:
            raise BitstreamError(f"{source}: {error}") from error
        height, width = x.shape[-2:]
        rate = bpp(data, x)
        png = png_bytes(x)
        times = stopwatch.lap(coding=time.perf_counter() - start)
        figures = {"height": height, "width": width, "bpp": rate, **times._asdict()}
        return png, figures, f"{width} x {height} from {rate:.4f} bpp, {times}"

    convert = Conversion(
        decompress,
        settings={"format": "png", "model": model.identity.hex(), "max_memory": args.max_memory},
        suffixes={".glic"},
        new_suffix=".png",
        only_suffix=True,
        most_bytes=lambda head: bitstream.most_bytes(head, args.max_pixels),
        force=args.force,
        inputs=[Path(args.model)],
        as_json=args.json,
    )
    return convert(args.input, args.output)

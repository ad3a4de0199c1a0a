"""Compress a picture, or a folder of pictures, to .glic.

glic compress photo.jpg -o photo.glic
glic compress photo.jpg -o photo.glic --quality 6.5
glic compress photo.jpg -o photo.glic --target-bpp 0.25
glic compress photo.jpg -o photo.glic --effort 2
glic compress photos/ -o coded/ --target-psnr 32
glic compress photos/ -o coded/ --jobs auto
glic compress - -o - < photo.jpg > photo.glic
"""

from __future__ import annotations

import time
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Collection
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glic_pyg.cli import flags
from glic_pyg.cli.printing import CHUNK_NAMES

if TYPE_CHECKING:
    from glic_pyg.cli.conversion import Converter
    from glic_pyg.cli.refining import Refining
    from glic_pyg.files import FileBytes


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("input", help="picture, or folder of pictures, searched recursively, or -")
    add("-o", "--output", required=True, help=".glic file, folder, or -")
    add_settings(parser)
    flags.add_conversion(parser)


def add_settings(parser: ArgumentParser) -> None:
    """Add the flags that say how pictures become .glic files."""
    add = parser.add_argument
    flags.add_model(parser)
    aim = parser.add_mutually_exclusive_group()
    aim.add_argument(
        "--quality",
        type=float,
        metavar="Q",
        help="1 (small file) to as many as the model has (default: the middle one)",
    )
    about = "most bits per pixel, alpha and metadata not counted"
    aim.add_argument("--target-bpp", type=flags.positive, metavar="B", help=about)
    about = "least PSNR in dB, of 8-bit pictures"
    aim.add_argument("--target-psnr", type=flags.positive, metavar="P", help=about)
    flags.add_effort(parser)
    add("--strip", action="store_true", help="leave out EXIF and XMP data, which travel otherwise")
    add("--keep-icc", action="store_true", help="let a colour profile travel, in place of converting to sRGB")


def run(args: Namespace) -> int:
    """Compress; return the exit status."""
    from glic_pyg.cli.conversion import Conversion
    from glic_pyg.cli.refining import Refining
    from glic_pyg.cli.sharing import share
    from glic_pyg.picture import picture_suffixes

    args = share(args)
    refining = Refining() if args.jobs == 1 else None
    convert = Conversion(
        partial(make_converter, args, refining),
        suffixes=picture_suffixes(),
        new_suffix=".glic",
        force=args.force,
        inputs=[Path(args.model)],
        as_json=args.json,
        jobs=args.jobs,
    )
    status = convert(args.input, args.output)
    if refining is not None and refining.stopped:
        raise KeyboardInterrupt
    return status


def make_converter(args: Namespace, refining: Refining | None) -> Converter:
    """Load the model; return what compresses with it.

    Args:
        args: The command's.
        refining: Shows the search for better latents; one process of several shows nothing.
    """
    from glic_pyg.bulk import Encoder
    from glic_pyg.cli.conversion import Converter
    from glic_pyg.cli.machine import load_model
    from glic_pyg.cli.sharing import telling_of_jobs
    from glic_pyg.cli.waiting import Stopwatch
    from glic_pyg.picture import most_bytes

    encoder = Encoder(
        load_model(args), **encoder_settings(args), watch=refining.watch if refining is not None else None
    )
    stopwatch = Stopwatch(args.begun)

    @telling_of_jobs(args.jobs)
    def compress(source: FileBytes) -> tuple[bytes, dict[str, Any], str]:
        if refining is not None and refining.stopped:  # the picture before has been written
            raise KeyboardInterrupt
        start = time.perf_counter()
        with refining or nullcontext():
            coded = encoder.code(source)
        for note in coded.notes:
            warnings.warn(f"{source} {note}", stacklevel=1)
        times = stopwatch.lap(coding=time.perf_counter() - start)
        size, extra = len(coded.data), coded.chunk_bytes
        figures = {
            "bytes": size,
            "chunk_bytes": extra,
            "height": coded.height,
            "width": coded.width,
            "bpp": coded.bpp,
            **times._asdict(),
        }
        told = f", {extra} of the bytes for {_names(coded.chunks)}" if coded.chunks else ""
        return coded.data, figures, f"{size} bytes, {coded.bpp:.4f} bpp{told}, {times}"

    return Converter(compress, encoder.settings, most_bytes(args.max_pixels))


def encoder_settings(args: Namespace) -> dict[str, Any]:
    """Return what a command's flags say of an `Encoder`."""
    names = ("quality", "target_bpp", "target_psnr", "effort", "lmbda", "distortion", "strip", "keep_icc")
    return {name: getattr(args, name) for name in (*names, "max_pixels", "max_memory")}


def _names(chunks: Collection[str]) -> str:
    """Return what makes a file larger than its coded strings do."""
    return ", ".join(CHUNK_NAMES[name] for name in CHUNK_NAMES if name in chunks)

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
    flags.add_model(parser)
    aim = parser.add_mutually_exclusive_group()
    aim.add_argument(
        "--quality",
        type=float,
        metavar="Q",
        help="1 (small file) to as many as the model has (default: the middle one)",
    )
    about = "wanted bits per pixel, alpha and metadata not counted"
    aim.add_argument("--target-bpp", type=flags.positive, metavar="B", help=about)
    about = "wanted PSNR in dB, of 8-bit pictures"
    aim.add_argument("--target-psnr", type=flags.positive, metavar="P", help=about)
    flags.add_effort(parser)
    add("--strip", action="store_true", help="leave out EXIF and XMP data, which travel otherwise")
    add("--keep-icc", action="store_true", help="let a colour profile travel, in place of converting to sRGB")
    flags.add_max_pixels(parser)
    flags.add_max_memory(parser)
    flags.add_machine(parser)
    flags.add_jobs(parser, "for a folder")
    flags.add_force(parser)
    flags.add_json(parser)


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
    from glic_pyg import bitstream
    from glic_pyg.chunks import add_chunks, chunks_of
    from glic_pyg.cli.conversion import Converter
    from glic_pyg.cli.machine import load_model
    from glic_pyg.cli.sharing import telling_of_jobs
    from glic_pyg.cli.waiting import Stopwatch
    from glic_pyg.container import VERSION
    from glic_pyg.image import to_tensor
    from glic_pyg.metrics import bpp
    from glic_pyg.picture import DEEP, most_bytes, picture_size, read_picture
    from glic_pyg.rate_control import encode_to_bpp, encode_to_psnr
    from glic_pyg.refinement import check_effort
    from glic_pyg.tiles import check_memory
    from glic_pyg.transparency import filled

    model = load_model(args)
    aims = {"quality": args.quality, "target_bpp": args.target_bpp, "target_psnr": args.target_psnr}
    if args.target_bpp is None and args.target_psnr is None:
        aims["quality"] = bitstream.quality_steps(model, args.quality)
    check_effort(model, args.effort, args.lmbda)
    stopwatch = Stopwatch(args.begun)
    bounds = {"max_pixels": args.max_pixels, "max_memory": args.max_memory}
    options: dict[str, Any] = {**bounds, "effort": args.effort, "watch": refining and refining.watch}

    @telling_of_jobs(args.jobs)
    def compress(source: FileBytes) -> tuple[bytes, dict[str, Any], str]:
        if refining is not None and refining.stopped:  # the picture before has been written
            raise KeyboardInterrupt
        start = time.perf_counter()
        if args.max_memory is not None:
            check_memory(args.max_memory, model.config, model.nbytes, picture_size(source))
        picture = read_picture(
            source, max_pixels=args.max_pixels, keep_icc=args.keep_icc, metadata=not args.strip
        )
        source.close()
        for note in [*picture.notes, *([DEEP] if picture.is_deep else [])]:
            warnings.warn(f"{source} {note}", stacklevel=1)
        channels, chunks = picture.channels, chunks_of(picture)
        x = to_tensor(filled(picture)).to(model.device)
        del picture
        with refining or nullcontext():
            if args.target_bpp is not None:
                data = encode_to_bpp(model, x, args.target_bpp, **options)
            elif args.target_psnr is not None:
                data = encode_to_psnr(model, x, args.target_psnr, **options)
            else:
                data = bitstream.encode(model, x, args.quality, lmbda=args.lmbda, **options)
        size, data = len(data), add_chunks(data, channels, chunks)
        height, width = x.shape[-2:]
        rate, times = bpp(data, x), stopwatch.lap(coding=time.perf_counter() - start)
        figures: dict[str, Any] = {"bytes": len(data), "chunk_bytes": len(data) - size}
        figures |= {"height": height, "width": width, "bpp": rate, **times._asdict()}
        told = f", {len(data) - size} of the bytes for {_names(chunks)}" if chunks else ""
        return data, figures, f"{len(data)} bytes, {rate:.4f} bpp{told}, {times}"

    return Converter(
        compress,
        settings={
            "format": VERSION,
            "model": model.identity.hex(),
            "max_memory": args.max_memory,
            "strip": args.strip,
            "keep_icc": args.keep_icc,
            **({"effort": args.effort, "lambda": args.lmbda} if args.effort else {}),
            **aims,
        },
        most_bytes=most_bytes(args.max_pixels),
    )


def _names(chunks: Collection[str]) -> str:
    """Return what makes a file larger than its coded strings do."""
    return ", ".join(CHUNK_NAMES[name] for name in CHUNK_NAMES if name in chunks)

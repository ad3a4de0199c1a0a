"""Convert a checkpoint of the authors, .pth.tar, to this project's format.

glic import 0.013.pth.tar -o glic_0.013.safetensors
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from glic_pyg.cli import flags
from glic_pyg.cli.printing import say


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("input", type=Path, help="the authors' file")
    add("-o", "--output", type=flags.file_name, required=True, help=".safetensors file to write")
    add(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="of the weights (default: %(default)s)",
    )
    flags.add_force(parser)


def run(args: Namespace) -> int:
    """Convert."""
    import torch

    from glic_pyg.ledger import writing
    from glic_pyg.published import load_published

    with writing(args.output, inputs=[args.input], force=args.force):
        model = load_published(args.input)
        dtype = getattr(torch, args.dtype)
        model.save(args.output, dtype=dtype, info={"imported_from": args.input.name})
    parameters = sum(p.numel() for p in model.parameters())
    say(f"{args.output}: {parameters / 1e6:.2f} M parameters, {args.output.stat().st_size} bytes")
    return 0

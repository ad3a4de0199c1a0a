"""Convert a checkpoint of the authors, .pth.tar, to this project's format.

python tools/import_checkpoint.py 0.013.pth.tar -o glic_0.013.safetensors
"""

from __future__ import annotations

from pathlib import Path

import torch

from glic_pyg import cli
from glic_pyg.published import load_published

DTYPES = {"float32": torch.float32, "float16": torch.float16}


def main() -> int:
    """Parse the command line and convert."""
    parser = cli.Parser(__doc__)
    parser.add_argument("input", type=Path, help="the authors' file")
    parser.add_argument(
        "-o", "--output", type=cli.file_name, required=True, help=".safetensors file to write"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="of the weights (default: %(default)s)"
    )
    cli.add_force(parser)
    args = parser.parse_args()
    with cli.writing(args.output, inputs=[args.input], force=args.force):
        model = load_published(args.input)
        model.save(args.output, dtype=DTYPES[args.dtype], info={"imported_from": args.input.name})
    parameters = sum(p.numel() for p in model.parameters())
    cli.say(f"{args.output}: {parameters / 1e6:.2f} M parameters, {args.output.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    cli.run(main)

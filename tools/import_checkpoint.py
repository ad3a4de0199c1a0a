"""Convert a checkpoint of the authors, .pth.tar, to this project's format.

python tools/import_checkpoint.py 0.013.pth.tar -o glic_0.013.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from glic_pyg import checkpoint, cli
from glic_pyg.published import load_published

DTYPES = {"float32": torch.float32, "float16": torch.float16}


def main() -> int:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, help="the authors' file")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".safetensors file to write")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="of the weights (default: %(default)s)"
    )
    args = parser.parse_args()
    model = load_published(args.input)
    checkpoint.save(model, args.output, dtype=DTYPES[args.dtype], info={"imported_from": args.input.name})
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{args.output}: {parameters / 1e6:.2f} M parameters, {args.output.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    cli.run(main)

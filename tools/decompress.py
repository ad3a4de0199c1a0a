"""Restore the picture of a .glic file, or a folder of them, to 8-bit PNG.

python tools/decompress.py photo.glic -o photo.png
python tools/decompress.py coded/ -o restored/
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from glic_pyg import GLIC, bitstream, cli
from glic_pyg.cli import add_allow_code, add_max_memory, add_max_pixels
from glic_pyg.files import replacing
from glic_pyg.image import write_png


def main() -> int:
    """Parse the command line and restore."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, help=".glic file, or folder of them, searched recursively")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".png file, or folder")
    parser.add_argument(
        "--model",
        default="glic_nano",
        help="name or .safetensors file the input was made with (default: %(default)s)",
    )
    add_max_pixels(parser)
    add_max_memory(parser)
    add_allow_code(parser)
    args = parser.parse_args()
    if not args.input.is_dir() and args.output.suffix.lower() != ".png":
        parser.error(f"Expected an output name that ends in .png (got {args.output})")
    model = GLIC.from_pretrained(args.model, allow_code=args.allow_code)

    def decompress(source: Path, target: Path) -> str:
        start = time.perf_counter()
        data = source.read_bytes()
        try:
            x = bitstream.decode(model, data, max_pixels=args.max_pixels, max_memory=args.max_memory)
        except bitstream.BitstreamError as error:
            raise bitstream.BitstreamError(f"{source}: {error}") from error
        with replacing(target) as aside:
            write_png(x, aside)
        height, width = x.shape[-2:]
        bpp = 8 * len(data) / (height * width)
        return f"{target}: {width} x {height} from {bpp:.4f} bpp, {time.perf_counter() - start:.2f} s"

    return cli.convert_files(
        args.input,
        args.output,
        decompress,
        suffixes={".glic"},
        new_suffix=".png",
        is_done=lambda source, target: True,  # a file that is there is whole
    )


if __name__ == "__main__":
    cli.run(main)

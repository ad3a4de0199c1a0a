"""Compress a picture, or a folder of pictures, to .glic.

python tools/compress.py photo.jpg -o photo.glic
python tools/compress.py photos/ -o coded/
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from glic_pyg import GLIC, bitstream, cli
from glic_pyg.files import replacing
from glic_pyg.image import picture_suffixes, read_image


def main() -> int:
    """Parse the command line and compress."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, help="picture, or folder of pictures, searched recursively")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".glic file, or folder")
    parser.add_argument(
        "--model", default="glic_nano", help="name or .safetensors file (default: %(default)s)"
    )
    args = parser.parse_args()
    model = GLIC.from_pretrained(args.model)

    def compress(source: Path, target: Path) -> str:
        start = time.perf_counter()
        x = read_image(source)
        data = bitstream.encode(model, x)
        with replacing(target) as aside:
            aside.write_bytes(data)
        height, width = x.shape[-2:]
        bpp = 8 * len(data) / (height * width)
        return f"{target}: {len(data)} bytes, {bpp:.4f} bpp, {time.perf_counter() - start:.2f} s"

    return cli.convert_files(
        args.input, args.output, compress, suffixes=picture_suffixes(), new_suffix=".glic"
    )


if __name__ == "__main__":
    cli.run(main)

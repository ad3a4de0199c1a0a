"""Compress a picture, or a folder of pictures, to .glic.

python tools/compress.py photo.jpg -o photo.glic
python tools/compress.py photo.jpg -o photo.glic --quality 6.5
python tools/compress.py photo.jpg -o photo.glic --target-bpp 0.25
python tools/compress.py photos/ -o coded/ --target-psnr 32
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from glic_pyg import GLIC, bitstream, cli
from glic_pyg.checkpoint import model_identity
from glic_pyg.cli import add_allow_code, add_max_memory, add_max_pixels
from glic_pyg.files import replacing
from glic_pyg.image import picture_size, picture_suffixes, read_pixels
from glic_pyg.rate_control import encode_to_bpp, encode_to_psnr
from glic_pyg.tiles import check_memory


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
    aim = parser.add_mutually_exclusive_group()
    aim.add_argument(
        "--quality", type=float, help="1 (small file) to as many as the model has (default: the middle one)"
    )
    aim.add_argument("--target-bpp", type=float, metavar="B", help="wanted bits per pixel of the file")
    aim.add_argument("--target-psnr", type=float, metavar="P", help="wanted PSNR in dB, of 8-bit pictures")
    add_max_pixels(parser)
    add_max_memory(parser)
    add_allow_code(parser)
    args = parser.parse_args()
    model = GLIC.from_pretrained(args.model, allow_code=args.allow_code)

    bounds = {"max_pixels": args.max_pixels, "max_memory": args.max_memory}

    def compress(source: Path, target: Path) -> str:
        start = time.perf_counter()
        if args.max_memory is not None:
            check_memory(model, *picture_size(source), args.max_memory)
        x = read_pixels(source, max_pixels=args.max_pixels)
        if args.target_bpp is not None:
            data = encode_to_bpp(model, x, args.target_bpp, **bounds)
        elif args.target_psnr is not None:
            data = encode_to_psnr(model, x, args.target_psnr, **bounds)
        else:
            data = bitstream.encode(model, x, args.quality, **bounds)
        with replacing(target) as aside:
            aside.write_bytes(data)
        height, width = x.shape[-2:]
        bpp = 8 * len(data) / (height * width)
        return f"{target}: {len(data)} bytes, {bpp:.4f} bpp, {time.perf_counter() - start:.2f} s"

    identity = model_identity(model)
    quality = bitstream.quality_steps(model, args.quality)

    def is_done(source: Path, target: Path) -> bool:
        """Tell from the file's head; which quality meets a target is known only after the search."""
        try:
            stream = bitstream.unpack(target.read_bytes())
        except bitstream.BitstreamError:
            return False
        searched = args.target_bpp is not None or args.target_psnr is not None
        return not searched and (stream.identity, stream.quality) == (identity, quality)

    return cli.convert_files(
        args.input,
        args.output,
        compress,
        suffixes=picture_suffixes(),
        new_suffix=".glic",
        is_done=is_done,
    )


if __name__ == "__main__":
    cli.run(main)

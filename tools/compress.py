"""Compress a picture, or a folder of pictures, to .glic.

python tools/compress.py photo.jpg -o photo.glic
python tools/compress.py photo.jpg -o photo.glic --quality 6.5
python tools/compress.py photo.jpg -o photo.glic --target-bpp 0.25
python tools/compress.py photos/ -o coded/ --target-psnr 32
python tools/compress.py - -o - < photo.jpg > photo.glic
"""

from __future__ import annotations

import time
from pathlib import Path

from glic_pyg import GLIC, bitstream, cli
from glic_pyg.checkpoint import model_identity
from glic_pyg.conversion import Conversion
from glic_pyg.files import FileBytes
from glic_pyg.image import most_bytes, picture_size, picture_suffixes, read_pixels
from glic_pyg.rate_control import encode_to_bpp, encode_to_psnr
from glic_pyg.tiles import check_memory


def main() -> int:
    """Parse the command line and compress."""
    parser = cli.Parser(__doc__)
    parser.add_argument("input", help="picture, or folder of pictures, searched recursively, or -")
    parser.add_argument("-o", "--output", required=True, help=".glic file, folder, or -")
    parser.add_argument(
        "--model", default="glic_nano", help="name or .safetensors file (default: %(default)s)"
    )
    aim = parser.add_mutually_exclusive_group()
    aim.add_argument(
        "--quality",
        type=float,
        help="1 (small file) to as many as the model has (default: the middle one)",
    )
    aim.add_argument("--target-bpp", type=cli.positive, metavar="B", help="wanted bits per pixel of the file")
    aim.add_argument(
        "--target-psnr", type=cli.positive, metavar="P", help="wanted PSNR in dB, of 8-bit pictures"
    )
    cli.add_allow_code(parser)
    cli.add_force(parser)
    cli.add_max_pixels(parser)
    cli.add_max_memory(parser)
    args = parser.parse_args()
    model = GLIC.from_pretrained(args.model, allow_code=args.allow_code)
    aims = {"quality": args.quality, "target_bpp": args.target_bpp, "target_psnr": args.target_psnr}
    if args.target_bpp is None and args.target_psnr is None:
        aims["quality"] = bitstream.quality_steps(model, args.quality)

    bounds = {"max_pixels": args.max_pixels, "max_memory": args.max_memory}

    def compress(source: FileBytes) -> tuple[bytes, str]:
        start = time.perf_counter()
        if args.max_memory is not None:
            check_memory(model, *picture_size(source), args.max_memory)
        x = read_pixels(source, max_pixels=args.max_pixels)
        source.close()
        if args.target_bpp is not None:
            data = encode_to_bpp(model, x, args.target_bpp, **bounds)
        elif args.target_psnr is not None:
            data = encode_to_psnr(model, x, args.target_psnr, **bounds)
        else:
            data = bitstream.encode(model, x, args.quality, **bounds)
        height, width = x.shape[-2:]
        bpp = 8 * len(data) / (height * width)
        return data, f"{len(data)} bytes, {bpp:.4f} bpp, {time.perf_counter() - start:.2f} s"

    convert = Conversion(
        compress,
        settings={
            "format": bitstream.VERSION,
            "model": model_identity(model).hex(),
            "max_memory": args.max_memory,
            **aims,
        },
        suffixes=picture_suffixes(),
        new_suffix=".glic",
        most_bytes=most_bytes(args.max_pixels),
        force=args.force,
        inputs=[Path(args.model)],
    )
    return convert(args.input, args.output)


if __name__ == "__main__":
    cli.run(main)

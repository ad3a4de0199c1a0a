"""Restore the picture of a .glic file, or a folder of them, to 8-bit PNG.

python tools/decompress.py photo.glic -o photo.png
python tools/decompress.py coded/ -o restored/
python tools/decompress.py - -o - < photo.glic > photo.png
"""

from __future__ import annotations

import time
from pathlib import Path

from glic_pyg import GLIC, bitstream, cli
from glic_pyg.checkpoint import model_identity
from glic_pyg.conversion import Conversion
from glic_pyg.files import FileBytes
from glic_pyg.image import png_bytes


def main() -> int:
    """Parse the command line and restore."""
    parser = cli.Parser(__doc__)
    parser.add_argument("input", help=".glic file, or folder of them, searched recursively, or -")
    parser.add_argument("-o", "--output", required=True, help=".png file, folder, or -")
    parser.add_argument(
        "--model",
        default="glic_nano",
        help="name or .safetensors file the input was made with (default: %(default)s)",
    )
    cli.add_allow_code(parser)
    cli.add_force(parser)
    cli.add_max_pixels(parser)
    cli.add_max_memory(parser)
    args = parser.parse_args()
    model = GLIC.from_pretrained(args.model, allow_code=args.allow_code)

    def decompress(source: FileBytes) -> tuple[bytes, str]:
        start = time.perf_counter()
        data = source.getvalue()
        try:
            x = bitstream.decode(model, data, max_pixels=args.max_pixels, max_memory=args.max_memory)
        except bitstream.BitstreamError as error:
            raise bitstream.BitstreamError(f"{source}: {error}") from error
        height, width = x.shape[-2:]
        bpp = 8 * len(data) / (height * width)
        png = png_bytes(x)
        return png, f"{width} x {height} from {bpp:.4f} bpp, {time.perf_counter() - start:.2f} s"

    convert = Conversion(
        decompress,
        settings={"format": "png", "model": model_identity(model).hex(), "max_memory": args.max_memory},
        suffixes={".glic"},
        new_suffix=".png",
        only_suffix=True,
        most_bytes=lambda head: bitstream.most_bytes(head, args.max_pixels),
        force=args.force,
        inputs=[Path(args.model)],
    )
    return convert(args.input, args.output)


if __name__ == "__main__":
    cli.run(main)

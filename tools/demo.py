"""Show the codec: compress a photo that scikit-image ships, restore it, compare with JPEG, draw its graphs.

python tools/demo.py
"""

from __future__ import annotations

import argparse
import time
from importlib.resources import as_file, files
from pathlib import Path

import torch
from torch import Tensor

from glic_pyg import GLIC, bitstream, cli
from glic_pyg.evaluation.jpeg import nearest_jpeg
from glic_pyg.files import write_file
from glic_pyg.image import read_image, write_png
from glic_pyg.inspection.drawings import graph_picture, save_figure
from glic_pyg.metrics import bpp, psnr

PHOTO = "coffee.png"


def main() -> int:
    """Parse the command line, compress, restore, and say what came out."""
    parser = cli.Parser(__doc__)
    parser.add_argument("-o", "--output", type=Path, default="demo", help="folder (default: %(default)s)")
    parser.add_argument(
        "--model", default="glic_nano", help="name or .safetensors file (default: %(default)s)"
    )
    cli.add_allow_code(parser)
    cli.add_force(parser)
    args = parser.parse_args()
    coded, restored = args.output / "photo.glic", args.output / "restored.png"
    both, graph = args.output / "original_restored.png", args.output / "graph.png"
    with cli.writing(coded, restored, both, graph, force=args.force):
        _show(args, coded, restored, both, graph)
    cli.say(f"written   {coded}, {restored}, {both} (side by side), {graph} (its graphs)")
    return 0


def _show(args: argparse.Namespace, coded: Path, restored: Path, both: Path, graph: Path) -> None:
    with as_file(files("skimage") / "data" / PHOTO) as path:
        x = read_image(path)
    height, width = x.shape[-2:]
    model = GLIC.from_pretrained(args.model, allow_code=args.allow_code)
    bitstream.encode(model, x[..., :64, :64])  # the first call compiles the kernels
    print(f"photo     {PHOTO} of scikit-image, {width} x {height}; model {model.config.name}")

    start = time.perf_counter()
    data = bitstream.encode(model, x)
    encode_seconds = time.perf_counter() - start
    write_file(coded, data)
    print(f"file      {_size(data, x)}")

    start = time.perf_counter()
    x_hat = bitstream.decode(model, coded.read_bytes())
    decode_seconds = time.perf_counter() - start
    write_png(x_hat, restored)
    print(f"PSNR      {psnr(x, x_hat):.2f} dB, of the 8-bit pictures")
    print(f"time      encode {encode_seconds:.2f} s, decode {decode_seconds:.2f} s")

    jpeg = nearest_jpeg(x, len(data))
    print(
        f"JPEG      {_size(jpeg.data, x)}, {psnr(x, jpeg.x_hat):.2f} dB "
        f"(Pillow's quality {jpeg.quality}, the nearest in size)"
    )

    write_png(torch.cat([x, x_hat], dim=-1), both)
    save_figure(graph_picture(model, x), graph)


def _size(data: bytes, x: Tensor) -> str:
    return f"{len(data)} bytes, {bpp(data, x):.3f} bpp"


if __name__ == "__main__":
    cli.run(main)

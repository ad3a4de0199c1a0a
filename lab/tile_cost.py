"""Measure what it costs to work in tiles: small ones are forced, whatever memory there is.

    python lab/tile_cost.py -d KODAK --kept 256 --margins 0 32 64 128

Printed are how far what a file gives in tiles is from what it gives as a whole (the largest difference of
8-bit values in all pictures, the mean PSNR of one to the other), and what tiles in the decoder, and on both
sides, change in bits and dB, as means over the pictures.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import torch
from pictures import pictures_below
from torch import Tensor

from glic_pyg import GLIC, bitstream
from glic_pyg.cli import flags
from glic_pyg.cli.main import run
from glic_pyg.image import read_pixels
from glic_pyg.metrics import bpp, psnr
from glic_pyg.tiles import MARGIN, Tiling


def main() -> int:
    """Parse the command line, measure, print a line per margin."""
    parser = flags.Parser(__doc__)
    add = parser.add_argument
    add("-d", "--dataset", type=Path, required=True, help="folder of pictures")
    flags.add_model(parser)
    add("--kept", type=int, default=256, help="side of what is kept of a tile, 64 n (default: %(default)s)")
    add("--margins", type=int, nargs="+", default=[MARGIN], help="32 n (default: %(default)s)")
    args = parser.parse_args()
    if args.kept < 64 or any(n % 32 or n < 0 for n in args.margins) or args.kept % 64:
        parser.error("Expected --kept to be a multiple of 64 and --margins ones of 32 (got others)")
    paths = pictures_below(args.dataset)
    model = GLIC.from_pretrained(args.model, allow_code=args.allow_code)
    for margin in args.margins:
        side = args.kept + 2 * margin
        rows = [_compare(model, read_pixels(path), Tiling(side, margin)) for path in paths]
        largest, near, decoder, bits, both = zip(*rows, strict=True)
        print(
            f"tiles of {side}, margin {margin}: decoder {max(largest)} of 255 and {fmean(near):.2f} dB "
            f"from the whole, {fmean(decoder):+.4f} dB; both {100 * fmean(bits):+.3f} % bpp, "
            f"{fmean(both):+.4f} dB",
            flush=True,
        )
    return 0


def _compare(model: GLIC, x: Tensor, tiling: Tiling) -> tuple[int, float, float, float, float]:
    shape = x.shape[-2:]
    data, y_hat = bitstream.encode_latents(model, model.analyse(x), shape)
    restored = model.synthesise(y_hat, shape, dtype=torch.uint8)
    in_tiles = model.synthesise(y_hat, shape, tiling, dtype=torch.uint8)
    of_tiles, y_hat = bitstream.encode_latents(model, model.analyse(x, tiling), shape)
    in_both = model.synthesise(y_hat, shape, tiling, dtype=torch.uint8)
    before = psnr(x, restored)
    return (
        (in_tiles.int() - restored.int()).abs().max().item(),
        psnr(restored, in_tiles),
        psnr(x, in_tiles) - before,
        bpp(of_tiles, x) / bpp(data, x) - 1,
        psnr(x, in_both) - before,
    )


if __name__ == "__main__":
    run(main)

"""Compress and restore a folder of pictures; print sizes of the files, PSNR and times, beside JPEG.

    python tools/evaluate.py -d kodak/ --save-json results.json

All figures are of real files and of 8-bit pictures. JPEG is Pillow's (4:2:0, optimised), each picture at the
quality nearest in size to its .glic file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from tqdm import tqdm

from glic_pyg import GLIC, bitstream, cli
from glic_pyg.evaluation.jpeg import nearest_jpeg
from glic_pyg.evaluation.metrics import bpp, psnr
from glic_pyg.files import files_below, replacing
from glic_pyg.image import ImageError, picture_suffixes, read_image


def main() -> int:
    """Parse the command line, measure, print a table and the means."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("-d", "--dataset", type=Path, required=True, help="folder of pictures, searched recursively")
    add("--model", default="glic_nano", help="name or .safetensors file (default: %(default)s)")
    add("--save-json", type=Path, metavar="FILE", help="write the means as CompressAI does")
    args = parser.parse_args()
    pictures = files_below(args.dataset, picture_suffixes())
    if not pictures:
        raise ImageError(f"Expected a folder with pictures (got {args.dataset})")
    model = GLIC.from_pretrained(args.model)
    bitstream.encode(model, read_image(pictures[0])[..., :64, :64])  # the first call compiles the kernels

    rows = []
    print(f"{'picture':24} {'bytes':>8} {'bpp':>7} {'PSNR':>6} {'encode':>7} {'decode':>7}  JPEG bpp   PSNR")
    for path in tqdm(pictures, unit="picture", disable=None):
        row = measure(model, path)
        rows.append(row)
        tqdm.write(f"{path.name:24} {_line(row)}")
    mean = {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}
    print(f"{'mean':24} {_line(mean)}")

    if args.save_json:
        results = {key: [mean[key]] for key in ("bpp", "psnr-rgb", "encoding_time", "decoding_time")}
        about = {
            "name": model.config.name,
            "description": f"{args.model}, real files, {len(pictures)} pictures",
            "results": results,
        }
        with replacing(args.save_json) as aside:
            aside.write_text(json.dumps(about, indent=2) + "\n")
    return 0


def measure(model: GLIC, path: Path) -> dict[str, float]:
    """Return the figures of one picture: of its .glic file, and of the JPEG file nearest in size."""
    x = read_image(path)
    start = time.perf_counter()
    data = bitstream.encode(model, x)
    encoded = time.perf_counter()
    x_hat = bitstream.decode(model, data)
    decoded = time.perf_counter()
    jpeg = nearest_jpeg(x, len(data))
    return {
        "bytes": len(data),
        "bpp": bpp(data, x),
        "psnr-rgb": psnr(x, x_hat),
        "encoding_time": encoded - start,
        "decoding_time": decoded - encoded,
        "jpeg-bpp": bpp(jpeg.data, x),
        "jpeg-psnr-rgb": psnr(x, jpeg.x_hat),
    }


def _line(row: dict[str, float]) -> str:
    return (
        f"{row['bytes']:8.0f} {row['bpp']:7.4f} {row['psnr-rgb']:6.2f} {row['encoding_time']:6.2f}s "
        f"{row['decoding_time']:6.2f}s {row['jpeg-bpp']:9.4f} {row['jpeg-psnr-rgb']:6.2f}"
    )


if __name__ == "__main__":
    cli.run(main)

"""Encode under each of a machine's settings, decode under each other: whose latents are the same?

    python lab/all_pairs.py -d DIR --save-json table.json

Settings are numbers of threads, memory layouts, instruction sets of oneDNN, ATen and MKL, whatever else torch
lets one set about products and convolutions, and the GPU where there is one. Every pair is tried twice: as
files are coded, in exact arithmetic, and in floating point, as learned codecs usually do. A second start with
the same --work folder goes on where the first one ended.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from pictures import pictures_below
from portability import ARITHMETIC, SETTINGS, start
from tqdm import tqdm

from glic_pyg import GLIC
from glic_pyg.cli import flags
from glic_pyg.cli.main import run
from glic_pyg.cli.printing import aligned
from glic_pyg.codec import check_quality
from glic_pyg.errors import FileError
from glic_pyg.files import write_file
from glic_pyg.ledger import writing


def main() -> int:
    """Parse the command line, run all settings, print and write the tables."""
    parser = flags.Parser(__doc__)
    parser.add_argument("-d", "--dataset", type=Path, required=True, help="folder of pictures")
    flags.add_model(parser)
    parser.add_argument("--quality", type=float, help="of a model of several (default: the middle one)")
    parser.add_argument("--work", type=Path, help="folder for what is coded (default: a temporary one)")
    parser.add_argument("--save-json", type=flags.file_name, help="write the tables")
    flags.add_force(parser)
    args = parser.parse_args()
    pictures = pictures_below(args.dataset)
    model = GLIC.from_pretrained(args.model, allow_code=args.allow_code)
    check_quality(model.config.qualities, args.quality)  # complains before any work is done
    job = {
        "model": str(args.model),
        "allow_code": args.allow_code,
        "quality": args.quality,
        "pictures": [str(path) for path in pictures],
        "settings": list(SETTINGS),
    }
    with writing(args.save_json, inputs=[*pictures, args.model], force=args.force):
        with tempfile.TemporaryDirectory() as temporary:
            table = _all_pairs(job, args.work or Path(temporary))
        _print(table)
        if args.save_json:
            write_file(args.save_json, json.dumps(table, indent=1) + "\n")
    return 0


def _all_pairs(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    told, text = folder / "job.json", json.dumps(job)
    if told.exists() and told.read_bytes() != text.encode():
        raise FileError(f"Expected a --work folder of the same job (got {folder}, of another)")
    write_file(told, text)
    steps = [(step, name) for step in ("encode", "decode") for name in SETTINGS]
    for step, name in tqdm(steps, unit="process", disable=None):
        if not (folder / f"{step} {name}.pt").exists():
            start(step, folder, name)
    encoded, decoded = (
        {name: torch.load(folder / f"{step} {name}.pt", weights_only=True) for name in SETTINGS}
        for step in ("encode", "decode")
    )
    first = next(iter(SETTINGS))
    sizes = {
        kind: sum(len(s) for stream in encoded[first]["coded"][kind].values() for s in stream["strings"])
        for kind in ARITHMETIC
    }
    return {
        "job": job,
        "decoded": {
            kind: {
                encoder: {decoder: decoded[decoder]["same"][kind][encoder] for decoder in SETTINGS}
                for encoder in SETTINGS
            }
            for kind in ARITHMETIC
        },
        "bytes": sizes,
        "encode_seconds": encoded[first]["seconds"],
        "decode_seconds": decoded[first]["seconds"],
        "pixel_difference": {name: decoded[name]["difference"] for name in SETTINGS},
    }


def _print(table: dict[str, Any]) -> None:
    count = len(table["job"]["pictures"])
    for kind, rows in table["decoded"].items():
        print(f"{kind}: of {count} pictures, those with the encoder's latents; a row per encoder")
        print(aligned([["  " + encoder, *map(str, row.values())] for encoder, row in rows.items()]))
    exact, floats = table["bytes"]["exact"], table["bytes"]["float"]
    print(f"bytes: {exact} exact, {floats} in floating point, {100 * (exact / floats - 1):+.3f} %")
    for step in ("encode", "decode"):
        exact, floats = table[f"{step}_seconds"]["exact"], table[f"{step}_seconds"]["float"]
        print(
            f"{step}, entropy model: {exact:.2f} s exact, {floats:.2f} s in floating point, "
            f"{exact / floats:.2f} times"
        )
    print(f"largest difference of a pixel, of 1: {max(table['pixel_difference'].values()):.2g}")


if __name__ == "__main__":
    run(main)

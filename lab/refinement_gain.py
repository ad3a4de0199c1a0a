"""Draw what refining latents gains, against steps: crops from the middle of pictures, at some qualities.

    python lab/refinement_gain.py -d KODAK -o gain.svg --side 192 --steps 400 --quality 1 4 7

The gain is of the loss of real strings and restored pictures, the best so far; the mean over the pictures is
drawn, and written beside the drawing as JSON with the gains of each picture.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure
from pictures import pictures_below
from tqdm import tqdm

from glic_pyg import GLIC
from glic_pyg.cli import flags
from glic_pyg.cli.main import run
from glic_pyg.figures import save_figure
from glic_pyg.files import write_file
from glic_pyg.image import read_pixels
from glic_pyg.refinement import refine


def main() -> int:
    """Parse the command line, refine, draw."""
    parser = flags.Parser(__doc__)
    add = parser.add_argument
    add("-d", "--dataset", type=Path, required=True, help="folder of pictures")
    add("-o", "--output", type=flags.file_name, required=True, help=".svg or .png file")
    flags.add_model(parser)
    add("--quality", type=float, nargs="+", default=[1, 4, 7], help="(default: 1 4 7)")
    add("--steps", type=flags.count, default=400, help="(default: %(default)s)")
    add("--side", type=flags.count, default=192, help="of the crops (default: %(default)s)")
    args = parser.parse_args()
    paths = pictures_below(args.dataset)
    model = GLIC.from_pretrained(args.model, allow_code=args.allow_code)
    gains: dict[str, dict[str, list[float]]] = {}
    for quality in args.quality:
        of_pictures = gains.setdefault(f"{quality:g}", {})
        for path in tqdm(paths, desc=f"quality {quality:g}", disable=None):
            x = read_pixels(path)
            top, left = ((length - args.side) // 2 for length in x.shape[-2:])
            x = x[..., top : top + args.side, left : left + args.side].contiguous()
            told: list[float] = []
            start = time.perf_counter()
            refine(
                model,
                x,
                model.analyse(x),
                quality,
                steps=args.steps,
                watch=lambda _, __, gain, told=told: told.append(gain),
            )
            of_pictures[path.name] = told
            print(f"{path.name}, quality {quality:g}: {told[-1]:.2%}, {time.perf_counter() - start:.0f} s")
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    for quality, of_pictures in gains.items():
        means = [100 * fmean(at) for at in zip(*of_pictures.values(), strict=True)]
        axes.plot(range(1, len(means) + 1), means, label=f"quality {quality}")
    axes.set(xlabel="steps", ylabel="gain, % of the loss", xlim=(0, args.steps), ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, args.output)
    about = {"command": " ".join(["python", *sys.argv]), "gains": gains}
    write_file(args.output.with_suffix(".json"), json.dumps(about, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    run(main)

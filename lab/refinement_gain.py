"""Draw what refining latents gains, against steps: crops from the middle of pictures, at some qualities.

    python lab/refinement_gain.py -d KODAK -o gain.svg --effort 1 2 3 4 --quality 1 4 7 --side 192

The gain is of the loss of real strings and restored pictures, the best so far. The mean over the pictures is
drawn; beside the drawing, a JSON file has the gains of each picture wherever one was better than before.
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
from glic_pyg.refinement import STEPS, refine

Gains = list[tuple[int, float]]
"""Steps, and the gain from there on."""


def main() -> int:
    """Parse the command line, refine, draw whatever is there after each file."""
    parser = flags.Parser(__doc__)
    add = parser.add_argument
    add("-d", "--dataset", type=Path, required=True, help="folder of pictures")
    add("-o", "--output", type=flags.file_name, required=True, help=".svg or .png file")
    flags.add_model(parser)
    add("--quality", type=float, nargs="+", default=[1, 4, 7], help="(default: 1 4 7)")
    add("--effort", type=int, nargs="+", choices=range(1, 5), default=[1, 2, 3, 4], help="(default: all)")
    add("--side", type=flags.count, default=192, help="of the crops (default: %(default)s)")
    args = parser.parse_args()
    paths = pictures_below(args.dataset)
    model = GLIC.from_pretrained(args.model, allow_code=args.allow_code)
    gains: dict[str, dict[str, dict[str, Gains]]] = {}
    for path in tqdm(paths, disable=None):
        x = read_pixels(path)
        top, left = ((length - args.side) // 2 for length in x.shape[-2:])
        x = x[..., top : top + args.side, left : left + args.side].contiguous()
        y = model.analyse(x)
        for quality in args.quality:
            for effort in args.effort:
                told: Gains = [(0, 0.0)]

                def watch(done: int, _: int, gain: float, told: Gains = told) -> None:
                    if gain > told[-1][1]:
                        told.append((done, gain))

                start = time.process_time()
                refine(model, x, y, quality, steps=STEPS[effort], watch=watch)
                gains.setdefault(f"{quality:g}", {}).setdefault(str(effort), {})[path.name] = told
                seconds = time.process_time() - start
                of = f"{path.name}, quality {quality:g}, effort {effort}"
                print(f"{of}: {told[-1][1]:.2%}, {seconds:.0f} s")
            draw(gains, args.output)
            about = {"command": " ".join(["python", *sys.argv]), "gains": gains}
            write_file(args.output.with_suffix(".json"), json.dumps(about) + "\n")
    return 0


def draw(gains: dict[str, dict[str, dict[str, Gains]]], output: Path) -> None:
    """Draw the mean gain of the pictures: a panel per quality, a line per effort."""
    figure = Figure(figsize=(3 * len(gains), 3.4), layout="constrained")
    panels = figure.subplots(1, len(gains), sharey=True, squeeze=False)[0]
    for axes, (quality, of_efforts) in zip(panels, gains.items(), strict=True):
        for effort, of_pictures in of_efforts.items():
            steps = range(STEPS[int(effort)] + 1)
            means = [100 * fmean(gain_at(told, step) for told in of_pictures.values()) for step in steps]
            axes.plot(steps[1:], means[1:], label=f"effort {effort}")
        axes.set(xlabel="steps", xscale="log", xlim=(5, None), title=f"quality {quality}")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="gain, % of the loss", ylim=(0, None))  # of all panels, once all lines are there
    panels[-1].legend(loc="lower right")
    save_figure(figure, output)


def gain_at(told: Gains, step: int) -> float:
    """Return the gain after a step."""
    return next(gain for since, gain in reversed(told) if since <= step)


if __name__ == "__main__":
    run(main)

"""How far one training is ahead of another, part by part: their losses on the same crops, in pairs.

    python lab/paired_losses.py runs/ablation/{full-0,no_graph-0} -o pairs.csv

Two runs with the same seed see the same crops at the same qualities, and their losses of a crop go together.
So the mean ratio over a part of the steps tells tenths of a percent, while the losses scatter by half. The
crops are those of the training, at its steps; weights are those of the step, not their average.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from glic_pyg.cli.main import run
from glic_pyg.cli.printing import aligned
from glic_pyg.files import write_file


class Part(NamedTuple):
    """How much larger the first run's loss is than the second's, in a part of the steps.

    Args:
        last: Its last step.
        change: Geometric mean of the ratios of losses less 1, %.
        error: Its standard error, %.
    """

    last: int
    change: float
    error: float


def losses(folder: Path) -> dict[int, float]:
    """Return the training loss of each step of a run folder."""
    with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file)}


def compare(folder: Path, rival: Path, *, parts: int) -> list[Part]:
    """Compare two run folders over as many steps as both have, in parts of equal length."""
    ours, theirs = losses(folder), losses(rival)
    ratios = {step: math.log(ours[step] / theirs[step]) for step in ours.keys() & theirs.keys()}
    length = max(ratios) // parts
    found = []
    for last in range(length, parts * length + 1, length):
        part = [ratios[step] for step in range(last - length + 1, last + 1) if step in ratios]
        error = stdev(part) / math.sqrt(len(part))
        found.append(Part(last, 100 * math.expm1(fmean(part)), 100 * error))
    return found


def main() -> int:
    """Print the table, and write it if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("rival", type=Path, help="run folder that it is compared with")
    parser.add_argument("--parts", type=int, default=10, metavar="N", help="(default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, metavar="CSV")
    args = parser.parse_args()
    parts = compare(args.run, args.rival, parts=args.parts)
    rows = [[str(part.last), f"{part.change:+.2f}", f"{part.error:.2f}"] for part in parts]
    print(aligned([["until step", "loss, %", "+-"], *rows]))
    if args.output is not None:
        lines = [",".join(Part._fields), *(",".join(row) for row in rows)]
        write_file(args.output, "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    run(main)

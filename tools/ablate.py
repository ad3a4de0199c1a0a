"""Train variants of a model alike and compare them: the paper's ablations, and your own.

    python tools/ablate.py configs/ablation/*.yaml -d PHOTOS -o runs/ablation
    python tools/ablate.py my_variant.yaml configs/ablation/full.yaml -d PHOTOS -o runs/ablation --seeds 0

A variant file is a training configuration, or `base: FILE` and what differs from it. Every variant is trained
with every seed, each in a folder of its own: a row. What is complete is not trained again; Ctrl-C or SIGTERM
saves and ends, and the same command goes on. The table, of all rows in the output folder, is also written
there as ablation.csv, and with all figures of every row as ablation.json.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from glic_pyg import cli
from glic_pyg.errors import UsageError
from glic_pyg.files import csv_text, write_file
from glic_pyg.training.ablation import Summary, load_variant, read_rows, run_row, summarize
from glic_pyg.training.module import TrainingError

COLUMNS = {
    "variant": ("variant", "{}"),
    "seeds": ("seeds", "{}"),
    "loss": ("R-D loss", "{:.4f}"),
    "loss_spread": ("+-", "{:.4f}"),
    "loss_change": ("change %", "{:+.2f}"),
    "loss_change_spread": ("+-", "{:.2f}"),
    "bd_rate": ("BD-rate %", "{:+.2f}"),
    "bd_rate_spread": ("+-", "{:.2f}"),
    "parameters": ("parameters", "{}"),
    "step_seconds": ("s/step", "{:.3f}"),
    "degree": ("degree", "{:.1f}"),
    "degree_deviation": ("deviation", "{:.1f}"),
}


def main() -> int:
    """Train what is missing, then print the table; 1 if a training went wrong, 130 if it was stopped."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("variants", nargs="+", metavar="VARIANT.yaml", help="variants to train")
    add(
        "-d", "--dataset", nargs="+", required=True, help="folders of photos to train on; a share is held out"
    )
    add("-o", "--output", type=Path, default=Path("runs/ablation"), help="folder (default: %(default)s)")
    add("--seeds", type=cli.whole, nargs="+", default=[0, 1], metavar="N", help="(default: 0 1)")
    args = parser.parse_args()
    variants = [load_variant(path) for path in args.variants]
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise UsageError(f"Expected variants of different names (got {', '.join(names)})")
    cli.show_log()

    jobs = [(variant, seed) for seed in args.seeds for variant in variants]
    failed = 0
    for number, (variant, seed) in enumerate(jobs, 1):
        print(f"row {number} of {len(jobs)}: {variant.name}, seed {seed}", file=sys.stderr)
        try:
            if not run_row(variant, seed, dataset=args.dataset, output=args.output):
                print("Stopped; the same command goes on", file=sys.stderr)
                return 130
        except TrainingError as error:
            failed += 1
            cli.print_line("error", f"{variant.name}, seed {seed}: {error}")
        rows = read_rows(args.output)
        write(rows, args.output)
    print(table(summarize(rows)))
    return int(failed > 0)


def write(rows: Sequence[dict], output: Path) -> None:
    """Write the table as CSV, and all rows with it as JSON."""
    summaries = [dataclasses.asdict(summary) for summary in summarize(rows)]
    columns = [field.name for field in dataclasses.fields(Summary)]
    write_file(output / "ablation.csv", csv_text(columns, summaries))
    write_file(output / "ablation.json", json.dumps({"summary": summaries, "rows": rows}, indent=1) + "\n")


def table(summaries: Sequence[Summary]) -> str:
    """Return aligned lines; what cannot be told is a dash."""
    lines = [[heading for heading, _ in COLUMNS.values()]]
    for summary in summaries:
        values = dataclasses.asdict(summary)
        lines.append(
            ["-" if values[key] is None else how.format(values[key]) for key, (_, how) in COLUMNS.items()]
        )
    return cli.aligned(lines)


if __name__ == "__main__":
    cli.run(main)

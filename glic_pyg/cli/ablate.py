"""Train variants of a model alike and compare them: the paper's ablations, and your own.

    glic ablate configs/ablation/*.yaml -d PHOTOS -o runs/ablation
    glic ablate my_variant.yaml configs/ablation/full.yaml -d PHOTOS -o runs/ablation --seeds 0
    glic ablate configs/ablation/*.yaml -d PHOTOS -o runs/ablation --ray auto

A variant file is a training configuration, or `base: FILE` and what differs from it; `--steps 200` tries them
out. Every variant is trained
with every seed, each in a folder of its own: a row. What is complete is not trained again; Ctrl-C or SIGTERM
saves and ends, and the same command goes on. The table, of all rows in the output folder, is also written
there as ablation.csv, and with all figures of every row as ablation.json.
"""

from __future__ import annotations

import dataclasses
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from glic_pyg.cli import flags
from glic_pyg.cli.printing import aligned, print_json, print_line, say, say_lines, show_log
from glic_pyg.cli.waiting import waiting
from glic_pyg.errors import UsageError

if TYPE_CHECKING:
    from glic_pyg.experiments.ablation import Summary, Variant

    Job = tuple[Variant, int]

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


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("variants", nargs="+", metavar="VARIANT.yaml", help="variants to train")
    flags.add_training_set(parser)
    flags.add_output_folder(parser, default=Path("runs/ablation"))
    add("--seeds", type=flags.whole, nargs="+", default=[0, 1], metavar="N", help="(default: 0 1)")
    steps = "train every variant for so many steps, whatever its file says"
    add("--steps", type=flags.count, metavar="N", help=steps)
    flags.add_accelerator(parser)
    flags.add_ray(parser)
    flags.add_json(parser)


def run(args: Namespace) -> int:
    """Train what is missing, then print the table; 1 if a training went wrong, 130 if it was stopped."""
    with waiting():  # for Lightning
        from glic_pyg.cli.machine import prepare_training
        from glic_pyg.experiments.ablation import (
            attempt_row,
            load_variant,
            read_rows,
            summarize,
            write_tables,
        )
        from glic_pyg.on_ray import connected

    variants = [load_variant(path, steps=args.steps) for path in args.variants]
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise UsageError(f"Expected variants of different names (got {', '.join(names)})")
    if args.ray is None:
        prepare_training(args)
    show_log()

    jobs = [(variant, seed) for seed in args.seeds for variant in variants]
    attempt = partial(attempt_row, dataset=args.dataset, output=args.output, accelerator=args.device)
    failed = 0
    with connected(args.ray) if args.ray is not None else nullcontext():
        outcomes = _on_ray(attempt, jobs, args) if args.ray is not None else _here(attempt, jobs)
        for (variant, seed), (finished, error) in zip(jobs, outcomes, strict=True):
            if error:
                failed += 1
                print_line("error", f"{variant.name}, seed {seed}: {error}")
            elif not finished:
                print("Stopped; the same command goes on", file=sys.stderr)
                return 130
            rows = read_rows(args.output)
            write_tables(rows, args.output)
    summaries = summarize(rows)
    if args.json:
        for summary in summaries:
            print_json(dataclasses.asdict(summary))
    else:
        say_lines(table(summaries))
    return int(failed > 0)


def _here(attempt: Callable[[Job], tuple[bool, str]], jobs: Sequence[Job]) -> Iterator[tuple[bool, str]]:
    """Train one row after the other."""
    for number, (variant, seed) in enumerate(jobs, 1):
        say(f"row {number} of {len(jobs)}: {variant.name}, seed {seed}", file=sys.stderr)
        yield attempt((variant, seed))


def _on_ray(
    attempt: Callable[[Job], tuple[bool, str]], jobs: Sequence[Job], args: Namespace
) -> Iterator[tuple[bool, str]]:
    """Train rows beside each other; each has the cores of --threads, and a GPU for --device cuda."""
    from glic_pyg.on_ray import in_tasks

    cpus, gpus = args.threads or 1, int(args.device == "cuda")
    for number, outcome in enumerate(in_tasks(attempt, jobs, cpus=cpus, gpus=gpus), 1):
        variant, seed = jobs[number - 1]
        say(f"row {number} of {len(jobs)}: {variant.name}, seed {seed} has ended", file=sys.stderr)
        yield outcome


def table(summaries: Sequence[Summary]) -> str:
    """Return aligned lines; what cannot be told is a dash."""
    lines = [[heading for heading, _ in COLUMNS.values()]]
    for summary in summaries:
        values = dataclasses.asdict(summary)
        lines.append(
            ["-" if values[key] is None else how.format(values[key]) for key, (_, how) in COLUMNS.items()]
        )
    return aligned(lines)

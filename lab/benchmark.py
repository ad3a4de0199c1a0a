"""Measure what codecs cost: parameters, FLOPs, time per stage, peak memory, per size of picture.

    python lab/benchmark.py --config configs/model/glic.yaml --sizes 512x768 1024x1536
    python lab/benchmark.py --config configs/model/glic_s.yaml --training --batch-size 2 --sizes 256x256
    python lab/benchmark.py --model glic_nano elic2022-official --sizes 512x768
    python lab/benchmark.py --model glic_nano --beside --sizes 512x768
    python lab/benchmark.py --model glic_nano --versus ../earlier --sizes 512x768
    python lab/benchmark.py --model glic_nano --versus ../earlier --training --batch-size 4 --sizes 128x128
    python lab/benchmark.py --model glic_nano --effort --sizes 512x768 --threads 1

Every choice of kernels of a GLIC model is measured beside its dense rival (see lab/dense_rival.py), each
in a process of its own; ratios are to the rival. Weights of a configuration are random from a seed, those of
CompressAI's models too. The picture is a photo that comes with scikit-image, scaled.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from dense_rival import DenseAttention, DenseLayer, DenseStage, make_dense
from pace import print_pace
from pictures import photo
from refining_step import print_step
from torch import Tensor, nn
from versus import print_versus

from glic_pyg import GLIC
from glic_pyg.cli import flags
from glic_pyg.cli.main import run, take_large_pages, wait_briefly
from glic_pyg.cli.printing import aligned, print_line
from glic_pyg.config import ModelConfig
from glic_pyg.errors import UsageError
from glic_pyg.evaluation.complexity import STAGES, StageClock, flops, parameters, peak_memory
from glic_pyg.evaluation.compressai_models import build_compressai, is_compressai
from glic_pyg.files import write_file
from glic_pyg.image import pad
from glic_pyg.kernels import ON_CPU
from glic_pyg.ledger import writing
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.cost import step_cost

RIVAL = "dense"
OTHERS = {
    "versus": "--training, --batch-size, --sizes, --repeats and --threads",
    "beside": "--sizes and --repeats",
    "effort": "--sizes, --repeats and --threads",
}
"""What is measured instead of a model's compression, and the flags that go with it."""
ALL_STAGES = {**STAGES, DenseStage: "graph", DenseLayer: "feed-forward", DenseAttention: "attention"}


@dataclass(frozen=True)
class Job:
    """One measurement.

    Args:
        model: YAML file of a configuration, name or path of GLIC weights, or name of a CompressAI model.
        kernels: A GLIC model's kernels, `RIVAL`, or None for a CompressAI model.
        size: Height and width.
        batch_size: Pictures per training step; None measures compression.
        seed: Of random weights.
        repeats: The fastest of that many calls counts.
        threads: None leaves the number to torch.
        checkpointing: Training steps compute activations twice.
        allow_code: See `GLIC.from_pretrained`.
    """

    model: str
    kernels: str | None
    size: tuple[int, int]
    batch_size: int | None
    seed: int
    repeats: int
    threads: int | None
    checkpointing: bool
    allow_code: bool


def main() -> int:
    """Parse the command line, measure, print a table."""
    parser = flags.Parser(__doc__)
    add = parser.add_argument
    add("--config", nargs="+", default=[], metavar="FILE", help="model configurations (YAML), random weights")
    add("--model", nargs="+", default=[], metavar="NAME|PATH", help="GLIC weights, or CompressAI models")
    add("--sizes", nargs="+", type=_size, default=[(512, 768)], metavar="HxW", help="default: 512x768")
    subjects = [*ON_CPU, RIVAL]
    add("--kernels", nargs="+", choices=subjects, default=subjects, help="of GLIC models (default: all)")
    add("--beside", action="store_true", help="measure models beside AVIF, WebP and JPEG XL instead")
    add(
        "--versus",
        type=Path,
        metavar="CHECKOUT",
        help="measure GLIC weights here and in another checkout instead",
    )
    about = "measure a step of --effort beside a forward pass instead"
    add("--effort", action="store_true", help=about)
    add("--training", action="store_true", help="measure training steps instead of compression")
    add("--batch-size", type=flags.count, default=2, help="pictures per training step (default: %(default)s)")
    add("--activation-checkpointing", action="store_true", help="training steps compute activations twice")
    add("--seed", type=flags.whole, default=0, help="of random weights (default: %(default)s)")
    add("--repeats", type=flags.count, default=3, help="the fastest counts (default: %(default)s)")
    add("--threads", type=flags.count, help="default: torch's")
    add("--save-json", type=flags.file_name, metavar="FILE", help="write all figures")
    flags.add_allow_code(parser)
    flags.add_force(parser)
    args = parser.parse_args()
    if not args.config and not args.model:
        raise UsageError("Expected --config or --model (got neither)")
    for name in args.model:
        if args.training and is_compressai(name):
            raise UsageError(f"Expected GLIC models for --training (got {name})")

    wait_briefly()  # as the command does; whoever measures is a process that begins later
    take_large_pages()
    modes = [mode for mode in OTHERS if getattr(args, mode)]
    unfit = (
        args.config
        or args.save_json
        or (args.training and not args.versus)
        or any(map(is_compressai, args.model))
    )
    if modes and (unfit or len(modes) > 1):
        raise UsageError(f"Expected --{modes[0]} with GLIC models by --model, {OTHERS[modes[0]]} alone")
    for size, name in product(args.sizes, args.model):
        if args.versus:
            print_versus(
                name,
                args.versus,
                size,
                repeats=args.repeats,
                threads=args.threads,
                batch_size=args.batch_size if args.training else None,
            )
        elif args.effort:
            print_step(name, size, repeats=args.repeats, threads=args.threads)
    if args.beside:
        for size in args.sizes:
            print_pace(args.model, size, repeats=args.repeats)
    if modes:
        return 0

    with writing(args.save_json, inputs=[*args.config, *args.model], force=args.force):
        results = _measure_all(args)
        if args.save_json:
            write_file(args.save_json, json.dumps(results, indent=2) + "\n")
    return 0


def _measure_all(args: argparse.Namespace) -> list[dict[str, Any]]:
    results = []
    for size in args.sizes:
        for name in [*args.config, *args.model]:
            rows = []
            for kernels in [None] if is_compressai(name) else args.kernels:
                job = Job(
                    model=name,
                    kernels=kernels,
                    size=size,
                    batch_size=args.batch_size if args.training else None,
                    seed=args.seed,
                    repeats=args.repeats,
                    threads=args.threads,
                    checkpointing=args.activation_checkpointing,
                    allow_code=args.allow_code,
                )
                row = _in_own_process(job)
                if row is None:
                    where = f"{kernels or name} at {size[0]}x{size[1]}"
                    print_line("warning", f"{where} ended early; too little memory?")
                else:
                    rows.append(row)
            if rows:
                _print_table(rows)
            results += rows
    return results


def _in_own_process(job: Job) -> dict[str, Any] | None:
    """Measure where no other measurement has left memory or caches; None if the process died."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            return pool.submit(measure, job).result()
        except BrokenProcessPool:
            return None


def measure(job: Job) -> dict[str, Any]:
    """Measure one codec for one size of picture; runs in a process of its own."""
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    model = build(job)
    result = {
        "model": job.model,
        "kernels": job.kernels,
        "size": list(job.size),
        "threads": torch.get_num_threads(),
        "parameters": parameters(model),
    }
    return result | (_training_cost(model, job) if job.batch_size else _coding_cost(model, job))


def build(job: Job) -> nn.Module:
    """Make the model of a job, ready to compress."""
    if job.kernels is None:
        return build_compressai(job.model)
    kernels = None if job.kernels == RIVAL else job.kernels
    if job.model.endswith((".yaml", ".yml")):
        model = GLIC(ModelConfig.from_yaml(job.model), kernels=kernels)
        _randomise(model)
        model.update(force=True)
    else:
        model = GLIC.from_pretrained(job.model, kernels=kernels, allow_code=job.allow_code)
    if job.kernels == RIVAL:
        make_dense(model)
    return model.eval()


def _randomise(model: GLIC) -> None:
    """Draw weights that keep the size of what goes through them: features differ, as in a trained model."""
    for name, weight in model.named_parameters():
        if weight.ndim >= 2 and "entropy_bottleneck" not in name:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)


@torch.inference_mode()
def _coding_cost(model: nn.Module, job: Job) -> dict[str, Any]:
    x = photo(*job.size)
    if job.kernels is None:
        x = pad(x, 128)
    _code(model, photo(256, 256))  # compiles
    with peak_memory() as memory:
        times = [_code(model, x)]
    times += [_code(model, x) for _ in range(job.repeats - 1)]
    fastest = {side: min((t[side] for t in times), key=lambda t: sum(t.values())) for side in times[0]}
    return {
        "flops": flops(model, x),
        **{f"{side}_seconds": stages for side, stages in fastest.items()},
        "peak_memory": memory["bytes"],
    }


def _code(model: nn.Module, x: Tensor) -> dict[str, dict[str, float]]:
    """Compress and decompress; return the seconds of each stage."""
    with StageClock(model, ALL_STAGES) as encoding:
        coded = model.compress(x)
    with StageClock(model, ALL_STAGES) as decoding:
        model.decompress(coded["strings"], coded["shape"])
    return {"encoding": encoding.seconds, "decoding": decoding.seconds}


def _training_cost(model: GLIC, job: Job) -> dict[str, Any]:
    x = photo(*job.size)
    x = torch.cat([x.roll(17 * i, dims=-1) for i in range(job.batch_size)])
    config = TrainConfig(
        model=model.config,
        lmbda=(0.013,) * model.config.qualities,
        steps=1 + job.repeats,
        activation_checkpointing=job.checkpointing,
    )
    return {
        "batch_size": job.batch_size,
        "activation_checkpointing": job.checkpointing,
        **step_cost(model, config, x),
    }


def _figures(row: dict[str, Any]) -> dict[str, float]:
    """Return what is compared with the rival."""
    figures = {"peak GiB": row["peak_memory"] / 2**30}
    if "step_seconds" in row:
        return {"step s": row["step_seconds"], **figures}
    encoding, decoding = row["encoding_seconds"], row["decoding_seconds"]
    return {
        "g_a s": _transform(encoding),
        "g_s s": _transform(decoding),
        "compress s": sum(encoding.values()),
        "decompress s": sum(decoding.values()),
        "both s": sum(encoding.values()) + sum(decoding.values()),
        **figures,
    }


def _transform(stages: dict[str, float]) -> float:
    return sum(seconds for stage, seconds in stages.items() if not stage.startswith("entropy"))


def _print_table(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    height, width = first["size"]
    line = f"{first['model']}, {height} x {width}, {first['parameters'] / 1e6:.2f} M parameters"
    print(f"{line}, {first['threads']} threads")
    rival = next((_figures(row) for row in rows if row["kernels"] == RIVAL), None)
    cells = [["", *_figures(first)]]
    for row in rows:
        figures = _figures(row)
        ratios = {name: f" ({figures[name] / rival[name]:.2f})" if rival else "" for name in figures}
        cells.append(
            [row["kernels"] or "", *(f"{value:.2f}{ratios[name]}" for name, value in figures.items())]
        )
    if "flops" in first:
        for line, text in zip(
            cells, ["TFLOPs", *(f"{row['flops'] / 1e12:.3f}" for row in rows)], strict=True
        ):
            line.append(text)
    print(aligned(cells) + "\n")
    for side in ("encoding", "decoding"):
        if f"{side}_seconds" in first:
            stages = sorted(first[f"{side}_seconds"])
            cells = [[f"{side} s", *stages]]
            for row in rows:
                seconds = row[f"{side}_seconds"]
                cells.append([row["kernels"] or "", *(f"{seconds[stage]:.2f}" for stage in stages)])
            print(aligned(cells) + "\n")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or int(match[1]) == 0 or int(match[2]) == 0:
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH (got {text})")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    run(main)

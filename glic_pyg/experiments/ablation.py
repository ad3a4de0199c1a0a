"""Variants of a model, trained alike and laid side by side.

variant files x seeds --> rows, each a run folder --> row.json --> summary: mean and spread over seeds
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import torch
from torch import Tensor

from glic_pyg import checkpoint
from glic_pyg.codec import GLIC
from glic_pyg.config import ConfigError
from glic_pyg.errors import FileError
from glic_pyg.evaluation.bd import Curve, CurveError, delta
from glic_pyg.files import csv_text, read_json, write_file
from glic_pyg.inspection.neighborhood import degrees
from glic_pyg.inspection.stages import run_stages
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.data import center_crops, find_and_split, folders_by_prefix
from glic_pyg.training.module import TrainingError
from glic_pyg.training.run_folder import RunFolder
from glic_pyg.training.trainer import train
from glic_pyg.yaml_text import parse_yaml

ROW = "row.json"
ROW_KEYS = {"variant", "base", "seed", "loss", "curve", "parameters", "step_seconds", "degree"}
PICTURES = 8  # whose graphs are counted


@dataclass(frozen=True)
class Variant:
    """A model and its training under a name.

    Args:
        name: The stem of its file.
        base: Name of the variant that it is compared with; its own where it is the base itself.
        config: All settings.
    """

    name: str
    base: str
    config: TrainConfig


def load_variant(path: str | Path, *, steps: int | None = None) -> Variant:
    """Read a variant: a training configuration, which is compared with the one that its `base` names, if any.

    The model is made once, to see whether it can be.

    Args:
        path: Of the file.
        steps: How long to train it, in place of what it says.

    Raises:
        ConfigError: not such a file, or a model that cannot be made.
    """
    path = Path(path)
    config = TrainConfig.from_yaml(path)
    if steps is not None:
        try:
            config = dataclasses.replace(config, steps=steps, epochs=None, max_time=None)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    base = parse_yaml(path.read_text(encoding="utf-8")).get("base", path)
    variant = Variant(path.stem, Path(str(base)).stem, config)
    try:
        GLIC(variant.config.model)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return variant


def run_row(
    variant: Variant,
    seed: int,
    *,
    dataset: str | Path | Sequence[str | Path],
    output: str | Path,
    accelerator: str = "auto",
) -> bool:
    """Train a variant with a seed, or go on with it, and write its `row.json`; nothing if that is there.

    Args:
        variant: What to train.
        seed: Of initial weights, noise and the order of pictures.
        dataset: Folder of pictures, or several; a share of them is held out, whatever the variant.
        output: Folder of all rows.
        accelerator: See `train`.

    Returns:
        Whether the row is complete; not, if the user asked the training to end.

    Raises:
        ConfigError: the row was begun with other settings, or the pictures do not suffice.
        TrainingError: too many steps in a row without finite loss and gradient.
    """
    config = dataclasses.replace(variant.config, seed=seed)
    run = RunFolder(Path(output) / f"{variant.name}-{seed}")
    if run.config.exists() and TrainConfig.from_yaml(run.config) != config:
        raise ConfigError(f"Expected the settings that {run.path} was begun with (got others)")
    if (run.path / ROW).exists():
        return True
    if not train(config, dataset=dataset, output=run.path, resume=True, accelerator=accelerator):
        return False
    row = {
        "variant": variant.name,
        "base": variant.base,
        "seed": seed,
        **_figures(run, config, dataset),
    }
    write_file(run.path / ROW, json.dumps(row, indent=1) + "\n")
    return True


def attempt_row(
    job: tuple[Variant, int],
    *,
    dataset: str | Path | Sequence[str | Path],
    output: str | Path,
    accelerator: str = "auto",
) -> tuple[bool, str]:
    """Do a row as `run_row` does; return whether it is complete, and why its training failed, if it did.

    Args:
        job: A variant and a seed.
        dataset: See `run_row`.
        output: See `run_row`.
        accelerator: See `run_row`.
    """
    try:
        return run_row(*job, dataset=dataset, output=output, accelerator=accelerator), ""
    except TrainingError as error:
        return False, str(error)


def _figures(
    run: RunFolder, config: TrainConfig, dataset: str | Path | Sequence[str | Path]
) -> dict[str, Any]:
    """Return what a finished run says, and what its graphs are like on some held-out pictures."""
    with run.eval.open() as file:
        scores = list(csv.DictReader(file))
    scores = [row for row in scores if row["step"] == scores[-1]["step"]]
    with run.log.open() as file:
        steps = [(float(row["seconds"]), float(row["wait_seconds"])) for row in csv.DictReader(file)]
    seconds = [end - start - wait for (start, _), (end, wait) in pairwise(steps)]
    weights = run.path / "latest.safetensors"
    own = checkpoint.load(weights, allow_code=True).config == config.model
    model = GLIC.from_pretrained(weights, allow_code=own)
    _, held_out = find_and_split(folders_by_prefix(dataset), config=config)
    curve = {name: [float(row[name]) for row in scores] for name in ("quality", "bpp", "psnr", "loss")}
    return {
        "loss": fmean(curve["loss"]),
        "curve": curve,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "step_seconds": median(seconds) if seconds else None,
        "degree": degree_statistics(model, center_crops(held_out[:PICTURES], size=config.eval_size)),
        "config": config.to_dict(),
    }


def degree_statistics(model: GLIC, pictures: Tensor) -> dict[str, Any]:
    """Count the neighbours of the nodes of all graphs that a model builds for some pictures.

    Args:
        model: The model, in eval mode.
        pictures: In [0, 1], `B x 3 x H x W`.

    Returns:
        `mean` and `deviation` over the nodes of all graphs, both None without graphs, and `by_graph`: the
        mean per graph stage, a list with a number per candidate set.
    """
    every: list[Tensor] = []
    by_graph: dict[str, list[float]] = {}
    for picture in pictures.split(1):
        for stage, run in run_stages(model, picture).items():
            counts = [degrees(graph).float() for graph in run.graphs]
            every += counts
            means = [count.mean().item() / len(pictures) for count in counts]
            by_graph[stage] = [
                a + b for a, b in zip(by_graph.get(stage, [0.0] * len(means)), means, strict=True)
            ]
    degree = torch.cat(every) if every else None
    return {
        "mean": None if degree is None else degree.mean().item(),
        "deviation": None if degree is None else degree.std(correction=0).item(),
        "by_graph": by_graph,
    }


def read_rows(output: str | Path) -> list[dict[str, Any]]:
    """Return all complete rows of a folder.

    Raises:
        FileError: a file that is no row.
    """
    rows = []
    for path in sorted(Path(output).glob(f"*/{ROW}")):
        row = read_json(path)
        if not isinstance(row, dict) or not row.keys() >= ROW_KEYS:
            raise FileError(f"Expected a row of an ablation (got {path})")
        rows.append(row)
    return rows


@dataclass(frozen=True)
class Summary:
    """A variant over its seeds. What cannot be told is None: a spread of one seed, a BD-rate without overlap.

    Args:
        variant: Its name.
        seeds: Their number.
        loss: Held-out rate-distortion loss, the mean over qualities, pictures and seeds.
        loss_spread: Its standard deviation over the seeds, as for all spreads.
        loss_change: Of the loss against the base of the same seed, in %, the mean over seeds. Both saw the
            same pictures in the same order: it tells smaller differences than losses or BD-rates do. For the
            base itself: each seed but the first against the first, the mean of the sizes, which is what
            chance makes.
        loss_change_spread: Of that; None for the base.
        bd_rate: Against the base of the same seed, in %, the mean over seeds; for the base itself likewise.
        bd_rate_spread: Of the BD-rate; None for the base.
        parameters: Of the model.
        step_seconds: Per training step, without waiting for pictures; the median of steps, mean over seeds.
        degree: Neighbours per node, over the nodes of all graphs of some held-out pictures.
        degree_deviation: Standard deviation over these nodes.
    """

    variant: str
    seeds: int
    loss: float
    loss_spread: float | None
    loss_change: float | None
    loss_change_spread: float | None
    bd_rate: float | None
    bd_rate_spread: float | None
    parameters: int
    step_seconds: float | None
    degree: float | None
    degree_deviation: float | None


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[Summary]:
    """Return a summary per variant, a base before what is compared with it."""
    by_variant: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(
        rows, key=lambda row: (row["base"], row["variant"] != row["base"], row["variant"], row["seed"])
    ):
        by_variant.setdefault(row["variant"], []).append(row)
    summaries = []
    for name, members in by_variant.items():
        anchors = {row["seed"]: row for row in by_variant.get(members[0]["base"], [])}
        is_base = members[0]["base"] == name
        if is_base:
            pairs = [(members[0], row) for row in members[1:]]
        else:
            pairs = [(anchors[row["seed"]], row) for row in members if row["seed"] in anchors]
        rates = [_bd_rate(*pair) for pair in pairs]
        changes = [100 * (row["loss"] / anchor["loss"] - 1) for anchor, row in pairs]
        if is_base:
            rates, changes = ([None if x is None else abs(x) for x in some] for some in (rates, changes))
        losses = [row["loss"] for row in members]
        summaries.append(
            Summary(
                variant=name,
                seeds=len(members),
                loss=fmean(losses),
                loss_spread=_spread(losses),
                loss_change=_mean(changes),
                loss_change_spread=None if is_base else _spread(changes),
                bd_rate=_mean(rates),
                bd_rate_spread=None if is_base else _spread(rates),
                parameters=members[0]["parameters"],
                step_seconds=_mean([row["step_seconds"] for row in members]),
                degree=_mean([row["degree"]["mean"] for row in members]),
                degree_deviation=_mean([row["degree"]["deviation"] for row in members]),
            )
        )
    return summaries


def _bd_rate(anchor: Mapping[str, Any], row: Mapping[str, Any]) -> float | None:
    curves = (Curve.of(str(r["variant"]), r["curve"], metric="psnr") for r in (anchor, row))
    try:
        rate = delta(*curves, method="cubic").rate
    except CurveError:
        return None
    return rate if math.isfinite(rate) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _spread(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) > 1 else None


def write_tables(rows: Sequence[Mapping[str, Any]], output: str | Path) -> None:
    """Write a summary of rows as `ablation.csv`, and with all rows as `ablation.json`."""
    summaries = [dataclasses.asdict(summary) for summary in summarize(rows)]
    columns = [field.name for field in dataclasses.fields(Summary)]
    write_file(Path(output) / "ablation.csv", csv_text(columns, summaries))
    content = json.dumps({"summary": summaries, "rows": rows}, indent=1)
    write_file(Path(output) / "ablation.json", content + "\n")

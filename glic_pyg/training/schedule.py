"""The two optimisers and the learning rate over a run."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

from glic_pyg.training.config import TrainConfig


class Optimizers(NamedTuple):
    """`net` for all parameters but the entropy bottleneck's quantiles, which `aux` has."""

    net: optim.Optimizer
    aux: optim.Optimizer


def build_optimizers(model: nn.Module, config: TrainConfig) -> Optimizers:
    """Return the Adams of the network and of the quantiles (parameters named `*.quantiles`)."""
    parameters = dict(model.named_parameters())
    quantiles = [parameters.pop(name) for name in list(parameters) if name.endswith(".quantiles")]
    return Optimizers(
        net=optim.Adam(parameters.values(), lr=config.learning_rate),
        aux=optim.Adam(quantiles, lr=config.aux_learning_rate),
    )


def learning_rate_factor(step: int, *, steps: int, warmup_steps: int, floor: float) -> float:
    """Return the learning rate of a step as a share of its peak: linear warm-up, then half a cosine.

    Args:
        step: Steps taken before this one.
        steps: Length of the run.
        warmup_steps: Steps until the peak.
        floor: Share of the peak that is left at the end.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / (steps - warmup_steps))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def build_schedule(optimizer: optim.Optimizer, config: TrainConfig, *, step: int) -> LambdaLR:
    """Return the schedule of the network's learning rate, standing at `step` (0, or where a run goes on)."""
    for group in optimizer.param_groups:
        group["initial_lr"] = config.learning_rate
    factor = partial(
        learning_rate_factor,
        steps=config.steps,
        warmup_steps=config.warmup_steps,
        floor=config.final_learning_rate / config.learning_rate,
    )
    return LambdaLR(optimizer, factor, last_epoch=step - 1)

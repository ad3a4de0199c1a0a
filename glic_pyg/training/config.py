"""The numbers of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from glic_pyg.config import Config, ConfigError, ModelConfig


@dataclass(frozen=True)
class TrainConfig(Config):
    """How one model is trained for one point of the rate-distortion curve.

    Args:
        model: The model to train.
        lmbda: Weight of the distortion, lambda in the loss (see `RateDistortionLoss`).
        steps: Length of the run in optimiser steps.
        batch_size: Pictures per step.
        patch_size: Side of the random training crops in pixels, a multiple of 64.
        learning_rate: Peak learning rate of the network's Adam.
        final_learning_rate: Learning rate at the end of the cosine decay.
        warmup_steps: Steps of linear warm-up from 0 to `learning_rate`.
        aux_learning_rate: Constant learning rate of the Adam for the entropy bottleneck's quantiles.
        clip_max_norm: Largest norm of the network's gradient; beyond it the gradient is scaled down.
        ema_decay: Decay per step of the exponential moving average of the weights, which is what is
            evaluated and exported; over the first steps it grows up to this.
        seed: Seed of initial weights, quantisation noise and data order.
        num_workers: Processes that decode pictures; 0 decodes in the training process.
        eval_share: Share of the folder's pictures held out for evaluation.
        eval_size: Side of the evaluation's centre crops in pixels, a multiple of 64.
        eval_every: Steps between evaluations.
        save_every: Steps between checkpoints.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    lmbda: float = 0.013
    steps: int = 1_000_000
    batch_size: int = 8
    patch_size: int = 256
    learning_rate: float = 1e-4
    final_learning_rate: float = 1e-5
    warmup_steps: int = 0
    aux_learning_rate: float = 1e-3
    clip_max_norm: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    num_workers: int = 1
    eval_share: float = 0.05
    eval_size: int = 256
    eval_every: int = 5000
    save_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_every", "save_every"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("warmup_steps", "num_workers", "seed"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        for name in ("lmbda", "learning_rate", "final_learning_rate", "aux_learning_rate", "clip_max_norm"):
            self._require(name, getattr(self, name) > 0, "positive")
        for name in ("patch_size", "eval_size"):
            size = getattr(self, name)
            self._require(name, size > 0 and size % 64 == 0, "a positive multiple of 64")
        self._require("warmup_steps", self.warmup_steps < self.steps, f"less than steps {self.steps}")
        self._require("ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)")
        self._require("eval_share", 0 < self.eval_share < 1, "in (0, 1)")

    def _require(self, name: str, condition: bool, what: str) -> None:
        if not condition:
            raise ConfigError(f"Expected {name} to be {what} (got {getattr(self, name)})")

"""The numbers of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from glic_pyg.config import HYPER_STRIDE, Config, ConfigError, ModelConfig

SECTIONS = ("model", "graph")
"""Of which a file with a `base` may change single settings."""


@dataclass(frozen=True)
class Milestone(Config):
    """What changes at a point of a run; what is None stays.

    Args:
        at: After how many epochs, steps or (if only the time is given) seconds this holds.
        learning_rate: As in `TrainConfig`.
        batch_size: As in `TrainConfig`.
        patch_size: As in `TrainConfig`.
        rounded: As in `TrainConfig`.
    """

    at: int
    learning_rate: float | None = None
    batch_size: int | None = None
    patch_size: int | tuple[int, ...] | None = None
    rounded: bool | None = None


@dataclass(frozen=True)
class TrainConfig(Config):
    """How one model is trained. `epochs` or `steps`, `max_time`, or one of each says how long.

    Args:
        model: The model to train.
        distortion: What lambda weighs, see `RateDistortionLoss`.
        lmbda: Weight of the distortion, lambda in the loss, for each of the model's qualities, 1 first.
        epochs: Times that every picture is seen.
        steps: Optimiser steps.
        max_time: Seconds, which YAML also takes as 9:00 (minutes) or 1:30:00; evaluations on the way count,
            the one at the end does not.
        batch_size: Pictures per step, over all devices.
        patch_size: Side of the random training crops in pixels, a multiple of 64; or several, of which every
            step draws one.
        transpose: Whether rows and columns of half of the crops change places; half are mirrored anyway.
        least_scale: Pictures are scaled, without aliases, by a random factor between this and 1 before they
            are cropped.
        pictures: Where crops come from: `files`, decoded anew each time, or `memory` of the device that
            trains, where all are kept, 3 bytes a pixel.
        rounded: Train on latents rounded as the coder does it, in place of noise, and leave the encoder as it
            is: for the end of a run, by a milestone, or for a run from given weights. It goes on from the
            averaged weights.
        optimizer: Of the network: `adam`, `soap` or `muon`, see `build_optimizers`.
        learning_rate: Of the network after the warm-up.
        final_learning_rate: At the end of a cosine over the whole run, its steps or its time, whatever is
            over first; None keeps the rate.
        warmup_steps: Steps of linear warm-up from 0 to `learning_rate`.
        aux_learning_rate: Of the entropy bottleneck's quantiles, constant.
        milestones: Changes of rate, batch and crops on the way, in order.
        clip_max_norm: Largest norm of the network's gradient; beyond it the gradient is scaled down.
        ema_decay: Decay per step of the exponential moving average of the weights, which is what is
            evaluated and exported; over the first steps it grows up to this.
        precision: float32, or bfloat16 where autocast allows it.
        activation_checkpointing: Compute activations twice instead of keeping them: less memory, more time.
        silent_attention: Begin with graph layers that are their feed-forward parts: what their attention adds
            to a node is zero until it has learnt better.
        seed: Seed of initial weights, quantisation noise, qualities and data order.
        num_workers: Processes per device that decode pictures; 0 decodes in the training process.
        eval_share: Share of the folder's pictures held out for evaluation.
        eval_size: Side of the evaluation's centre crops in pixels, a multiple of 64.
        eval_every: Steps between evaluations.
        save_every: Steps between checkpoints.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    distortion: Literal["mse", "ms-ssim"] = "mse"
    lmbda: tuple[float, ...] = (0.013,)
    epochs: int | None = None
    steps: int | None = None
    max_time: float | None = None
    batch_size: int = 8
    patch_size: int | tuple[int, ...] = 256
    transpose: bool = False
    least_scale: float = 1.0
    pictures: Literal["files", "memory"] = "files"
    rounded: bool = False
    optimizer: Literal["adam", "soap", "muon"] = "adam"
    learning_rate: float = 1e-4
    final_learning_rate: float | None = None
    warmup_steps: int = 0
    aux_learning_rate: float = 1e-3
    milestones: tuple[Milestone, ...] = ()
    clip_max_norm: float = 1.0
    ema_decay: float = 0.999
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    activation_checkpointing: bool = False
    silent_attention: bool = False
    seed: int = 0
    num_workers: int = 1
    eval_share: float = 0.05
    eval_size: int = 256
    eval_every: int = 5000
    save_every: int = 1000

    @classmethod
    def read_yaml(cls, path: str | Path) -> Any:
        """Return what a YAML file says; files that it names are read too.

        What it leaves out is that of the file, beside it, which its `base` names, if it names one; that may
        have a base too. Of the model and of its graph, single settings may be changed.

        Raises:
            ConfigError: a file is not YAML, or a base builds on itself or is no configuration.
        """
        return cls._read_with_base(Path(path), heirs=())

    @classmethod
    def _read_with_base(cls, path: Path, heirs: tuple[Path, ...]) -> Any:
        if path.resolve() in heirs:
            raise ConfigError(f"Expected a base that does not build on itself (got {path})")
        values = super().read_yaml(path)
        if not isinstance(values, dict) or "base" not in values:
            return values
        base = path.parent / str(values.pop("base"))
        of_base = cls._read_with_base(base, (*heirs, path.resolve()))
        try:
            return _changed(cls.from_dict(of_base).to_dict(), values)
        except ConfigError as error:
            raise ConfigError(f"{base}: {error}") from error

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise ConfigError(f"Expected epochs or steps (got epochs {self.epochs} and steps {self.steps})")
        if (self.epochs, self.steps, self.max_time) == (None, None, None):
            raise ConfigError("Expected epochs, steps or max_time (got none)")
        for name in ("epochs", "steps", "batch_size", "eval_every", "save_every"):
            self._require(name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1")
        self._require("max_time", self.max_time is None or self.max_time > 0, "positive")
        for name in ("warmup_steps", "num_workers", "seed"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        qualities = self.model.qualities
        self._require(
            "lmbda",
            len(self.lmbda) == qualities and min(self.lmbda) > 0,
            f"{qualities} positive values, one per quality of the model",
        )
        for name in ("learning_rate", "aux_learning_rate", "clip_max_norm"):
            self._require(name, getattr(self, name) > 0, "positive")
        for part in self._parts:
            if part.patch_size == ():
                raise ConfigError("Expected patch_size to be one side or several (got none)")
        for name, size in [
            *(("patch_size", size) for size in self.patch_sizes),
            ("eval_size", self.eval_size),
        ]:
            if size < HYPER_STRIDE or size % HYPER_STRIDE:
                raise ConfigError(f"Expected {name} to be a positive multiple of {HYPER_STRIDE} (got {size})")
            if self.distortion == "ms-ssim" and size < 192:
                raise ConfigError(f"Expected {name} to be at least 192 for ms-ssim (got {size})")
        self._require("least_scale", 0 < self.least_scale <= 1, "in (0, 1]")
        self._require("ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)")
        self._require("eval_share", 0 < self.eval_share < 1, "in (0, 1)")
        points = [0, *(milestone.at for milestone in self.milestones), self.length]
        if any(a >= b for a, b in pairwise(points)):
            raise ConfigError(
                f"Expected milestones in order within {points[-1]} {self.unit} (got {points[1:-1]})"
            )
        if self.final_learning_rate is not None:
            self._require("final_learning_rate", self.final_learning_rate > 0, "positive")
            if any(milestone.learning_rate is not None for milestone in self.milestones):
                raise ConfigError("Expected final_learning_rate or rates at milestones (got both)")

    @property
    def unit(self) -> Literal["epochs", "steps", "seconds"]:
        """What the run's length and its milestones are counted in."""
        if self.epochs is not None:
            return "epochs"
        return "seconds" if self.steps is None else "steps"

    @property
    def length(self) -> float:
        """The run's length in its unit."""
        length = {"epochs": self.epochs, "steps": self.steps, "seconds": self.max_time}[self.unit]
        assert length is not None  # it is what the unit goes by
        return length

    @property
    def patch_sizes(self) -> list[int]:
        """All sides of crops, in any part of the run."""
        return [
            size for part in self._parts if part.patch_size is not None for size in sides(part.patch_size)
        ]

    @property
    def _parts(self) -> list[TrainConfig | Milestone]:
        return [self, *self.milestones]

    @property
    def has_rounded(self) -> bool:
        """Whether the encoder stays as it is in some part of the run."""
        return self.rounded or any(milestone.rounded for milestone in self.milestones)

    def _require(self, name: str, condition: bool, what: str) -> None:
        if not condition:
            raise ConfigError(f"Expected {name} to be {what} (got {getattr(self, name)})")


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        key: _changed(values[key], change)
        for key, change in changes.items()
        if key in SECTIONS and isinstance(values.get(key), dict) and isinstance(change, dict)
    }
    return {**values, **changes, **nested}


def sides(patch_size: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return a patch size as the sides to draw from."""
    return patch_size if isinstance(patch_size, tuple) else (patch_size,)

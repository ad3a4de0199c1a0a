"""What every step of a run takes: pictures, crops, learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from glic_pyg.config import ConfigError
from glic_pyg.training.config import TrainConfig


@dataclass(frozen=True)
class Phase:
    """Steps between two milestones.

    Args:
        first_step: The first one.
        steps: Their number.
        first_sample: Pictures drawn before them.
        batch_size: Pictures per step, over all devices.
        patch_size: Side of their crops in pixels.
        learning_rate: Of the network, before warm-up and cosine.
    """

    first_step: int
    steps: int
    first_sample: int
    batch_size: int
    patch_size: int
    learning_rate: float


class Schedule:
    """A run, step by step.

    Args:
        config: The settings.
        num_pictures: Pictures to train on, an epoch.

    Raises:
        ConfigError: a phase is shorter than a step, or the warm-up longer than the run.
    """

    def __init__(self, config: TrainConfig, *, num_pictures: int) -> None:
        self.config = config
        self.phases: list[Phase] = []
        end = config.steps if config.epochs is None else config.epochs
        settings = {name: getattr(config, name) for name in ("batch_size", "patch_size", "learning_rate")}
        step = sample = begin = 0
        for milestone in [*config.milestones, None]:
            length = (end if milestone is None else milestone.at) - begin
            steps = length if config.epochs is None else length * num_pictures // settings["batch_size"]
            if steps == 0:
                raise ConfigError(
                    f"Expected at least {settings['batch_size']} pictures to train on (got {num_pictures})"
                )
            self.phases.append(Phase(step, steps, sample, **settings))
            step, sample = step + steps, sample + steps * settings["batch_size"]
            if milestone is not None:
                begin = milestone.at
                settings |= {
                    name: getattr(milestone, name)
                    for name in settings
                    if getattr(milestone, name) is not None
                }
        self.steps = step
        if config.warmup_steps >= self.steps:
            raise ConfigError(
                f"Expected warmup_steps to be less than the run's {self.steps} (got {config.warmup_steps})"
            )

    def phase(self, step: int) -> Phase:
        """Return the phase of a step; the last one's after the run."""
        return next(phase for phase in reversed(self.phases) if phase.first_step <= step)

    def samples(self, step: int) -> range:
        """Return the numbers of the pictures of a step, counted over the run."""
        phase = self.phase(step)
        first = phase.first_sample + (step - phase.first_step) * phase.batch_size
        return range(first, first + phase.batch_size)

    def learning_rate(self, step: int) -> float:
        """Return the network's learning rate in a step: linear warm-up, then constant or half a cosine."""
        rate, final = self.phase(step).learning_rate, self.config.final_learning_rate
        warmup = self.config.warmup_steps
        if step < warmup:
            return rate * (step + 1) / (warmup + 1)
        if final is None:
            return rate
        progress = min(1.0, (step - warmup) / (self.steps - warmup))
        return final + (rate - final) * 0.5 * (1 + math.cos(math.pi * progress))


class StepSampler:
    """The batches of a run, from some step on, as keys of `RandomCrops`: lists of (sample, patch size).

    Args:
        schedule: The run.
        first_step: Where to begin.
        rank: Which share of each batch to give.
        num_shares: Into how many the batches are split.

    Raises:
        ConfigError: a batch cannot be split evenly.
    """

    def __init__(self, schedule: Schedule, *, first_step: int, rank: int, num_shares: int) -> None:
        for phase in schedule.phases:
            if phase.batch_size % num_shares:
                raise ConfigError(
                    f"Expected a batch size divisible by {num_shares} devices (got {phase.batch_size})"
                )
        self.schedule = schedule
        self.first_step = first_step
        self.rank = rank
        self.num_shares = num_shares

    def __len__(self) -> int:
        """Return the steps of the whole run, those before the first one too: so Lightning counts them."""
        return self.schedule.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first_step, self.schedule.steps):
            patch_size = self.schedule.phase(step).patch_size
            samples = self.schedule.samples(step)[self.rank :: self.num_shares]
            yield [(sample, patch_size) for sample in samples]

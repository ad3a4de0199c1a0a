"""What every step of a run takes: pictures, crops, learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from glic_pyg.config import ConfigError
from glic_pyg.training.config import TrainConfig, sides


@dataclass(frozen=True)
class Phase:
    """What holds between two milestones.

    Args:
        begin: The first step, or the first second of a run of which only the time is given.
        batch_size: Pictures per step, over all devices.
        patch_size: Side of their crops in pixels, or several sides.
        learning_rate: Of the network, before warm-up and cosine.
        rounded: Whether latents are rounded and the encoder stays as it is.
    """

    begin: float
    batch_size: int
    patch_size: int | tuple[int, ...]
    learning_rate: float
    rounded: bool


class Schedule:
    """A run by its steps, its time, or both: then it ends with what is over first.

    Args:
        config: The settings.
        num_pictures: Pictures to train on, an epoch.

    Raises:
        ConfigError: a phase is shorter than a step, or the warm-up longer than the run.
    """

    def __init__(self, config: TrainConfig, *, num_pictures: int) -> None:
        self.config = config
        self.phases: list[Phase] = []
        names = ("batch_size", "patch_size", "learning_rate", "rounded")
        settings = {name: getattr(config, name) for name in names}
        position = begin = 0.0
        for milestone in [*config.milestones, None]:
            self.phases.append(Phase(position, **settings))
            span = (config.length if milestone is None else milestone.at) - begin
            if config.unit == "epochs":
                span = span * num_pictures // settings["batch_size"]
            if span == 0:
                raise ConfigError(
                    f"Expected at least {settings['batch_size']} pictures to train on (got {num_pictures})"
                )
            position += span
            if milestone is not None:
                begin = milestone.at
                settings |= {
                    name: getattr(milestone, name)
                    for name in settings
                    if getattr(milestone, name) is not None
                }
        self.steps = None if config.unit == "seconds" else int(position)
        if self.steps is not None and config.warmup_steps >= self.steps:
            raise ConfigError(
                f"Expected warmup_steps to be less than the run's {self.steps} (got {config.warmup_steps})"
            )

    @property
    def num_steps(self) -> int:
        """Steps of the run.

        Raises:
            TypeError: nobody knows, since it goes by time.
        """
        if self.steps is None:
            raise TypeError("Expected a run by steps (got one by time)")
        return self.steps

    def share(self, step: int, seconds: float) -> float:
        """Return how much of the run is over after so many steps and seconds, from 0 to 1, its end."""
        of_steps = 0.0 if self.steps is None else step / self.steps
        of_time = 0.0 if self.config.max_time is None else seconds / self.config.max_time
        return min(1.0, max(of_steps, of_time))

    def phase(self, step: int, seconds: float) -> Phase:
        """Return what holds then; the last phase after the run."""
        position = seconds if self.steps is None else step
        return next(phase for phase in reversed(self.phases) if phase.begin <= position)

    def learning_rate(self, step: int, seconds: float) -> float:
        """Return the network's learning rate in a step: linear warm-up, then constant or half a cosine.

        The cosine begins after the warm-up in a run by steps, and with the run in one by time.
        """
        rate, final = self.phase(step, seconds).learning_rate, self.config.final_learning_rate
        warmup = self.config.warmup_steps
        if self.steps is None or self.config.max_time is not None:
            progress = self.share(step, seconds)
        else:
            progress = min(1.0, (step - warmup) / (self.steps - warmup))
        if final is not None and progress >= 0:
            rate = final + (rate - final) * 0.5 * (1 + math.cos(math.pi * progress))
        return rate * (step + 1) / (warmup + 1) if step < warmup else rate


class StepSampler:
    """The batches of a run, from some step on, as keys of `RandomCrops`: lists of (sample, patch size).

    Of several patch sizes every batch has one, drawn by the seed and the number of its first sample.

    Args:
        schedule: The run.
        first_step: Where to begin.
        first_sample: Number of the first picture, counted over the run.
        seconds: Tells how long the run has taken, the same on all devices.
        rank: Which share of each batch to give.
        num_shares: Into how many the batches are split.

    Raises:
        ConfigError: a batch cannot be split evenly.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        first_step: int,
        first_sample: int,
        seconds: Callable[[], float],
        rank: int,
        num_shares: int,
    ) -> None:
        for phase in schedule.phases:
            if phase.batch_size % num_shares:
                raise ConfigError(
                    f"Expected a batch size divisible by {num_shares} devices (got {phase.batch_size})"
                )
        self.schedule = schedule
        self.first_step = first_step
        self.first_sample = first_sample
        self.seconds = seconds
        self.rank = rank
        self.num_shares = num_shares

    def __len__(self) -> int:
        """Return the steps of the whole run, those before the first one too: so Lightning counts them.

        Raises:
            TypeError: nobody knows, since the run goes by time.
        """
        return self.schedule.num_steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        sample, seed = self.first_sample, self.schedule.config.seed
        end = self.schedule.steps
        for step in count(self.first_step) if end is None else range(self.first_step, end):
            phase = self.schedule.phase(step, self.seconds())
            sizes = sides(phase.patch_size)
            size = sizes[np.random.default_rng((seed, sample, 1)).integers(len(sizes))]
            samples = range(sample, sample + phase.batch_size)
            yield [(sample, size) for sample in samples[self.rank :: self.num_shares]]
            sample += phase.batch_size

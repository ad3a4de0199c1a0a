"""What a training step costs."""

from __future__ import annotations

import time
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from glic_pyg.codec import GLIC
from glic_pyg.evaluation.complexity import peak_memory
from glic_pyg.training.callbacks import MovingAverage
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.lightning import Callback, LightningModule, Trainer
from glic_pyg.training.memory import keep_freed_memory
from glic_pyg.training.module import CodecModule
from glic_pyg.training.quiet import bare_trainer, quiet_lightning
from glic_pyg.training.schedule import Schedule


def step_cost(model: GLIC, config: TrainConfig, x: Tensor) -> dict[str, float]:
    """Take the steps of a configuration on one batch, on the CPU.

    Args:
        model: The model; it is trained.
        config: The settings, of at least two steps.
        x: Pictures in [0, 1], `B x 3 x H x W`; the qualities take turns.

    Returns:
        `step_seconds`, of the fastest step but the first, which compiles and makes what the optimiser keeps;
        `peak_memory`, in bytes, by which the process grew, with what the optimiser and the averaged weights
        take.
    """
    keep_freed_memory()
    quality = torch.arange(len(x)) % model.config.qualities + 1
    clock = _Clock()
    module = CodecModule(model.train(), config, Schedule(config, num_pictures=1))
    with quiet_lightning(), peak_memory() as memory:
        trainer = bare_trainer([MovingAverage(config.ema_decay), clock])
        batches = [(x, quality)] * module.schedule.num_steps
        trainer.fit(module, DataLoader(cast("Dataset[tuple[Tensor, Tensor]]", batches), batch_size=None))
    return {"step_seconds": min(clock.seconds[1:]), "peak_memory": memory["bytes"]}


class _Clock(Callback):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seconds.append(time.perf_counter() - self._start)

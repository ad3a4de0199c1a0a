"""What a training step costs."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from glic_pyg.codec import GLIC
from glic_pyg.evaluation.complexity import peak_memory
from glic_pyg.training.callbacks import MovingAverage
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.module import CodecModule
from glic_pyg.training.schedule import Schedule


def step_cost(model: GLIC, config: TrainConfig, x: Tensor) -> dict[str, float]:
    """Take the steps of a configuration on one batch, on the CPU.

    Args:
        model: The model; it is trained.
        config: The settings, of at least two steps.
        x: Pictures in [0, 1], `B x 3 x H x W`; the qualities take turns.

    Returns:
        `step_seconds`, of the fastest step but the first, which compiles and makes what the optimiser keeps;
        `peak_memory`, in bytes, by which the process grew in the last step.
    """
    quality = torch.arange(len(x)) % model.config.qualities + 1
    cost = _Cost()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[MovingAverage(config.ema_decay), cost],
    )
    module = CodecModule(model, config, Schedule(config, num_pictures=1))
    trainer.fit(module, DataLoader([(x, quality)] * config.steps, batch_size=None))
    return {"step_seconds": min(cost.seconds[1:]), "peak_memory": cost.memory["bytes"]}


class _Cost(Callback):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, module: CodecModule, batch: Any, batch_idx: int) -> None:
        self._step = ExitStack()
        self.memory = self._step.enter_context(peak_memory())
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: CodecModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seconds.append(time.perf_counter() - self._start)
        self._step.close()

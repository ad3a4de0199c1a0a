"""The training loop.

folder -> pictures -> random crops -> Trainer.training_step -> log.csv
            |                              |
            |                              +-> averaged weights -> model.safetensors
            +-> held-out crops ------------------> evaluate -----> eval.csv
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from glic_pyg import checkpoint
from glic_pyg.codec import GLIC
from glic_pyg.config import ConfigError
from glic_pyg.image import to_8bit
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.data import RandomCrops, center_crops, find_pictures, split_pictures
from glic_pyg.training.loss import RateDistortionLoss
from glic_pyg.training.run_folder import RunFolder
from glic_pyg.training.schedule import build_optimizers, build_schedule

MOST_SKIPPED_STEPS = 20


class TrainingError(RuntimeError):
    """Training cannot go on; the message is one line for the user."""


class Trainer:
    """A model with all that its training changes: averaged weights, optimisers, schedule, step.

    Args:
        model: The model to train.
        config: The settings of the run.
        device: Where to train.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, *, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.model = model.to(device).train()
        self.average = AveragedModel(self.model, multi_avg_fn=_moving_average(config.ema_decay)).eval()
        self.criterion = RateDistortionLoss(config.lmbda)
        self.optimizers = build_optimizers(self.model, config)
        self.schedule = build_schedule(self.optimizers.net, config, step=0)
        self.step = 0
        self.seconds = 0.0
        self.skipped = 0
        self.skipped_in_a_row = 0

    def training_step(self, x: Tensor) -> dict[str, float]:
        """Take one step and return the line for the log.

        A step whose loss or gradient is not finite leaves the weights alone.

        Args:
            x: Pictures in [0, 1], `B x 3 x H x W`.

        Raises:
            TrainingError: too many steps in a row were not finite.
        """
        x = x.to(self.device)
        net, aux = self.optimizers
        net.zero_grad()
        result = self.criterion(self.model(x), x, self.model.orthogonality_loss())
        result.loss.backward()
        norm = clip_grad_norm_(net.param_groups[0]["params"], self.config.clip_max_norm)
        # The likelihoods leave gradients on the quantiles too, but only the auxiliary loss shall move them.
        aux.zero_grad()
        aux_loss = self.model.aux_loss()
        aux_loss.backward()
        if torch.isfinite(result.loss) and torch.isfinite(norm) and torch.isfinite(aux_loss):
            net.step()
            aux.step()
            self.average.update_parameters(self.model)
            self.skipped_in_a_row = 0
        else:
            self.skipped += 1
            self.skipped_in_a_row += 1
        learning_rate = self.schedule.get_last_lr()[0]
        self.schedule.step()
        self.step += 1
        if self.skipped_in_a_row >= MOST_SKIPPED_STEPS:
            raise TrainingError(
                f"Expected finite losses and gradients (got {self.skipped_in_a_row} steps in a row without, "
                f"up to step {self.step}); try a lower learning rate or a longer warm-up"
            )
        return {
            "step": self.step,
            "learning_rate": learning_rate,
            "loss": result.loss.item(),
            "bpp": result.bpp.item(),
            "psnr": result.psnr.item(),
            "orthogonality": result.orthogonality.item(),
            "aux_loss": aux_loss.item(),
            "gradient_norm": norm.item(),
            "skipped": self.skipped,
        }

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> dict[str, float]:
        """Return the averaged model's mean loss, estimated bpp and PSNR of the 8-bit pictures.

        Args:
            x: Pictures in [0, 1], `N x 3 x H x W`.
        """
        results = []
        for picture in x.to(self.device).split(1):
            output = self.average(picture)
            rounded = {**output, "x_hat": to_8bit(output["x_hat"]) / 255}
            result = self.criterion(rounded, picture, picture.new_zeros(()))
            results.append(torch.stack([result.loss, result.bpp, result.psnr]))
        means = torch.stack(results).mean(0).tolist()
        return {"step": self.step, **dict(zip(("loss", "bpp", "psnr"), means, strict=True))}

    def export(self, path: Path) -> None:
        """Write the averaged model, ready to compress, as float16."""
        model = deepcopy(self.average.module)
        model.update(force=True)
        info = {"lambda": self.config.lmbda, "steps": self.step}
        checkpoint.save(model, path, dtype=torch.float16, info=info)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on, the settings and the random state included."""
        return {
            "config": self.config.to_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "net": self.optimizers.net.state_dict(),
            "aux": self.optimizers.aux.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; where the settings differ, the present ones hold."""
        self.step = state["step"]
        self.seconds = state["seconds"]
        self.skipped = state["skipped"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizers.net.load_state_dict(state["net"])
        self.optimizers.aux.load_state_dict(state["aux"])
        for group in self.optimizers.aux.param_groups:
            group["lr"] = self.config.aux_learning_rate
        self.schedule = build_schedule(self.optimizers.net, self.config, step=self.step)
        torch.set_rng_state(state["rng"])
        if len(state["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda_rng"])


def train(
    config: TrainConfig,
    *,
    dataset: str | Path,
    output: str | Path,
    resume: bool,
    weights: str | Path | None = None,
) -> bool:
    """Train a model on a folder of pictures.

    SIGINT (Ctrl-C) and SIGTERM end the run after the present step with a checkpoint.

    Args:
        config: The settings.
        dataset: Folder of pictures; subfolders are searched too.
        output: The run folder (see `RunFolder`).
        resume: Go on from the run folder's checkpoint, if it has one.
        weights: Name or path of a trained model to start from in place of random weights.

    Returns:
        Whether the run reached its last step.

    Raises:
        ConfigError: too few pictures, or a run folder or weights that do not suit.
        CheckpointError: `weights` cannot be loaded.
        TrainingError: too many steps in a row without finite loss and gradient.
    """
    run = RunFolder(output)
    state = None
    if run.checkpoint.exists():
        if not resume:
            raise ConfigError(
                f"Expected a new run folder (got {run.path}, which has a checkpoint); take another or resume"
            )
        state = run.load_checkpoint()
        if state["config"]["model"] != config.model.to_dict():
            raise ConfigError(
                f"Expected the model that {run.path} was started with (got another configuration)"
            )

    torch.manual_seed(config.seed)
    model = GLIC(config.model) if weights is None else GLIC.from_pretrained(weights)
    if model.config != config.model:
        raise ConfigError(f"Expected weights of the model to train (got {weights} of another configuration)")

    pictures = find_pictures(dataset, least_size=max(config.patch_size, config.eval_size))
    if len(pictures) < 2:
        raise ConfigError(f"Expected at least 2 usable pictures in {dataset} (got {len(pictures)})")
    training, held_out = split_pictures(pictures, folder=dataset, eval_share=config.eval_share)
    held_out_crops = center_crops(held_out, size=config.eval_size)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(model, config, device=device)
    if state is not None:
        trainer.load_state_dict(state)
    run.start(config, step=trainer.step)

    def save() -> None:
        trainer.export(run.model)
        run.save_checkpoint(trainer.state_dict())

    samples = RandomCrops(
        training, size=config.patch_size, length=config.steps * config.batch_size, seed=config.seed
    )
    loader = DataLoader(
        samples,
        batch_size=config.batch_size,
        sampler=range(trainer.step * config.batch_size, len(samples)),
        num_workers=config.num_workers,
        worker_init_fn=_ignore_signals,
        # Its own, so that making the loader leaves the model's random state alone.
        generator=torch.Generator(),
    )
    first, start, seconds_before = trainer.step, time.monotonic(), trainer.seconds
    terminal = sys.stderr.isatty()
    with (
        _stop_signals() as stop,
        tqdm(
            total=config.steps, initial=trainer.step, unit="step", mininterval=0.5 if terminal else 60
        ) as progress,
    ):
        for batch in loader:
            row = trainer.training_step(batch)
            elapsed = time.monotonic() - start
            trainer.seconds = seconds_before + elapsed
            run.append(run.log, row | {"seconds": trainer.seconds})
            rate = (trainer.step - first) * config.batch_size / elapsed
            progress.set_postfix_str(
                f"loss {row['loss']:.3f}, bpp {row['bpp']:.3f}, PSNR {row['psnr']:.2f}, "
                f"{rate:.1f} pictures/s",
                refresh=False,
            )
            progress.update()
            last = trainer.step == config.steps
            if trainer.step % config.eval_every == 0 or last:
                scores = trainer.evaluate(held_out_crops)
                run.append(run.eval, scores)
                progress.write(
                    f"step {scores['step']}: held-out loss {scores['loss']:.4f}, bpp {scores['bpp']:.4f}, "
                    f"PSNR {scores['psnr']:.2f} dB"
                )
            if trainer.step % config.save_every == 0 or last or stop:
                save()
            if stop:
                break
    return trainer.step >= config.steps


def _moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """Return the exponential moving average with a decay that grows to `decay`, to forget the first steps."""

    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        present = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(present)(averaged, current, count)

    return update


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list; a second one interrupts at once."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    previous = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ignore_signals(worker: int) -> None:
    """Leave signals that are sent to all processes of the run, as Ctrl-C is, to the training process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

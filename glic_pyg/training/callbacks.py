"""What a run shows and leaves on disk while it goes."""

from __future__ import annotations

import io
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from glic_pyg.codec import GLIC
from glic_pyg.files import write_file
from glic_pyg.image import write_png
from glic_pyg.progress import make_room
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.lightning import Callback, LightningModule, TorchCheckpointIO, Trainer, WeightAveraging
from glic_pyg.training.module import CodecModule
from glic_pyg.training.run_folder import RunFolder


class MovingAverage(WeightAveraging):
    """Exponential moving average of the weights, evaluated and exported in their place.

    Args:
        decay: Per step; over the first steps it grows up to this, to forget them.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False)
        self.decay = decay
        self._tensors: tuple[list[Tensor], ...] = ()

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let the run go on from the averages where the encoder is no longer trained: they are what stays."""
        assert isinstance(module, CodecModule)
        if module.schedule.phase(module.step, module.seconds).rounded and not module.rounded:
            self._copy_average_to_current(module)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the averages if there was a step; Lightning would look for them in all modules every time."""
        if trainer.global_step == self._latest_update_step:
            return
        self._latest_update_step = trainer.global_step
        average = self._average_model
        assert average is not None  # made before training
        if not self._tensors:
            models = (average.module, module)
            parameters: list[list[Tensor]] = [list(model.parameters()) for model in models]
            self._tensors = (*parameters, *(list(model.buffers()) for model in models))
        averaged, current, buffers, current_buffers = self._tensors
        count = int(average.n_averaged)
        decay = min(self.decay, (1 + count) / (10 + count)) if count else 0.0
        get_ema_multi_avg_fn(decay)(averaged, current, count)
        for buffer, current_buffer in zip(buffers, current_buffers, strict=True):
            buffer.copy_(current_buffer)
        average.n_averaged += 1


class RunStopped(Exception):
    """The user asked the run to end; its checkpoint is written."""


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints as all other files are written."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint."""
        write_file(path, partial(torch.save, checkpoint))


class Recorder(Callback):
    """Fills a run folder, and ends the run after the present step on SIGINT (Ctrl-C) or SIGTERM.

    Args:
        run: The folder.
        config: The settings of the run.
    """

    def __init__(self, run: RunFolder, config: TrainConfig) -> None:
        self.run = run
        self.config = config
        self.best = float("inf")
        self.stopped = False
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Record the start, and take the signals over from Lightning, which would end the run at once."""
        assert isinstance(module, CodecModule)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._stop)
        if trainer.is_global_zero:
            self.run.start(self.config, step=module.step)
        self._last = time.monotonic()
        self._start = self._last - module.seconds

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note how long the batch was waited for."""
        self._waited = time.monotonic() - self._last

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the line of the step, and a checkpoint where it is due."""
        assert isinstance(module, CodecModule)
        self._read_clock(trainer, module)
        row = module.row | {"wait_seconds": self._waited, "seconds": module.seconds}
        if trainer.is_global_zero:
            self.run.append(self.run.log, row)
            self._log(trainer, {f"train/{key}": value for key, value in row.items()}, module.step)
        self._stopping = trainer.strategy.reduce_boolean_decision(self.stopped, all=False)
        if module.schedule.share(module.step, module.seconds) == 1:
            trainer.should_stop = True  # whereupon Lightning evaluates, whatever the step
        elif module.step % self.config.eval_every:  # else it is saved after the evaluation
            if self._stopping or module.step % self.config.save_every == 0:
                self._save(trainer, self.run.latest)
            if self._stopping:
                raise RunStopped

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the lines of the evaluation, sample pictures and checkpoints."""
        assert isinstance(module, CodecModule)
        loss = sum(row["loss"] for row in module.scores) / len(module.scores)
        better = loss < self.best
        self.best = min(loss, self.best)
        if trainer.is_global_zero:
            for row in module.scores:
                self.run.append(self.run.eval, row)
                figures = {f"held_out/{key}_{row['quality']}": row[key] for key in ("loss", "bpp", "psnr")}
                self._log(trainer, figures, module.step)
                tqdm.write(
                    f"step {row['step']}, quality {row['quality']}: held-out loss {row['loss']:.4f}, "
                    f"bpp {row['bpp']:.4f}, PSNR {row['psnr']:.2f} dB",
                    file=sys.stderr,
                )
            write_png(torch.cat(module.samples, dim=2).cpu(), self.run.samples / f"{module.step:08}.png")
        self._save(trainer, self.run.latest)
        if better:
            self._save(trainer, self.run.best)
        self._read_clock(trainer, module)
        if module.schedule.share(module.step, module.seconds) == 1:
            trainer.should_stop = True
        elif self._stopping:
            raise RunStopped

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def on_save_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let a finished run go on when it is given more steps."""
        checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False

    def state_dict(self) -> dict[str, float]:
        """Return what a later start of the run needs."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on from there."""
        self.best = state_dict["best"]

    def _read_clock(self, trainer: Trainer, module: CodecModule) -> None:
        """Tell the module how long the run has taken; where that matters, all devices agree."""
        self._last = time.monotonic()
        seconds = self._last - self._start
        by_time = self.config.max_time is not None
        module.seconds = trainer.strategy.broadcast(seconds) if by_time else seconds

    def _log(self, trainer: Trainer, figures: dict[str, float], step: int) -> None:
        assert trainer.logger is not None
        trainer.logger.log_metrics(figures, step)

    def _save(self, trainer: Trainer, path: Path) -> None:
        trainer.save_checkpoint(path)  # the first process writes, but all take part
        if trainer.is_global_zero:
            export(path, path.with_suffix(".safetensors"), self.config)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True


class Progress(Callback):
    """A bar with loss, bits per pixel, PSNR, pictures per second, time left; in a log a line a minute."""

    def __init__(self) -> None:
        self._bar = tqdm(disable=True)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Show the bar, which stands where the run goes on."""
        assert isinstance(module, CodecModule)
        terminal = sys.stderr.isatty()
        by_time = module.schedule.steps is None
        make_room("training")
        self._bar = tqdm(
            total=round(module.config.length) if by_time else module.schedule.steps,
            initial=round(module.seconds) if by_time else module.step,
            unit="step",
            bar_format="{percentage:.0f}%|{bar}| {n_fmt}/{total_fmt} s{postfix}" if by_time else None,
            mininterval=0.5 if terminal else 60,
            dynamic_ncols=terminal,
            file=None if terminal else _Lines(),
            disable=not trainer.is_global_zero,
        )
        self._start, self._first = time.monotonic(), module.sample

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        assert isinstance(module, CodecModule)
        row = module.row
        pictures = (module.sample - self._first) / (time.monotonic() - self._start)
        self._bar.set_postfix_str(
            f"loss {row['loss']:.3f}, bpp {row['bpp']:.3f}, PSNR {row['psnr']:.2f}, "
            f"{pictures:.1f} pictures/s",
            refresh=False,
        )
        by_time = module.schedule.steps is None
        self._bar.update(min(round(module.seconds), self._bar.total) - self._bar.n if by_time else 1)

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """End the bar."""
        self._bar.close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """End the bar before the error is told."""
        self._bar.close()


class _Lines(io.TextIOBase):
    """What a bar writes to where there is no terminal: each of its states is a line of standard error."""

    def write(self, text: str) -> int:
        if line := text.strip():
            print(line, file=sys.stderr, flush=True)
        return len(text)


def export(source: Path, target: Path, config: TrainConfig) -> None:
    """Write the averaged model of a run's checkpoint, with its tables, in float16.

    Args:
        source: The checkpoint.
        target: The `.safetensors` file.
        config: The settings of the run.
    """
    content = torch.load(source, map_location="cpu", weights_only=True)
    model = GLIC(config.model)
    state = content["state_dict"]
    model.load_state_dict(
        {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    )
    model.update(force=True)
    info = {
        "lambda": list(config.lmbda),
        "distortion": config.distortion,
        "steps": content["glic_pyg"]["step"],
    }
    model.save(target, dtype=torch.float16, info=info)

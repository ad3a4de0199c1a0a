"""One training step, and one evaluation, as Lightning runs them on any number of devices."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, optim
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.nn.utils import clip_grad_norm_

from glic_pyg.codec import GLIC
from glic_pyg.errors import UserError
from glic_pyg.identity import current_names
from glic_pyg.image import to_8bit
from glic_pyg.nn.conv import ConvBlock
from glic_pyg.nn.gfa import GFALayer
from glic_pyg.training.config import TrainConfig
from glic_pyg.training.lightning import LightningModule
from glic_pyg.training.loss import RateDistortion, RateDistortionLoss
from glic_pyg.training.optimizer import build_optimizers
from glic_pyg.training.schedule import Schedule

MOST_SKIPPED_STEPS = 20
NUM_SAMPLES = 4


class TrainingError(UserError, RuntimeError):
    """Training cannot go on; the message is one line for the user."""


class CodecModule(LightningModule):
    """A model in training: loss, optimiser, learning rate, and how far the run is.

    That is the number of steps taken, of pictures seen on all devices, and the seconds it took, as `Recorder`
    tells them.

    The entropy bottleneck's quantiles have an optimiser's group of their own. One backward pass serves them
    and the network, since the rate-distortion loss has no gradient on the quantiles, nor the quantiles' loss
    on anything else.

    Args:
        model: The model to train.
        config: The settings of the run.
        schedule: The run, step by step.
    """

    automatic_optimization = False

    def __init__(self, model: GLIC, config: TrainConfig, schedule: Schedule) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.schedule = schedule
        self.criterion = RateDistortionLoss(config.lmbda, distortion=config.distortion)
        self.step = 0
        self.sample = 0
        self.seconds = 0.0
        self.rounded = False  # in the last step
        self.skipped = 0
        self.skipped_in_a_row = 0
        if config.activation_checkpointing:
            apply_activation_checkpointing(
                model, check_fn=lambda module: isinstance(module, GFALayer | ConvBlock)
            )

    def configure_optimizers(self) -> list[optim.Optimizer]:
        """Return the optimisers that the configuration names."""
        return build_optimizers(self.model, self.config.optimizer)

    def losses(self, x: Tensor, quality: Tensor, *, rounded: bool = False) -> tuple[RateDistortion, Tensor]:
        """Return the loss of the network and the one of the quantiles.

        Args:
            x: Pictures in [0, 1], `B x 3 x H x W`.
            quality: Integers from 1 on, `B`.
            rounded: Whether latents are rounded and the encoder stays as it is.
        """
        output = self.model(x, self._of_several(quality), rounded=rounded)
        output["x_hat"] = output["x_hat"].float()
        orthogonality = (self.model.g_s if rounded else self.model).orthogonality_loss()
        result = self.criterion(output, x, orthogonality, quality)
        return result, self.model.aux_loss()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Take one step and keep the line for the log as `row`.

        A step whose loss or gradient is not finite leaves the weights alone, on all devices.

        Raises:
            TrainingError: too many steps in a row were not finite.
        """
        # From the step alone, so that a run that goes on draws what it would have drawn.
        torch.manual_seed(hash((self.config.seed, self.step, self.global_rank)))
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        *network, quantiles = (group for optimizer in optimizers for group in optimizer.param_groups)
        rate = self.schedule.learning_rate(self.step, self.seconds)
        for group in network:
            group["lr"] = rate
        quantiles["lr"] = self.config.aux_learning_rate
        self.rounded = self.schedule.phase(self.step, self.seconds).rounded
        result, aux_loss = self.losses(*batch, rounded=self.rounded)
        self.manual_backward(result.loss + aux_loss)
        norm = clip_grad_norm_([p for group in network for p in group["params"]], self.config.clip_max_norm)
        figures = {
            "loss": result.loss,
            "bpp": result.bpp,
            "psnr": result.psnr,
            "orthogonality": result.orthogonality,
            "aux_loss": aux_loss,
            "gradient_norm": norm,
        }
        # Means over the devices, like the gradient: what is not finite on one is so on all.
        means = self.trainer.strategy.reduce(torch.stack(list(figures.values())).detach(), reduce_op="mean")
        means = dict(zip(figures, means.tolist(), strict=True))
        if not all(math.isfinite(means[name]) for name in ("loss", "aux_loss", "gradient_norm")):
            self.skipped += 1
            self.skipped_in_a_row += 1
        else:
            for optimizer in optimizers:
                optimizer.step()
            self.skipped_in_a_row = 0
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.step += 1
        self.sample += len(batch[0]) * self.trainer.world_size
        if self.skipped_in_a_row >= MOST_SKIPPED_STEPS:
            raise TrainingError(
                f"Expected finite losses and gradients (got {self.skipped_in_a_row} steps in a row without, "
                f"up to step {self.step}); try a lower learning rate or a longer warm-up"
            )
        self.row = {"step": self.step, "learning_rate": rate, **means, "skipped": self.skipped}

    def on_validation_epoch_start(self) -> None:
        """Begin the sums over the pictures: per quality of loss, bpp and PSNR, and the number of pictures."""
        self._sums = torch.zeros(len(self.config.lmbda), 4, device=self.device)
        self.samples: list[Tensor] = []

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Add one picture, `1 x 3 x H x W`; of the first ones the restored pictures are kept."""
        restored = []
        for quality in torch.arange(1, 1 + len(self.config.lmbda), device=self.device).split(1):
            output = self.model(batch, self._of_several(quality))
            output["x_hat"] = to_8bit(output["x_hat"]) / 255
            result = self.criterion(output, batch, batch.new_zeros(()), quality)
            self._sums[quality - 1] += torch.stack([result.loss, result.bpp, result.psnr, batch.new_ones(())])
            restored.append(output["x_hat"])
        if batch_idx < NUM_SAMPLES:
            shown = sorted({0, len(restored) // 2, len(restored) - 1})
            self.samples.append(torch.cat([batch, *(restored[i] for i in shown)], dim=3))

    def on_validation_epoch_end(self) -> None:
        """Keep the means per quality as `scores`."""
        sums = self.trainer.strategy.reduce(self._sums, reduce_op="sum").tolist()
        self.scores = [
            {"step": self.step, "quality": quality, "loss": loss / n, "bpp": bpp / n, "psnr": psnr / n}
            for quality, (loss, bpp, psnr, n) in enumerate(sums, 1)
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what Lightning does not know of."""
        checkpoint["glic_pyg"] = {
            "config": self.config.to_dict(),
            "step": self.step,
            "sample": self.sample,
            "seconds": self.seconds,
            "rounded": self.rounded,
            "skipped": self.skipped,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there; where settings differ, the present ones hold."""
        for states in ("state_dict", "current_model_state"):  # the averages, and what is averaged
            if states in checkpoint:
                checkpoint[states] = current_names(checkpoint[states])
        state = checkpoint["glic_pyg"]
        for name in ("step", "sample", "seconds", "rounded", "skipped"):
            setattr(self, name, state[name])

    def _of_several(self, quality: Tensor) -> Tensor | None:
        """Return the qualities as the model takes them: a model of one takes none."""
        return quality if len(self.config.lmbda) > 1 else None

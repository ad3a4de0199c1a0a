"""The rate-distortion loss."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ORTHOGONALITY_WEIGHT = 0.1


class RateDistortion(NamedTuple):
    """A loss and its parts, all scalars; `mse` is of pixels in [0, 1], `orthogonality` not yet weighted."""

    loss: Tensor
    mse: Tensor
    bpp: Tensor
    orthogonality: Tensor

    @property
    def psnr(self) -> Tensor:
        """PSNR of the batch in dB, of pictures that are neither clamped nor rounded to 8 bits."""
        return -10 * torch.log10(self.mse)


class RateDistortionLoss(nn.Module):
    r"""Rate plus weighted distortion, and the wavelet shortcuts' orthogonality.

    .. math:: L = \lambda \cdot 255^2 \cdot MSE + bpp + 0.1 \cdot O

    Args:
        lmbda: The weight lambda; larger means better pictures and larger files. Published: 0.0017,
            0.0035, 0.0067, 0.013, 0.025, 0.05.
    """

    def __init__(self, lmbda: float):
        super().__init__()
        self.lmbda = lmbda

    def forward(self, output: dict[str, Any], x: Tensor, orthogonality: Tensor) -> RateDistortion:
        """Return the loss and its parts.

        Args:
            output: What `GLIC.forward` returned for `x`: `x_hat` and `likelihoods`.
            x: Pictures in [0, 1], B x 3 x H x W.
            orthogonality: `GLIC.orthogonality_loss()`, scalar.
        """
        batch, _, height, width = x.shape
        mse = F.mse_loss(output["x_hat"], x)
        bits = sum(likelihood.log().sum() for likelihood in output["likelihoods"].values()) / -math.log(2)
        bpp = bits / (batch * height * width)
        loss = self.lmbda * 255**2 * mse + bpp + ORTHOGONALITY_WEIGHT * orthogonality
        return RateDistortion(loss, mse, bpp, orthogonality)

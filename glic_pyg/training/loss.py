"""The rate-distortion loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pytorch_msssim import ms_ssim
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

    .. math:: L = w_q (\lambda_q D + bpp) + 0.1 \cdot O, \quad
        w_q = \sqrt{\bar \lambda / \lambda_q}, \quad
        D = 255^2 \cdot MSE \text{ or } 1 - \text{MS-SSIM}

    The mean of the pictures' losses, each for its quality q. The weight (with the geometric mean of all
    lambdas; 1 for a model of one quality) keeps the high qualities, whose losses are larger, from ruling
    what the qualities share.

    Args:
        lmbda: The lambda of every quality, 1 first; larger means better pictures and larger files.
            Published for the MSE: 0.0017, 0.0035, 0.0067, 0.013, 0.025, 0.05; usual for MS-SSIM: 2.40,
            4.58, 8.73, 16.64, 31.73, 60.50.
        distortion: Which D; MS-SSIM takes sides of more than 160 pixels.
    """

    lmbda: Tensor
    weight: Tensor

    def __init__(self, lmbda: Sequence[float], *, distortion: Literal["mse", "ms-ssim"]) -> None:
        super().__init__()
        self.distortion = distortion
        lambdas = torch.tensor(lmbda)
        self.register_buffer("lmbda", lambdas, persistent=False)
        self.register_buffer("weight", (lambdas.log().mean().exp() / lambdas).sqrt(), persistent=False)

    def forward(
        self, output: dict[str, Any], x: Tensor, orthogonality: Tensor, quality: Tensor
    ) -> RateDistortion:
        """Return the loss and its parts.

        Args:
            output: What `GLIC.forward` returned for `x`: `x_hat` and `likelihoods`.
            x: Pictures in [0, 1], `B x 3 x H x W`.
            orthogonality: `GLIC.orthogonality_loss()`, scalar.
            quality: Of each picture, integers from 1 on, `B`.
        """
        mse = F.mse_loss(output["x_hat"], x, reduction="none").mean((1, 2, 3))
        nats = -sum(likelihood.log().sum((1, 2, 3)) for likelihood in output["likelihoods"].values())
        bpp = nats / math.log(2) / x[0, 0].numel()
        if self.distortion == "mse":
            distortion = 255**2 * mse
        else:
            distortion = 1 - ms_ssim(output["x_hat"], x, data_range=1, size_average=False)
        losses = self.weight[quality - 1] * (self.lmbda[quality - 1] * distortion + bpp)
        loss = losses.mean() + ORTHOGONALITY_WEIGHT * orthogonality
        return RateDistortion(loss, mse.mean(), bpp.mean(), orthogonality)

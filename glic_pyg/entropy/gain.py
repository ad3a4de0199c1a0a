"""Gain units: one model, every quality."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LOG_STEP = 0.29
"""Between the first gains of neighbouring qualities: half of that between the logarithms of lambdas."""


class GainUnits(nn.Module):
    r"""A scale per channel and quality for y and z before they are rounded, and another one after.

    .. math:: y \mapsto y \cdot g_q, \quad \hat y \mapsto \hat y \cdot g'_q, \quad
        g_q = g_{\lfloor q \rfloor}^{1 - f} \cdot g_{\lfloor q \rfloor + 1}^f, \quad f = q - \lfloor q \rfloor

    From Cui et al., "Asymmetric Gained Deep Image Compression With Continuous Rate Adaptation", CVPR 2021.
    Logarithms are stored: gains stay positive, and the interpolation is linear.

    Args:
        qualities: Number of qualities with gains of their own.
        latent_channels: Channels of y.
        hyper_channels: Channels of z.
    """

    def __init__(self, *, qualities: int, latent_channels: int, hyper_channels: int) -> None:
        super().__init__()
        steps = LOG_STEP * (torch.arange(qualities) - (qualities - 1) / 2)
        self.y = nn.Parameter(steps[:, None].repeat(1, latent_channels))
        self.y_inverse = nn.Parameter(-self.y.detach())
        self.z = nn.Parameter(torch.zeros(qualities, hyper_channels))
        self.z_inverse = nn.Parameter(torch.zeros(qualities, hyper_channels))

    def forward(self, quality: Tensor) -> dict[str, Tensor]:
        """Return the gains of a batch.

        Args:
            quality: Per picture, in [1, qualities], `B`.

        Returns:
            `y` and `y_inverse`, `B x M x 1 x 1`; `z` and `z_inverse`, `B x N x 1 x 1`.
        """
        below = (quality.floor().long() - 1).clamp(0, len(self.y) - 1)
        above = (below + 1).clamp(max=len(self.y) - 1)
        share = (quality.double() - below - 1)[:, None]

        def gain(logs: Tensor) -> Tensor:
            log = (1 - share) * logs[below].double() + share * logs[above].double()
            return _Exp.apply(log).float()[..., None, None]

        return {name: gain(logs) for name, logs in self.named_parameters()}


class _Exp(torch.autograd.Function):
    """The exponential of float64 values by operations that have the same bits everywhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x * (1 / 256)
        y = torch.ones_like(x)
        for n in range(8, 0, -1):  # the series up to its 8th power, by Horner's scheme
            y = 1 + x * (1 / n) * y
        for _ in range(8):
            y = y * y
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return gradient * y

"""Twice the sides: a convolution, then a pixel shuffle."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from glic_pyg.kernels import HasKernels
from glic_pyg.nn.pointwise import linear


class Upsampling(HasKernels, nn.Sequential):
    """A 3x3 convolution to four times the channels, and a pixel shuffle.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C_out 2*H 2*W"]:
        """Map `B x C x H x W` to `B x C' x 2H x 2W`."""
        if self.kernels_for(x) != "cpu":
            return super().forward(x)
        conv = cast(nn.Conv2d, self[0])
        return upsample(x, conv.weight, cast(Tensor, conv.bias))


def upsample(
    x: Float[Tensor, "B C H W"], weight: Float[Tensor, "C_conv C side side"], bias: Float[Tensor, " C_conv"]
) -> Float[Tensor, "B C_conv//4 2*H 2*W"]:
    """Return `F.pixel_shuffle` of a convolution, up to rounding, for maps with channels last.

    Weights, not features, are put in order: of positions first, then of channels, which lie last as those of
    the maps do. What is left to shuffle are runs of channels.

    Args:
        x: `B x C x H x W`.
        weight: Of the convolution, `4C' x C x side x side`; the side is 1 or 3.
        bias: `4C'`.

    Returns:
        `B x C' x 2H x 2W`, with channels last.
    """
    weight = weight.movedim(1, -1).unflatten(0, (-1, 4)).transpose(0, 1).flatten(0, 1).movedim(-1, 1)
    bias = bias.unflatten(0, (-1, 4)).transpose(0, 1).flatten()
    if weight.size(-1) == 1:
        rows = linear(x.movedim(1, -1), weight.flatten(1), bias)
    else:
        rows = F.conv2d(x, weight, bias, padding=1).movedim(1, -1)
    blocks = rows.unflatten(-1, (2, 2, -1)).transpose(2, 3)  # B x H x 2 x W x 2 x C'
    return blocks.flatten(3, 4).flatten(1, 2).movedim(-1, 1)

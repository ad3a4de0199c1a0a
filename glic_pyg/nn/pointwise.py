"""Linear maps of many rows, by oneDNN on the CPU.

torch has two libraries for them. MKL leaves AVX-512 alone on some of AMD's processors and takes twice as long
there; it gets what is a linear layer, or a convolution on one thread. Convolutions of 16 pictures go to
oneDNN, which with gradients takes 0.2 ms more: too long for small products. Where oneDNN is switched off or
absent they would go to NNPACK, which transforms them: sums of integers would not be exact. There everything
is a linear layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.backends import mkldnn

from glic_pyg.kernels import HasKernels

LEAST_ROWS = 256  # fewer are faster by MKL where they are short
LEAST_PRODUCTS = 3_000_000  # fewer are faster by MKL where gradients are wanted
PICTURES = range(16, 65)


def linear(
    x: Float[Tensor, "*rows C"],
    weight: Float[Tensor, "C_out C"],
    bias: Float[Tensor, " C_out"] | None = None,
) -> Float[Tensor, "*rows C_out"]:
    """Return `F.linear` of the same arguments, up to rounding.

    Many rows, if their number can be divided so, become the positions of 16 to 64 pictures for oneDNN.

    Args:
        x: `... x C`.
        weight: `C' x C`.
        bias: `C'`.

    Returns:
        `... x C'`.
    """
    count = x[..., 0].numel()
    pictures = next((n for n in PICTURES if count % n == 0), None)
    onednn = x.device.type == "cpu" and mkldnn.enabled and mkldnn.is_available()
    small = torch.is_grad_enabled() and count * weight.numel() < LEAST_PRODUCTS
    if not onednn or small or count < LEAST_ROWS or pictures is None:
        return F.linear(x, weight, bias)
    maps = x.reshape(pictures, -1, 1, x.size(-1)).movedim(-1, 1)
    return F.conv2d(maps, weight[..., None, None], bias).movedim(1, -1).reshape(*x.shape[:-1], -1)


class Linear(HasKernels, nn.Linear):
    """A linear layer; with the kernels of the CPU by `linear`."""

    def forward(self, x: Float[Tensor, "*rows C"]) -> Float[Tensor, "*rows C_out"]:
        """Map `... x C` to `... x C'`."""
        if self.kernels_for(x) == "cpu":
            return linear(x, self.weight, self.bias)
        return super().forward(x)


class PointwiseConv2d(HasKernels, nn.Conv2d):
    """A 1x1 convolution; where channels are last, with the kernels of the CPU by `linear`, of GPUs linear.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bias: Whether to add one.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C_out H W"]:
        """Map `B x C x H x W` to `B x C' x H x W`."""
        kernels, rows = self.kernels_for(x), x.movedim(1, -1)
        if kernels == "reference" or not rows.is_contiguous():
            return super().forward(x)
        product = linear if kernels == "cpu" else F.linear
        return product(rows, self.weight.flatten(1), self.bias).movedim(-1, 1)

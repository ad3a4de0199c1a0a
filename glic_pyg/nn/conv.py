"""Convolution blocks: the codec's stages at H/2 and the networks of its entropy model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.Module):
    r"""Layer normalisation over the channels of each position.

    .. math:: (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot w + b

    Args:
        channels: Channels C of the `B x C x H x W` input.
        eps: Added to the (biased) variance inside the root.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.movedim(-1, 1)


class GatedFeedForward(nn.Module):
    r"""Position-wise feed-forward net with a multiplicative gate.

    .. math:: W_{out}(\mathrm{GELU}(a) \odot b), \quad [a, b] = D(W_{in} x)

    Args:
        channels: Channels C in and out.
        ratio: Expansion r; each half has rC channels.
        depthwise: Whether D is a zero-padded depthwise 3x3 convolution instead of the identity.
    """

    def __init__(self, channels: int, *, ratio: int, depthwise: bool = False) -> None:
        super().__init__()
        hidden = 2 * ratio * channels
        self.project_in = nn.Conv2d(channels, hidden, 1, bias=False)
        self.depthwise = (
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False) if depthwise else None
        )
        self.project_out = nn.Conv2d(ratio * channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project_in(x)
        if self.depthwise is not None:
            x = self.depthwise(x)
        a, b = x.chunk(2, dim=1)
        return self.project_out(F.gelu(a) * b)


class ConvBlock(nn.Module):
    """Depthwise 5x5 mixing and a gated feed-forward net, each with its shortcut.

    .. code-block:: none

        x -+-> conv1 -> LeakyReLU -> depthwise -> conv2 -> + -+-> norm -> ffn -> + ->
           |                                               |  |                  |
           +---------------- adaptor ----------------------+  +------------------+

    The adaptor, a 1x1 convolution, exists only where the widths differ.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        ratio: Expansion of the feed-forward net.
    """

    def __init__(self, in_channels: int, out_channels: int, *, ratio: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 1)
        self.depthwise = nn.Conv2d(in_channels, in_channels, 5, padding=2, groups=in_channels)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 1)
        self.adaptor = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.norm = LayerNorm2d(out_channels)
        self.ffn = GatedFeedForward(out_channels, ratio=ratio)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.adaptor is None else self.adaptor(x)
        x = shortcut + self.conv2(self.depthwise(F.leaky_relu(self.conv1(x), 0.01)))
        return x + self.ffn(self.norm(x))

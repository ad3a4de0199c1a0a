"""Convolution blocks: the codec's stages at H/2 and the networks of its entropy model."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from glic_pyg.kernels import HasKernels
from glic_pyg.nn.kernels.feed_forward import (
    conv_block,
    feed_forward_weights,
    mixing_weights,
    normed_feed_forward,
)
from glic_pyg.nn.kernels.feed_forward_gradients import feed_forward_with_gradients, mixing_with_gradients
from glic_pyg.nn.pointwise import PointwiseConv2d


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

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        x = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.movedim(-1, 1)


class GatedFeedForward(HasKernels, nn.Module):
    r"""Position-wise feed-forward part with a multiplicative gate, normed before and added to its input.

    .. math:: x + W_{out}(\mathrm{GELU}(a) \odot b), \quad [a, b] = D(W_{in} \mathrm{LN}(x))

    With the kernels of the CPU, in float32, one function does it all without holding the hidden features (see
    `glic_pyg.nn.kernels.feed_forward`); with gradients it holds those of wide maps alone (see
    `glic_pyg.nn.kernels.feed_forward_gradients`).

    Args:
        channels: Channels C in and out.
        ratio: Expansion r; each half has rC channels.
        depthwise: Whether D is a zero-padded depthwise 3x3 convolution instead of the identity.
        eps: Of the normalisation.
    """

    def __init__(self, channels: int, *, ratio: int, depthwise: bool = False, eps: float = 1e-6) -> None:
        super().__init__()
        hidden = 2 * ratio * channels
        self.norm = LayerNorm2d(channels, eps)
        self.project_in = PointwiseConv2d(channels, hidden, bias=False)
        self.depthwise = (
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False) if depthwise else None
        )
        self.gelu = nn.GELU()
        self.project_out = PointwiseConv2d(ratio * channels, channels, bias=False)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Map `B x C x H x W` to the same shape."""
        if not _in_one_pass(self, x):
            hidden = self.project_in(self.norm(x))
            if self.depthwise is not None:
                hidden = self.depthwise(hidden)
            a, b = hidden.chunk(2, dim=1)
            return x + self.project_out(self.gelu(a) * b)
        rows, weights = x.movedim(1, -1), self.weights()
        if torch.is_grad_enabled():
            return feed_forward_with_gradients(rows, *weights).movedim(-1, 1)
        return normed_feed_forward(rows, feed_forward_weights(*weights)).movedim(-1, 1)

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, float]:
        """Return the weights as `feed_forward_weights` takes them."""
        return (
            self.project_in.weight,
            self.norm.weight,
            self.norm.bias,
            None if self.depthwise is None else self.depthwise.weight,
            self.project_out.weight,
            self.norm.eps,
        )


class ConvBlock(HasKernels, nn.Module):
    """Depthwise 5x5 mixing and a gated feed-forward part, each with its shortcut.

        x -+-> conv1 -> LeakyReLU -> depthwise -> conv2 -> + -> ffn ->
           |                                               |
           +---------------- adaptor ----------------------+

    The adaptor, a 1x1 convolution, exists only where the widths differ. With the kernels of the CPU, in
    float32, one function does it all without holding the inner features; with gradients, two.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        ratio: Expansion of the feed-forward part.
    """

    def __init__(self, in_channels: int, out_channels: int, *, ratio: int) -> None:
        super().__init__()
        self.conv1 = PointwiseConv2d(in_channels, in_channels)
        self.depthwise = nn.Conv2d(in_channels, in_channels, 5, padding=2, groups=in_channels)
        self.conv2 = PointwiseConv2d(in_channels, out_channels)
        self.adaptor = PointwiseConv2d(in_channels, out_channels) if in_channels != out_channels else None
        self.ffn = GatedFeedForward(out_channels, ratio=ratio)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C_out H W"]:
        """Map `B x C x H x W` to `B x C' x H x W`."""
        if not _in_one_pass(self, x):
            return self.ffn(self.mix(x))
        rows, weights = x.movedim(1, -1), self._mixing()
        if torch.is_grad_enabled():
            return self.ffn(mixing_with_gradients(rows, *weights).movedim(-1, 1))
        parts = mixing_weights(*weights), feed_forward_weights(*self.ffn.weights())
        return conv_block(rows, *parts, self.conv2.out_channels).movedim(-1, 1)

    def mix(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C_out H W"]:
        """Map `B x C x H x W` to `B x C' x H x W` by all but the feed-forward part, module by module."""
        shortcut = x if self.adaptor is None else self.adaptor(x)
        return shortcut + self.conv2(self.depthwise(F.leaky_relu(self.conv1(x), 0.01)))

    def _mixing(self) -> tuple[Any, ...]:
        """Return the weights as `mixing_weights` takes them."""
        convs = (self.conv1, self.depthwise, self.conv2)
        conv1, bias1, depthwise, bias, conv2, bias2 = (
            parameter for conv in convs for parameter in (conv.weight, cast(Tensor, conv.bias))
        )
        weights = (conv1, bias1, depthwise, bias, conv2)
        if self.adaptor is None:
            return *weights, bias2, None
        return *weights, bias2 + cast(Tensor, self.adaptor.bias), self.adaptor.weight


def _in_one_pass(module: HasKernels, x: Tensor) -> bool:
    """Return whether a map is for the compiled functions: they compute in float32."""
    rounded = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
    return module.kernels_for(x) == "cpu" and x.dtype == torch.float32 and not rounded

"""What the coder knows of a group of channels: its predecessors, its neighbours, the hyperprior."""

from __future__ import annotations

import torch
from compressai.latent_codecs import CheckerboardLatentCodec, GaussianConditionalLatentCodec
from compressai.layers import CheckerboardMaskedConv2d, sequential_channel_ramp
from torch import Tensor, nn

from glic_pyg.kernels import HasKernels
from glic_pyg.nn.conv import ConvBlock, GatedFeedForward
from glic_pyg.nn.pointwise import PointwiseConv2d
from glic_pyg.threads import map_in_threads

POSITIONS_AT_ONCE = 128


class CheckerboardConv2d(CheckerboardMaskedConv2d):
    """CompressAI's masked convolution, whose weights stay where they are.

    CompressAI's puts masked weights in place of its own at every call: a CUDA graph would begin every step
    with the weights of its first one, and what the mask covers would have a gradient.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `B x C x H x W` to `B x C' x H x W`."""
        return self._conv_forward(x, self.weight * self.mask, self.bias)


class PointwiseBlock(nn.Module):
    """Convolution block that reads one position at a time: a 1x1 convolution and a feed-forward part.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        ratio: Expansion of the feed-forward net.
    """

    def __init__(self, in_channels: int, out_channels: int, *, ratio: int) -> None:
        super().__init__()
        self.conv = PointwiseConv2d(in_channels, out_channels)
        self.ffn = GatedFeedForward(out_channels, ratio=ratio)

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn(self.conv(x))


class PointwiseNet(HasKernels, nn.Sequential):
    """Blocks that read one position at a time.

    With the kernels of the CPU, where no gradient is wanted, positions go through it in parts of a fixed
    number, several at a time: the bits do not depend on the number of threads.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `B x C x H x W` to `B x C' x H x W`."""
        if self.kernels_for(x) != "cpu" or torch.is_grad_enabled():
            return super().forward(x)
        some = x.movedim(1, -1).reshape(1, 1, -1, x.size(1)).split(POSITIONS_AT_ONCE, dim=2)
        parts = map_in_threads(super().forward, [part.movedim(-1, 1) for part in some])
        out = torch.cat(parts, dim=3).movedim(1, -1)
        return out.reshape(len(x), *x.shape[2:], -1).movedim(-1, 1)


def channel_context(in_channels: int, group_channels: int, *, ratio: int, min_channels: int) -> nn.Sequential:
    """Build the net that reads all groups decoded before this one, nothing but its blocks in a row.

    Args:
        in_channels: Channels of the groups before.
        group_channels: Channels of this group; the output has twice as many.
        ratio: Expansion of the blocks' feed-forward nets.
        min_channels: Least inner width.
    """
    return sequential_channel_ramp(
        in_channels,
        2 * group_channels,
        min_ch=min_channels,
        make_layer=ConvBlock,
        make_act=nn.Identity,
        ratio=ratio,
    )


def group_codec(
    group_channels: int, side_channels: int, *, ratio: int, min_channels: int
) -> CheckerboardLatentCodec:
    """Build the two-pass checkerboard codec of one group, a Gaussian with mean and scale per symbol.

        decoded half of the group -> masked conv 5x5 --+
        channel context (none for the first group) ----+-> pointwise blocks -> scales, means
        hyper parameters ------------------------------+

    Args:
        group_channels: Channels of the group.
        side_channels: Channels of channel context and hyper parameters together.
        ratio: Expansion of the pointwise blocks' feed-forward nets.
        min_channels: Least inner width of the pointwise blocks.
    """
    context_prediction = CheckerboardConv2d(group_channels, 2 * group_channels, 5, padding=2)
    _mask_weight(context_prediction)
    context_prediction.register_load_state_dict_post_hook(_mask_weight)
    return CheckerboardLatentCodec(
        latent_codec={"y": GaussianConditionalLatentCodec(quantizer="ste")},
        context_prediction=context_prediction,
        entropy_parameters=PointwiseNet(
            *sequential_channel_ramp(
                2 * group_channels + side_channels,
                2 * group_channels,
                min_ch=min_channels,
                make_layer=PointwiseBlock,
                make_act=nn.Identity,
                ratio=ratio,
            )
        ),
    )


@torch.no_grad()
def _mask_weight(module: CheckerboardConv2d, _: object = None) -> None:
    """Drop what is never read: it would be part of a model's identity."""
    module.weight.mul_(module.mask)

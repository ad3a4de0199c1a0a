"""What the coder knows of a group of channels: its predecessors, its neighbours, the hyperprior."""

from __future__ import annotations

from compressai.latent_codecs import CheckerboardLatentCodec, GaussianConditionalLatentCodec
from compressai.layers import CheckerboardMaskedConv2d, sequential_channel_ramp
from torch import Tensor, nn

from glic_pyg.nn.conv import ConvBlock, GatedFeedForward


class PointwiseBlock(nn.Module):
    """Convolution block that reads one position at a time: a 1x1 convolution and a feed-forward part.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        ratio: Expansion of the feed-forward net.
    """

    def __init__(self, in_channels: int, out_channels: int, *, ratio: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)
        self.ffn = GatedFeedForward(out_channels, ratio=ratio)

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn(self.conv(x))


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

    .. code-block:: none

        decoded half of the group -> masked conv 5x5 --+
        channel context (none for the first group) ----+-> pointwise blocks -> scales, means
        hyper parameters ------------------------------+

    Args:
        group_channels: Channels of the group.
        side_channels: Channels of channel context and hyper parameters together.
        ratio: Expansion of the pointwise blocks' feed-forward nets.
        min_channels: Least inner width of the pointwise blocks.
    """
    return CheckerboardLatentCodec(
        latent_codec={"y": GaussianConditionalLatentCodec(quantizer="ste")},
        context_prediction=CheckerboardMaskedConv2d(group_channels, 2 * group_channels, 5, padding=2),
        entropy_parameters=sequential_channel_ramp(
            2 * group_channels + side_channels,
            2 * group_channels,
            min_ch=min_channels,
            make_layer=PointwiseBlock,
            make_act=nn.Identity,
            ratio=ratio,
        ),
    )

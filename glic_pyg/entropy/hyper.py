"""The hyper transforms: y to side information z at a quarter of its size, and back to parameters."""

from __future__ import annotations

from torch import nn

from glic_pyg.nn.conv import ConvBlock


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)


def _upsample(channels: int) -> nn.Sequential:
    return nn.Sequential(_conv3x3(channels, 4 * channels), nn.PixelShuffle(2))


def _blocks(channels: int, depth: int, ratio: int) -> list[nn.Module]:
    return [ConvBlock(channels, channels, ratio=ratio) for _ in range(depth)]


def hyper_analysis(*, latent_channels: int, hyper_channels: int, depth: int, ratio: int) -> nn.Sequential:
    """Build h_a, which maps y to z at a quarter of its height and width.

        y -> conv3x3 -> blocks -> conv3x3 v2 -> blocks -> conv3x3 v2 -> z

    Args:
        latent_channels: Channels of y.
        hyper_channels: Channels of z.
        depth: Conv blocks per resolution.
        ratio: Expansion of the blocks' feed-forward nets.
    """
    return nn.Sequential(
        _conv3x3(latent_channels, hyper_channels),
        *_blocks(hyper_channels, depth, ratio),
        _conv3x3(hyper_channels, hyper_channels, stride=2),
        *_blocks(hyper_channels, depth, ratio),
        _conv3x3(hyper_channels, hyper_channels, stride=2),
    )


def hyper_synthesis(*, hyper_channels: int, depth: int, ratio: int) -> nn.Sequential:
    """Build h_s, which maps the decoded z to `2 * hyper_channels` parameters per position of y.

        z_hat -> conv3x3 ^2 -> blocks -> conv3x3 ^2 -> blocks -> conv3x3 -> parameters

    Args:
        hyper_channels: Channels of z.
        depth: Conv blocks per resolution.
        ratio: Expansion of the blocks' feed-forward nets.
    """
    return nn.Sequential(
        _upsample(hyper_channels),
        *_blocks(hyper_channels, depth, ratio),
        _upsample(hyper_channels),
        *_blocks(hyper_channels, depth, ratio),
        _conv3x3(hyper_channels, 2 * hyper_channels),
    )

"""g_s: latent y_hat -> image, the mirror of g_a.

y_hat --> up --> GFA -(+)--> up --> GFA -(+)--> up --> conv blocks -(+)--> up -(+)--> x_hat
|                     |                  |                          |           |
+--> wavelet 0 -------+--> wavelet 1 ----+--> wavelet 2 ------------+-> wavelet 3
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from glic_pyg.nn.conv import ConvBlock
from glic_pyg.nn.upsampling import Upsampling
from glic_pyg.nn.wavelet import WaveletUp


class SynthesisTransform(nn.Module):
    """Transform latents to images at 16 times their sides.

    Args:
        channels: Widths at H/2, H/4 and H/8.
        latent_channels: Channels of y.
        depths: Conv blocks at H/2, graph layers at H/4 and H/8.
        ffn_ratios: Expansion of the feed-forward parts at H/2, H/4 and H/8.
        graph_stages: Make the graph stage at H/4 and the one at H/8, of the keyword arguments `channels`,
            `depth` and `ffn_ratio`; a `GFAStage` with settings, for instance.
    """

    def __init__(
        self,
        *,
        channels: tuple[int, int, int],
        latent_channels: int,
        depths: tuple[int, int, int],
        ffn_ratios: tuple[int, int, int],
        graph_stages: tuple[Callable[..., nn.Module], Callable[..., nn.Module]],
    ) -> None:
        super().__init__()
        widths = (latent_channels, *channels[::-1], 3)
        steps = list(pairwise(widths))
        self.up = nn.ModuleList(Upsampling(c, d) for c, d in steps)
        self.shortcuts = nn.ModuleList(WaveletUp(c, d) for c, d in steps)
        self.stages = nn.ModuleList(
            [
                *(
                    graph_stages[i - 1](channels=channels[i], depth=depths[i], ffn_ratio=ffn_ratios[i])
                    for i in (2, 1)
                ),
                nn.Sequential(
                    *(ConvBlock(channels[0], channels[0], ratio=ffn_ratios[0]) for _ in range(depths[0]))
                ),
                nn.Identity(),
            ]
        )

    def forward(self, y_hat: Tensor) -> Tensor:
        """Transform `B x M x H x W` to x_hat, `B x 3 x 16H x 16W`, not clamped."""
        x = shortcut = y_hat.contiguous(memory_format=torch.channels_last)
        for up, stage, wavelet in zip(self.up, self.stages, self.shortcuts, strict=True):
            shortcut = wavelet(shortcut)
            x = up(x)
            x = stage(x) + shortcut
        return x

    def orthogonality_loss(self) -> Tensor:
        """Sum of the wavelet shortcuts' orthogonality losses."""
        losses: list[Tensor] = [wavelet.orthogonality_loss() for wavelet in self.shortcuts]  # type: ignore[operator]
        return sum(losses[1:], losses[0])

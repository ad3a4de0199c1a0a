"""g_a: image -> latent y.

x --> down --> conv blocks -(+)--> down --> GFA -(+)--> down --> GFA -(+)--> down -(+)--> y
|                           |                    |                    |             |
+--> wavelet 0 -------------+--> wavelet 1 ------+--> wavelet 2 ------+-> wavelet 3 +
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from glic_pyg.config import LATENT_STRIDE
from glic_pyg.nn.conv import ConvBlock
from glic_pyg.nn.wavelet import WaveletDown


class AnalysisTransform(nn.Module):
    """Transform images to latents at 1/16 of their sides.

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
        widths = (3, *channels, latent_channels)
        steps = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(c, d, 3, stride=2, padding=1) for c, d in steps)
        self.shortcuts = nn.ModuleList(WaveletDown(c, d) for c, d in steps)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(
                    *(ConvBlock(channels[0], channels[0], ratio=ffn_ratios[0]) for _ in range(depths[0]))
                ),
                *(
                    graph_stages[i - 1](channels=channels[i], depth=depths[i], ffn_ratio=ffn_ratios[i])
                    for i in (1, 2)
                ),
                nn.Identity(),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform.

        Args:
            x: `B x 3 x H x W` in [0, 1], H and W multiples of 16.

        Returns:
            y, `B x M x H/16 x W/16`.

        Raises:
            ValueError: a side is no multiple of 16.
        """
        if x.size(-2) % LATENT_STRIDE or x.size(-1) % LATENT_STRIDE:
            raise ValueError(
                f"Expected sides that are multiples of {LATENT_STRIDE} (got {tuple(x.shape[-2:])})"
            )
        # Positions are nodes in the graph stages and rows of matrices elsewhere.
        x = shortcut = x.contiguous(memory_format=torch.channels_last)
        for down, stage, wavelet in zip(self.down, self.stages, self.shortcuts, strict=True):
            shortcut = wavelet(shortcut)
            x = down(x)  # in a line of its own: the larger map before it is freed
            x = stage(x) + shortcut
        return x

    def orthogonality_loss(self) -> Tensor:
        """Sum of the wavelet shortcuts' orthogonality losses."""
        losses: list[Tensor] = [wavelet.orthogonality_loss() for wavelet in self.shortcuts]  # type: ignore[operator]
        return sum(losses[1:], losses[0])

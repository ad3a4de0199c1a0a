"""How much a node's surroundings vary: the score that sets its number of neighbours."""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from glic_pyg.graph.kernels.sobel import sobel
from glic_pyg.kernels import HasKernels

Pooling = Literal["rms", "mean"]
EPS = 1e-9  # keeps scores above zero where nothing varies
DAMPING = 1.5
_SIDE = math.exp(-0.5 / 0.8**2)
BLUR = _SIDE / (1 + 2 * _SIDE), 1 / (1 + 2 * _SIDE)
"""Outer and middle weight of a Gaussian of 3 taps and standard deviation 0.8."""


class Score(nn.Module):
    """How much a node's surroundings vary.

    `forward` maps a feature map `B x C x H x W`, of any size and without gradient, to positive scores
    `B x H x W`; only their ratios within a picture count. It may not change its input. A score may have
    weights: a graph stage then scales what its layers add to each node by the node's score (see
    `GraphBuilder`), from which they get a gradient.
    """


class ChannelScore(Score):
    """A score of every channel by itself, pooled over the channels; subclasses say which.

    Args:
        pooling: `rms`, the root of the mean square, or `mean`.

    Raises:
        ValueError: another pooling.
    """

    def __init__(self, *, pooling: Pooling = "rms") -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise ValueError(f"Expected pooling to be one of {', '.join(get_args(Pooling))} (got {pooling})")
        self.pooling = pooling

    def forward(self, feature_map: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H W"]:
        score = self.of_channels(feature_map)
        return score.square().mean(dim=1).sqrt() if self.pooling == "rms" else score.mean(dim=1)

    def of_channels(self, feature_map: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Map `B x C x H x W` to positive scores of the same shape."""
        raise NotImplementedError


class Sobel(HasKernels, ChannelScore):
    """The blurred magnitude of the Sobel gradient; with `rms` the published score.

    The kernels of the CPU compute it in one pass, in float32, where no gradient is wanted.
    """

    def forward(self, feature_map: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H W"]:
        wanted = self.kernels_for(feature_map) == "cpu" and not feature_map.requires_grad
        if wanted and feature_map.dtype == torch.float32:
            outer, centre = BLUR
            return sobel(feature_map, outer=outer, centre=centre, eps=EPS, squares=self.pooling == "rms")
        return super().forward(feature_map)

    def of_channels(self, feature_map: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        height, width = feature_map.shape[-2:]
        padded = F.pad(feature_map, (1, 1, 1, 1), mode="replicate")
        along_x = (padded[..., :width] - padded[..., 2:]) / 4
        along_y = (padded[..., :height, :] - padded[..., 2:, :]) / 4
        gradient_x = along_x[..., :-2, :] + 2 * along_x[..., 1:-1, :] + along_x[..., 2:, :]
        gradient_y = along_y[..., :-2] + 2 * along_y[..., 1:-1] + along_y[..., 2:]
        return _blur(torch.sqrt(gradient_x**2 + gradient_y**2 + EPS))


class LocalEntropy(ChannelScore):
    """The entropy of the histogram of the values in a window around each position.

        H = -sum_b p_b log2 p_b

    The bins divide the range of each picture's channel evenly. The paper names this score, without window
    or bins.

    Args:
        pooling: See `ChannelScore`.
        bins: Of the histogram, up to 64.
        window: Its side, odd, up to 31; at the border values are repeated.

    Raises:
        ValueError: an even window, or a number that is too small or too large.
    """

    def __init__(self, *, pooling: Pooling = "rms", bins: int = 8, window: int = 5) -> None:
        super().__init__(pooling=pooling)
        if bins not in range(2, 65) or window not in range(1, 32, 2):
            raise ValueError(f"Expected 2 to 64 bins and an odd window up to 31 (got {bins} and {window})")
        self.bins = bins
        self.window = window

    def of_channels(self, feature_map: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        low, high = (f(feature_map, dim=(2, 3), keepdim=True) for f in (torch.amin, torch.amax))
        level = (feature_map - low) / (high - low).clamp_min(torch.finfo(feature_map.dtype).tiny)
        bin_ = (level * self.bins).long().clamp_max(self.bins - 1)
        padded = F.pad(bin_.to(feature_map.dtype), (self.window // 2,) * 4, mode="replicate")
        entropy = torch.full_like(feature_map, EPS)
        for b in range(self.bins):
            share = F.avg_pool2d((padded == b).to(feature_map.dtype), self.window, stride=1)
            entropy = entropy - torch.xlogy(share, share) / math.log(2)
        return entropy


class RescalingResidual(ChannelScore):
    """What is lost when the map is halved and doubled again, both bilinearly.

        sqrt((x - up(down(x)))^2 + 1e-9)

    The paper names this score, without the kernels.
    """

    def of_channels(self, feature_map: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        size = feature_map.shape[-2:]
        half = F.interpolate(feature_map, [-(-side // 2) for side in size], mode="bilinear")
        residual = feature_map - F.interpolate(half, size, mode="bilinear")
        return torch.sqrt(residual**2 + EPS)


class Uniform(Score):
    """The same score everywhere: every node gets the same number of neighbours."""

    def forward(self, feature_map: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H W"]:
        return torch.ones_like(feature_map[:, 0])


def _blur(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Blur along both axes by `BLUR`."""
    outer, centre = BLUR
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    x = outer * (x[..., :-2] + x[..., 2:]) + centre * x[..., 1:-1]
    return outer * (x[..., :-2, :] + x[..., 2:, :]) + centre * x[..., 1:-1, :]


def damp(score: Float[Tensor, "B H W"]) -> Float[Tensor, "B H W"]:
    """Reduce the contrast of each picture's score map: its mean stays, deviations go by `1 / DAMPING`."""
    mean = score.mean(dim=(-2, -1), keepdim=True)
    return mean + (score - mean) / DAMPING

"""How much a node's surroundings vary: the score that sets its number of neighbours."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def sobel_rms(feature_map: Tensor) -> Tensor:
    """Score each position by the blurred Sobel magnitude of its features, root mean square over channels.

    Args:
        feature_map: `B x C x H x W`.

    Returns:
        `B x H x W`, positive.
    """
    height, width = feature_map.shape[-2:]
    padded = F.pad(feature_map, (1, 1, 1, 1), mode="replicate")
    along_x = (padded[..., :width] - padded[..., 2:]) / 4
    along_y = (padded[..., :height, :] - padded[..., 2:, :]) / 4
    gradient_x = along_x[..., :-2, :] + 2 * along_x[..., 1:-1, :] + along_x[..., 2:, :]
    gradient_y = along_y[..., :-2] + 2 * along_y[..., 1:-1] + along_y[..., 2:]
    magnitude = torch.sqrt(gradient_x**2 + gradient_y**2 + 1e-9)
    return _blur(magnitude).square().mean(dim=1).sqrt()


def _blur(x: Tensor) -> Tensor:
    """Blur with a separable 3-tap Gaussian of standard deviation 0.8."""
    side = math.exp(-0.5 / 0.8**2)
    outer, centre = side / (1 + 2 * side), 1 / (1 + 2 * side)
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    x = outer * (x[..., :-2] + x[..., 2:]) + centre * x[..., 1:-1]
    return outer * (x[..., :-2, :] + x[..., 2:, :]) + centre * x[..., 1:-1, :]


def damp(score: Tensor) -> Tensor:
    """Reduce the contrast of each picture's score map: its mean stays, deviations are divided by 1.5."""
    mean = score.mean(dim=(-2, -1), keepdim=True)
    return mean + (score - mean) / 1.5

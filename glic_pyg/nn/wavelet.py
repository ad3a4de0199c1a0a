"""Wavelet shortcuts: Haar transform, gain per channel, linear map (AuxT)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def haar(x: Tensor) -> Tensor:
    """Orthonormal Haar transform of every channel.

    Args:
        x: `B x C x H x W`, even sizes.

    Returns:
        `B x 4C x H/2 x W/2`, all LL channels, then LH, HL, HH.
    """
    top, bottom = x[..., 0::2, :], x[..., 1::2, :]
    add, subtract = (top + bottom) / 2, (top - bottom) / 2
    left, right = add[..., 0::2], add[..., 1::2]
    left_, right_ = subtract[..., 0::2], subtract[..., 1::2]
    return torch.cat([left + right, left_ + right_, left - right, left_ - right_], dim=1)


def inverse_haar(x: Tensor) -> Tensor:
    """Invert `haar`: `B x 4C x H x W` to `B x C x 2H x 2W`."""
    ll, lh, hl, hh = x.chunk(4, dim=1)
    top_add, top_subtract = (ll + lh) / 2, (hl + hh) / 2
    bottom_add, bottom_subtract = (ll - lh) / 2, (hl - hh) / 2
    top = torch.stack([top_add + top_subtract, top_add - top_subtract], dim=-1).flatten(-2)
    bottom = torch.stack([bottom_add + bottom_subtract, bottom_add - bottom_subtract], dim=-1).flatten(-2)
    return torch.stack([top, bottom], dim=-2).flatten(-3, -2)


class _WaveletShortcut(nn.Module):
    """The part both directions share: gains per subband channel and an almost orthogonal linear map."""

    def __init__(self, in_channels: int, out_channels: int, wavelet_channels: int) -> None:
        super().__init__()
        gains = torch.full((wavelet_channels,), 0.5)
        gains[wavelet_channels * 3 // 4 :] = 0  # the HH block
        self.log_scale = nn.Parameter(gains)
        self.linear = nn.Linear(in_channels, out_channels)

    def _map(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.linear.weight[..., None, None], self.linear.bias)

    def orthogonality_loss(self) -> Tensor:
        """Mean squared difference between the smaller Gram matrix of the linear map and the identity."""
        weight = self.linear.weight
        gram = weight @ weight.T if weight.size(1) > weight.size(0) else weight.T @ weight
        return F.mse_loss(gram, torch.eye(len(gram), device=gram.device))


class WaveletDown(_WaveletShortcut):
    """Halve a feature map's sides: Haar transform, times `exp(log_scale)`, linear map `4C -> C'`.

    Args:
        in_channels: `C`.
        out_channels: `C'`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(4 * in_channels, out_channels, 4 * in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `B x C x H x W` to `B x C' x H/2 x W/2`."""
        return self._map(haar(x) * self.log_scale.exp()[:, None, None])


class WaveletUp(_WaveletShortcut):
    """Double a feature map's sides: linear map `C -> 4C'`, over `exp(log_scale)`, inverse Haar transform.

    Args:
        in_channels: `C`.
        out_channels: `C'`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, 4 * out_channels, 4 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `B x C x H x W` to `B x C' x 2H x 2W`."""
        return inverse_haar(self._map(x) * (-self.log_scale).exp()[:, None, None])

"""Wavelet shortcuts: Haar transform, gain per channel, linear map (AuxT).

All three are linear. They are folded into one convolution, whose weights follow from the learned ones, so
that the subbands are never stored.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from glic_pyg.kernels import HasKernels
from glic_pyg.nn.upsampling import upsample


def haar_kernels() -> Float[Tensor, "4 2 2"]:
    """Return the orthonormal Haar transform of 2 x 2 pixels, `4 x 2 x 2`: LL, LH, HL, HH."""
    low, high = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    return torch.stack([torch.outer(rows, columns) / 2 for columns in (low, high) for rows in (low, high)])


class _WaveletShortcut(HasKernels, nn.Module):
    """The part both directions share: gains per subband channel and an almost orthogonal linear map."""

    haar: Tensor

    def __init__(self, in_channels: int, out_channels: int, wavelet_channels: int) -> None:
        super().__init__()
        gains = torch.full((wavelet_channels,), 0.5)
        gains[wavelet_channels * 3 // 4 :] = 0  # the HH block
        self.log_scale = nn.Parameter(gains)
        self.linear = nn.Linear(in_channels, out_channels)
        self.register_buffer("haar", haar_kernels(), persistent=False)

    def orthogonality_loss(self) -> Float[Tensor, ""]:
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

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C_out H//2 W//2"]:
        """Map `B x C x H x W` to `B x C' x H/2 x W/2`."""
        return F.conv2d(x, *self.folded(), stride=2)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the convolution with stride 2 that it all is."""
        weight = (self.linear.weight * self.log_scale.exp()).unflatten(1, (4, -1))
        return torch.einsum("osc,sij->ocij", weight, self.haar), self.linear.bias


class WaveletUp(_WaveletShortcut):
    """Double a feature map's sides: linear map `C -> 4C'`, over `exp(log_scale)`, inverse Haar transform.

    Args:
        in_channels: `C`.
        out_channels: `C'`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, 4 * out_channels, 4 * out_channels)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C_out 2*H 2*W"]:
        """Map `B x C x H x W` to `B x C' x 2H x 2W`."""
        if self.kernels_for(x) == "cpu":
            return upsample(x, *self.folded())
        return F.pixel_shuffle(F.conv2d(x, *self.folded()), 2)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the 1x1 convolution, before a pixel shuffle, that it all is."""
        gain = (-self.log_scale).exp()
        weight = (self.linear.weight * gain[:, None]).unflatten(0, (4, -1))
        bias = (self.linear.bias * gain).unflatten(0, (4, -1))
        weight = torch.einsum("scn,sij->cijn", weight, self.haar).flatten(0, 2)
        bias = torch.einsum("sc,sij->cij", bias, self.haar).flatten()
        return weight[..., None, None], bias

"""The normed, gated feed-forward part in bands of a few rows, on the CPU.

Its hidden features are up to 8 times as wide as its input. Here they exist for one band at a time, which
stays in the processor's caches. Without gradients: to compute hidden features anew for a backward pass costs
more than to keep them.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from glic_pyg.nn.pointwise import linear

FEATURES_AT_ONCE = 1_500_000


@torch.no_grad()
def normed_feed_forward(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    project_in: Tensor,
    depthwise: Tensor | None,
    project_out: Tensor,
    eps: float,
) -> Tensor:
    r"""Normalise each position, expand, gate and project, and add the input.

    .. math:: x + W_{out}(\mathrm{GELU}(a) \odot b), \quad [a, b] = D(W_{in} \mathrm{LN}(x))

    Args:
        x: Maps with channels last, `B x H x W x C`, float32, on the CPU.
        norm_weight: `C`.
        norm_bias: `C`.
        project_in: `2K x C`.
        depthwise: Kernels of D, `2K x 1 x 3 x 3`; without, D is the identity.
        project_out: `C x K`.
        eps: Of the normalisation.

    Returns:
        Of x's shape.
    """
    x = x.contiguous()
    out = torch.empty_like(x)
    halo = 0 if depthwise is None else 1
    beyond = x.new_zeros(halo, x.size(2), len(project_in))
    for picture, result in zip(x, out, strict=True):
        height, width, channels = picture.shape
        hidden = beyond
        for top, bottom in bands(height, width, len(project_in)):
            # The band before has computed this one's first rows.
            known, first = (hidden[len(hidden) - 2 * halo :], top + halo) if top else (beyond, 0)
            rows = F.layer_norm(picture[first : bottom + halo], (channels,), norm_weight, norm_bias, eps)
            hidden = linear(rows, project_in)
            if halo:
                hidden = torch.cat([known, hidden, *([beyond] if bottom == height else [])])
            a, b = _mix(hidden, depthwise).chunk(2, dim=-1)
            torch.add(picture[top:bottom], linear(F.gelu(a).mul_(b), project_out), out=result[top:bottom])
    return out


def bands(height: int, width: int, channels: int) -> Iterator[tuple[int, int]]:
    """Cut a map into bands whose features fit the caches: yield first row and row after the last of each."""
    rows = max(1, FEATURES_AT_ONCE // (width * channels))
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _mix(hidden: Tensor, depthwise: Tensor | None) -> Tensor:
    """Convolve rows x W x 2K, which then lose the first and the last."""
    if depthwise is None:
        return hidden
    mixed = F.conv2d(hidden[None].movedim(3, 1), depthwise, padding=(0, 1), groups=len(depthwise))
    return mixed.movedim(1, 3)[0]

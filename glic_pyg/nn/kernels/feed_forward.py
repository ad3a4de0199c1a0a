"""The normed, gated feed-forward part in bands of a few rows, on the CPU.

Its hidden features are up to 8 times as wide as its input. Here they exist for one band at a time, which
stays in the processor's caches. Without gradients: to compute hidden features anew for a backward pass costs
more than to keep them.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

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
    channels = x.shape[3:]

    halo = 0 if depthwise is None else 1
    for picture, result in zip(x, out, strict=True):
        height, width, _ = picture.shape
        last = None
        for top, bottom in bands(height, width, len(project_in)):
            hidden = x.new_zeros(bottom - top + 2 * halo, width, len(project_in))
            first = top - halo
            if last is not None:  # the band before has computed its last rows already
                hidden[: 2 * halo] = last[len(last) - 2 * halo :]
                first = top + halo
            first = max(0, first)
            rows = F.layer_norm(picture[first : bottom + halo], channels, norm_weight, norm_bias, eps)
            inside = hidden[first - top + halo :][: len(rows)]
            torch.mm(rows.view(-1, x.size(3)), project_in.T, out=inside.view(-1, len(project_in)))
            last = hidden
            a, b = _mix(hidden, depthwise).view(-1, len(project_in)).chunk(2, dim=1)
            torch.addmm(
                picture[top:bottom].view(-1, x.size(3)), F.gelu(a).mul_(b), project_out.T,
                out=result[top:bottom].view(-1, x.size(3)),
            )  # fmt: skip
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

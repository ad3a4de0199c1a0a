"""The normed, gated feed-forward part in bands of a few rows, on the CPU.

Its hidden features are up to 8 times as wide as its input. Here they exist for one band at a time, which
stays in the processor's caches; the backward pass computes them anew.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FEATURES_AT_ONCE = 1_500_000

aten = torch.ops.aten


@torch.library.custom_op("glic_pyg::normed_feed_forward", mutates_args=(), device_types="cpu")
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


@normed_feed_forward.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("glic_pyg::normed_feed_forward_backward", mutates_args=(), device_types="cpu")
def _backward(
    grad_out: Tensor,
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    project_in: Tensor,
    depthwise: Tensor | None,
    project_out: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    x, grad_out = x.contiguous(), grad_out.contiguous()
    channels = x.shape[3:]
    normed, mean, inverse = aten.native_layer_norm(x, channels, norm_weight, norm_bias, eps)
    grad_normed = torch.zeros_like(x)
    grad_in, grad_out_weight = torch.zeros_like(project_in), torch.zeros_like(project_out)
    grad_depthwise = x.new_zeros(0) if depthwise is None else torch.zeros_like(depthwise)
    halo = 0 if depthwise is None else 1
    for picture, grad_picture, grad_result in zip(normed, grad_out, grad_normed, strict=True):
        height, width, _ = picture.shape
        for top, bottom in bands(height, width, len(project_in)):
            first, end = max(0, top - halo), min(height, bottom + halo)
            rows = picture[first:end].view(-1, x.size(3))
            hidden = x.new_zeros(bottom - top + 2 * halo, width, len(project_in))
            inside = slice(first - top + halo, end - top + halo)
            torch.mm(rows, project_in.T, out=hidden[inside].view(-1, len(project_in)))
            a, b = _mix(hidden, depthwise).view(-1, len(project_in)).chunk(2, dim=1)
            gate = F.gelu(a)
            grad_rows = grad_picture[top:bottom].view(-1, x.size(3))
            grad_out_weight.addmm_(grad_rows.T, gate * b)
            grad_gated = grad_rows @ project_out
            grad_mixed = torch.cat([aten.gelu_backward(grad_gated * b, a), grad_gated.mul_(gate)], dim=1)
            grad_hidden = _mix_backward(grad_mixed, hidden, depthwise, grad_depthwise)[inside]
            grad_hidden = grad_hidden.reshape(-1, len(project_in))
            grad_in.addmm_(grad_hidden.T, rows)
            grad_result[first:end].view(-1, x.size(3)).addmm_(grad_hidden, project_in)
    grad_x, grad_norm_weight, grad_norm_bias = aten.native_layer_norm_backward(
        grad_normed, x, channels, mean, inverse, norm_weight, norm_bias, [True, True, True]
    )
    return (
        grad_x.add_(grad_out), grad_norm_weight, grad_norm_bias, grad_in, grad_depthwise, grad_out_weight
    )  # fmt: skip


def _mix_backward(
    grad_mixed: Tensor, hidden: Tensor, depthwise: Tensor | None, grad_depthwise: Tensor
) -> Tensor:
    """Return the gradient of `_mix` by its rows, and add that by its kernels to `grad_depthwise`."""
    if depthwise is None:
        return grad_mixed.view_as(hidden)
    rows, width, channels = hidden.shape
    grad_hidden, grad_weight, _ = aten.convolution_backward(
        grad_mixed.view(1, rows - 2, width, channels).movedim(3, 1), hidden[None].movedim(3, 1), depthwise,
        None, [1, 1], [0, 1], [1, 1], False, [0, 0], channels, [True, True, False],
    )  # fmt: skip
    grad_depthwise += grad_weight
    return grad_hidden.movedim(1, 3)[0]


@_backward.register_fake
def _(grad_out: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(grad_out.new_empty(0 if x is None else x.shape) for x in inputs[:-1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors  # asked for once: checkpointing computes them anew
    *grads, grad_depthwise, grad_project_out = _backward(grad_out, *tensors, ctx.eps)
    return *grads, None if tensors[4] is None else grad_depthwise, grad_project_out, None


normed_feed_forward.register_autograd(_differentiate, setup_context=_save)

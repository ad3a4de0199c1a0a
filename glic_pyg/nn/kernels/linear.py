"""A linear map of nodes, written where attention reads it, in compiled code, with gradients."""

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from glic_pyg.compiled import compiled
from glic_pyg.eager import eager
from glic_pyg.nn.kernels.feed_forward import EMPTY, FAST, crop, fill, repeat
from glic_pyg.nn.kernels.feed_forward import norm as normalise
from glic_pyg.nn.kernels.feed_forward_gradients import norm_and_factors, scale_and_shift, through_norm
from glic_pyg.products import LANES, multiply, multiply_transposed, packed, padded
from glic_pyg.threads import in_ranges, share_out

NODES = 64  # at a time
NO_NORM = -1.0  # as eps


@eager
def linear_parts(
    x: Tensor, weight: Tensor, bias: Tensor, *, first: int, norm: nn.LayerNorm | None = None
) -> tuple[Tensor, Tensor]:
    """Return a linear map of nodes in two parts, the second one with a row of zeros at its end.

    Args:
        x: `N x C`, float32, on the CPU.
        weight: `C' x C`.
        bias: `C'`.
        first: Outputs of the first part.
        norm: What normalises the nodes before, if anything does.

    Returns:
        `N x first`, and `(N + 1) x (C' - first)`.
    """
    of_norm = (None, None, NO_NORM) if norm is None else (norm.weight, norm.bias, float(norm.eps))
    return _LinearParts.apply(x, weight, bias, first, *of_norm)


class _LinearParts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        first: int,
        scale: Tensor | None,
        shift: Tensor | None,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        ctx.eps = eps
        ctx.save_for_backward(x, weight, scale, shift)
        one, other = x.new_empty(len(x), first), x.new_empty(len(x) + 1, len(weight) - first)
        other[-1] = 0
        if scale is not None and shift is not None:
            weight, bias = weight * scale, weight @ shift + bias
        start = np.zeros(padded(len(bias)), np.float32)
        start[: len(bias)] = bias.detach().numpy()
        arrays = (x.detach().contiguous().numpy(), packed(weight.T), start, eps)
        in_ranges(partial(_linear_parts, *arrays, one.numpy(), other.numpy()), len(x))
        return one, other

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_one: Tensor, grad_other: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, shift = ctx.saved_tensors
        (outputs, channels), grad_x = weight.shape, torch.zeros_like(x, memory_format=torch.contiguous_format)
        arrays = (
            *(t.detach().contiguous().numpy() for t in (x, grad_one, grad_other)),
            packed(weight, row_parts=1),
            *(EMPTY if t is None else t.detach().contiguous().numpy() for t in (scale, shift)),
            ctx.eps,
            grad_x.numpy(),
        )
        wanted = any(ctx.needs_input_grad[1:])
        shapes = [(outputs, padded(channels)), (1, padded(outputs)), (2, channels)]
        threads = torch.get_num_threads()
        sums = [
            [np.zeros(rows * columns * wanted, np.float32) for rows, columns in shapes]
            for _ in range(threads)
        ]
        parts = list(pairwise(len(x) * thread // threads for thread in range(threads + 1)))
        share_out(
            lambda thread: _linear_parts_backward(*arrays, *sums[thread], *parts[thread]), range(threads)
        )
        if not wanted:
            return grad_x, *(None,) * 6
        of_weight, of_bias, of_norm = (
            torch.from_numpy(sum(of_threads[1:], of_threads[0])).view(shape)
            for of_threads, shape in zip(zip(*sums, strict=True), shapes, strict=True)
        )
        of_scale, of_shift = (None, None) if scale is None else of_norm
        return grad_x, of_weight[:, :channels], of_bias[0, :outputs], None, of_scale, of_shift, None


@compiled()
def _linear_parts(x, weight, bias, eps, one, other, start, stop):
    """Map some nodes; normalise them before unless `eps` is below zero."""
    channels, columns, width = x.shape[1], len(bias), one.shape[1]
    rows, product = x.reshape(x.size), np.empty(NODES * columns, np.float32)
    normed = np.empty(NODES * channels, np.float32)
    for first in range(start, stop, NODES):
        count = min(NODES, stop - first)
        repeat(product, 0, bias, count)
        if eps < 0:
            multiply(
                rows, first * channels, channels, count, weight, 0, channels, columns, product, 0, columns
            )
        else:
            normalise(x, first, first + count, eps, normed)
            multiply(normed, 0, channels, count, weight, 0, channels, columns, product, 0, columns)
        for i in range(count):
            for c in range(width):
                one[first + i, c] = product[i * columns + c]
            for c in range(other.shape[1]):
                other[first + i, c] = product[i * columns + width + c]


@compiled(fastmath=FAST)
def _linear_parts_backward(
    x, grad_one, grad_other, weight, scale, bias, eps, grad_x, of_weight, of_bias, of_norm, start, stop
):  # fmt: skip
    """Set the gradients of some nodes, zeros before, and add those of weights, if any are wanted."""
    channels, width, other = x.shape[1], grad_one.shape[1], grad_other.shape[1]
    outputs, inner = padded(width + other), padded(channels)
    flat_x, flat_out = x.reshape(x.size), grad_x.reshape(x.size)
    grads, product = np.zeros(NODES * outputs, np.float32), np.empty(NODES * inner, np.float32)
    normed, factors = np.empty(NODES * channels, np.float32), np.empty(NODES, np.float32)
    mapped = np.zeros(NODES * channels + len(LANES), np.float32)  # whose last row is read as whole vectors
    one = np.ones(1, np.float32)  # times which rows are summed
    for first in range(start, stop, NODES):
        count, at = min(NODES, stop - first), first * channels
        for i in range(count):
            for c in range(width):
                grads[i * outputs + c] = grad_one[first + i, c]
            for c in range(other):
                grads[i * outputs + width + c] = grad_other[first + i, c]
        fill(product, 0, 0, count, inner)
        multiply(grads, 0, outputs, count, weight, 0, outputs, inner, product, 0, inner)
        if eps < 0:
            mapped[: count * channels] = flat_x[at : at + count * channels]
            crop(product, channels, count, flat_out, at)
        else:
            norm_and_factors(flat_x, at, channels, count, eps, normed, factors)
            scale_and_shift(normed, scale, bias, count, mapped)
            through_norm(
                product, inner, normed, factors, scale, flat_out, at, channels, count, flat_out, of_norm
            )
        if len(of_weight):
            multiply_transposed(
                grads, 0, outputs, width + other, mapped, 0, channels, count, inner, of_weight
            )
            multiply_transposed(one, 0, 0, 1, grads, 0, outputs, count, outputs, of_bias)

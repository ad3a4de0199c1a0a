"""A linear map of nodes, written where attention reads it, in compiled code, without gradients."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from glic_pyg.compiled import compiled
from glic_pyg.eager import eager
from glic_pyg.nn.kernels.feed_forward import norm as normalise
from glic_pyg.nn.kernels.feed_forward import repeat
from glic_pyg.products import multiply, packed, padded
from glic_pyg.threads import in_ranges

NODES = 64  # at a time


@eager
@torch.no_grad()
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
    one, other = x.new_empty(len(x), first), x.new_empty(len(x) + 1, len(weight) - first)
    other[-1] = 0
    eps = -1.0
    if norm is not None:
        weight, bias, eps = weight * norm.weight, weight @ norm.bias + bias, norm.eps
    start = np.zeros(padded(len(bias)), np.float32)
    start[: len(bias)] = bias.numpy()
    arrays = (x.detach().contiguous().numpy(), packed(weight.T), start, float(eps))
    in_ranges(partial(_linear_parts, *arrays, one.numpy(), other.numpy()), len(x))
    return one, other


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

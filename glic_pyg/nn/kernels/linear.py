"""Linear maps of nodes with what comes before or after them, in one pass, on the CPU, without gradients."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from glic_pyg.compiled import compiled
from glic_pyg.nn.kernels.feed_forward import FAST, norm, repeat
from glic_pyg.products import multiply, packed, padded
from glic_pyg.threads import in_ranges

NODES = 64  # at a time


@torch.no_grad()
def normed_linear(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float, weight: Tensor, bias: Tensor, *, first: int
) -> tuple[Tensor, Tensor]:
    """Return a linear map of normalised nodes in two parts, the second with a row of zeros at the end.

    Args:
        x: `N x C`, float32, on the CPU.
        norm_weight: `C`.
        norm_bias: `C`.
        eps: Of the normalisation.
        weight: `C' x C`.
        bias: `C'`.
        first: Outputs of the first part.

    Returns:
        `N x first`, and `(N + 1) x (C' - first)`.
    """
    parts = x.new_empty(len(x), first), x.new_empty(len(x) + 1, len(weight) - first)
    parts[1][-1] = 0
    product, start = _laid_out(weight * norm_weight, bias + weight @ norm_bias)
    arrays = (x.detach().contiguous().numpy(), product, start, np.float32(eps))
    in_ranges(partial(_normed_linear, *arrays, *(part.numpy() for part in parts)), len(x))
    return parts


@torch.no_grad()
def added_linear(x: Tensor, nodes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return nodes plus a linear map of others.

    Args:
        x: What is mapped, `N x C`, float32, on the CPU.
        nodes: What the map is added to, `N x C'`.
        weight: `C' x C`.
        bias: `C'`.

    Returns:
        `N x C'`.
    """
    out = x.new_empty(nodes.shape)
    arrays = (x.detach().contiguous().numpy(), *_laid_out(weight, bias), nodes.detach().contiguous().numpy())
    in_ranges(partial(_added_linear, *arrays, out.numpy()), len(x))
    return out


def _laid_out(weight: Tensor, bias: Tensor) -> tuple[np.ndarray, np.ndarray]:
    start = np.zeros(padded(len(bias)), np.float32)
    start[: len(bias)] = bias.numpy()
    return packed(weight.T.numpy()), start


@compiled(fastmath=FAST)
def _normed_linear(x, weight, bias, eps, one, other, start, stop):
    channels, columns, width = x.shape[1], len(bias), one.shape[1]
    normed, product = np.empty(NODES * channels, np.float32), np.empty(NODES * columns, np.float32)
    for first in range(start, stop, NODES):
        count = min(NODES, stop - first)
        norm(x, first, first + count, eps, normed)
        repeat(product, 0, bias, count)
        multiply(normed, 0, channels, count, weight, 0, channels, columns, product, 0, columns)
        for i in range(count):
            for c in range(width):
                one[first + i, c] = product[i * columns + c]
            for c in range(other.shape[1]):
                other[first + i, c] = product[i * columns + width + c]


@compiled(fastmath=FAST)
def _added_linear(x, weight, bias, nodes, out, start, stop):
    channels, columns = x.shape[1], len(bias)
    rows, product = x.reshape(x.size), np.empty(NODES * columns, np.float32)
    for first in range(start, stop, NODES):
        count = min(NODES, stop - first)
        repeat(product, 0, bias, count)
        multiply(rows, first * channels, channels, count, weight, 0, channels, columns, product, 0, columns)
        for i in range(count):
            for c in range(out.shape[1]):
                out[first + i, c] = nodes[first + i, c] + product[i * columns + c]

"""The score by Sobel gradients in one pass over the map, in compiled code, on the CPU."""

from functools import partial

import numba
import numpy as np
from torch import Tensor

from glic_pyg.compiled import compiled
from glic_pyg.threads import in_ranges

FAST = {"contract", "reassoc", "nsz", "arcp"}


def sobel(feature_map: Tensor, *, outer: float, centre: float, eps: float, squares: bool) -> Tensor:
    """Compute what `glic_pyg.graph.complexity.Sobel` does.

    Args:
        feature_map: `B x C x H x W`, float32.
        outer: Weight of a neighbour in the blur, along an axis.
        centre: Weight of the position itself.
        eps: Added to the square of a gradient.
        squares: Whether channels are pooled by the root of their mean square, or by their mean.

    Returns:
        `B x H x W`.
    """
    x = feature_map.detach().movedim(1, -1).contiguous()
    out = x.new_empty(x.shape[:3])
    weights = (np.float32(outer), np.float32(centre), np.float32(eps))
    work = partial(_sobel, x.numpy(), *weights, squares, out.view(-1, x.size(2)).numpy())
    in_ranges(work, x.size(0) * x.size(1))
    return out


@compiled(fastmath=FAST)
def _sobel(x, outer, centre, eps, squares, out, start, stop):
    """Compute rows `start` to `stop` of all pictures' together."""
    _, height, width, channels = x.shape
    magnitude = np.empty((width, channels), np.float32)
    ring, known = np.empty((3, width, channels), np.float32), np.full(3, -1)  # blurred along their rows
    for line in range(start, stop):
        picture, row = line // height, line % height
        if row == 0 or line == start:
            for k in range(3):
                known[k] = -1
        above, below = max(row - 1, 0), min(row + 1, height - 1)
        for wanted in (above, row, below):
            if known[wanted % 3] != wanted:
                _magnitude(x[picture], wanted, eps, magnitude)
                _blur(magnitude, outer, centre, ring[wanted % 3])
                known[wanted % 3] = wanted
        a, b, c = ring[above % 3], ring[row % 3], ring[below % 3]
        for column in range(width):
            total = np.float32(0)
            for k in range(channels):
                value = outer * (a[column, k] + c[column, k]) + centre * b[column, k]
                total += value * value if squares else value
            mean = total / np.float32(channels)
            out[line, column] = np.sqrt(mean) if squares else mean


@numba.njit(fastmath=FAST)
def _magnitude(x, row, eps, out):
    height, width, channels = x.shape
    a, b, c = x[max(row - 1, 0)], x[row], x[min(row + 1, height - 1)]
    for column in range(width):
        left, right = max(column - 1, 0), min(column + 1, width - 1)
        for k in range(channels):
            along_x = a[left, k] - a[right, k] + 2 * (b[left, k] - b[right, k]) + c[left, k] - c[right, k]
            along_y = a[left, k] - c[left, k] + 2 * (a[column, k] - c[column, k]) + a[right, k] - c[right, k]
            out[column, k] = np.sqrt((along_x * along_x + along_y * along_y) * np.float32(1 / 16) + eps)


@numba.njit(fastmath=FAST)
def _blur(x, outer, centre, out):
    width, channels = x.shape
    for column in range(width):
        left, right = max(column - 1, 0), min(column + 1, width - 1)
        for k in range(channels):
            out[column, k] = outer * (x[left, k] + x[right, k]) + centre * x[column, k]

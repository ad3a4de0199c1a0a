"""Feed-forward parts and conv blocks in one pass over the map, on the CPU.

Their hidden features are up to 8 times as wide as their input. Here they exist for some positions at a time,
which stay in the processor's caches: for as many rows of a strip of the map as a depthwise convolution reads.
Their gradients are in `glic_pyg.nn.kernels.feed_forward_gradients`.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from glic_pyg.compiled import compiled
from glic_pyg.eager import eager
from glic_pyg.products import LANES, ONE, THREE, multiply, packed, padded, wide
from glic_pyg.simd import convolve, full, load, maximum, one_above, store
from glic_pyg.threads import share_out

POSITIONS, LEAST = 64, 8  # of a strip's row, at most, and where its features are many
FEATURES = 1 << 18  # of the rows of a strip that a depthwise convolution reads, at most
BANDS = 4  # parts of the maps for each thread, at least
FAST = {"contract", "reassoc", "nsz", "arcp"}

FIVE = LANES[:5]  # as long as the side of a conv block's kernels

GELU_TOP = (2.27494585e-08, 6.35192823e-06, 0.000168815034, 0.00467719769, 0.0338517256, 0.398942235)
GELU_BOTTOM = (1.19749222e-06, 7.36434281e-05, 0.00188438685, 0.0286453264, 0.251519613, 1.0)
GELU_END = 5.5
"""Of polynomials of x^2, from the highest power on, whose fraction is (Phi(x) - 1/2) / x, within 1e-8 / x."""


class FeedForward(NamedTuple):
    """Weights of a normed, gated feed-forward part, as compiled code reads them.

    Args:
        project_in: `C x 2K`, `packed`, times the normalisation's weights. K counts zero channels, too, up to
            whole vectors.
        bias: What the normalisation's bias makes of it, `2K`.
        depthwise: `3 * 3 * 2K`, or nothing.
        project_out: `K x C`, `packed`.
        eps: Of the normalisation.
    """

    project_in: np.ndarray
    bias: np.ndarray
    depthwise: np.ndarray
    project_out: np.ndarray
    eps: float


EMPTY = np.empty(0, np.float32)
NOTHING = FeedForward(EMPTY, EMPTY, EMPTY, EMPTY, 0.0)


class Mixing(NamedTuple):
    """Weights of the other part of a conv block, as compiled code reads them.

    Args:
        conv1: `C x C1`, `packed`; C1 are C channels up to whole vectors.
        bias1: `C1`.
        depthwise: `5 * 5 * C1`.
        bias: `C1`.
        conv2: `C1 x C'`, `packed`.
        bias2: `C'`, up to whole vectors, with the adaptor's.
        adaptor: `C x C'`, `packed`, or nothing.
    """

    conv1: np.ndarray
    bias1: np.ndarray
    depthwise: np.ndarray
    bias: np.ndarray
    conv2: np.ndarray
    bias2: np.ndarray
    adaptor: np.ndarray


@torch.no_grad()
def feed_forward_weights(
    project_in: Tensor,
    scale: Tensor,
    shift: Tensor,
    depthwise: Tensor | None,
    project_out: Tensor,
    eps: float,
) -> FeedForward:
    """Lay out the weights of a feed-forward part.

    Args:
        project_in: Of the convolution, `2K x C x 1 x 1`.
        scale: Of the normalisation, `C`.
        shift: Of the normalisation, `C`.
        depthwise: Kernels of D, `2K x 1 x 3 x 3`; without, D is the identity.
        project_out: Of the convolution, `C x K x 1 x 1`.
        eps: Of the normalisation.
    """
    matrix = project_in.flatten(1)
    return FeedForward(
        packed(matrix.T, column_parts=2, scale=scale),
        wide((matrix @ shift)[None], 2),
        EMPTY if depthwise is None else wide(depthwise.flatten(1).T, 2),
        packed(project_out.flatten(1).T, row_parts=1),
        float(eps),
    )


@torch.no_grad()
def mixing_weights(
    conv1: Tensor,
    bias1: Tensor,
    depthwise: Tensor,
    bias: Tensor,
    conv2: Tensor,
    bias2: Tensor,
    adaptor: Tensor | None,
) -> Mixing:
    """Lay out the weights of the other part of a conv block.

    Args:
        conv1: `C x C x 1 x 1`.
        bias1: `C`.
        depthwise: `C x 1 x 5 x 5`.
        bias: `C`.
        conv2: `C' x C x 1 x 1`.
        bias2: `C'`, with the adaptor's.
        adaptor: `C' x C x 1 x 1`, or none.
    """
    return Mixing(
        packed(conv1.flatten(1).T),
        wide(bias1[None]),
        wide(depthwise.flatten(1).T),
        wide(bias[None]),
        packed(conv2.flatten(1).T, row_parts=1),
        wide(bias2[None]),
        EMPTY if adaptor is None else packed(adaptor.flatten(1).T),
    )


@eager
@torch.no_grad()
def normed_feed_forward(x: Tensor, weights: FeedForward, hidden: Tensor | None = None) -> Tensor:
    r"""Normalise each position, expand, gate and project, and add the input.

    .. math:: x + W_{out}(\mathrm{GELU}(a) \odot b), \quad [a, b] = D(W_{in} \mathrm{LN}(x))

    Args:
        x: Maps with channels last, `B x H x W x C`, float32, on the CPU.
        weights: As `feed_forward_weights` returns them.
        hidden: Is set to \( W_{in} \mathrm{LN}(x) \), `B x H x W x 2K` with K up to whole vectors, if given.

    Returns:
        Of x's shape.
    """
    x = x.detach().contiguous()
    out = torch.empty_like(x)
    rows = 3 if len(weights.depthwise) else 1
    arrays = (x.numpy(), out.numpy(), EMPTY if hidden is None else hidden.flatten().numpy())
    _in_parts(x, rows * len(weights.bias), partial(_feed_forward, *arrays, weights, rows))
    return out


@eager
@torch.no_grad()
def conv_block(x: Tensor, mixing: Mixing, weights: FeedForward | None, out_channels: int) -> Tensor:
    """Mix positions and feed forward, see `glic_pyg.nn.conv.ConvBlock`.

    Args:
        x: Maps with channels last, `B x H x W x C`, float32, on the CPU.
        mixing: As `mixing_weights` returns them.
        weights: As `feed_forward_weights` returns them, without a depthwise convolution; without any, what
            would be fed forward is returned.
        out_channels: C'.

    Returns:
        `B x H x W x C'`.
    """
    x = x.detach().contiguous()
    out = x.new_empty(*x.shape[:3], out_channels)
    arrays = (x.numpy(), out.numpy(), mixing, NOTHING if weights is None else weights)
    _in_parts(x, 5 * len(mixing.bias), partial(_conv_block, *arrays))
    return out


def strip_width(features: int) -> int:
    """Return how many columns of a map are worked on at a time.

    Args:
        features: Of each column, in the rows that are held.
    """
    return max(LEAST, min(POSITIONS, FEATURES // features))


def _in_parts(x: Tensor, features: int, work: Callable[..., object]) -> None:
    """Call a function in threads with parts of the maps.

    Args:
        x: The maps.
        features: That a depthwise convolution reads of each column.
        work: Takes parts, `P x 5`, each with its picture, first row and row after the last, and the same of
            columns.
    """
    batch_size, height, width, _ = x.shape
    widest = strip_width(features)
    strips = -(-width // widest)
    # What a band of rows reads above and below is computed twice: as few bands as occupy all threads evenly.
    threads, bands = torch.get_num_threads(), 1
    while (
        threads > 1
        and bands < height
        and (batch_size * strips * bands % threads or batch_size * strips * bands < BANDS * threads)
    ):
        bands += 1
    rows, columns = max(1, -(-height // bands)), -(-width // strips)
    parts = [
        (picture, top, min(top + rows, height), left, min(left + columns, width))
        for picture, top, left in product(range(batch_size), range(0, height, rows), range(0, width, columns))
    ]
    calls = 1 if threads == 1 else max(1, len(parts))  # a call takes as long as a small part
    share_out(work, np.array_split(np.array(parts, np.int64).reshape(-1, 5), calls))


@compiled(fastmath=FAST)
def _feed_forward(x, out, kept, weights, rows, parts):
    """Compute parts of the maps: `rows` is 3 with a depthwise convolution, 1 without."""
    for part in range(len(parts)):
        picture, top, bottom, left, right = parts[part]
        _feed_forward_part(x, out, kept, weights, rows, picture, top, bottom, left, right)


@numba.njit(fastmath=FAST)
def _feed_forward_part(x, out, kept, weights, rows, picture, top, bottom, left, right):
    height, width, channels = x.shape[1:]
    hidden, count, halo = len(weights.bias), right - left, rows // 2
    ring = np.empty(rows * (count + 2 * halo) * hidden, np.float32)
    normed = np.empty((count + 2 * halo) * channels, np.float32)
    mixed = np.empty(count * hidden, np.float32)
    gated = np.empty(count * hidden // 2, np.float32)
    product = np.empty(count * padded(channels), np.float32)
    flat_x, flat_out = x.reshape(x.size), out.reshape(x.size)
    line = (count + 2 * halo) * hidden
    first, end = max(0, left - halo), min(width, right + halo)
    for row in range(top - halo, bottom + halo):
        at = row % rows * line
        if 0 <= row < height:
            norm(x[picture, row], first, end, weights.eps, normed)
            place = at + (first - left + halo) * hidden
            fill(ring, at, 0, first - left + halo, hidden)
            repeat(ring, place, weights.bias, end - first)
            multiply(
                normed, 0, channels, end - first, weights.project_in, 0, channels, hidden, ring, place, hidden
            )
            fill(ring, at, end - left + halo, count + 2 * halo, hidden)
            if len(kept) and top <= row < bottom:
                start = ((picture * height + row) * width + left) * hidden
                kept[start : start + count * hidden] = ring[at + halo * hidden : at + (count + halo) * hidden]
        else:
            fill(ring, at, 0, count + 2 * halo, hidden)
        if row < top + halo:
            continue
        if halo:
            mix(THREE, ring, row - 2, line, weights.depthwise, weights.bias, False, hidden, mixed, count)
            _gate(mixed, hidden, gated, count)
        else:
            _gate(ring, hidden, gated, count)
        _project(gated, weights.project_out, hidden // 2, product, count, channels)
        start = position(x, picture, row - halo, left)
        add(product, flat_x, start, channels, count, flat_out, start)


@compiled(fastmath=FAST)
def _conv_block(x, out, mixing, weights, parts):
    for part in range(len(parts)):
        picture, top, bottom, left, right = parts[part]
        _conv_block_part(x, out, mixing, weights, picture, top, bottom, left, right)


@numba.njit(fastmath=FAST)
def _conv_block_part(x, out, mixing, weights, picture, top, bottom, left, right):
    height, width, channels = x.shape[1:]
    inner, hidden, count, halo = len(mixing.bias), len(weights.bias), right - left, 2
    out_channels, outer = out.shape[3], len(mixing.bias2)
    line = (count + 2 * halo) * inner
    ring = np.empty(5 * line, np.float32)
    flat_x, flat = x.reshape(x.size), np.empty(count * inner, np.float32)
    flat_out, between = out.reshape(out.size), np.empty(count * out_channels, np.float32)
    normed, positions = np.empty(count * out_channels, np.float32), between.reshape(count, out_channels)
    wide, gated = np.empty(count * hidden, np.float32), np.empty(count * hidden // 2, np.float32)
    product = np.empty(count * outer, np.float32)
    first, end = max(0, left - halo), min(width, right + halo)
    for row in range(top - halo, bottom + halo):
        at = row % 5 * line
        if 0 <= row < height:
            place = at + (first - left + halo) * inner
            fill(ring, at, 0, first - left + halo, inner)
            repeat(ring, place, mixing.bias1, end - first)
            start = position(x, picture, row, first)
            multiply(
                flat_x, start, channels, end - first, mixing.conv1, 0, channels, inner, ring, place, inner
            )
            for i in range(place, place + (end - first) * inner):
                ring[i] = max(ring[i], np.float32(0.01) * ring[i])
            fill(ring, at, end - left + halo, count + 2 * halo, inner)
        else:
            fill(ring, at, 0, count + 2 * halo, inner)
        if row < top + halo:
            continue
        target = row - halo
        mix(FIVE, ring, row - 4, line, mixing.depthwise, mixing.bias, True, inner, flat, count)
        repeat(product, 0, mixing.bias2, count)
        multiply(flat, 0, inner, count, mixing.conv2, 0, inner, outer, product, 0, outer)
        start = position(x, picture, target, left)
        if len(mixing.adaptor):
            multiply(flat_x, start, channels, count, mixing.adaptor, 0, channels, outer, product, 0, outer)
            crop(product, out_channels, count, between, 0)
        else:
            add(product, flat_x, start, channels, count, between, 0)
        start = position(out, picture, target, left)
        if hidden == 0:
            flat_out[start : start + len(between)] = between
            continue
        norm(positions, 0, count, weights.eps, normed)
        repeat(wide, 0, weights.bias, count)
        multiply(normed, 0, out_channels, count, weights.project_in, 0, out_channels, hidden, wide, 0, hidden)
        _gate(wide, hidden, gated, count)
        _project(gated, weights.project_out, hidden // 2, product, count, out_channels)
        add(product, between, 0, out_channels, count, flat_out, start)


@numba.njit
def position(x, picture, row, column):
    """Return where a position's channels begin in an array of maps."""
    return ((picture * x.shape[1] + row) * x.shape[2] + column) * x.shape[3]


@numba.njit(fastmath=FAST)
def norm(x, first, end, eps, out):
    """Normalise positions `first` to `end` of a row."""
    channels = x.shape[1]
    for i in range(first, end):
        total, squares = np.float32(0), np.float32(0)
        for c in range(channels):
            total += x[i, c]
        mean = total / np.float32(channels)
        for c in range(channels):
            squares += (x[i, c] - mean) * (x[i, c] - mean)
        factor = np.float32(1) / np.sqrt(squares / np.float32(channels) + np.float32(eps))
        at = (i - first) * channels
        for c in range(channels):
            out[at + c] = (x[i, c] - mean) * factor


@numba.njit
def fill(out, at, first, end, features):
    """Set the features of some positions, beyond the map, to zero."""
    for i in range(at + first * features, at + end * features, 8):
        store(out, i, full(LANES, 0.0))


@numba.njit
def add(product, x, at, channels, count, out, to):
    """Set some positions' channels to those of another array plus a product's, whose columns are `padded`."""
    columns, whole = padded(channels), channels // 8 * 8
    for i in range(count):
        start, place, end = i * columns, at + i * channels, to + i * channels
        for c in range(0, whole, 8):
            store(out, end + c, load(LANES, x, place + c) + load(LANES, product, start + c))
        for c in range(whole, channels):
            out[end + c] = x[place + c] + product[start + c]


@numba.njit
def crop(product, channels, count, out, to):
    """Set some positions' channels to a product's, whose columns are `padded`."""
    for i in range(count):
        for c in range(channels):
            out[to + i * channels + c] = product[i * padded(channels) + c]


@numba.njit
def repeat(out, at, bias, count):
    """Set the features of each position to the bias."""
    for i in range(at, at + count * len(bias), len(bias)):
        for c in range(0, len(bias), 8):
            store(out, i + c, load(LANES, bias, c))


@numba.njit
def _project(gated, weight, length, out, count, channels):
    columns = padded(channels)
    fill(out, 0, 0, count, columns)
    multiply(gated, 0, length, count, weight, 0, length, columns, out, 0, columns)


@numba.njit(fastmath=FAST)
def mix(side, ring, first, line, weight, bias, has_bias, features, out, count):
    """Convolve depthwise, with `side x side x features`: rows from `first` on, all of a ring of as many."""
    top = first % len(side)
    for c in range(0, features, 8):
        start = full(LANES, 0.0)
        if has_bias:
            start = load(LANES, bias, c)
        if count < len(LANES):
            for i in range(c, c + count * features, features):
                convolve(side, LANES, ONE, ring, top, line, i, weight, c, features, start, out, i)
        else:
            for i in range(0, count, 8):
                at = min(i, count - 8) * features + c  # some of the last ones twice, which takes no longer
                convolve(side, LANES, LANES, ring, top, line, at, weight, c, features, start, out, at)


@numba.njit(fastmath=FAST)
def _gate(x, features, out, count):
    """Multiply the second half of each position's features by the GELU of the first."""
    half = features // 2
    for i in range(count):
        for c in range(0, half, 8):
            a = load(LANES, x, i * features + c)
            store(out, i * half + c, _gelu(a) * load(LANES, x, i * features + half + c))


@numba.njit(fastmath=FAST)
def _gelu(x):
    return x * normal_share(x)


@numba.njit(fastmath=FAST)
def normal_share(x):
    """Return Phi(x), the share of normally distributed numbers that is below."""
    bounded = maximum(-maximum(-x, full(LANES, -GELU_END)), full(LANES, -GELU_END))
    square = bounded * bounded
    top, bottom = square * GELU_TOP[0] + GELU_TOP[1], square * GELU_BOTTOM[0] + GELU_BOTTOM[1]
    top, bottom = top * square + GELU_TOP[2], bottom * square + GELU_BOTTOM[2]
    top, bottom = top * square + GELU_TOP[3], bottom * square + GELU_BOTTOM[3]
    top, bottom = top * square + GELU_TOP[4], bottom * square + GELU_BOTTOM[4]
    top, bottom = top * square + GELU_TOP[5], bottom * square + GELU_BOTTOM[5]
    return (bounded * top / bottom + 0.5) * one_above(x, full(LANES, -GELU_END))

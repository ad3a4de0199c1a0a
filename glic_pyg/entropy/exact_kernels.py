"""The exact networks in compiled code, on the CPU, bit for bit what torch computes.

Sums are of integers, so they may run in any order. All else is one operation of IEEE 754 after the other, as
`glic_pyg.entropy.exact` has them: nothing here may be compiled with leave to change that.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numba
import numpy as np
from torch import Tensor

from glic_pyg.compiled import compiled
from glic_pyg.nn.kernels.feed_forward import FIVE, mix
from glic_pyg.products import multiply, packed_pairs, padded
from glic_pyg.threads import in_ranges, parts_of, share_out

POSITIONS = 64  # at a time
QMAX = 255
"""Largest integer of an activation that a convolution reads."""
NORM_QMAX = 4096
"""The same before a normalisation: squares are exact up to here."""
TINY = 1e-20
GELU_COEFFICIENTS = (0.078108, 0.000972, 0.230389, 0.278393)
"""Of the polynomial of `exact.gelu`, the highest power first."""

_QMAX, _NORM_QMAX, _TINY = np.float32(QMAX), np.float32(NORM_QMAX), np.float32(TINY)
_STEP, _NORM_STEP = np.float32(1 / QMAX), np.float32(1 / NORM_QMAX)
_GELU = tuple(np.float32(c) for c in GELU_COEFFICIENTS)
_SLOPE = np.float32(0.01)  # of a `ConvBlock`'s leaky rectifier
_ROOT_OF_HALF = np.float32(0.5**0.5)


class Linear(NamedTuple):
    """A convolution of one position, as compiled code reads it.

    Args:
        weight: Integers, `C x C'`, `packed_pairs`.
        step: `C'`.
        bias: `C'`, or nothing.
    """

    weight: np.ndarray
    step: np.ndarray
    bias: np.ndarray


class FeedForward(NamedTuple):
    """A `GatedFeedForward` of exact modules, without a depthwise convolution.

    Args:
        norm_weight: `C`.
        norm_bias: `C`.
        eps: Of the normalisation.
        project_in: From C to 2K channels.
        project_out: From K to C channels.
    """

    norm_weight: np.ndarray
    norm_bias: np.ndarray
    eps: float
    project_in: Linear
    project_out: Linear


class Depthwise(NamedTuple):
    """A depthwise 5x5 convolution, as compiled code reads it.

    Args:
        weight: Integers, `5 * 5 * C`, C up to whole vectors.
        step: `C`.
        bias: `C`.
    """

    weight: np.ndarray
    step: np.ndarray
    bias: np.ndarray


class Dense(NamedTuple):
    """A dense convolution, as compiled code reads it.

    Args:
        taps: Row and column of those places of the kernel that have a weight, `T x 2`.
        weight: Integers, for each tap `C x C'`, `packed_pairs`.
        step: `C'`.
        bias: `C'`, or nothing.
        side: Of the kernel, as wide as high.
        stride: Along both axes.
        padding: Likewise.
    """

    taps: np.ndarray
    weight: np.ndarray
    step: np.ndarray
    bias: np.ndarray
    side: int
    stride: int
    padding: int


def dense_taps(weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Lay out the weight of a dense convolution, `C' x C x K x K`: taps and weight, see `Dense`."""
    taps = weight.any(0).any(0).nonzero()
    pairs = [packed_pairs(weight[:, :, row, column].T) for row, column in taps]
    return taps.numpy(), np.concatenate([np.empty(0, np.int32), *pairs])


def linear(x: np.ndarray, weights: Linear) -> np.ndarray:
    """Map positions as an `ExactConv2d` of one position does.

    Args:
        x: `N x C`, float32, without gaps.
        weights: The convolution.

    Returns:
        `N x C'`.
    """
    out = np.empty((len(x), len(weights.step)), np.float32)
    _linear(x, weights, out)
    return out


def feed_forward(x: np.ndarray, weights: FeedForward) -> np.ndarray:
    """Map positions, `N x C`, as `linear` has them, as the `GatedFeedForward` does."""
    out = np.empty(x.shape, np.float32)
    _feed_forward(x, weights, out)
    return out


def convolution(x: np.ndarray, weights: Dense) -> np.ndarray:
    """Map a picture's map as an `ExactConv2d` of several positions does.

    Args:
        x: `H x W x C`, float32, without gaps.
        weights: The convolution.

    Returns:
        `H' x W' x C'`.
    """
    beyond = 2 * weights.padding - weights.side
    height, width = ((length + beyond) // weights.stride + 1 for length in x.shape[:2])
    out = np.empty((height, width, len(weights.step)), np.float32)
    largest = max(x.max(), -x.min())
    in_ranges(partial(_convolution, x, largest, weights, out), height)
    return out


def conv_block(
    x: np.ndarray, conv1: Linear, depthwise: Depthwise, conv2: Linear, adaptor: Linear, ffn: FeedForward
) -> np.ndarray:
    """Map a picture's map as a `ConvBlock` of exact modules does.

    Args:
        x: `H x W x C`, float32, without gaps.
        conv1: The block's.
        depthwise: The block's.
        conv2: The block's.
        adaptor: The block's; as `conv2` where it has none.
        ffn: The block's.

    Returns:
        `H x W x C'`.
    """
    hidden, out = np.empty_like(x), np.empty((*x.shape[:2], len(conv2.step)), np.float32)
    rows = list(pairwise(parts_of(len(x))))
    largest = share_out(lambda part: _hidden(x[slice(*part)], conv1, hidden[slice(*part)]), rows)
    weights = hidden, np.max(largest, axis=0), depthwise, conv2, adaptor, ffn
    in_ranges(partial(_conv_block, x, *weights, out), len(x))
    return out


@compiled(error_model="numpy")
def _linear(x, weights, out):
    channels, outputs = x.shape[1], out.shape[1]
    rows, flat, scratch = x.reshape(x.size), out.reshape(out.size), _scratch(max(channels, outputs))
    for first in range(0, len(x), POSITIONS):
        count = min(POSITIONS, len(x) - first)
        _map(rows, first * channels, channels, count, weights, flat, first * outputs, scratch)


@compiled(error_model="numpy")
def _feed_forward(x, weights, out):
    channels, rows, flat = x.shape[1], x.reshape(x.size), out.reshape(out.size)
    scratch = _scratch(max(channels, len(weights.project_in.step)))
    for first in range(0, len(x), POSITIONS):
        at, count = first * channels, min(POSITIONS, len(x) - first)
        _feed(rows, at, channels, count, weights, flat[at:], scratch)


@compiled(error_model="numpy")
def _convolution(x, largest, weights, out, top, bottom):
    """Compute rows `top` to `bottom` of the output."""
    height, width, channels = x.shape
    outputs, stride, padding = out.shape[2], weights.stride, weights.padding
    scale, step = _scale_and_step(largest, _QMAX, _STEP)
    start, sides, pairs = top * stride - padding, width + 2 * padding, (channels + 1) // 2
    lines = (bottom - 1 - top) * stride + weights.side
    integers = np.zeros(lines * sides * 2 * pairs, np.int16)
    for row in range(max(start, 0), min(start + lines, height)):
        for i in range(width):
            at = ((row - start) * sides + padding + i) * 2 * pairs
            for c in range(channels):
                integers[at + c] = np.int16(np.rint(x[row, i, c] * scale))
    columns, count = padded(outputs), out.shape[1]
    product, steps, flat = np.empty(count * columns, np.int32), np.full(count, step), out.reshape(out.size)
    for row in range(top, bottom):
        product[:] = 0
        for tap in range(len(weights.taps)):
            line = (row - top) * stride + weights.taps[tap, 0]
            at, weight_at = (line * sides + weights.taps[tap, 1]) * pairs, tap * pairs * columns
            multiply(
                integers.view(np.int32), at, stride * pairs, count, weights.weight, weight_at, pairs, columns,
                product, 0, columns,
            )  # fmt: skip
        _in_steps(product, columns, count, steps, weights, flat, row * count * outputs)


@compiled(error_model="numpy")
def _hidden(x, conv1, out):
    """Set what a block's depthwise convolution reads, and return the largest magnitude of each channel."""
    height, width, channels = x.shape
    largest = np.zeros(channels, np.float32)
    rows, flat, scratch = x.reshape(x.size), out.reshape(out.size), _scratch(channels)
    for first in range(0, height * width, POSITIONS):
        count = min(POSITIONS, height * width - first)
        _map(rows, first * channels, channels, count, conv1, flat, first * channels, scratch)
        for i in range(first, first + count):
            for c in range(channels):
                value = flat[i * channels + c]
                value = value if value > 0 else value * _SLOPE
                flat[i * channels + c] = value
                largest[c] = max(largest[c], abs(value))
    return largest


@compiled(error_model="numpy")
def _conv_block(x, hidden, largest, depthwise, conv2, adaptor, ffn, out, top, bottom):
    """Compute rows `top` to `bottom` of a map, of what `_hidden` made of it."""
    height, width, channels = x.shape
    outputs, wide = out.shape[2], padded(channels)
    line, flat_x, flat = (width + 4) * wide, x.reshape(x.size), out.reshape(out.size)
    scale, step = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for c in range(channels):
        scale[c], step[c] = _scale_and_step(largest[c], _QMAX, _STEP)
    ring, sums = np.zeros(5 * line, np.float32), np.empty(width * wide, np.float32)
    mixed, scratch = np.empty(width * channels, np.float32), _scratch(max(channels, len(ffn.project_in.step)))
    between, shortcut = np.empty(POSITIONS * outputs, np.float32), np.empty(POSITIONS * outputs, np.float32)
    for row in range(top - 2, bottom + 2):
        at = row % 5 * line + 2 * wide
        for i in range(width):
            for c in range(channels):
                inside = 0 <= row < height
                ring[at + i * wide + c] = np.rint(hidden[row, i, c] * scale[c]) if inside else 0
        if row < top + 2:
            continue
        target = row - 2
        mix(FIVE, ring, row - 4, line, depthwise.weight, depthwise.bias, False, wide, sums, width)
        for i in range(width):
            for c in range(channels):
                value = sums[i * wide + c] * step[c] * depthwise.step[c]
                mixed[i * channels + c] = value + depthwise.bias[c]
        for first in range(0, width, POSITIONS):
            count, place = min(POSITIONS, width - first), target * width + first
            _map(mixed, first * channels, channels, count, conv2, between, 0, scratch)
            if channels != outputs:
                _map(flat_x, place * channels, channels, count, adaptor, shortcut, 0, scratch)
            else:
                for i in range(count * channels):
                    shortcut[i] = flat_x[place * channels + i]
            for i in range(count * outputs):
                between[i] = shortcut[i] + between[i]
            _feed(between, 0, outputs, count, ffn, flat[place * outputs :], scratch)


@numba.njit
def _scratch(channels):
    """Return room for some positions' integers, values, sums and steps."""
    size = POSITIONS * padded(channels)
    values, steps = np.empty(size, np.float32), np.empty(POSITIONS, np.float32)
    return np.empty(size, np.int16), values, np.empty(size, np.int32), steps


@numba.njit(error_model="numpy")
def _map(x, at, channels, count, weights, out, out_at, scratch):
    """Map some positions by a `Linear`."""
    columns, (integers, _, product, steps) = padded(len(weights.step)), scratch
    _quantise(x, at, channels, count, _QMAX, _STEP, integers, steps)
    _product(integers, channels, count, weights.weight, product, columns)
    _in_steps(product, columns, count, steps, weights, out, out_at)


@numba.njit(error_model="numpy")
def _in_steps(product, columns, count, steps, weights, out, out_at):
    """Turn sums of integers into what they stand for, and add the bias."""
    outputs = len(weights.step)
    for i in range(count):
        at, to = i * columns, out_at + i * outputs
        if len(weights.bias):
            for o in range(outputs):
                out[to + o] = np.float32(product[at + o]) * steps[i] * weights.step[o] + weights.bias[o]
        else:
            for o in range(outputs):
                out[to + o] = np.float32(product[at + o]) * steps[i] * weights.step[o]


@numba.njit(error_model="numpy")
def _feed(x, at, channels, count, weights, out, scratch):
    """Map some positions by a `FeedForward`; `out` begins with them as `x` does at `at`."""
    into, out_of = weights.project_in, weights.project_out
    hidden = len(into.step) // 2
    wide, narrow, length = padded(2 * hidden), padded(channels), channels + channels % 2
    integers, values, product, steps = scratch
    _quantise(x, at, channels, count, _NORM_QMAX, _NORM_STEP, integers, steps)
    for i in range(count):
        mean, deviation = _moments(integers, i * length, channels, np.float64(steps[i]), weights.eps)
        for c in range(channels):
            value = (np.float32(integers[i * length + c]) - mean) / deviation
            values[i * channels + c] = value * weights.norm_weight[c] + weights.norm_bias[c]
    _quantise(values, 0, channels, count, _QMAX, _STEP, integers, steps)
    _product(integers, channels, count, into.weight, product, wide)
    for i in range(count):
        for k in range(hidden):
            a = np.float32(product[i * wide + k]) * steps[i] * into.step[k]
            b = np.float32(product[i * wide + hidden + k]) * steps[i] * into.step[hidden + k]
            values[i * hidden + k] = _gelu(a) * b
    _quantise(values, 0, hidden, count, _QMAX, _STEP, integers, steps)
    _product(integers, hidden, count, out_of.weight, product, narrow)
    for i in range(count):
        for c in range(channels):
            value = np.float32(product[i * narrow + c]) * steps[i] * out_of.step[c]
            out[i * channels + c] = x[at + i * channels + c] + value


@numba.njit(error_model="numpy")
def _quantise(x, at, channels, count, qmax, share, out, steps):
    """Set integers of at most `qmax`, a zero behind an odd number of them, and the step of each position."""
    bits, one = x.view(np.int32), np.empty(1, np.int32)  # of magnitudes, in the order of these
    length = channels + channels % 2
    for i in range(count):
        start, most = at + i * channels, np.int32(0)
        for c in range(channels):
            most = max(most, bits[start + c] & np.int32(0x7FFFFFFF))
        one[0] = most
        scale, steps[i] = _scale_and_step(one.view(np.float32)[0], qmax, share)
        for c in range(channels):
            out[i * length + c] = np.int16(np.rint(x[start + c] * scale))
        if length > channels:
            out[i * length + channels] = 0


@numba.njit(error_model="numpy")
def _scale_and_step(largest, qmax, share):
    """Return by what numbers up to a largest one are multiplied before rounding, and what integers mean."""
    if largest < _TINY:
        largest = _TINY
    return np.float32(1) / largest * qmax, largest * share


@numba.njit
def _product(integers, length, count, weight, out, columns):
    pairs = (length + 1) // 2
    for i in range(count * columns):
        out[i] = 0
    multiply(integers.view(np.int32), 0, pairs, count, weight, 0, pairs, columns, out, 0, columns)


@numba.njit(error_model="numpy")
def _moments(integers, at, channels, step, eps):
    """Return mean and deviation of a position's integers, the latter with its part of `eps`."""
    total, squares = _sums(integers, at, channels)
    share = 1 / channels
    mean, variance = total * share, squares * share
    variance = variance - mean * mean
    if variance < 0:
        variance = 0.0
    return np.float32(mean), np.float32(np.sqrt(variance + 1 / (step * step) * eps))


@numba.njit(fastmath={"reassoc"})  # integers, in float64: no order of theirs is inexact
def _sums(integers, at, channels):
    total, squares = np.float64(0), np.float64(0)
    for c in range(at, at + channels):
        value = np.float64(integers[c])
        total += value
        squares += value * value
    return total, squares


@numba.njit(error_model="numpy")
def _gelu(x):
    magnitude = abs(x)
    t = magnitude * _ROOT_OF_HALF
    p = t * _GELU[0]
    p = (p + _GELU[1]) * t
    p = (p + _GELU[2]) * t
    p = (p + _GELU[3]) * t
    p = p + np.float32(1)
    p = p * p
    p = p * p
    return max(x, np.float32(0)) - magnitude * np.float32(0.5) / p

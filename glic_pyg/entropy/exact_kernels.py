"""The exact networks' maps of single positions in compiled code, on the CPU, bit for bit what torch computes.

Sums are of integers, so they may run in any order. All else is one operation of IEEE 754 after the other, as
`glic_pyg.entropy.exact` has them: nothing here may be compiled with leave to change that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numba
import numpy as np
from torch import Tensor

from glic_pyg.compiled import compiled
from glic_pyg.products import multiply, packed
from glic_pyg.threads import in_ranges

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
_ROOT_OF_HALF = np.float32(0.5**0.5)


def linear(x: Tensor, weight: Tensor, step: Tensor, bias: Tensor | None) -> Tensor:
    """Map positions as an `ExactConv2d` of one position does.

    Args:
        x: `N x C`, float32, on the CPU.
        weight: Integers, `C' x C`.
        step: `C'`.
        bias: `C'`.

    Returns:
        `N x C'`.
    """
    out = x.new_empty(len(x), len(weight))
    rest = x[0, :0].numpy() if bias is None else bias.numpy()
    work = partial(_linear, x.contiguous().numpy(), packed(weight.numpy().T), step.numpy(), rest, out.numpy())
    in_ranges(work, len(x))
    return out


def feed_forward(
    x: Tensor, norm: Sequence[Tensor], eps: float, *convolutions: tuple[Tensor, Tensor]
) -> Tensor:
    """Map positions as a `GatedFeedForward` of exact modules, without a depthwise convolution, does.

    Args:
        x: `N x C`, float32, on the CPU.
        norm: Weight and bias of the normalisation, `C`.
        eps: Of the normalisation.
        convolutions: Weight, integers, and step of the two convolutions, `2K x C` and `C x K`.

    Returns:
        `N x C`.
    """
    out = x.new_empty(x.shape)
    weights = [array for weight, step in convolutions for array in (packed(weight.numpy().T), step.numpy())]
    arrays = (x.contiguous().numpy(), *(tensor.numpy() for tensor in norm), eps, *weights, out.numpy())
    in_ranges(partial(_feed_forward, *arrays), len(x))
    return out


@compiled(error_model="numpy")
def _linear(x, weight, step, bias, out, start, stop):
    channels, outputs = x.shape[1], out.shape[1]
    columns = (outputs + 7) // 8 * 8
    rows = x.reshape(x.size)
    integers, steps = np.empty(POSITIONS * channels, np.float32), np.empty(POSITIONS, np.float32)
    product = np.empty(POSITIONS * columns, np.float32)
    for first in range(start, stop, POSITIONS):
        count = min(POSITIONS, stop - first)
        _quantise(rows, first * channels, channels, count, _QMAX, _STEP, integers, steps)
        _product(integers, channels, count, weight, product, columns)
        for i in range(count):
            at = i * columns
            if len(bias):
                for o in range(outputs):
                    out[first + i, o] = product[at + o] * steps[i] * step[o] + bias[o]
            else:
                for o in range(outputs):
                    out[first + i, o] = product[at + o] * steps[i] * step[o]


@compiled(error_model="numpy")
def _feed_forward(x, norm_weight, norm_bias, eps, weight_in, step_in, weight_out, step_out, out, start, stop):
    channels, hidden = x.shape[1], len(step_in) // 2
    wide, narrow = (2 * hidden + 7) // 8 * 8, (channels + 7) // 8 * 8
    rows = x.reshape(x.size)
    integers, steps = np.empty(POSITIONS * max(channels, hidden), np.float32), np.empty(POSITIONS, np.float32)
    normed, gated = np.empty(POSITIONS * channels, np.float32), np.empty(POSITIONS * hidden, np.float32)
    product = np.empty(POSITIONS * max(wide, narrow), np.float32)
    for first in range(start, stop, POSITIONS):
        count = min(POSITIONS, stop - first)
        _quantise(rows, first * channels, channels, count, _NORM_QMAX, _NORM_STEP, integers, steps)
        for i in range(count):
            mean, deviation = _moments(integers, i * channels, channels, np.float64(steps[i]), eps)
            for c in range(channels):
                value = (integers[i * channels + c] - mean) / deviation
                normed[i * channels + c] = value * norm_weight[c] + norm_bias[c]
        _quantise(normed, 0, channels, count, _QMAX, _STEP, integers, steps)
        _product(integers, channels, count, weight_in, product, wide)
        for i in range(count):
            for k in range(hidden):
                a = product[i * wide + k] * steps[i] * step_in[k]
                b = product[i * wide + hidden + k] * steps[i] * step_in[hidden + k]
                gated[i * hidden + k] = _gelu(a) * b
        _quantise(gated, 0, hidden, count, _QMAX, _STEP, integers, steps)
        _product(integers, hidden, count, weight_out, product, narrow)
        for i in range(count):
            for c in range(channels):
                out[first + i, c] = x[first + i, c] + product[i * narrow + c] * steps[i] * step_out[c]


@numba.njit(error_model="numpy")
def _quantise(x, at, channels, count, qmax, share, out, steps):
    """Set integers of at most `qmax`, and the step of each position."""
    bits, one = x.view(np.int32), np.empty(1, np.int32)  # of magnitudes, in the order of these
    for i in range(count):
        start, most = at + i * channels, np.int32(0)
        for c in range(channels):
            most = max(most, bits[start + c] & np.int32(0x7FFFFFFF))
        one[0] = most
        largest = one.view(np.float32)[0]
        if largest < _TINY:
            largest = _TINY
        scale = np.float32(1) / largest * qmax
        steps[i] = largest * share
        for c in range(channels):
            out[i * channels + c] = np.rint(x[start + c] * scale)


@numba.njit
def _product(integers, length, count, weight, out, columns):
    for i in range(count * columns):
        out[i] = 0
    multiply(integers, 0, length, count, weight, 0, length, columns, out, 0, columns)


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

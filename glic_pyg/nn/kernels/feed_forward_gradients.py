"""Feed-forward parts and conv blocks with gradients, on the CPU.

Where channels are few, hidden features are not kept: the backward pass computes them anew for some rows of a
strip of the map, as the forward pass does. It takes their gradients on while they are in the processor's
caches. Where no gradient of weights is wanted, as when a picture's latents are refined, there is less to do.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from glic_pyg.compiled import compiled
from glic_pyg.eager import eager
from glic_pyg.nn.kernels.feed_forward import (
    EMPTY,
    FAST,
    FIVE,
    add,
    conv_block,
    crop,
    feed_forward_weights,
    fill,
    mix,
    mixing_weights,
    normal_share,
    normed_feed_forward,
    position,
    repeat,
    strip_width,
)
from glic_pyg.products import LANES, THREE, multiply, multiply_transposed, packed, padded
from glic_pyg.simd import correlate, exponential, full, load, store, total
from glic_pyg.threads import share_out

NORMAL_TOP = 0.3989422804
"""The normal distribution's density at 0."""
LEAK = 0.01
KEPT = 64
"""Channels from which on features are kept all the same: to multiply anew costs more than to read."""


class FeedForwardTransposed(NamedTuple):
    """Weights of a feed-forward part as its gradients read them.

    Args:
        project_in: `2K x C`, `packed`.
        depthwise: Mirrored kernels, `3 * 3 * 2K`, or nothing.
        project_out: `C x K`, `packed`.
    """

    project_in: np.ndarray
    depthwise: np.ndarray
    project_out: np.ndarray


class MixingTransposed(NamedTuple):
    """Weights of the other part of a conv block as its gradients read them.

    Args:
        conv1: `C1 x C`, `packed`.
        depthwise: Mirrored kernels, `5 * 5 * C1`.
        conv2: `C' x C1`, `packed`.
        adaptor: `C' x C`, `packed`, or nothing.
    """

    conv1: np.ndarray
    depthwise: np.ndarray
    conv2: np.ndarray
    adaptor: np.ndarray


class Sums(NamedTuple):
    """Sums of the gradients of weights; without entries where none are wanted.

    Args:
        first: Of the matrix that makes the features, `features x C`, C up to whole vectors, or `C x features`
            in a conv block.
        rest: Of the normalisation's weights, then of its biases, `2 * C`; in a conv block, of what is added
            to the features, `features`.
        depthwise: Of the kernels, `side * side x features`, or nothing.
        last: Of the matrix that reads the features, or half as many of a gate, `C' x features`.
    """

    first: np.ndarray
    rest: np.ndarray
    depthwise: np.ndarray
    last: np.ndarray


@eager
def feed_forward_with_gradients(x: Tensor, *weights: Any) -> Tensor:
    """Do what `normed_feed_forward` does, with weights as `feed_forward_weights` takes them.

    Args:
        x: `B x H x W x C`, float32, on the CPU.
        weights: Tensors and eps, see there.

    Returns:
        Of x's shape.
    """
    return _FeedForward.apply(x, *weights)


@eager
def mixing_with_gradients(x: Tensor, *weights: Tensor | None) -> Tensor:
    """Do what `conv_block` does before it feeds forward, with weights as `mixing_weights` takes them.

    Args:
        x: `B x H x W x C`, float32, on the CPU.
        weights: Tensors, and perhaps no adaptor, see there.

    Returns:
        `B x H x W x C'`.
    """
    return _Mixing.apply(x, *weights)


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Any) -> Tensor:
        ctx.laid_out, hidden = feed_forward_weights(*weights), None
        if x.size(3) >= KEPT:
            hidden = x.new_empty(*x.shape[:3], len(ctx.laid_out.bias))
        ctx.save_for_backward(x, *weights[:-1], hidden)
        return normed_feed_forward(x, ctx.laid_out, hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, *tensors, hidden = ctx.saved_tensors
        project_in, scale, shift, depthwise, project_out = tensors
        x, grad_out = x.contiguous(), grad_out.contiguous()
        grad_x = torch.empty_like(x)
        weights, side = ctx.laid_out, 1 if depthwise is None else 3
        features = len(weights.bias)
        transposed = FeedForwardTransposed(
            packed(project_in.flatten(1), row_parts=2),
            _mirrored(weights.depthwise, side),
            packed(project_out.flatten(1)),
        )
        kept = EMPTY if hidden is None else hidden.flatten().numpy()
        norm = scale.detach().contiguous().numpy(), shift.detach().contiguous().numpy()
        arrays = (x.detach().numpy(), grad_out.numpy(), grad_x.numpy(), kept, weights, transposed, *norm)
        channels, half = project_out.shape[:2]
        shapes = [
            (features, padded(channels)), (2, channels), (side * side, features), (channels, features // 2)
        ]  # fmt: skip
        sums = _sums_of_parts(
            x,
            2 * side * features,
            lambda *of_thread: _feed_forward_backward(*arrays, side, *of_thread),
            shapes if any(ctx.needs_input_grad[1:]) else [],
        )
        if not sums:
            return grad_x, *(None,) * 6
        first, rest, kernels, last = sums
        kernels = kernels.unflatten(1, (2, -1))[..., :half].flatten(1)
        return (
            grad_x,
            first.unflatten(0, (2, -1))[:, :half, :channels].reshape(project_in.shape),
            *rest,
            None if depthwise is None else kernels.T.reshape(depthwise.shape),
            last[:, :half].reshape(project_out.shape),
            None,
        )


class _Mixing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Any) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.laid_out = mixing_weights(*weights)
        return conv_block(x, ctx.laid_out, None, len(weights[4]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, conv1, _, depthwise, _, conv2, _, adaptor = ctx.saved_tensors
        x, grad_out = x.contiguous(), grad_out.contiguous()
        grad_x = torch.empty_like(x)
        mixing = ctx.laid_out
        transposed = MixingTransposed(
            packed(conv1.flatten(1), row_parts=1),
            _mirrored(mixing.depthwise, 5),
            packed(conv2.flatten(1)),
            EMPTY if adaptor is None else packed(adaptor.flatten(1)),
        )
        arrays = (x.detach().numpy(), grad_out.numpy(), grad_x.numpy(), mixing, transposed)
        channels, features = x.size(3), len(mixing.bias)
        shapes = [(channels, features), (1, features), (25, features), (len(conv2), features)]
        sums = _sums_of_parts(
            x,
            10 * features,
            lambda *of_thread: _mixing_backward(*arrays, *of_thread),
            shapes if any(ctx.needs_input_grad[1:]) else [],
        )
        if not sums:
            return grad_x, *(None,) * 7
        first, of_bias1, kernels, last = (s[:, :channels] for s in sums)
        of_bias2, of_adaptor = grad_out.sum((0, 1, 2)), None
        if adaptor is not None:
            of_adaptor = (grad_out.flatten(0, 2).T @ x.flatten(0, 2)).view_as(adaptor)
        return (
            grad_x,
            first.T.reshape(conv1.shape),
            of_bias1[0],
            kernels.T.reshape(depthwise.shape),
            of_bias2 @ conv2.flatten(1),
            last.reshape(conv2.shape),
            of_bias2,
            of_adaptor,
        )


def _mirrored(kernels: np.ndarray, side: int) -> np.ndarray:
    return np.ascontiguousarray(kernels.reshape(side * side, -1)[::-1]).ravel()


def _sums_of_parts(
    x: Tensor, features: int, work: Callable[..., object], shapes: list[tuple[int, int]]
) -> list[Tensor]:
    """Call a function in threads, each with about as many rows of strips of the maps, and sum what it sums.

    Args:
        x: The maps.
        features: Of each column, in the rows that are held.
        work: Takes parts, `P x 5`, each with its picture, first row and row after the last, and the same of
            columns; the columns of the widest strip; and sums to add to.
        shapes: Of the sums; may be none.
    """
    batch_size, height, width, _ = x.shape
    strip = strip_width(features)
    strips = list(product(range(batch_size), range(0, width, strip)))
    threads = torch.get_num_threads()
    bounds = pairwise(len(strips) * height * thread // threads for thread in range(threads + 1))
    parts = [np.array(list(_rows(strips, height, width, strip, *own)), np.int64) for own in bounds]
    sums = [[np.zeros(rows * columns, np.float32) for rows, columns in shapes] for _ in parts]
    nothing = [np.empty(0, np.float32)] * 4
    share_out(
        lambda thread: work(parts[thread].reshape(-1, 5), strip, Sums(*(sums[thread] or nothing))),
        range(threads),
    )
    return [
        torch.from_numpy(sum(of_threads[1:], of_threads[0])).view(shape)
        for of_threads, shape in zip(zip(*sums, strict=True), shapes, strict=True)
    ]


def _rows(strips: list[tuple[int, int]], height: int, width: int, strip: int, first: int, end: int) -> Any:
    """Yield the parts of some rows of all strips, one strip after the other."""
    while first < end:
        picture, left = strips[first // height]
        top = first % height
        bottom = min(height, top + end - first)
        yield picture, top, bottom, left, min(left + strip, width)
        first += bottom - top


# Compiled code. `at` is where a row begins in a ring of rows, `place` its first position within the map.


@compiled(fastmath=FAST)
def _feed_forward_backward(
    x, grad_out, grad_x, kept, weights, transposed, scale, shift, side, parts, widest, sums
):  # fmt: skip
    height, width, channels = x.shape[1:]
    hidden, half, halo = len(weights.bias), len(weights.bias) // 2, side // 2
    flat_x, flat_grad, flat_out = x.reshape(x.size), grad_out.reshape(x.size), grad_x.reshape(x.size)
    most, columns = widest + 4 * halo, padded(channels)
    ring, grads = np.empty(side * most * hidden, np.float32), np.empty(side * most * hidden, np.float32)
    normed, factors = np.empty(most * channels, np.float32), np.empty(most, np.float32)
    shifted = np.zeros(widest * channels + len(LANES), np.float32)  # whose last row is read as whole vectors
    mixed, product = np.empty(most * hidden, np.float32), np.empty(widest * columns, np.float32)
    gated, grad_gated = np.empty(most * half, np.float32), np.empty(most * half, np.float32)
    for part in range(len(parts)):
        picture, top, bottom, left, right = parts[part]
        count = right - left
        line, short = (count + 4 * halo) * hidden, (count + 2 * halo) * hidden
        first, end = max(0, left - 2 * halo), min(width, right + 2 * halo)
        near, far = max(0, left - halo), min(width, right + halo)
        for row in range(top - 2 * halo, bottom + 2 * halo):
            at = row % side * line
            if 0 <= row < height:
                place = at + (first - left + 2 * halo) * hidden
                fill(ring, at, 0, first - left + 2 * halo, hidden)
                if len(kept):
                    start, size = ((picture * height + row) * width + first) * hidden, (end - first) * hidden
                    ring[place : place + size] = kept[start : start + size]
                else:
                    start = position(x, picture, row, first)
                    norm_and_factors(flat_x, start, channels, end - first, weights.eps, normed, factors)
                    repeat(ring, place, weights.bias, end - first)
                    multiply(
                        normed, 0, channels, end - first, weights.project_in, 0, channels, hidden, ring,
                        place, hidden,
                    )  # fmt: skip
                fill(ring, at, end - left + 2 * halo, count + 4 * halo, hidden)
            else:
                fill(ring, at, 0, count + 4 * halo, hidden)
            middle = row - halo
            if middle < top - halo:
                continue
            at = middle % side * short
            if 0 <= middle < height:
                fill(grad_gated, 0, 0, far - near, half)
                start = position(x, picture, middle, near)
                multiply(
                    flat_grad, start, channels, far - near, transposed.project_out, 0, channels, half,
                    grad_gated, 0, half,
                )  # fmt: skip
                place = at + (near - left + halo) * hidden
                fill(grads, at, 0, near - left + halo, hidden)
                if halo:
                    mix(
                        THREE, ring, middle - 1, line, weights.depthwise, weights.bias, False, hidden, mixed,
                        count + 2,
                    )  # fmt: skip
                    begin = (near - left + halo) * hidden
                    _through_gate(mixed, begin, hidden, far - near, grad_gated, grads, place, gated)
                else:
                    _through_gate(ring, 0, hidden, far - near, grad_gated, grads, place, gated)
                fill(grads, at, far - left + halo, count + 2 * halo, hidden)
                if len(sums.last) and top <= middle < bottom:
                    start, begin = position(x, picture, middle, left), (left - near) * half
                    multiply_transposed(
                        flat_grad, start, channels, channels, gated, begin, half, count, half, sums.last
                    )
                    if halo:
                        own = at + halo * hidden
                        _add_kernels(
                            THREE, ring, hidden, middle - 1, line, hidden, grads, own, count, sums.depthwise
                        )
            else:
                fill(grads, at, 0, count + 2 * halo, hidden)
            target = middle - halo
            if target < top:
                continue
            grad_hidden = grads
            if halo:
                mix(
                    THREE, grads, target - 1, short, transposed.depthwise, weights.bias, False, hidden, mixed,
                    count,
                )  # fmt: skip
                grad_hidden = mixed
            start = position(x, picture, target, left)
            if halo or len(kept):
                norm_and_factors(flat_x, start, channels, count, weights.eps, normed, factors)
            fill(product, 0, 0, count, columns)
            multiply(
                grad_hidden, 0, hidden, count, transposed.project_in, 0, hidden, columns, product, 0, columns
            )
            if len(sums.first):
                scale_and_shift(normed, scale, shift, count, shifted)
                multiply_transposed(
                    grad_hidden, 0, hidden, hidden, shifted, 0, channels, count, columns, sums.first
                )
            through_norm(
                product, columns, normed, factors, scale, flat_grad, start, channels, count, flat_out,
                sums.rest,
            )  # fmt: skip


@compiled(fastmath=FAST)
def _mixing_backward(x, grad_out, grad_x, mixing, transposed, parts, widest, sums):
    height, width, channels = x.shape[1:]
    out_channels, features, side, halo = grad_out.shape[3], len(mixing.bias), 5, 2
    flat_x, flat_grad, flat_out = x.reshape(x.size), grad_out.reshape(grad_out.size), grad_x.reshape(x.size)
    most, columns, weighs = widest + 2 * halo, padded(channels), len(sums.first) > 0
    ring, grads = np.empty(side * most * features, np.float32), np.empty(side * most * features, np.float32)
    mixed, grad_ring = np.empty(widest * features, np.float32), np.empty(widest * features, np.float32)
    product = np.empty(widest * columns, np.float32)
    one = np.ones(1, np.float32)  # times which rows are summed
    for part in range(len(parts)):
        picture, top, bottom, left, right = parts[part]
        count = right - left
        line = (count + 2 * halo) * features
        first, end = max(0, left - halo), min(width, right + halo)
        for row in range(top - halo, bottom + halo):
            at = row % side * line
            if 0 <= row < height:
                place = at + (first - left + halo) * features
                fill(grads, at, 0, count + 2 * halo, features)
                multiply(
                    flat_grad, position(grad_out, picture, row, first), out_channels, end - first,
                    transposed.conv2, 0, out_channels, features, grads, place, features,
                )  # fmt: skip
                if weighs or top <= row < bottom:
                    fill(ring, at, 0, count + 2 * halo, features)
                    repeat(ring, place, mixing.bias1, end - first)
                    start = position(x, picture, row, first)
                    multiply(
                        flat_x, start, channels, end - first, mixing.conv1, 0, channels, features, ring,
                        place, features,
                    )  # fmt: skip
                    for i in range(place, place + (end - first) * features):
                        ring[i] = max(ring[i], np.float32(LEAK) * ring[i])
            else:
                fill(grads, at, 0, count + 2 * halo, features)
                fill(ring, at, 0, count + 2 * halo, features)
            target = row - halo
            if target < top:
                continue
            mix(
                FIVE, grads, target - 2, line, transposed.depthwise, mixing.bias, False, features, grad_ring,
                count,
            )  # fmt: skip
            own = target % side * line + halo * features
            for i in range(count * features):
                if ring[own + i] <= 0:
                    grad_ring[i] *= np.float32(LEAK)
            fill(product, 0, 0, count, columns)
            multiply(
                grad_ring, 0, features, count, transposed.conv1, 0, features, columns, product, 0, columns
            )
            start, begin = position(x, picture, target, left), position(grad_out, picture, target, left)
            if len(transposed.adaptor):
                multiply(
                    flat_grad, begin, out_channels, count, transposed.adaptor, 0, out_channels, columns,
                    product, 0, columns,
                )  # fmt: skip
                crop(product, channels, count, flat_out, start)
            else:
                add(product, flat_grad, begin, channels, count, flat_out, start)
            if weighs:
                multiply_transposed(
                    flat_x, start, channels, channels, grad_ring, 0, features, count, features, sums.first
                )
                multiply_transposed(one, 0, 0, 1, grad_ring, 0, features, count, features, sums.rest)
                _add_kernels(FIVE, ring, 0, target - 2, line, features, grads, own, count, sums.depthwise)
                mix(FIVE, ring, target - 2, line, mixing.depthwise, mixing.bias, True, features, mixed, count)
                multiply_transposed(
                    flat_grad, begin, out_channels, out_channels, mixed, 0, features, count, features,
                    sums.last,
                )  # fmt: skip


@numba.njit(fastmath=FAST)
def norm_and_factors(x, at, channels, count, eps, out, factors):
    """Normalise some positions, and tell by what factors each was multiplied."""
    whole = channels // 8 * 8
    for i in range(count):
        start, to = at + i * channels, i * channels
        sums = full(LANES, 0.0)
        for c in range(0, whole, 8):
            sums = sums + load(LANES, x, start + c)
        mean = total(sums)
        for c in range(whole, channels):
            mean += x[start + c]
        mean /= np.float32(channels)
        sums = full(LANES, 0.0)
        for c in range(0, whole, 8):
            value = load(LANES, x, start + c) - mean
            sums = sums + value * value
            store(out, to + c, value)
        squares = total(sums)
        for c in range(whole, channels):
            out[to + c] = x[start + c] - mean
            squares += out[to + c] * out[to + c]
        factor = np.float32(1) / np.sqrt(squares / np.float32(channels) + eps)
        factors[i] = factor
        for c in range(0, whole, 8):
            store(out, to + c, load(LANES, out, to + c) * factor)
        for c in range(whole, channels):
            out[to + c] *= factor


@numba.njit(fastmath=FAST)
def scale_and_shift(normed, scale, shift, count, out):
    """Do to normed positions what the normalisation's weights and biases do."""
    channels = len(scale)
    for i in range(0, count * channels, channels):
        for c in range(channels):
            out[i + c] = normed[i + c] * scale[c] + shift[c]


@numba.njit(fastmath=FAST)
def through_norm(grad, columns, normed, factors, scale, grad_out, at, channels, count, out, sums):
    """Take the gradients of normed positions to what was normed, and add those of what went by it.

    Sums, if there are any, are of the gradients of the normalisation's weights and biases.
    """
    whole = channels // 8 * 8
    for i in range(count):
        place, start, to = i * columns, i * channels, at + i * channels
        if len(sums):
            for c in range(channels):
                sums[c] += grad[place + c] * normed[start + c]
                sums[channels + c] += grad[place + c]
        values, products = full(LANES, 0.0), full(LANES, 0.0)
        for c in range(0, whole, 8):
            value = load(LANES, grad, place + c) * load(LANES, scale, c)
            store(grad, place + c, value)
            values = values + value
            products = products + value * load(LANES, normed, start + c)
        mean, along = total(values), total(products)
        for c in range(whole, channels):
            grad[place + c] *= scale[c]
            mean += grad[place + c]
            along += grad[place + c] * normed[start + c]
        mean, along = mean / np.float32(channels), along / np.float32(channels)
        factor = factors[i]
        for c in range(0, whole, 8):
            value = load(LANES, grad, place + c) - mean - load(LANES, normed, start + c) * along
            store(out, to + c, load(LANES, grad_out, to + c) + value * factor)
        for c in range(whole, channels):
            value = grad[place + c] - mean - normed[start + c] * along
            out[to + c] = grad_out[to + c] + value * factor


@numba.njit(fastmath=FAST)
def _through_gate(x, at, features, count, grad, out, to, gated):
    """Take the gradients of gated positions to their features, and gate these anew."""
    half = features // 2
    for i in range(count):
        for c in range(0, half, 8):
            place, other = at + i * features + c, to + i * features + c
            a, b, value = load(LANES, x, place), load(LANES, x, place + half), load(LANES, grad, i * half + c)
            share = normal_share(a)
            slope = share + a * exponential(LANES, a * a * -0.5) * NORMAL_TOP
            store(out, other, value * b * slope)
            store(out, other + half, value * (a * share))
            store(gated, i * half + c, a * share * b)


@numba.njit(fastmath=FAST)
def _add_kernels(side, ring, at, first, line, features, grad, start, count, out):
    """Add the gradients of depthwise kernels: of what `mix` computes, from place `at` of each row on."""
    for row in range(len(side)):
        place = at + (first + row) % len(side) * line
        for c in range(0, features, 8):
            to = row * len(side) * features + c
            correlate(side, LANES, ring, place + c, grad, start + c, features, count, out, to)

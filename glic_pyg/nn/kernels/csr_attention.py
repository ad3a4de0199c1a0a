"""Cosine attention over the edges of a graph in one pass per target node, on the CPU.

Neither direction makes a tensor of size edges x channels. The forward pass keeps one
log-sum-exp per node and head, from which the backward pass rebuilds the attention weights.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from glic_pyg.nn.kernels.simd import load, maximum, store, zeros
from glic_pyg.threads import use_torch_threads

LOG2E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
LEAST_NORM = np.float32(1e-12)  # as torch.nn.functional.normalize has it
FAST = {"contract", "reassoc", "nsz", "arcp"}  # sums in any order; infinities keep their meaning


def csr_attention(
    query: Tensor,
    key_value: Tensor,
    scale: Tensor,
    bias: Tensor,
    row: Tensor,
    indptr: Tensor,
    source: Tensor,
    order: Tensor,
) -> Tensor:
    """Aggregate values by softmax attention per head.

        a_ij = scale * cos(q_i, k_j) + bias[row_ij]
        out_i = sum_j softmax_j(a_ij) v_j

    Args:
        query: `N x heads x D`, float32, on the CPU.
        key_value: Keys and values of the sources, `S x 2 x D x heads`: with the heads side by side, so
            that one vector instruction serves them all.
        scale: `heads`.
        bias: `R x heads`.
        row: Row of `bias` for each edge, `E`, int16.
        indptr: Where each target's edges begin, `N + 1`, int64.
        source: Source of each edge, sorted by target, `E`, int64.
        order: The order in which targets are worked on, a permutation of them, int64. It is fastest if
            targets that share sources follow each other: these are then found in the processor's caches.

    Returns:
        `N x heads x D`; zero for a target without edges.
    """
    return _csr_attention(query, key_value, scale, bias, row, indptr, source, order)[0]


@torch.library.custom_op("glic_pyg::csr_attention", mutates_args=(), device_types="cpu")
def _csr_attention(
    query: Tensor,
    key_value: Tensor,
    scale: Tensor,
    bias: Tensor,
    row: Tensor,
    indptr: Tensor,
    source: Tensor,
    order: Tensor,
) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    log_sum = query.new_zeros(query.shape[:2])  # stays so for a target without edges
    arrays = _arrays(query, key_value, scale, bias, row, indptr, source, order, out, log_sum)
    _forward(_lanes(query), *arrays, use_torch_threads())
    return out, log_sum


@_csr_attention.register_fake
def _(query: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query, memory_format=torch.contiguous_format), query.new_empty(query.shape[:2])


@torch.library.custom_op("glic_pyg::csr_attention_backward", mutates_args=(), device_types="cpu")
def _csr_attention_backward(
    grad_out: Tensor,
    query: Tensor,
    key_value: Tensor,
    scale: Tensor,
    bias: Tensor,
    row: Tensor,
    indptr: Tensor,
    source: Tensor,
    order: Tensor,
    out: Tensor,
    log_sum: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    threads = use_torch_threads()
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    grad_key_value, grad_scale, grad_bias = (x.new_zeros(threads, *x.shape) for x in (key_value, scale, bias))
    arrays = _arrays(query, key_value, scale, bias, row, indptr, source, order, out, log_sum, grad_out)
    gradients = _arrays(grad_query, grad_key_value, grad_scale, grad_bias)
    _backward(_lanes(query), *arrays, *gradients, threads)
    # A copy: an operator's outputs must not share memory with what else lives on.
    return grad_query, grad_key_value[0].clone(), grad_scale.sum(0), grad_bias.sum(0)


@_csr_attention_backward.register_fake
def _(
    grad_out: Tensor, query: Tensor, key_value: Tensor, scale: Tensor, bias: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(x.new_empty(x.shape) for x in (query, key_value, scale, bias))


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_csr_attention_backward(grad_out, *ctx.saved_tensors), None, None, None, None


_csr_attention.register_autograd(_differentiate, setup_context=_save)


def _lanes(query: Tensor) -> tuple[np.float32, ...]:
    """Tell compiled code the number of heads by its arguments' types: a tuple with one entry for each."""
    return (np.float32(0),) * query.size(1)


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(t.detach().contiguous().numpy() for t in tensors)


@numba.njit(fastmath=FAST)
def _exponential(x, bits, power):
    """Replace x, all at most 0, by its exponential, accurate to about 1e-7; bits and power share memory."""
    for i in range(x.size):
        y = max(x[i], np.float32(-87.0))
        n = np.floor(y * LOG2E + np.float32(0.5))
        r = y - n * LN2_HIGH - n * LN2_LOW
        p = np.float32(1.9875691500e-4)
        p = p * r + np.float32(1.3981999507e-3)
        p = p * r + np.float32(8.3334519073e-3)
        p = p * r + np.float32(4.1665795894e-2)
        p = p * r + np.float32(1.6666665459e-1)
        p = p * r + np.float32(5.0000001201e-1)
        x[i] = (p * r * r + r) + np.float32(1.0)
        bits[i] = (np.int32(n) + np.int32(127)) << np.int32(23)
    for i in range(x.size):
        x[i] *= power[i]  # 2 ** n


@numba.njit(fastmath=FAST)
def _inverse_norm(x):
    total = np.float32(0)
    for c in range(x.size):
        total += x[c] * x[c]
    return np.float32(1) / max(np.sqrt(total), LEAST_NORM)


@numba.njit(fastmath=FAST)
def _through_norm(grad, x, inverse):
    """Turn the gradient of x * inverse, the normalised x, into that of x."""
    along = np.float32(0)
    if inverse < np.float32(1) / LEAST_NORM:
        for c in range(x.size):
            along += grad[c] * x[c]
    along *= inverse * inverse
    for c in range(x.size):
        grad[c] = (grad[c] - along * x[c]) * inverse


@numba.njit(fastmath=FAST)
def _bounds(indptr, order, threads):
    """Cut the targets, in their order, into runs of about the same number of edges."""
    cuts = np.full(threads + 1, len(order))
    cuts[0], part, edges = 0, 1, 0
    for place in range(len(order)):
        edges += indptr[order[place] + 1] - indptr[order[place]]
        while part < threads and edges * threads >= indptr[-1] * part:
            cuts[part] = place + 1
            part += 1
    return cuts


@numba.njit(fastmath=FAST)
def _largest_degree(indptr):
    most = np.int64(1)
    for i in range(indptr.size - 1):
        most = max(most, indptr[i + 1] - indptr[i])
    return most


KEY, VALUE = 0, 1

# Vectors hold one number per head, `lanes` is a tuple of as many entries. Sums over edges take 4 edges at a
# time: these read what they share once.


@numba.njit(parallel=True, cache=True, fastmath=FAST)
def _inverse_norms(key_value, out):
    heads, dims = key_value.shape[3], key_value.shape[2]
    for j in numba.prange(len(key_value)):
        for h in range(heads):
            out[j, h] = 0
        for c in range(dims):
            for h in range(heads):
                out[j, h] += key_value[j, KEY, c, h] ** 2
        for h in range(heads):
            out[j, h] = np.float32(1) / max(np.sqrt(out[j, h]), LEAST_NORM)


@numba.njit(fastmath=FAST)
def _dots(lanes, x, key_value, part, nodes, out):
    """Set out[e] to the dot products per head of x with a part of nodes[e], `KEY` or `VALUE`."""
    heads, size = len(lanes), x.size
    whole = len(nodes) // 4 * 4
    for e in range(0, whole, 4):
        at_a, at_b = (2 * nodes[e] + part) * size, (2 * nodes[e + 1] + part) * size
        at_c, at_d = (2 * nodes[e + 2] + part) * size, (2 * nodes[e + 3] + part) * size
        a, b, c, d = zeros(lanes), zeros(lanes), zeros(lanes), zeros(lanes)
        for i in range(0, size, heads):
            shared = load(lanes, x, i)
            a = a + shared * load(lanes, key_value, at_a + i)
            b = b + shared * load(lanes, key_value, at_b + i)
            c = c + shared * load(lanes, key_value, at_c + i)
            d = d + shared * load(lanes, key_value, at_d + i)
        store(out, e * heads, a)
        store(out, (e + 1) * heads, b)
        store(out, (e + 2) * heads, c)
        store(out, (e + 3) * heads, d)
    for e in range(whole, len(nodes)):
        dot = zeros(lanes)
        at = (2 * nodes[e] + part) * size
        for i in range(0, size, heads):
            dot = dot + load(lanes, x, i) * load(lanes, key_value, at + i)
        store(out, e * heads, dot)


@numba.njit(fastmath=FAST)
def _add_weighted(lanes, weight, key_value, part, nodes, out):
    """Add a part of nodes[e], `KEY` or `VALUE`, times weight[e] to out."""
    heads, size = len(lanes), out.size
    whole = len(nodes) // 4 * 4
    for e in range(0, whole, 4):
        at_a, at_b = (2 * nodes[e] + part) * size, (2 * nodes[e + 1] + part) * size
        at_c, at_d = (2 * nodes[e + 2] + part) * size, (2 * nodes[e + 3] + part) * size
        a, b = load(lanes, weight, e * heads), load(lanes, weight, (e + 1) * heads)
        c, d = load(lanes, weight, (e + 2) * heads), load(lanes, weight, (e + 3) * heads)
        for i in range(0, size, heads):
            near = a * load(lanes, key_value, at_a + i) + b * load(lanes, key_value, at_b + i)
            far = c * load(lanes, key_value, at_c + i) + d * load(lanes, key_value, at_d + i)
            store(out, i, load(lanes, out, i) + (near + far))
    for e in range(whole, len(nodes)):
        factor = load(lanes, weight, e * heads)
        at = (2 * nodes[e] + part) * size
        for i in range(0, size, heads):
            store(out, i, load(lanes, out, i) + factor * load(lanes, key_value, at + i))


@numba.njit(fastmath=FAST)
def _scatter(lanes, slope, unit_query, weight, grad_out, nodes, grad_key_value):
    """Add slope[e] * unit_query to the key's and weight[e] * grad_out to the value's gradient of nodes[e]."""
    heads, size = len(lanes), unit_query.size
    for e in range(len(nodes)):
        key, value = 2 * nodes[e] * size, (2 * nodes[e] + 1) * size
        s, w = load(lanes, slope, e * heads), load(lanes, weight, e * heads)
        for i in range(0, size, heads):
            grad = load(lanes, grad_key_value, key + i)
            store(grad_key_value, key + i, grad + s * load(lanes, unit_query, i))
            grad = load(lanes, grad_key_value, value + i)
            store(grad_key_value, value + i, grad + w * load(lanes, grad_out, i))


@numba.njit(fastmath=FAST)
def _logits(lanes, unit_query, key_value, inverse_key, bias, row, nodes, out):
    heads = len(lanes)
    _dots(lanes, unit_query, key_value, KEY, nodes, out)
    for e in range(len(nodes)):
        cosine = load(lanes, out, e * heads) * load(lanes, inverse_key, nodes[e] * heads)
        store(out, e * heads, cosine + load(lanes, bias, row[e] * heads))


@numba.njit(fastmath=FAST)
def _shift(lanes, x, by):
    """Subtract a vector from every row of x."""
    for place in range(0, x.size, len(lanes)):
        store(x, place, load(lanes, x, place) - by)


@numba.njit(fastmath=FAST)
def _attend(
    lanes, targets, most, query, key_value, inverse_key, scale, bias, row, indptr, source, out, log_sum
):  # fmt: skip
    _, heads, dims = query.shape
    weights, bits = np.empty((most, heads), np.float32), np.empty(most * heads, np.int32)
    power = bits.view(np.float32)
    unit_query, result = np.empty((dims, heads), np.float32), np.empty((dims, heads), np.float32)
    tops, totals = np.empty(heads, np.float32), np.empty(heads, np.float32)
    for i in targets:
        edges = slice(indptr[i], indptr[i + 1])
        nodes, weight = source[edges], weights[: indptr[i + 1] - indptr[i]]
        if len(nodes) == 0:
            out[i] = 0
            continue
        for h in range(heads):
            factor = _inverse_norm(query[i, h]) * scale[h]
            for c in range(dims):
                unit_query[c, h] = query[i, h, c] * factor
        _logits(lanes, unit_query, key_value, inverse_key, bias, row[edges], nodes, weight)
        top = load(lanes, weight, 0)
        for place in range(heads, weight.size, heads):
            top = maximum(top, load(lanes, weight, place))
        _shift(lanes, weight, top)
        _exponential(weight.ravel(), bits, power)
        total = zeros(lanes)
        for place in range(0, weight.size, heads):
            total = total + load(lanes, weight, place)
        result[:] = 0
        _add_weighted(lanes, weight, key_value, VALUE, nodes, result)
        store(tops, 0, top)
        store(totals, 0, total)
        for h in range(heads):
            log_sum[i, h] = tops[h] + np.log(totals[h])
            inverse = np.float32(1) / totals[h]
            for c in range(dims):
                out[i, h, c] = result[c, h] * inverse


@numba.njit(parallel=True, cache=True, fastmath=FAST)
def _forward(lanes, query, key_value, scale, bias, row, indptr, source, order, out, log_sum, threads):
    inverse_key = np.empty((len(key_value), query.shape[1]), np.float32)
    _inverse_norms(key_value, inverse_key)
    most, cuts = _largest_degree(indptr), _bounds(indptr, order, threads)
    for thread in numba.prange(threads):
        targets = order[cuts[thread] : cuts[thread + 1]]
        _attend(
            lanes, targets, most, query, key_value, inverse_key, scale, bias, row, indptr, source,
            out, log_sum,
        )  # fmt: skip


@numba.njit(fastmath=FAST)
def _differentiate_part(
    lanes, targets, most, query, key_value, inverse_key, scale, bias, row, indptr, source, out, log_sum,
    grad_out, grad_query, grad_key_value, grad_scale, grad_bias,
):  # fmt: skip
    _, heads, dims = query.shape
    weights, bits = np.empty((most, heads), np.float32), np.empty(most * heads, np.int32)
    power = bits.view(np.float32)
    slopes = np.empty((most, heads), np.float32)
    unit_query, grad_unit = np.empty((dims, heads), np.float32), np.empty((dims, heads), np.float32)
    grad = np.empty((dims, heads), np.float32)
    inverse_query, delta = np.empty(heads, np.float32), np.empty(heads, np.float32)
    for i in targets:
        edges = slice(indptr[i], indptr[i + 1])
        nodes, rows = source[edges], row[edges]
        weight, slope = weights[: len(nodes)], slopes[: len(nodes)]
        for h in range(heads):
            inverse_query[h] = _inverse_norm(query[i, h])
            dot = np.float32(0)
            for c in range(dims):
                dot += grad_out[i, h, c] * out[i, h, c]
                unit_query[c, h] = query[i, h, c] * inverse_query[h] * scale[h]
                grad[c, h] = grad_out[i, h, c]
                grad_unit[c, h] = 0
            delta[h] = dot
        _logits(lanes, unit_query, key_value, inverse_key, bias, rows, nodes, weight)
        _shift(lanes, weight, load(lanes, log_sum, i * heads))
        _exponential(weight.ravel(), bits, power)
        _dots(lanes, grad, key_value, VALUE, nodes, slope)
        _shift(lanes, slope, load(lanes, delta, 0))
        for e in range(len(nodes)):
            at = e * heads
            store(slope, at, load(lanes, slope, at) * load(lanes, weight, at))
            place = rows[e] * heads
            store(grad_bias, place, load(lanes, grad_bias, place) + load(lanes, slope, at))
        _scatter(lanes, slope, unit_query, weight, grad, nodes, grad_key_value)
        for e in range(len(nodes)):
            at = e * heads
            store(slope, at, load(lanes, slope, at) * load(lanes, inverse_key, nodes[e] * heads))
        _add_weighted(lanes, slope, key_value, KEY, nodes, grad_unit)
        # That is the gradient of scale times the normalised query.
        for h in range(heads):
            dot = np.float32(0)
            for c in range(dims):
                dot += grad_unit[c, h] * query[i, h, c]
                grad_query[i, h, c] = grad_unit[c, h] * scale[h]
            grad_scale[h] += dot * inverse_query[h]
            _through_norm(grad_query[i, h], query[i, h], inverse_query[h])


@numba.njit(parallel=True, cache=True, fastmath=FAST)
def _backward(
    lanes, query, key_value, scale, bias, row, indptr, source, order, out, log_sum, grad_out,
    grad_query, grad_key_value, grad_scale, grad_bias, threads,
):  # fmt: skip
    num_sources, _, dims, heads = key_value.shape
    inverse_key = np.empty((num_sources, heads), np.float32)
    _inverse_norms(key_value, inverse_key)
    most, cuts = _largest_degree(indptr), _bounds(indptr, order, threads)
    for thread in numba.prange(threads):
        targets = order[cuts[thread] : cuts[thread + 1]]
        _differentiate_part(
            lanes, targets, most, query, key_value, inverse_key, scale, bias, row, indptr, source,
            out, log_sum, grad_out, grad_query, grad_key_value[thread], grad_scale[thread], grad_bias[thread],
        )  # fmt: skip
    for j in numba.prange(num_sources):
        for thread in range(1, threads):
            for part in (KEY, VALUE):
                for c in range(dims):
                    for h in range(heads):
                        grad_key_value[0, j, part, c, h] += grad_key_value[thread, j, part, c, h]
        for h in range(heads):
            _through_norm(grad_key_value[0, j, KEY, :, h], key_value[j, KEY, :, h], inverse_key[j, h])

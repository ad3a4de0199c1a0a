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
        key_value: Keys and values, `S x 2 x heads x D`.
        scale: `heads`.
        bias: `R x heads`.
        row: Row of `bias` for each edge, `E`, int16.
        indptr: Where each target's edges begin, `N + 1`, int64.
        source: Source of each edge, sorted by target, `E`, int64. `S` is the zero node.
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
    grad_query, grad_key_value = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key_value)
    )
    grad_scale, grad_bias = (x.new_zeros(threads, *x.shape) for x in (scale, bias))
    arrays = _arrays(query, key_value, scale, bias, row, indptr, source, order, out, log_sum, grad_out)
    gradients = _arrays(grad_query, grad_key_value, grad_scale, grad_bias)
    _backward(_lanes(query), *arrays, *gradients, threads)
    return grad_query, grad_key_value, grad_scale.sum(0), grad_bias.sum(0)


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

# Below, features lie with the heads side by side, D x heads: a vector holds one number per head. Sources
# have a row of zeros behind them, the zero node.


@numba.njit(parallel=True, cache=True, fastmath=FAST)
def _spread(key_value, unit_key, value, inverse_norm):
    for j in numba.prange(key_value.shape[0]):
        for h in range(key_value.shape[2]):
            inverse = _inverse_norm(key_value[j, KEY, h])
            inverse_norm[j, h] = inverse
            for c in range(key_value.shape[3]):
                unit_key[j, c, h] = key_value[j, KEY, h, c] * inverse
                value[j, c, h] = key_value[j, VALUE, h, c]
    unit_key[-1] = 0
    value[-1] = 0


@numba.njit(fastmath=FAST)
def _add_dots(lanes, x, rows, nodes, out):
    """Add the dot product per head of x with the row of nodes[e] to out[e], 4 edges at a time."""
    heads, size = len(lanes), x.size
    whole = len(nodes) // 4 * 4
    for e in range(0, whole, 4):
        at_a, at_b = nodes[e] * size, nodes[e + 1] * size
        at_c, at_d = nodes[e + 2] * size, nodes[e + 3] * size
        a, b = load(lanes, out, e * heads), load(lanes, out, (e + 1) * heads)
        c, d = load(lanes, out, (e + 2) * heads), load(lanes, out, (e + 3) * heads)
        for i in range(0, size, heads):
            shared = load(lanes, x, i)
            a = a + shared * load(lanes, rows, at_a + i)
            b = b + shared * load(lanes, rows, at_b + i)
            c = c + shared * load(lanes, rows, at_c + i)
            d = d + shared * load(lanes, rows, at_d + i)
        store(out, e * heads, a)
        store(out, (e + 1) * heads, b)
        store(out, (e + 2) * heads, c)
        store(out, (e + 3) * heads, d)
    for e in range(whole, len(nodes)):
        dot = load(lanes, out, e * heads)
        for i in range(0, size, heads):
            dot = dot + load(lanes, x, i) * load(lanes, rows, nodes[e] * size + i)
        store(out, e * heads, dot)


@numba.njit(fastmath=FAST)
def _add_weighted(lanes, weight, rows, nodes, out):
    """Add the rows of nodes[e] times weight[e] to out, 4 edges at a time."""
    heads, size = len(lanes), out.size
    whole = len(nodes) // 4 * 4
    for e in range(0, whole, 4):
        at_a, at_b = nodes[e] * size, nodes[e + 1] * size
        at_c, at_d = nodes[e + 2] * size, nodes[e + 3] * size
        a, b = load(lanes, weight, e * heads), load(lanes, weight, (e + 1) * heads)
        c, d = load(lanes, weight, (e + 2) * heads), load(lanes, weight, (e + 3) * heads)
        for i in range(0, size, heads):
            near = a * load(lanes, rows, at_a + i) + b * load(lanes, rows, at_b + i)
            far = c * load(lanes, rows, at_c + i) + d * load(lanes, rows, at_d + i)
            store(out, i, load(lanes, out, i) + (near + far))
    for e in range(whole, len(nodes)):
        factor = load(lanes, weight, e * heads)
        for i in range(0, size, heads):
            store(out, i, load(lanes, out, i) + factor * load(lanes, rows, nodes[e] * size + i))


@numba.njit(fastmath=FAST)
def _scatter(lanes, slope, unit_query, weight, grad_out, nodes, grad_key, grad_value):
    """Add slope[e] * unit_query and weight[e] * grad_out to the rows of nodes[e]."""
    heads, size = len(lanes), unit_query.size
    for e in range(len(nodes)):
        at = nodes[e] * size
        s, w = load(lanes, slope, e * heads), load(lanes, weight, e * heads)
        for i in range(0, size, heads):
            store(grad_key, at + i, load(lanes, grad_key, at + i) + s * load(lanes, unit_query, i))
            store(grad_value, at + i, load(lanes, grad_value, at + i) + w * load(lanes, grad_out, i))


@numba.njit(fastmath=FAST)
def _logits(lanes, unit_query, unit_key, bias, row, nodes, out):
    heads = len(lanes)
    for e in range(len(nodes)):
        store(out, e * heads, load(lanes, bias, row[e] * heads))
    _add_dots(lanes, unit_query, unit_key, nodes, out)


@numba.njit(fastmath=FAST)
def _shift(lanes, x, by):
    """Subtract a vector from every row of x."""
    for place in range(0, x.size, len(lanes)):
        store(x, place, load(lanes, x, place) - by)


@numba.njit(fastmath=FAST)
def _attend(
    lanes, targets, most, query, unit_key, value, scale, bias, row, indptr, source, out, log_sum
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
        _logits(lanes, unit_query, unit_key, bias, row[edges], nodes, weight)
        top = load(lanes, weight, 0)
        for place in range(heads, weight.size, heads):
            top = maximum(top, load(lanes, weight, place))
        _shift(lanes, weight, top)
        _exponential(weight.ravel(), bits, power)
        total = zeros(lanes)
        for place in range(0, weight.size, heads):
            total = total + load(lanes, weight, place)
        result[:] = 0
        _add_weighted(lanes, weight, value, nodes, result)
        store(tops, 0, top)
        store(totals, 0, total)
        for h in range(heads):
            log_sum[i, h] = tops[h] + np.log(totals[h])
            inverse = np.float32(1) / totals[h]
            for c in range(dims):
                out[i, h, c] = result[c, h] * inverse


@numba.njit(parallel=True, cache=True, fastmath=FAST)
def _forward(lanes, query, key_value, scale, bias, row, indptr, source, order, out, log_sum, threads):
    num_sources, _, heads, dims = key_value.shape
    unit_key = np.empty((num_sources + 1, dims, heads), np.float32)
    value = np.empty((num_sources + 1, dims, heads), np.float32)
    _spread(key_value, unit_key, value, np.empty((num_sources, heads), np.float32))
    most, cuts = _largest_degree(indptr), _bounds(indptr, order, threads)
    for thread in numba.prange(threads):
        targets = order[cuts[thread] : cuts[thread + 1]]
        _attend(lanes, targets, most, query, unit_key, value, scale, bias, row, indptr, source, out, log_sum)


@numba.njit(fastmath=FAST)
def _differentiate_part(
    lanes, targets, most, query, unit_key, value, scale, bias, row, indptr, source, out, log_sum, grad_out,
    grad_query, grad_key, grad_value, grad_scale, grad_bias,
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
        _logits(lanes, unit_query, unit_key, bias, rows, nodes, weight)
        _shift(lanes, weight, load(lanes, log_sum, i * heads))
        _exponential(weight.ravel(), bits, power)
        slope[:] = 0
        _add_dots(lanes, grad, value, nodes, slope)
        _shift(lanes, slope, load(lanes, delta, 0))
        for e in range(len(nodes)):
            at = e * heads
            store(slope, at, load(lanes, slope, at) * load(lanes, weight, at))
            place = rows[e] * heads
            store(grad_bias, place, load(lanes, grad_bias, place) + load(lanes, slope, at))
        _scatter(lanes, slope, unit_query, weight, grad, nodes, grad_key, grad_value)
        _add_weighted(lanes, slope, unit_key, nodes, grad_unit)
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
    num_sources, _, heads, dims = key_value.shape
    unit_key = np.empty((num_sources + 1, dims, heads), np.float32)
    value = np.empty((num_sources + 1, dims, heads), np.float32)
    inverse_key = np.empty((num_sources, heads), np.float32)
    _spread(key_value, unit_key, value, inverse_key)
    grad_key = np.zeros((threads, num_sources + 1, dims, heads), np.float32)
    grad_value = np.zeros((threads, num_sources + 1, dims, heads), np.float32)
    most, cuts = _largest_degree(indptr), _bounds(indptr, order, threads)
    for thread in numba.prange(threads):
        targets = order[cuts[thread] : cuts[thread + 1]]
        _differentiate_part(
            lanes, targets, most, query, unit_key, value, scale, bias, row, indptr, source, out, log_sum,
            grad_out, grad_query, grad_key[thread], grad_value[thread], grad_scale[thread], grad_bias[thread],
        )  # fmt: skip
    for j in numba.prange(num_sources):
        for h in range(heads):
            for c in range(dims):
                along_key, along_value = np.float32(0), np.float32(0)
                for thread in range(threads):
                    along_key += grad_key[thread, j, c, h]
                    along_value += grad_value[thread, j, c, h]
                grad_key_value[j, KEY, h, c] = along_key
                grad_key_value[j, VALUE, h, c] = along_value
            _through_norm(grad_key_value[j, KEY, h], key_value[j, KEY, h], inverse_key[j, h])

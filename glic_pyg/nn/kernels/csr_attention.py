"""Cosine attention over the edges of a graph in one pass per target node, on the CPU.

Neither direction makes a tensor of size edges x channels. The forward pass keeps one
log-sum-exp per node and head, from which the backward pass rebuilds the attention weights.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

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

    Returns:
        `N x heads x D`; zero for a target without edges.
    """
    return _csr_attention(query, key_value, scale, bias, row, indptr, source)[0]


@torch.library.custom_op("glic_pyg::csr_attention", mutates_args=(), device_types="cpu")
def _csr_attention(
    query: Tensor,
    key_value: Tensor,
    scale: Tensor,
    bias: Tensor,
    row: Tensor,
    indptr: Tensor,
    source: Tensor,
) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    log_sum = query.new_zeros(query.shape[:2])  # stays so for a target without edges
    arrays = _arrays(query, key_value, scale, bias, row, indptr, source, out, log_sum)
    _forward(*arrays, use_torch_threads())
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
    out: Tensor,
    log_sum: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    threads = use_torch_threads()
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    grad_key_value, grad_scale, grad_bias = (x.new_zeros(threads, *x.shape) for x in (key_value, scale, bias))
    arrays = _arrays(query, key_value, scale, bias, row, indptr, source, out, log_sum, grad_out)
    gradients = _arrays(grad_query, grad_key_value, grad_scale, grad_bias)
    _backward(*arrays, *gradients, threads)
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
    return *_csr_attention_backward(grad_out, *ctx.saved_tensors), None, None, None


_csr_attention.register_autograd(_differentiate, setup_context=_save)


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
def _bounds(indptr, threads):
    """Cut the targets into runs of about the same number of edges."""
    edges = indptr[-1] * np.arange(threads + 1) // threads
    cuts = np.searchsorted(indptr, edges)
    cuts[0], cuts[threads] = 0, indptr.size - 1
    return cuts


@numba.njit(fastmath=FAST)
def _largest_degree(indptr):
    most = np.int64(1)
    for i in range(indptr.size - 1):
        most = max(most, indptr[i + 1] - indptr[i])
    return most


KEY, VALUE = 0, 1
TOGETHER = 4  # edges per inner loop, which then reads what they share once


@numba.njit(fastmath=FAST)
def _dots(x, key_value, part, nodes, out):
    """Set out[e, h] to the dot product of x[h] with a part of nodes[e], `KEY` or `VALUE`."""
    heads, dims = x.shape
    whole = len(nodes) // TOGETHER * TOGETHER
    for e in range(0, whole, TOGETHER):
        a, b, c, d = nodes[e], nodes[e + 1], nodes[e + 2], nodes[e + 3]
        for h in range(heads):
            dot_a, dot_b, dot_c, dot_d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(dims):
                dot_a += x[h, i] * key_value[a, part, h, i]
                dot_b += x[h, i] * key_value[b, part, h, i]
                dot_c += x[h, i] * key_value[c, part, h, i]
                dot_d += x[h, i] * key_value[d, part, h, i]
            out[e, h], out[e + 1, h], out[e + 2, h], out[e + 3, h] = dot_a, dot_b, dot_c, dot_d
    for e in range(whole, len(nodes)):
        for h in range(heads):
            dot = np.float32(0)
            for i in range(dims):
                dot += x[h, i] * key_value[nodes[e], part, h, i]
            out[e, h] = dot


@numba.njit(fastmath=FAST)
def _accumulate(weight, key_value, part, nodes, out):
    """Add sum_e weight[e, h] * (a part of nodes[e])[h] to out[h]."""
    heads, dims = out.shape
    whole = len(nodes) // TOGETHER * TOGETHER
    for e in range(0, whole, TOGETHER):
        a, b, c, d = nodes[e], nodes[e + 1], nodes[e + 2], nodes[e + 3]
        for h in range(heads):
            w_a, w_b, w_c, w_d = weight[e, h], weight[e + 1, h], weight[e + 2, h], weight[e + 3, h]
            for i in range(dims):
                near = w_a * key_value[a, part, h, i] + w_b * key_value[b, part, h, i]
                out[h, i] += near + (w_c * key_value[c, part, h, i] + w_d * key_value[d, part, h, i])
    for e in range(whole, len(nodes)):
        for h in range(heads):
            for i in range(dims):
                out[h, i] += weight[e, h] * key_value[nodes[e], part, h, i]


@numba.njit(fastmath=FAST)
def _scatter(slope, unit_query, weight, grad_out, nodes, grad_key_value):
    """Add slope[e, h] * unit_query[h] and weight[e, h] * grad_out[h] to the gradients of nodes[e]."""
    heads, dims = unit_query.shape
    for e in range(len(nodes)):
        grad = grad_key_value[nodes[e]]
        for h in range(heads):
            s, w = slope[e, h], weight[e, h]
            for i in range(dims):
                grad[KEY, h, i] += s * unit_query[h, i]
            for i in range(dims):
                grad[VALUE, h, i] += w * grad_out[h, i]


@numba.njit(fastmath=FAST)
def _find_nodes(source, num_sources, nodes, is_zero):
    """Split sources into nodes that can be read and whether they are the zero node."""
    for e in range(len(source)):
        is_zero[e] = source[e] == num_sources
        nodes[e] = 0 if is_zero[e] else source[e]


@numba.njit(fastmath=FAST)
def _logits(unit_query, key_value, inverse_key, bias, row, nodes, is_zero, out):
    _dots(unit_query, key_value, KEY, nodes, out)
    for e in range(len(nodes)):
        for h in range(len(unit_query)):
            cosine = np.float32(0) if is_zero[e] else out[e, h] * inverse_key[nodes[e], h]
            out[e, h] = cosine + bias[row[e], h]


@numba.njit(parallel=True, cache=True, fastmath=FAST)
def _inverse_norms(x, out):
    for j in numba.prange(out.shape[0]):
        for h in range(out.shape[1]):
            out[j, h] = _inverse_norm(x[j, KEY, h])


@numba.njit(parallel=True, cache=True, fastmath=FAST)
def _forward(query, key_value, scale, bias, row, indptr, source, out, log_sum, threads):
    _, heads, dims = query.shape
    num_sources = key_value.shape[0]
    inverse_key = np.empty((num_sources, heads), np.float32)
    _inverse_norms(key_value, inverse_key)
    most, cuts = _largest_degree(indptr), _bounds(indptr, threads)
    for thread in numba.prange(threads):
        weights, bits = np.empty((most, heads), np.float32), np.empty(most * heads, np.int32)
        power = bits.view(np.float32)
        all_nodes, all_zero = np.empty(most, np.int64), np.empty(most, np.bool_)
        unit_query = np.empty((heads, dims), np.float32)
        total, top = np.empty(heads, np.float32), np.empty(heads, np.float32)
        for i in range(cuts[thread], cuts[thread + 1]):
            edges = slice(indptr[i], indptr[i + 1])
            degree = indptr[i + 1] - indptr[i]
            nodes, is_zero, weight = all_nodes[:degree], all_zero[:degree], weights[:degree]
            _find_nodes(source[edges], num_sources, nodes, is_zero)
            for h in range(heads):
                top[h] = -np.inf
                total[h] = 0
                factor = _inverse_norm(query[i, h]) * scale[h]
                for c in range(dims):
                    unit_query[h, c] = query[i, h, c] * factor
                    out[i, h, c] = 0
            _logits(unit_query, key_value, inverse_key, bias, row[edges], nodes, is_zero, weight)
            for e in range(degree):
                for h in range(heads):
                    top[h] = max(top[h], weight[e, h])
            for e in range(degree):
                for h in range(heads):
                    weight[e, h] -= top[h]
            _exponential(weight.ravel(), bits, power)
            for e in range(degree):
                for h in range(heads):
                    total[h] += weight[e, h]
                    if is_zero[e]:
                        weight[e, h] = 0
            _accumulate(weight, key_value, VALUE, nodes, out[i])
            if degree > 0:
                for h in range(heads):
                    log_sum[i, h] = top[h] + np.log(total[h])
                    for c in range(dims):
                        out[i, h, c] /= total[h]


@numba.njit(parallel=True, cache=True, fastmath=FAST)
def _backward(
    query, key_value, scale, bias, row, indptr, source, out, log_sum, grad_out,
    grad_query, grad_key_value, grad_scale, grad_bias, threads,
):  # fmt: skip
    _, heads, dims = query.shape
    num_sources = key_value.shape[0]
    inverse_key = np.empty((num_sources, heads), np.float32)
    _inverse_norms(key_value, inverse_key)
    most, cuts = _largest_degree(indptr), _bounds(indptr, threads)
    for thread in numba.prange(threads):
        weights, bits = np.empty((most, heads), np.float32), np.empty(most * heads, np.int32)
        power = bits.view(np.float32)
        slopes = np.empty((most, heads), np.float32)
        all_nodes, all_zero = np.empty(most, np.int64), np.empty(most, np.bool_)
        unit_query = np.empty((heads, dims), np.float32)
        inverse_query, delta = np.empty(heads, np.float32), np.empty(heads, np.float32)
        for i in range(cuts[thread], cuts[thread + 1]):
            edges = slice(indptr[i], indptr[i + 1])
            degree = indptr[i + 1] - indptr[i]
            nodes, is_zero = all_nodes[:degree], all_zero[:degree]
            weight, slope = weights[:degree], slopes[:degree]
            _find_nodes(source[edges], num_sources, nodes, is_zero)
            for h in range(heads):
                inverse_query[h] = _inverse_norm(query[i, h])
                dot = np.float32(0)
                for c in range(dims):
                    dot += grad_out[i, h, c] * out[i, h, c]
                    unit_query[h, c] = query[i, h, c] * inverse_query[h] * scale[h]
                    grad_query[i, h, c] = 0
                delta[h] = dot
            _logits(unit_query, key_value, inverse_key, bias, row[edges], nodes, is_zero, weight)
            for e in range(degree):
                for h in range(heads):
                    weight[e, h] -= log_sum[i, h]
            _exponential(weight.ravel(), bits, power)
            _dots(grad_out[i], key_value, VALUE, nodes, slope)
            for e in range(degree):
                b = row[indptr[i] + e]
                for h in range(heads):
                    if is_zero[e]:
                        grad_bias[thread, b, h] -= weight[e, h] * delta[h]
                        slope[e, h] = weight[e, h] = 0
                    else:
                        slope[e, h] = weight[e, h] * (slope[e, h] - delta[h])
                        grad_bias[thread, b, h] += slope[e, h]
            _scatter(slope, unit_query, weight, grad_out[i], nodes, grad_key_value[thread])
            for e in range(degree):
                for h in range(heads):
                    slope[e, h] *= inverse_key[nodes[e], h]
            _accumulate(slope, key_value, KEY, nodes, grad_query[i])
            # So far the gradient of scale times the normalised query.
            for h in range(heads):
                dot = np.float32(0)
                for c in range(dims):
                    dot += grad_query[i, h, c] * query[i, h, c]
                grad_scale[thread, h] += dot * inverse_query[h]
                for c in range(dims):
                    grad_query[i, h, c] *= scale[h]
                _through_norm(grad_query[i, h], query[i, h], inverse_query[h])
    for j in numba.prange(num_sources):
        for thread in range(1, threads):
            for part in (KEY, VALUE):
                for h in range(heads):
                    for c in range(dims):
                        grad_key_value[0, j, part, h, c] += grad_key_value[thread, j, part, h, c]
        for h in range(heads):
            _through_norm(grad_key_value[0, j, KEY, h], key_value[j, KEY, h], inverse_key[j, h])

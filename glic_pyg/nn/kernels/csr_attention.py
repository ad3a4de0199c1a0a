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
    log_sum = query.new_empty(query.shape[:2])
    arrays = _arrays(query, key_value, scale, bias, row, indptr, source, out, log_sum)
    _forward(*arrays, use_torch_threads(), *_axes(query))
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
    _backward(*arrays, *gradients, threads, *_axes(query))
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


def _axes(query: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Heads and channels per head as tuples: their lengths belong to the compiled type.

    So the inner loops have fixed ends and become vector code, and what is compiled can be kept on
    disk, which closures over the two numbers could not.
    """
    return tuple(range(query.size(1))), tuple(range(query.size(2)))


@numba.njit(fastmath=FAST)
def _exponential(x, bits, power, count):
    """Replace x[0:count], all at most 0, by its exponential; accurate to about 1e-7."""
    for i in range(count):
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
    for i in range(count):
        x[i] *= power[i]  # `bits` read as float32: 2 ** n


@numba.njit(fastmath=FAST)
def _inverse_norm(x, dims):
    total = np.float32(0)
    for c in range(len(dims)):
        total += x[c] * x[c]
    return np.float32(1) / max(np.sqrt(total), LEAST_NORM)


@numba.njit(fastmath=FAST)
def _through_norm(grad, x, inverse, dims):
    """Turn the gradient of x * inverse, the normalised x, into that of x."""
    along = np.float32(0)
    if inverse < np.float32(1) / LEAST_NORM:
        for c in range(len(dims)):
            along += grad[c] * x[c]
    along *= inverse * inverse
    for c in range(len(dims)):
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


@numba.njit(fastmath=FAST)
def _logits(unit_query, key_value, inverse_key, bias, row, source, begin, degree, out, heads, dims):
    for e in range(degree):
        j = source[begin + e]
        b = row[begin + e]
        if j < key_value.shape[0]:
            for h in range(len(heads)):
                dot = np.float32(0)
                for c in range(len(dims)):
                    dot += unit_query[h, c] * key_value[j, 0, h, c]
                out[e * len(heads) + h] = dot * inverse_key[j, h] + bias[b, h]
        else:
            for h in range(len(heads)):
                out[e * len(heads) + h] = bias[b, h]


@numba.njit(parallel=True, cache=True, fastmath=FAST)
def _inverse_norms(x, out, heads, dims):
    for j in numba.prange(out.shape[0]):
        for h in range(len(heads)):
            out[j, h] = _inverse_norm(x[j, 0, h], dims)


@numba.njit(parallel=True, cache=True, fastmath=FAST)
def _forward(query, key_value, scale, bias, row, indptr, source, out, log_sum, threads, heads, dims):
    inverse_key = np.empty((key_value.shape[0], len(heads)), np.float32)
    _inverse_norms(key_value, inverse_key, heads, dims)
    most, cuts = _largest_degree(indptr), _bounds(indptr, threads)
    for thread in numba.prange(threads):
        weight = np.empty(most * len(heads), np.float32)
        bits = np.empty(most * len(heads), np.int32)
        power = bits.view(np.float32)
        unit_query = np.empty((len(heads), len(dims)), np.float32)
        total = np.empty(len(heads), np.float32)
        top = np.empty(len(heads), np.float32)
        for i in range(cuts[thread], cuts[thread + 1]):
            begin = indptr[i]
            degree = indptr[i + 1] - begin
            for h in range(len(heads)):
                top[h] = -np.inf
                total[h] = 0
                factor = _inverse_norm(query[i, h], dims) * scale[h]
                for c in range(len(dims)):
                    unit_query[h, c] = query[i, h, c] * factor
                    out[i, h, c] = 0
            _logits(unit_query, key_value, inverse_key, bias, row, source, begin, degree, weight, heads, dims)
            for e in range(degree):
                for h in range(len(heads)):
                    top[h] = max(top[h], weight[e * len(heads) + h])
            for e in range(degree):
                for h in range(len(heads)):
                    weight[e * len(heads) + h] -= top[h]
            _exponential(weight, bits, power, degree * len(heads))
            for e in range(degree):
                j = source[begin + e]
                for h in range(len(heads)):
                    total[h] += weight[e * len(heads) + h]
                if j < key_value.shape[0]:
                    for h in range(len(heads)):
                        w = weight[e * len(heads) + h]
                        for c in range(len(dims)):
                            out[i, h, c] += w * key_value[j, 1, h, c]
            if degree > 0:
                for h in range(len(heads)):
                    log_sum[i, h] = top[h] + np.log(total[h])
                    for c in range(len(dims)):
                        out[i, h, c] /= total[h]


@numba.njit(parallel=True, cache=True, fastmath=FAST)
def _backward(
    query, key_value, scale, bias, row, indptr, source, out, log_sum, grad_out,
    grad_query, grad_key_value, grad_scale, grad_bias, threads, heads, dims,
):  # fmt: skip
    num_sources = key_value.shape[0]
    inverse_key = np.empty((num_sources, len(heads)), np.float32)
    _inverse_norms(key_value, inverse_key, heads, dims)
    most, cuts = _largest_degree(indptr), _bounds(indptr, threads)
    for thread in numba.prange(threads):
        weight = np.empty(most * len(heads), np.float32)
        bits = np.empty(most * len(heads), np.int32)
        power = bits.view(np.float32)
        unit_query = np.empty((len(heads), len(dims)), np.float32)
        inverse_query = np.empty(len(heads), np.float32)
        delta = np.empty(len(heads), np.float32)
        for i in range(cuts[thread], cuts[thread + 1]):
            begin = indptr[i]
            degree = indptr[i + 1] - begin
            for h in range(len(heads)):
                inverse_query[h] = _inverse_norm(query[i, h], dims)
                dot = np.float32(0)
                for c in range(len(dims)):
                    dot += grad_out[i, h, c] * out[i, h, c]
                    unit_query[h, c] = query[i, h, c] * inverse_query[h] * scale[h]
                    grad_query[i, h, c] = 0
                delta[h] = dot
            _logits(unit_query, key_value, inverse_key, bias, row, source, begin, degree, weight, heads, dims)
            for e in range(degree):
                for h in range(len(heads)):
                    weight[e * len(heads) + h] -= log_sum[i, h]
            _exponential(weight, bits, power, degree * len(heads))
            for e in range(degree):
                j = source[begin + e]
                b = row[begin + e]
                if j == num_sources:
                    for h in range(len(heads)):
                        grad_bias[thread, b, h] -= weight[e * len(heads) + h] * delta[h]
                    continue
                for h in range(len(heads)):
                    w = weight[e * len(heads) + h]
                    dot = np.float32(0)
                    for c in range(len(dims)):
                        dot += grad_out[i, h, c] * key_value[j, 1, h, c]
                        grad_key_value[thread, j, 1, h, c] += w * grad_out[i, h, c]
                    slope = w * (dot - delta[h])
                    grad_bias[thread, b, h] += slope
                    slope_key = slope * inverse_key[j, h]
                    for c in range(len(dims)):
                        grad_query[i, h, c] += slope_key * key_value[j, 0, h, c]
                        grad_key_value[thread, j, 0, h, c] += slope * unit_query[h, c]
            # So far the gradient of scale times the normalised query.
            for h in range(len(heads)):
                dot = np.float32(0)
                for c in range(len(dims)):
                    dot += grad_query[i, h, c] * query[i, h, c]
                grad_scale[thread, h] += dot * inverse_query[h]
                for c in range(len(dims)):
                    grad_query[i, h, c] *= scale[h]
                _through_norm(grad_query[i, h], query[i, h], inverse_query[h], dims)
    for j in numba.prange(num_sources):
        for thread in range(1, threads):
            for h in range(len(heads)):
                for c in range(len(dims)):
                    grad_key_value[0, j, 0, h, c] += grad_key_value[thread, j, 0, h, c]
                    grad_key_value[0, j, 1, h, c] += grad_key_value[thread, j, 1, h, c]
        for h in range(len(heads)):
            _through_norm(grad_key_value[0, j, 0, h], key_value[j, 0, h], inverse_key[j, h], dims)

"""Attention over the edges of a graph in one pass per target node, on the CPU.

Neither direction makes a tensor of size edges x channels. The forward pass keeps one
log-sum-exp per node and head, from which the backward pass rebuilds the attention weights.
"""

import functools
from collections.abc import Callable

import numba
import numpy as np
import torch
from torch import Tensor

LOG2E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
MOST_THREADS = 8  # the backward pass holds one pair of key and value gradients per thread


def csr_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, row: Tensor, indptr: Tensor, source: Tensor
) -> Tensor:
    """Aggregate values by softmax attention, `a_ij = q_i . k_j + bias[row_ij]` per head.

    Args:
        query: `N x heads x D`, float32, on the CPU.
        key: `S x heads x D`.
        value: `S x heads x D`.
        bias: `R x heads`.
        row: Row of `bias` for each edge, `E`, int16.
        indptr: Where each target's edges begin, `N + 1`, int64.
        source: Source of each edge, sorted by target, `E`, int64.

    Returns:
        `N x heads x D`; zero for a target without edges.
    """
    return _csr_attention(query, key, value, bias, row, indptr, source)[0]


@torch.library.custom_op("glic_pyg::csr_attention", mutates_args=(), device_types="cpu")
def _csr_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, row: Tensor, indptr: Tensor, source: Tensor
) -> tuple[Tensor, Tensor]:
    num_nodes, heads, head_dim = query.shape
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    log_sum = query.new_empty(num_nodes, heads)
    forward, _ = _kernels(heads, head_dim)
    forward(*_arrays(query, key, value, bias, row, indptr, source, out, log_sum), _threads())
    return out, log_sum


@_csr_attention.register_fake
def _(query: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query, memory_format=torch.contiguous_format), query.new_empty(query.shape[:2])


@torch.library.custom_op("glic_pyg::csr_attention_backward", mutates_args=(), device_types="cpu")
def _csr_attention_backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    row: Tensor,
    indptr: Tensor,
    source: Tensor,
    out: Tensor,
    log_sum: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    threads = _threads()
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    grad_key, grad_value, grad_bias = (x.new_zeros(threads, *x.shape) for x in (key, value, bias))
    _, backward = _kernels(*query.shape[1:])
    arrays = _arrays(query, key, value, bias, row, indptr, source, out, log_sum, grad_out)
    backward(*arrays, *_arrays(grad_query, grad_key, grad_value, grad_bias), threads)
    return grad_query, grad_key.sum(0), grad_value.sum(0), grad_bias.sum(0)


@_csr_attention_backward.register_fake
def _(
    grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(x.new_empty(x.shape) for x in (query, key, value, bias))


def _save(ctx, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ANN001
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001
    return *_csr_attention_backward(grad_out, *ctx.saved_tensors), None, None, None


_csr_attention.register_autograd(_differentiate, setup_context=_save)


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(t.detach().contiguous().numpy() for t in tensors)


def _threads() -> int:
    return min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS, MOST_THREADS)


@functools.cache
def _kernels(heads: int, head_dim: int) -> tuple[Callable, Callable]:
    """Compile both directions for fixed sizes, so that the inner loops become vector code."""
    compiled = numba.njit(parallel=True, fastmath={"contract", "reassoc", "nsz", "arcp"}, cache=True)
    inline = numba.njit(fastmath={"contract", "reassoc", "nsz", "arcp"}, inline="always")

    @inline
    def exponential(x, bits, scale, count):
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
            x[i] *= scale[i]

    @compiled
    def forward(query, key, value, bias, row, indptr, source, out, log_sum, threads):
        num_nodes = query.shape[0]
        most = np.int64(0)
        for i in range(num_nodes):
            most = max(most, indptr[i + 1] - indptr[i])
        for thread in numba.prange(threads):
            weight = np.empty(most * heads, np.float32)
            bits = np.empty(most * heads, np.int32)
            scale = bits.view(np.float32)
            total = np.empty(heads, np.float32)
            top = np.empty(heads, np.float32)
            for i in range(num_nodes * thread // threads, num_nodes * (thread + 1) // threads):
                begin = indptr[i]
                degree = indptr[i + 1] - begin
                for h in range(heads):
                    top[h] = -np.inf
                    total[h] = 0
                    for c in range(head_dim):
                        out[i, h, c] = 0
                for e in range(degree):
                    j = source[begin + e]
                    b = row[begin + e]
                    for h in range(heads):
                        dot = np.float32(0)
                        for c in range(head_dim):
                            dot += query[i, h, c] * key[j, h, c]
                        dot += bias[b, h]
                        weight[e * heads + h] = dot
                        top[h] = max(top[h], dot)
                for e in range(degree):
                    for h in range(heads):
                        weight[e * heads + h] -= top[h]
                exponential(weight, bits, scale, degree * heads)
                for e in range(degree):
                    j = source[begin + e]
                    for h in range(heads):
                        w = weight[e * heads + h]
                        total[h] += w
                        for c in range(head_dim):
                            out[i, h, c] += w * value[j, h, c]
                for h in range(heads):
                    log_sum[i, h] = top[h] + np.log(total[h])
                    if degree > 0:
                        for c in range(head_dim):
                            out[i, h, c] /= total[h]

    @compiled
    def backward(
        query, key, value, bias, row, indptr, source, out, log_sum, grad_out,
        grad_query, grad_key, grad_value, grad_bias, threads,
    ):  # fmt: skip
        num_nodes = query.shape[0]
        most = np.int64(0)
        for i in range(num_nodes):
            most = max(most, indptr[i + 1] - indptr[i])
        for thread in numba.prange(threads):
            weight = np.empty(most * heads, np.float32)
            bits = np.empty(most * heads, np.int32)
            scale = bits.view(np.float32)
            delta = np.empty(heads, np.float32)
            for i in range(num_nodes * thread // threads, num_nodes * (thread + 1) // threads):
                begin = indptr[i]
                degree = indptr[i + 1] - begin
                for h in range(heads):
                    dot = np.float32(0)
                    for c in range(head_dim):
                        dot += grad_out[i, h, c] * out[i, h, c]
                        grad_query[i, h, c] = 0
                    delta[h] = dot
                for e in range(degree):
                    j = source[begin + e]
                    b = row[begin + e]
                    for h in range(heads):
                        dot = np.float32(0)
                        for c in range(head_dim):
                            dot += query[i, h, c] * key[j, h, c]
                        weight[e * heads + h] = dot + bias[b, h] - log_sum[i, h]
                exponential(weight, bits, scale, degree * heads)
                for e in range(degree):
                    j = source[begin + e]
                    b = row[begin + e]
                    for h in range(heads):
                        w = weight[e * heads + h]
                        dot = np.float32(0)
                        for c in range(head_dim):
                            dot += grad_out[i, h, c] * value[j, h, c]
                            grad_value[thread, j, h, c] += w * grad_out[i, h, c]
                        slope = w * (dot - delta[h])
                        grad_bias[thread, b, h] += slope
                        for c in range(head_dim):
                            grad_query[i, h, c] += slope * key[j, h, c]
                            grad_key[thread, j, h, c] += slope * query[i, h, c]

    return forward, backward

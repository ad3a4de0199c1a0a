"""Cosine attention over the edges of a graph in one pass per target node, on the CPU.

Neither direction makes a tensor of size edges x channels. The forward pass keeps one
pair of numbers per node and head, from which the backward pass rebuilds the attention weights.
"""

import math
from functools import partial
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from glic_pyg.compiled import compiled
from glic_pyg.eager import cpu_operator, eager
from glic_pyg.simd import (
    below,
    exponential,
    fold,
    full,
    load,
    maximum,
    repeat,
    square_root,
    store,
)
from glic_pyg.threads import in_ranges, parts_of, share_out

NORM_EPS = 1e-12  # as torch.nn.functional.normalize has it
WIDEST = 16  # float32 in the widest vector register, of AVX-512
FAST = {"contract", "reassoc", "nsz", "arcp"}  # sums in any order; infinities keep their meaning


@eager
def pointers(edge_index: Tensor, num_nodes: int) -> Tensor | None:
    """Return where the edges of each target begin, `num_nodes + 1`, if edges are sorted by target.

    Args:
        edge_index: Sources, up to `num_nodes`, and targets below it, `2 x E`, int64, on the CPU.
        num_nodes: Targets.

    Returns:
        None for edges that are not sorted, or of other nodes.
    """
    indptr = edge_index.new_empty(num_nodes + 1)
    return indptr if _fill_pointers(*edge_index.numpy(), indptr.numpy()) else None


@compiled()
def _fill_pointers(source, target, indptr):
    last, num_nodes = 0, len(indptr) - 1
    indptr[0] = 0
    for edge in range(len(target)):
        if not (last <= target[edge] < num_nodes and 0 <= source[edge] <= num_nodes):
            return False
        while last < target[edge]:
            last += 1
            indptr[last] = edge
    indptr[last + 1 :] = len(target)
    return True


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

    Heads lie side by side in all features, so that one vector instruction serves them all.

    Args:
        query: `N x D x heads`, float32, on the CPU.
        key_value: Keys and values of the sources, `S x 2 x D x heads`.
        scale: `heads`.
        bias: `R x heads`.
        row: Row of `bias` for each edge, `E`, int16.
        indptr: Where each target's edges begin, `N + 1`, int64.
        source: Source of each edge, sorted by target, `E`, int64.
        order: The order in which targets are worked on, a permutation of them, int64. It is fastest if
            targets that share sources follow each other: these are then found in the processor's caches.

    Returns:
        `N x D x heads`; zero for a target without edges.
    """
    return _csr_attention(query, key_value, scale, bias, row, indptr, source, order)[0]


@cpu_operator("glic_pyg::csr_attention")
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
    statistics = query.new_zeros(len(query), 2, query.size(2))  # unused for a target without edges
    arrays = _arrays(query, key_value, scale, bias, row, indptr, source, order, out, statistics)
    _forward(*_vectors(query), *arrays)
    return out, statistics


@_csr_attention.register_fake
def _(query: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    return out, query.new_empty(len(query), 2, query.size(2))


@cpu_operator("glic_pyg::csr_attention_backward")
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
    statistics: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    threads = torch.get_num_threads()
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    # Of keys and values the first thread's is what is returned: no part of a tensor, and no copy of one.
    grad_key_value = key_value.new_zeros(key_value.shape)
    rest = key_value.new_zeros(threads - 1, *key_value.shape)
    grad_scale, grad_bias = (x.new_zeros(threads, *x.shape) for x in (scale, bias))
    arrays = _arrays(query, key_value, scale, bias, row, indptr, source, order, out, statistics, grad_out)
    _backward(*_vectors(query), *arrays, *_arrays(grad_query, grad_key_value, rest, grad_scale, grad_bias))
    return grad_query, grad_key_value, grad_scale.sum(0), grad_bias.sum(0)


@_csr_attention_backward.register_fake
def _(
    grad_out: Tensor, query: Tensor, key_value: Tensor, scale: Tensor, bias: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_query, grad_key_value, grad_scale, grad_bias = (
        x.new_empty(x.shape) for x in (query, key_value, scale, bias)
    )
    return grad_query, grad_key_value, grad_scale, grad_bias


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_csr_attention_backward(grad_out, *ctx.saved_tensors), None, None, None, None


_csr_attention.register_autograd(_differentiate, setup_context=_save)


def _vectors(query: Tensor) -> tuple[tuple[np.float32, ...], tuple[np.float32, ...]]:
    """Tell compiled code by its arguments' types, tuples, how long vectors are.

    Returns:
        `lanes`, with one number per head, and `wide`, with those of several channels side by side: of as many
        channels as fill at most `WIDEST` numbers and divide the channels of a head.
    """
    _, dims, heads = query.shape
    lanes = (np.float32(0),) * heads
    return lanes, lanes * math.gcd(dims, max(1, WIDEST // heads))


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(t.detach().contiguous().numpy() for t in tensors)


# `lanes` and `wide` are tuples with as many entries as vectors have numbers (see `_vectors`), `size` is the
# number of a node's features, `at` the place where they begin in an array. No views are made per node:
# they would be counted, atomically by all threads.


@numba.njit(fastmath=FAST, forceinline=True)
def _exponentials(lanes, wide, x, count, top):
    """Replace the logits of edges by their exponentials relative to a top per head, and return the sums."""
    heads, tops, total = len(lanes), repeat(wide, top), full(wide, 0.0)
    for e in range(count, count + len(wide) // heads - 1):
        store(x, e * heads, full(lanes, -np.inf))
    for place in range(0, count * heads, len(wide)):
        value = exponential(wide, load(wide, x, place) - tops)
        store(x, place, value)
        total = total + value
    return fold(lanes, total)


@numba.njit(fastmath=FAST, forceinline=True)
def _dot(lanes, wide, x, y, at, size):
    """Return the dot product per head of a node's features in two arrays."""
    total = full(wide, 0.0)
    for i in range(at, at + size, len(wide)):
        total = total + load(wide, x, i) * load(wide, y, i)
    return fold(lanes, total)


@numba.njit(fastmath=FAST, forceinline=True)
def _inverse_norm(lanes, wide, x, at, size):
    """Return the inverse of the norm per head of a node's features."""
    norm = square_root(_dot(lanes, wide, x, x, at, size))
    return 1.0 / maximum(norm, full(lanes, NORM_EPS))


@numba.njit(fastmath=FAST, forceinline=True)
def _through_norm(lanes, wide, grad, x, at, size, inverse):
    """Turn the gradient of the normalised features of a node into that of the features."""
    slope = below(inverse, full(lanes, 1.0 / NORM_EPS))  # shorter ones are divided by a constant
    along = repeat(wide, _dot(lanes, wide, grad, x, at, size) * slope * slope)
    factor = repeat(wide, inverse)
    for i in range(at, at + size, len(wide)):
        store(grad, i, (load(wide, grad, i) - along * load(wide, x, i)) * factor)


@compiled(fastmath=FAST)
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


@compiled(fastmath=FAST)
def _largest_degree(indptr):
    most = np.int64(1)
    for i in range(indptr.size - 1):
        most = max(most, indptr[i + 1] - indptr[i])
    return most


@compiled(fastmath=FAST)
def _inverse_norms(lanes, wide, key_value, size, out, start, stop):
    for j in range(start, stop):
        store(out, j * len(lanes), _inverse_norm(lanes, wide, key_value, 2 * j * size, size))


KEY, VALUE = 0, 1

# The next three work on the edges of a node, from `first` on, 4 at a time, which read what they share once.


@numba.njit(fastmath=FAST, forceinline=True)
def _dots(lanes, wide, x, at, size, key_value, part, source, first, count, out):
    """Set out to the dot products per head of a node's features and the sources' parts, `KEY` or `VALUE`."""
    heads, whole = len(lanes), count // 4 * 4
    for e in range(0, whole, 4):
        at_a, at_b = (2 * source[first + e] + part) * size, (2 * source[first + e + 1] + part) * size
        at_c, at_d = (2 * source[first + e + 2] + part) * size, (2 * source[first + e + 3] + part) * size
        a, b, c, d = full(wide, 0.0), full(wide, 0.0), full(wide, 0.0), full(wide, 0.0)
        for i in range(0, size, len(wide)):
            shared = load(wide, x, at + i)
            a = a + shared * load(wide, key_value, at_a + i)
            b = b + shared * load(wide, key_value, at_b + i)
            c = c + shared * load(wide, key_value, at_c + i)
            d = d + shared * load(wide, key_value, at_d + i)
        store(out, e * heads, fold(lanes, a))
        store(out, (e + 1) * heads, fold(lanes, b))
        store(out, (e + 2) * heads, fold(lanes, c))
        store(out, (e + 3) * heads, fold(lanes, d))
    for e in range(whole, count):
        dot = full(wide, 0.0)
        at_a = (2 * source[first + e] + part) * size
        for i in range(0, size, len(wide)):
            dot = dot + load(wide, x, at + i) * load(wide, key_value, at_a + i)
        store(out, e * heads, fold(lanes, dot))


@numba.njit(fastmath=FAST, forceinline=True)
def _weighted_sum(lanes, wide, weight, key_value, part, source, first, count, out, at, size):
    """Set a node's features in out to the weighted sum of the sources' parts, `KEY` or `VALUE`."""
    heads, whole = len(lanes), count // 4 * 4
    for i in range(at, at + size, len(wide)):
        store(out, i, full(wide, 0.0))
    for e in range(0, whole, 4):
        at_a, at_b = (2 * source[first + e] + part) * size, (2 * source[first + e + 1] + part) * size
        at_c, at_d = (2 * source[first + e + 2] + part) * size, (2 * source[first + e + 3] + part) * size
        a = repeat(wide, load(lanes, weight, e * heads))
        b = repeat(wide, load(lanes, weight, (e + 1) * heads))
        c = repeat(wide, load(lanes, weight, (e + 2) * heads))
        d = repeat(wide, load(lanes, weight, (e + 3) * heads))
        for i in range(0, size, len(wide)):
            near = a * load(wide, key_value, at_a + i) + b * load(wide, key_value, at_b + i)
            far = c * load(wide, key_value, at_c + i) + d * load(wide, key_value, at_d + i)
            store(out, at + i, load(wide, out, at + i) + (near + far))
    for e in range(whole, count):
        a = repeat(wide, load(lanes, weight, e * heads))
        at_a = (2 * source[first + e] + part) * size
        for i in range(0, size, len(wide)):
            store(out, at + i, load(wide, out, at + i) + a * load(wide, key_value, at_a + i))


@numba.njit(fastmath=FAST, forceinline=True)
def _scatter(
    lanes, wide, slope, unit_query, weight, grad_out, at, size, source, first, count, grad_key_value
):  # fmt: skip
    """Add slope * unit_query to the sources' keys' gradients and weight * grad_out to their values'."""
    for e in range(count):
        key = 2 * source[first + e] * size
        value = key + size
        s = repeat(wide, load(lanes, slope, e * len(lanes)))
        w = repeat(wide, load(lanes, weight, e * len(lanes)))
        for i in range(0, size, len(wide)):
            grad = load(wide, grad_key_value, key + i)
            store(grad_key_value, key + i, grad + s * load(wide, unit_query, i))
            grad = load(wide, grad_key_value, value + i)
            store(grad_key_value, value + i, grad + w * load(wide, grad_out, at + i))


@numba.njit(fastmath=FAST, forceinline=True)
def _scale(wide, x, at, factor, out, to, size):
    """Set a node's features in one array to those in another times a factor."""
    for i in range(0, size, len(wide)):
        store(out, to + i, load(wide, x, at + i) * factor)


@numba.njit(fastmath=FAST, forceinline=True)
def _logits(
    lanes, wide, unit_query, size, key_value, inverse_key, bias, row, source, first, count, out
):  # fmt: skip
    """Set out to the logits of a node's edges, and return the largest per head."""
    heads, top = len(lanes), full(lanes, -np.inf)
    _dots(lanes, wide, unit_query, 0, size, key_value, KEY, source, first, count, out)
    for e in range(count):
        cosine = load(lanes, out, e * heads) * load(lanes, inverse_key, source[first + e] * heads)
        logit = cosine + load(lanes, bias, row[first + e] * heads)
        store(out, e * heads, logit)
        top = maximum(top, logit)
    return top


@compiled(fastmath=FAST)
def _attend(
    lanes, wide, targets, most, query, key_value, inverse_key, scale, bias, row, indptr, source, out,
    statistics,
):  # fmt: skip
    heads, size = len(lanes), query.shape[1] * query.shape[2]
    unit_query, weight = np.empty(size, np.float32), np.empty(most * heads + len(wide), np.float32)
    for target in targets:
        at, first, count = target * size, indptr[target], indptr[target + 1] - indptr[target]
        if count == 0:
            for i in range(at, at + size, len(wide)):
                store(out, i, full(wide, 0.0))
            continue
        factor = _inverse_norm(lanes, wide, query, at, size) * load(lanes, scale, 0)
        _scale(wide, query, at, repeat(wide, factor), unit_query, 0, size)
        top = _logits(
            lanes, wide, unit_query, size, key_value, inverse_key, bias, row, source, first, count, weight
        )
        share = 1.0 / _exponentials(lanes, wide, weight, count, top)
        store(statistics, 2 * target * heads, top)
        store(statistics, (2 * target + 1) * heads, share)
        _weighted_sum(lanes, wide, weight, key_value, VALUE, source, first, count, out, at, size)
        _scale(wide, out, at, repeat(wide, share), out, at, size)


def _forward(
    lanes, wide, query, key_value, scale, bias, row, indptr, source, order, out, statistics
):  # fmt: skip
    count = len(parts_of(len(order))) - 1
    inverse_key, most, parts = _shared(lanes, wide, query, key_value, indptr, order, count)
    share_out(
        lambda targets: _attend(
            lanes, wide, targets, most, query, key_value, inverse_key, scale, bias, row, indptr, source,
            out, statistics,
        ),
        parts,
    )  # fmt: skip


def _shared(lanes, wide, query, key_value, indptr, order, count):
    """Return what all parts read, inverse norms of keys and the largest degree, and each part's targets."""
    inverse_key, size = np.empty(len(key_value) * len(lanes), np.float32), query.shape[1] * query.shape[2]
    in_ranges(partial(_inverse_norms, lanes, wide, key_value, size, inverse_key), len(key_value))
    cuts = _bounds(indptr, order, count)
    return inverse_key, _largest_degree(indptr), [order[a:b] for a, b in pairwise(cuts)]


@compiled(fastmath=FAST)
def _differentiate_part(
    lanes, wide, targets, most, query, key_value, inverse_key, scale, bias, row, indptr, source, out,
    statistics, grad_out, grad_query, grad_key_value, grad_scale, grad_bias,
):  # fmt: skip
    heads, size = len(lanes), query.shape[1] * query.shape[2]
    unit_query, slope = np.empty(size, np.float32), np.empty(most * heads, np.float32)
    weight = np.empty(most * heads + len(wide), np.float32)
    for target in targets:
        at, first, count = target * size, indptr[target], indptr[target + 1] - indptr[target]
        inverse = _inverse_norm(lanes, wide, query, at, size)
        _scale(wide, query, at, repeat(wide, inverse * load(lanes, scale, 0)), unit_query, 0, size)
        _logits(
            lanes, wide, unit_query, size, key_value, inverse_key, bias, row, source, first, count, weight
        )
        _exponentials(lanes, wide, weight, count, load(lanes, statistics, 2 * target * heads))
        share = load(lanes, statistics, (2 * target + 1) * heads)
        delta = _dot(lanes, wide, grad_out, out, at, size)
        _dots(lanes, wide, grad_out, at, size, key_value, VALUE, source, first, count, slope)
        for e in range(count):
            place, line = e * heads, row[first + e] * heads
            part = load(lanes, weight, place) * share
            through_softmax = (load(lanes, slope, place) - delta) * part
            store(weight, place, part)
            store(slope, place, through_softmax)
            store(grad_bias, line, load(lanes, grad_bias, line) + through_softmax)
        _scatter(
            lanes, wide, slope, unit_query, weight, grad_out, at, size, source, first, count, grad_key_value
        )
        for e in range(count):
            inverse_norm = load(lanes, inverse_key, source[first + e] * heads)
            store(slope, e * heads, load(lanes, slope, e * heads) * inverse_norm)
        # The gradient of scale times the normalised query, then of the query.
        _weighted_sum(lanes, wide, slope, key_value, KEY, source, first, count, grad_query, at, size)
        along = _dot(lanes, wide, grad_query, query, at, size) * inverse
        store(grad_scale, 0, load(lanes, grad_scale, 0) + along)
        _scale(wide, grad_query, at, repeat(wide, load(lanes, scale, 0)), grad_query, at, size)
        _through_norm(lanes, wide, grad_query, query, at, size, inverse)


def _backward(
    lanes, wide, query, key_value, scale, bias, row, indptr, source, order, out, statistics, grad_out,
    grad_query, grad_key_value, rest, grad_scale, grad_bias,
):  # fmt: skip
    threads, of_threads = len(grad_scale), [grad_key_value, *rest]  # each with sums of its own
    inverse_key, most, parts = _shared(lanes, wide, query, key_value, indptr, order, threads)
    share_out(
        lambda thread: _differentiate_part(
            lanes, wide, parts[thread], most, query, key_value, inverse_key, scale, bias, row, indptr, source,
            out, statistics, grad_out, grad_query, of_threads[thread], grad_scale[thread], grad_bias[thread],
        ),
        range(threads),
    )  # fmt: skip
    in_ranges(partial(_sum_up, lanes, wide, key_value, inverse_key, grad_key_value, rest), len(key_value))


@compiled(fastmath=FAST)
def _sum_up(lanes, wide, key_value, inverse_key, total, rest, start, stop):
    """Add the gradients of other threads to those of the first, and take them through the keys' norm."""
    size = key_value.shape[2] * key_value.shape[3]
    for j in range(start, stop):
        at = 2 * j * size
        for thread in range(len(rest)):
            for i in range(at, at + 2 * size, len(wide)):
                store(total, i, load(wide, total, i) + load(wide, rest, thread * total.size + i))
        _through_norm(lanes, wide, total, key_value, at, size, load(lanes, inverse_key, j * len(lanes)))

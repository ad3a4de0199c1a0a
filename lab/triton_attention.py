"""Cosine attention over a graph's candidates in one kernel, for GPUs: nothing of size edges exists.

A program has one group and one head: its 64 queries, its 256 candidates, whose keys and values are loaded by
their index, and which of them are kept. Scores stay in registers, forward and backward.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

QUERIES, CANDIDATES = 64, 256  # of a group


def triton_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    keep: Tensor,
    node: Tensor,
    candidate: Tensor,
) -> Tensor:
    """Aggregate values by softmax attention per head.

        a_ij = q_i . k_j + bias_ij;  out_i = sum_j softmax_j(a_ij) v_j  over the kept candidates

    Args:
        query: Queries, normalised and scaled, `N x heads x D`, on a GPU.
        key: Normalised keys, `N x heads x D`.
        value: `N x heads x D`.
        bias: Of each place, `K x heads x 64 x 256`, float32: the first `G / K` groups have the first one, and
            so on.
        keep: 1 where a candidate is kept, at least once per query, `G x 64 x 256`, uint8.
        node: The queries' nodes, `G x 64`, int32; `N` where there is none.
        candidate: The candidates' nodes, `G x 256`, int32; `N` is the zero node.

    Returns:
        `N x heads x D`, of the values' dtype.
    """
    return _attention(query, key, value, bias, keep, node, candidate)[0]


@torch.library.custom_op("glic_pyg::triton_attention", mutates_args=())
def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    keep: Tensor,
    node: Tensor,
    candidate: Tensor,
) -> tuple[Tensor, Tensor]:
    num_nodes, heads, channels = query.shape
    out = torch.empty_like(value, memory_format=torch.contiguous_format)
    log_sum = query.new_empty(num_nodes, heads, dtype=torch.float32)
    _forward[len(node), heads](
        *(x.contiguous() for x in (query, key, value, bias)), len(node) // len(bias), keep, node, candidate,
        out, log_sum, num_nodes, heads, channels, triton.next_power_of_2(max(16, channels)),
        num_warps=8, num_stages=1,
    )  # fmt: skip
    return out, log_sum


@_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(value), query.new_empty(query.shape[:2], dtype=torch.float32)


@torch.library.custom_op("glic_pyg::triton_attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    keep: Tensor,
    node: Tensor,
    candidate: Tensor,
    out: Tensor,
    log_sum: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_nodes, heads, channels = query.shape
    grad = grad.contiguous()
    inner = (grad.float() * out.float()).sum(-1)
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    grad_key, grad_value = (torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (key, value))
    # To write each score's gradient and add them up takes a tenth of the time that atomic additions take.
    grad_score = query.new_empty(len(node), *bias.shape[1:])
    _backward[len(node), heads](
        *(x.contiguous() for x in (query, key, value, bias)), len(node) // len(bias), keep, node, candidate,
        grad, inner, log_sum, grad_query, grad_key, grad_value, grad_score,
        num_nodes, heads, channels, triton.next_power_of_2(max(16, channels)),
        num_warps=8, num_stages=1,
    )  # fmt: skip
    grad_bias = grad_score.unflatten(0, (len(bias), -1)).sum(1, dtype=torch.float32)
    return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), grad_bias


@_attention_backward.register_fake
def _(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, *_: Tensor
) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x) for x in (query, key, value, bias))


def _keep_for_backward(ctx: object, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _differentiate(ctx: object, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*_attention_backward(grad, *ctx.saved_tensors), None, None, None)


_attention.register_autograd(_differentiate, setup_context=_keep_for_backward)


@triton.jit
def _forward(
    query, key, value, bias, groups_alike, keep, node, candidate, out, log_sum,
    num_nodes, heads, channels, CHANNELS: tl.constexpr,
):  # fmt: skip
    group, head = tl.program_id(0), tl.program_id(1)
    slot, place, c = tl.arange(0, 64), tl.arange(0, 256), tl.arange(0, CHANNELS)
    target = tl.load(node + group * 64 + slot)
    source = tl.load(candidate + group * 256 + place)
    inside = (target < num_nodes)[:, None] & (c < channels)[None, :]
    rows = (target[:, None].to(tl.int64) * heads + head) * channels + c[None, :]
    known = (source < num_nodes)[:, None] & (c < channels)[None, :]
    columns = (source[:, None].to(tl.int64) * heads + head) * channels + c[None, :]
    q = tl.load(query + rows, mask=inside, other=0.0)
    k = tl.load(key + columns, mask=known, other=0.0)
    v = tl.load(value + columns, mask=known, other=0.0)
    score = tl.dot(q, tl.trans(k))
    cell = slot[:, None] * 256 + place[None, :]
    score += tl.load(bias + (group // groups_alike * heads + head) * 64 * 256 + cell)
    kept = tl.load(keep + group.to(tl.int64) * 64 * 256 + cell) != 0
    score = tl.where(kept, score, float("-inf"))
    most = tl.max(score, 1)
    weight = tl.exp(score - most[:, None])
    total = tl.sum(weight, 1)
    result = tl.dot(weight.to(v.dtype), v) / total[:, None]
    tl.store(out + rows, result.to(out.dtype.element_ty), mask=inside)
    tl.store(log_sum + target.to(tl.int64) * heads + head, most + tl.log(total), mask=target < num_nodes)


@triton.jit
def _backward(
    query, key, value, bias, groups_alike, keep, node, candidate, grad, inner, log_sum,
    grad_query, grad_key, grad_value, grad_score,
    num_nodes, heads, channels, CHANNELS: tl.constexpr,
):  # fmt: skip
    group, head = tl.program_id(0), tl.program_id(1)
    place, c = tl.arange(0, 256), tl.arange(0, CHANNELS)
    source = tl.load(candidate + group * 256 + place)
    known = (source < num_nodes)[:, None] & (c < channels)[None, :]
    columns = (source[:, None].to(tl.int64) * heads + head) * channels + c[None, :]
    k = tl.load(key + columns, mask=known, other=0.0)
    v = tl.load(value + columns, mask=known, other=0.0)
    biases = bias + (group // groups_alike * heads + head) * 64 * 256
    scores = grad_score + (group.to(tl.int64) * heads + head) * 64 * 256
    of_key = tl.zeros([256, CHANNELS], dtype=tl.float32)
    of_value = tl.zeros([256, CHANNELS], dtype=tl.float32)
    for first in range(0, 64, 16):
        slot = first + tl.arange(0, 16)
        target = tl.load(node + group * 64 + slot)
        exists = target < num_nodes
        inside = exists[:, None] & (c < channels)[None, :]
        rows = (target[:, None].to(tl.int64) * heads + head) * channels + c[None, :]
        q = tl.load(query + rows, mask=inside, other=0.0)
        g = tl.load(grad + rows, mask=inside, other=0.0)
        cell = slot[:, None] * 256 + place[None, :]
        score = tl.dot(q, tl.trans(k)) + tl.load(biases + cell)
        kept = tl.load(keep + group.to(tl.int64) * 64 * 256 + cell) != 0
        at = target.to(tl.int64) * heads + head
        weight = tl.exp(score - tl.load(log_sum + at, mask=exists, other=0.0)[:, None])
        weight = tl.where(kept & exists[:, None], weight, 0.0)
        of_value += tl.dot(tl.trans(weight).to(g.dtype), g)
        of_weight = tl.dot(g, tl.trans(v))
        of_score = weight * (of_weight - tl.load(inner + at, mask=exists, other=0.0)[:, None])
        of_score = of_score.to(k.dtype)
        tl.store(scores + cell, of_score)
        tl.store(grad_query + rows, tl.dot(of_score, k).to(grad_query.dtype.element_ty), mask=inside)
        of_key += tl.dot(tl.trans(of_score), q)
    # Nothing else waits for these sums: without an order of memory they need no fences.
    tl.atomic_add(grad_key + columns, of_key, mask=known, sem="relaxed")
    tl.atomic_add(grad_value + columns, of_value, mask=known, sem="relaxed")

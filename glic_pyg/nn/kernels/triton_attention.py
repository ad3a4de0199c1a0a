"""Cosine attention over a graph's candidates in one Triton kernel each way: nothing of size edges exists.

Forward, a program has one group and one head: it loads the 64 queries and 256 candidates by their index, the
biases from the table, and the bits that say who is kept; scores stay in registers. Backward, a program has
one head and a run of groups. What it finds for a candidate is written per group, and what it finds for a bias
is summed over the run; both are then summed by lists of who stands where. So no atomic addition is needed,
and gradients are the same in every run. Imports Triton.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from glic_pyg.graph.candidates import CANDIDATES, QUERIES, Candidates, slot_offsets
from glic_pyg.nn import distance_bias, position_bias

PROGRAMS = 512  # backward: enough for a large GPU, each with sums of its own
FORWARD = {"num_warps": 8}
BACKWARD = {"BLOCK": 32, "num_warps": 4}  # candidates at a time: with 64, registers would not suffice


class Lists(NamedTuple):
    """Where each of some numbers stands in a tensor.

    Args:
        place: Places in the flattened tensor, those of the least number first, int32.
        first: Where those of each number begin, and an end, int32.
    """

    place: Tensor
    first: Tensor


class Groups(NamedTuple):
    """A graph's groups, as the kernels read them.

    Groups whose queries stand alike among their candidates are of one kind: the same table of biases holds
    for them. For a `PositionBias`, all are.

    Args:
        node: The nodes of each group, `G x 64`, `N` where there is none.
        candidate: Their candidates, `G x 256`; `N` is the zero node.
        kind: Kind of each group, `G`, int32.
        start: Row of the table of biases for each slot and the first candidate, by kind, `K x 64`, int32; the
            next candidates' rows follow from their place, and wrap around.
        side: Rows of the table per step along the map's rows.
        order: Groups, those of a kind together, `G`, int32.
        run: Where runs of them begin, none of two kinds, and an end, `R + 1`, int32.
        runs: The number of each kind's.
        candidates: Where each node stands in `candidate`.
        rows: Where each row of the table stands among kinds, slots and candidates, `K x 64 x 256`.
    """

    node: Tensor
    candidate: Tensor
    kind: Tensor
    start: Tensor
    side: int
    order: Tensor
    run: Tensor
    runs: list[int]
    candidates: Lists
    rows: Lists


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def groups_of(candidates: Candidates, *, heads: int, distance: bool) -> Groups:
    """Lay out groups for the kernels; kept for the next call, since sets of candidates are.

    Args:
        candidates: The groups.
        heads: Attention heads.
        distance: Whether the table of biases is a `DistanceBias`'s or a `PositionBias`'s.

    Raises:
        ValueError: a distance is wanted of candidates that tell none.
    """
    node, device = candidates.node, candidates.node.device
    steps = slot_offsets(device)[:, 0].long()
    if distance:
        if candidates.shift is None:
            raise ValueError("Expected candidates that tell their distance, shift and stride (got none)")
        shift = F.pad(candidates.shift, (0, 0, 0, 1))[node].long()
        shift, kind = shift.flatten(1).unique(dim=0, return_inverse=True)
        steps = steps - shift.view(-1, *steps.shape)
        side, first = distance_bias.SIDE, distance_bias.FARTHEST
    else:
        steps, kind = steps[None], node.new_zeros(len(node))
        side, first = position_bias.SIDE, -position_bias.HIGHEST
    start = (steps[..., 0] + first) * side + steps[..., 1] + first
    place = torch.arange(CANDIDATES**2, device=device)
    row = (start[..., None] + place // CANDIDATES * side + place % CANDIDATES) % side**2
    run, runs = [0], []
    for count in kind.bincount().tolist():
        runs.append(min(count, -(-count * max(1, PROGRAMS // heads) // len(node))))
        begin = run[-1]
        run += [begin + count * (i + 1) // runs[-1] for i in range(runs[-1])]
    return Groups(
        node=node.contiguous(),
        candidate=candidates.candidate.contiguous(),
        kind=kind.int(),
        start=start.int().contiguous(),
        side=side,
        order=kind.argsort(stable=True).int(),
        run=torch.tensor(run, dtype=torch.int32, device=device),
        runs=runs,
        candidates=_lists(candidates.candidate, candidates.num_nodes),
        rows=_lists(row, side**2),
    )


def _lists(numbers: Tensor, count: int) -> Lists:
    """Find where each of the numbers 0..count - 1 stands."""
    numbers, place = numbers.flatten().sort(stable=True)
    first = torch.searchsorted(numbers, torch.arange(count + 1, device=numbers.device))
    return Lists(place.int(), first.int())


def triton_attention(
    query: Tensor, key_value: Tensor, scale: Tensor, bias: Tensor, kept: Tensor, groups: Groups
) -> Tensor:
    """Compute what `glic_pyg.nn.kernels.csr_attention` does, on a GPU.

    Args:
        query: `N x heads x D`, of 32 or 16 bits.
        key_value: Keys and values, `N x 2 x heads x D`.
        scale: `heads`.
        bias: `R x heads`.
        kept: See `Graph`, `(N + 1) x 8`.
        groups: The groups.

    Returns:
        `N x heads x D`; zero for a target without edges.
    """
    dtype = query.dtype
    # The norms and the scale in float32: they are few, and half a precision less would be seen.
    query = (F.normalize(query.float(), dim=-1) * scale.float()[:, None]).to(dtype)
    key, value = key_value.unbind(dim=1)
    key = F.normalize(key.float(), dim=-1).to(dtype)
    indices = [*groups[:4], groups.order, groups.run, *groups.candidates, *groups.rows]
    return _attention(query, key, value, bias.float(), kept, indices, groups.runs, groups.side)[0]


@torch.library.custom_op("glic_pyg::triton_attention", mutates_args=())
def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    kept: Tensor,
    indices: list[Tensor],
    runs: list[int],
    side: int,
) -> tuple[Tensor, Tensor]:
    num_nodes, heads, channels = query.shape
    node, candidate, kind, start = indices[:4]
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    log_sum = query.new_empty(num_nodes, heads, dtype=torch.float32)
    with torch.cuda.device_of(query):
        _forward[(len(node), heads)](
            *_inputs(query, key, value, bias), kept, node, candidate, kind, start, out, log_sum,
            num_nodes, heads, channels, value.stride(0), CHANNELS=_block(query), SIDE=side,
            num_stages=1, **FORWARD,
        )  # fmt: skip
    return out, log_sum


@_attention.register_fake
def _(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    return out, query.new_empty(query.shape[:2], dtype=torch.float32)


@torch.library.custom_op("glic_pyg::triton_attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    kept: Tensor,
    indices: list[Tensor],
    runs: list[int],
    side: int,
    out: Tensor,
    log_sum: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_nodes, heads, channels = query.shape
    node, candidate, kind, start, order, run, *lists = indices
    grad = grad.contiguous()
    inner = (grad.float() * out.float()).sum(-1)
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    of_key, of_value = (x.new_empty(candidate.numel(), heads, channels) for x in (key, value))
    of_bias = bias.new_empty(sum(runs), heads, QUERIES**2, CANDIDATES**2)
    with torch.cuda.device_of(query):
        _backward[(sum(runs), heads)](
            *_inputs(query, key, value, bias), kept, node, candidate, kind, start, order, run,
            grad, inner, log_sum, grad_query, of_key, of_value, of_bias,
            num_nodes, heads, channels, value.stride(0), CHANNELS=_block(query), SIDE=side,
            num_stages=1, **BACKWARD,
        )  # fmt: skip
    candidates, rows = Lists(*lists[:2]), Lists(*lists[2:])
    of_kinds = torch.stack([part.sum(0) for part in of_bias.split(runs)]).movedim(1, -1).contiguous()
    return (
        grad_query,
        _sums(of_key, candidates, entries=4).view_as(query),
        _sums(of_value, candidates, entries=4).view_as(query),
        _sums(of_kinds.view(-1, heads), rows, entries=16),
    )


@_attention_backward.register_fake
def _(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    of_query, of_key, of_value, of_bias = (x.new_empty(x.shape) for x in (query, key, value, bias))
    return of_query, of_key, of_value, of_bias


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, bias, kept, indices, ctx.runs, ctx.side = inputs
    ctx.save_for_backward(query, key, value, bias, kept, *output, *indices)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    *inputs, out, log_sum = ctx.saved_tensors[:7]
    indices = list(ctx.saved_tensors[7:])
    gradients = _attention_backward(grad, *inputs, indices, ctx.runs, ctx.side, out, log_sum)
    return *gradients, None, [None] * len(indices), None, None


_attention.register_autograd(_differentiate, setup_context=_save)


def _inputs(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """Return features as the kernels read them: values may lie beside their keys, biases head by head."""
    if value.stride()[1:] != (value.size(2), 1):
        raise ValueError(f"Expected values whose heads lie side by side (got strides {value.stride()})")
    return query.contiguous(), key.contiguous(), value, bias.T.contiguous()


def _block(query: Tensor) -> int:
    """Return so many channels as are multiplied at a time: those of a head, at least 16."""
    return triton.next_power_of_2(max(16, query.size(2)))


def _sums(x: Tensor, lists: Lists, *, entries: int) -> Tensor:
    """Sum the rows of `M x ...` that each number has in a list: `count x W`.

    Args:
        x: The rows.
        lists: Which rows.
        entries: So many are added at a time.
    """
    width, count = x[0].numel(), len(lists.first) - 1
    out = x.new_empty(count, width)
    block = min(128, triton.next_power_of_2(width))
    rows = min(16, 4096 // (entries * block))
    with torch.cuda.device_of(x):
        _sum[(triton.cdiv(count, rows), triton.cdiv(width, block))](
            x, *lists, out, count, width, ROWS=rows, ENTRIES=entries, WIDTH=block
        )
    return out


@triton.jit
def _dot(a, b):
    """Multiply; float32 as three products of tf32: as exact, and in less shared memory than one."""
    return tl.dot(a, b, input_precision="tf32x3")


@triton.jit
def _biases(table, start, kind, head, slot, place, SIDE: tl.constexpr):
    """Load the biases of some slots and candidates of a group."""
    first = tl.load(start + kind * 64 + slot)
    row = first[:, None] + (place // 16 * SIDE + place % 16)[None, :]
    row = tl.where(row < 0, row + SIDE * SIDE, row)
    inside = (row >= 0) & (row < SIDE * SIDE)  # all are that some edge has
    return tl.load(table + head * SIDE * SIDE + row, mask=inside, other=0.0)


@triton.jit
def _kept(kept, target, exists, place):
    """Load who keeps whom."""
    words = tl.load(kept + target[:, None] * 8 + (place // 32)[None, :], mask=exists[:, None], other=0)
    return ((words >> (place % 32)[None, :]) & 1) != 0


@triton.jit
def _forward(
    query, key, value, table, kept, node, candidate, kinds, start, out, log_sum,
    num_nodes, heads, channels, value_stride,
    CHANNELS: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    group, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot, place, c = tl.arange(0, 64), tl.arange(0, 256), tl.arange(0, CHANNELS)
    target = tl.load(node + group * 64 + slot)
    source = tl.load(candidate + group * 256 + place)
    exists, some = target < num_nodes, (c < channels)[None, :]
    known = (source < num_nodes)[:, None] & some
    rows = (target[:, None] * heads + head) * channels + c[None, :]
    q = tl.load(query + rows, mask=exists[:, None] & some, other=0.0)
    k = tl.load(key + (source[:, None] * heads + head) * channels + c[None, :], mask=known, other=0.0)
    v = tl.load(value + source[:, None] * value_stride + head * channels + c[None, :], mask=known, other=0.0)
    score = _dot(q, tl.trans(k))
    score += _biases(table, start, tl.load(kinds + group), head, slot, place, SIDE)
    score = tl.where(_kept(kept, target, exists, place), score, float("-inf"))
    most = tl.max(score, 1)
    most = tl.where(most == float("-inf"), 0.0, most)
    weight = tl.exp(score - most[:, None])
    total = tl.sum(weight, 1)
    total = tl.where(total == 0.0, 1.0, total)
    result = _dot(weight.to(v.dtype), v) / total[:, None]
    tl.store(out + rows, result.to(out.dtype.element_ty), mask=exists[:, None] & some)
    tl.store(log_sum + target * heads + head, most + tl.log(total), mask=exists)


@triton.jit
def _backward(
    query, key, value, table, kept, node, candidate, kinds, start, order, run,
    grad, inner, log_sum, grad_query, of_key, of_value, of_bias,
    num_nodes, heads, channels, value_stride,
    CHANNELS: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    number, head = tl.program_id(0), tl.program_id(1)
    slot, c = tl.arange(0, 64), tl.arange(0, CHANNELS)
    some = (c < channels)[None, :]
    begin = tl.load(run + number)
    sums = of_bias + (number.to(tl.int64) * heads + head) * 64 * 256
    for at in range(begin, tl.load(run + number + 1)):
        group = tl.load(order + at).to(tl.int64)
        kind = tl.load(kinds + group)
        target = tl.load(node + group * 64 + slot)
        exists = target < num_nodes
        inside = exists[:, None] & some
        rows = (target[:, None] * heads + head) * channels + c[None, :]
        q = tl.load(query + rows, mask=inside, other=0.0)
        g = tl.load(grad + rows, mask=inside, other=0.0)
        of_target = tl.load(inner + target * heads + head, mask=exists, other=0.0)
        log_total = tl.load(log_sum + target * heads + head, mask=exists, other=0.0)
        of_query = tl.zeros([64, CHANNELS], dtype=tl.float32)
        for first in range(0, 256, BLOCK):
            place = first + tl.arange(0, BLOCK)
            source = tl.load(candidate + group * 256 + place)
            known = (source < num_nodes)[:, None] & some
            k = tl.load(key + (source[:, None] * heads + head) * channels + c[None, :], mask=known, other=0.0)
            v = tl.load(
                value + source[:, None] * value_stride + head * channels + c[None, :], mask=known, other=0.0
            )
            score = _dot(q, tl.trans(k))
            score += _biases(table, start, kind, head, slot, place, SIDE)
            score = tl.where(_kept(kept, target, exists, place), score, float("-inf"))
            weight = tl.exp(score - log_total[:, None])
            of_weight = _dot(g, tl.trans(v))
            of_score = weight * (of_weight - of_target[:, None])
            cell = slot[:, None] * 256 + place[None, :]
            before = tl.load(sums + cell, mask=(cell >= 0) & (at > begin), other=0.0)
            tl.store(sums + cell, before + of_score)
            of_score = of_score.to(k.dtype)
            of_query += _dot(of_score, k)
            entries = ((group * 256 + place)[:, None] * heads + head) * channels + c[None, :]
            result = _dot(tl.trans(of_score), q)
            tl.store(of_key + entries, result.to(of_key.dtype.element_ty), mask=some & (place >= 0)[:, None])
            result = _dot(tl.trans(weight.to(g.dtype)), g)
            tl.store(
                of_value + entries, result.to(of_value.dtype.element_ty), mask=some & (place >= 0)[:, None]
            )
        tl.store(grad_query + rows, of_query.to(grad_query.dtype.element_ty), mask=inside)
        tl.debug_barrier()  # the sums are read by whoever reads them


@triton.jit
def _sum(
    x, place, first, out, count, width, ROWS: tl.constexpr, ENTRIES: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    begin = tl.load(first + row, mask=row < count, other=0)
    end = tl.load(first + row + 1, mask=row < count, other=0)
    total = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    for some in range(0, tl.max(end - begin), ENTRIES):
        entry = begin[:, None] + some + tl.arange(0, ENTRIES)[None, :]
        inside = entry < end[:, None]
        at = tl.load(place + entry, mask=inside, other=0).to(tl.int64) * width
        values = tl.load(
            x + at[:, :, None] + c[None, None, :],
            mask=inside[:, :, None] & (c < width)[None, None, :],
            other=0.0,
        )
        total += tl.sum(values.to(tl.float32), 1)
    tl.store(
        out + row[:, None] * width + c[None, :], total.to(out.dtype.element_ty),
        mask=(row < count)[:, None] & (c < width)[None, :],
    )  # fmt: skip

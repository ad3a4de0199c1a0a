"""Similarity, bisected threshold and kept candidates in one Triton kernel: scores never leave the chip.

A program has one group: 64 queries and their 256 candidates, whose features it loads by their index. Imports
Triton.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WORDS = 8  # of 32 bits, for 256 candidates


def kept_bits(unit: Tensor, quota: Tensor, node: Tensor, candidate: Tensor, *, bisections: int) -> Tensor:
    """Compute what `glic_pyg.graph.selection.kept_bits` does of `Cosine` with a `Threshold`.

    Products of float32 are taken as three of tf32, which is as exact; the sums run in another order. So where
    a similarity equals the threshold to the last bits, the two may decide differently.

    Args:
        unit: Normalised features, `(N + 1) x C`, float32; the last row, of zeros, is the zero node.
        quota: Wanted number of neighbours per node, `N`.
        node: The nodes of each group, `G x 64`; `N` where there is none.
        candidate: Their candidates, `G x 256`; `N` is the zero node.
        bisections: See `Threshold`.

    Returns:
        `(N + 1) x 8`, int32.
    """
    return _kept_bits(unit, quota, node, candidate, bisections)


@torch.library.custom_op("glic_pyg::triton_kept_bits", mutates_args=())
def _kept_bits(unit: Tensor, quota: Tensor, node: Tensor, candidate: Tensor, bisections: int) -> Tensor:
    bits = quota.new_zeros(len(unit), WORDS, dtype=torch.int32)
    channels = unit.size(1)
    with torch.cuda.device_of(unit):
        _choose[(len(node),)](
            *(x.contiguous() for x in (unit, quota, node, candidate)), bits, len(unit) - 1, channels,
            bisections,
            CHANNELS=min(32, triton.next_power_of_2(max(16, channels))), num_warps=8, num_stages=1,
        )  # fmt: skip
    return bits


@_kept_bits.register_fake
def _(unit: Tensor, quota: Tensor, node: Tensor, candidate: Tensor, bisections: int) -> Tensor:
    return quota.new_empty(len(unit), WORDS, dtype=torch.int32)


@triton.jit
def _choose(
    unit, quota, node, candidate, bits, num_nodes, channels, bisections, CHANNELS: tl.constexpr
):  # fmt: skip
    group = tl.program_id(0).to(tl.int64)
    slot, place = tl.arange(0, 64), tl.arange(0, 256)
    target = tl.load(node + group * 64 + slot)
    source = tl.load(candidate + group * 256 + place)
    similarity = tl.zeros([64, 256], dtype=tl.float32)
    for first in range(0, channels, CHANNELS):
        c = first + tl.arange(0, CHANNELS)
        some = (c < channels)[None, :]
        q = tl.load(
            unit + target[:, None] * channels + c[None, :],
            mask=(target < num_nodes)[:, None] & some, other=0.0,
        )  # fmt: skip
        k = tl.load(
            unit + source[:, None] * channels + c[None, :],
            mask=(source < num_nodes)[:, None] & some, other=0.0,
        )  # fmt: skip
        similarity += tl.dot(q, tl.trans(k), input_precision="tf32x3")
    wanted = tl.load(quota + target, mask=target < num_nodes, other=0.0)
    threshold = tl.sum(similarity, 1) / 256
    low, high = tl.min(similarity, 1), tl.full([64], 1.0, tl.float32)
    for _ in range(bisections):
        count = tl.sum((similarity > threshold[:, None]).to(tl.float32), 1)
        too_many = count > wanted
        low = tl.where(too_many, threshold, low)
        high = tl.where(too_many, high, threshold)
        threshold = tl.where(too_many, threshold + high, threshold + low) / 2
    kept = (similarity > threshold[:, None]).to(tl.int32)
    none = tl.sum(kept, 1) == 0
    kept = tl.where(none[:, None], 1, kept)
    word, bit = tl.arange(0, 8), tl.arange(0, 32)
    words = tl.sum(tl.reshape(kept, [64, 8, 32]) << bit[None, None, :], 2)
    tl.store(bits + target[:, None] * 8 + word[None, :], words, mask=(target < num_nodes)[:, None])

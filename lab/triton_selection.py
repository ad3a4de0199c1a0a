"""Similarity, bisected threshold and kept candidates in one kernel, for GPUs: scores never leave the chip."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def kept_candidates(
    unit: Tensor, quota: Tensor, node: Tensor, candidate: Tensor, *, bisections: int
) -> Tensor:
    """Choose every node's neighbours as `Threshold` does; a node that would keep none keeps all.

    Args:
        unit: Normalised features, `N x C`, float32, on a GPU.
        quota: Wanted number of neighbours per node, `N`.
        node: The groups' queries, `G x 64`, int32; `N` where there is none.
        candidate: Their candidates, `G x 256`, int32; `N` is the zero node.

    Returns:
        1 where a candidate is kept, `G x 64 x 256`, uint8.
    """
    keep = torch.empty(len(node), 64, 256, dtype=torch.uint8, device=unit.device)
    block = min(32, triton.next_power_of_2(max(16, unit.size(1))))
    _choose[len(node),](
        unit.contiguous(),
        quota,
        node,
        candidate,
        keep,
        len(unit),
        unit.size(1),
        block,
        bisections,
        num_warps=8,
        num_stages=1,
    )
    return keep


@triton.jit
def _choose(
    unit, quota, node, candidate, keep, num_nodes, channels, CHANNELS: tl.constexpr, BISECTIONS: tl.constexpr
):
    group = tl.program_id(0)
    slot, place = tl.arange(0, 64), tl.arange(0, 256)
    target = tl.load(node + group * 64 + slot)
    source = tl.load(candidate + group * 256 + place)
    similarity = tl.zeros([64, 256], dtype=tl.float32)
    for first in range(0, channels, CHANNELS):
        c = first + tl.arange(0, CHANNELS)
        some = (c < channels)[None, :]
        q = tl.load(
            unit + target[:, None].to(tl.int64) * channels + c[None, :],
            mask=(target < num_nodes)[:, None] & some, other=0.0,
        )  # fmt: skip
        k = tl.load(
            unit + source[:, None].to(tl.int64) * channels + c[None, :],
            mask=(source < num_nodes)[:, None] & some, other=0.0,
        )  # fmt: skip
        similarity += tl.dot(q, tl.trans(k), input_precision="tf32x3")
    wanted = tl.load(quota + target, mask=target < num_nodes, other=0.0)
    threshold = tl.sum(similarity, 1) / 256
    low, high = tl.min(similarity, 1), tl.full([64], 1.0, tl.float32)
    for _ in range(BISECTIONS):
        count = tl.sum((similarity > threshold[:, None]).to(tl.float32), 1)
        too_many = count > wanted
        low = tl.where(too_many, threshold, low)
        high = tl.where(too_many, high, threshold)
        threshold = tl.where(too_many, threshold + high, threshold + low) / 2
    kept = (similarity > threshold[:, None]).to(tl.int32)
    none = tl.sum(kept, 1) == 0
    kept = tl.where(none[:, None], 1, kept)
    cell = slot[:, None] * 256 + place[None, :]
    tl.store(keep + group.to(tl.int64) * 64 * 256 + cell, kept.to(tl.uint8))

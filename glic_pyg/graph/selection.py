"""Similarity and quota -> which candidates are kept."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from glic_pyg.graph.candidates import Candidates, slot_offsets

BISECTIONS = 5


class KeptEdges(NamedTuple):
    """Edges candidate -> query, sorted by query.

    Args:
        index: Sources and targets, `2 x E`.
        offset: Row and column offset in grid steps, `E x 2`, int8.
        similarity: `E`.
    """

    index: Tensor
    offset: Tensor
    similarity: Tensor


def kept_edges(
    similarity: Tensor, quota: Tensor, candidates: Candidates, *, method: Literal["threshold", "top_d"]
) -> KeptEdges:
    """Turn the chosen candidates of every node into edges.

    Args:
        similarity: Cosine similarity of each group's queries with its candidates, `G x 64 x 256`.
        quota: Wanted number of neighbours per node, `N`.
        candidates: The groups.
        method: See `select`.
    """
    similarity = similarity[candidates.group, candidates.slot]
    target, place = select(similarity, quota, method=method).nonzero(as_tuple=True)
    source = candidates.candidate[candidates.group[target], place]
    offset = slot_offsets(target.device)[candidates.slot[target], place]
    return KeptEdges(torch.stack([source, target]), offset, similarity[target, place])


def select(similarity: Tensor, quota: Tensor, *, method: Literal["threshold", "top_d"]) -> Tensor:
    """Choose the candidates that become neighbours.

    A node that would keep nothing keeps all its candidates.

    Args:
        similarity: Cosine similarity of each node with its candidates, `N x K`.
        quota: Wanted number of neighbours, `N`.
        method: `threshold` bisects one threshold per node and meets the quota roughly;
            `top_d` keeps exactly the rounded quota's number of most similar candidates.

    Returns:
        Mask, `N x K`.
    """
    keep = _above_threshold(similarity, quota) if method == "threshold" else _top(similarity, quota)
    return keep | ~keep.any(dim=1, keepdim=True)


def _above_threshold(similarity: Tensor, quota: Tensor) -> Tensor:
    threshold = similarity.mean(dim=1)
    low, high = similarity.amin(dim=1), torch.ones_like(threshold)
    for _ in range(BISECTIONS):
        too_many = (similarity > threshold[:, None]).sum(dim=1) > quota
        low = torch.where(too_many, threshold, low)
        high = torch.where(too_many, high, threshold)
        threshold = torch.where(too_many, threshold + high, threshold + low) / 2
    return similarity > threshold[:, None]


def _top(similarity: Tensor, quota: Tensor) -> Tensor:
    order = similarity.argsort(dim=1, descending=True, stable=True)
    wanted = torch.arange(similarity.size(1), device=similarity.device) < quota.round()[:, None]
    return torch.zeros_like(wanted).scatter_(1, order, wanted)

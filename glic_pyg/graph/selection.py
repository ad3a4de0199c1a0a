"""Similarity and quota -> which candidates are kept."""

from abc import ABC, abstractmethod
from numbers import Integral
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int8, Int32, Int64
from torch import Tensor

from glic_pyg.graph.candidates import CANDIDATES, Candidates, slot_offsets


class KeptEdges(NamedTuple):
    """Edges candidate -> query, sorted by query.

    Args:
        index: Sources and targets, `2 x E`.
        offset: Row and column offset in grid steps, `E x 2`, int8.
        similarity: `E`.
    """

    index: Int64[Tensor, "2 E"]  # type: ignore[assignment]  # hides that of tuples
    offset: Int8[Tensor, "E 2"]
    similarity: Float[Tensor, " E"]


class Selection(ABC):
    """Which of a node's candidates become its neighbours."""

    @abstractmethod
    def __call__(self, similarity: Float[Tensor, "N K"], quota: Float[Tensor, " N"]) -> Bool[Tensor, "N K"]:
        """Choose; called without gradient.

        Args:
            similarity: Cosine similarity of each node with its candidates, `N x K`; not to be changed.
            quota: Wanted number of neighbours, `N`.

        Returns:
            Mask, `N x K`. A node that would keep nothing keeps all its candidates (see `kept_edges`).
        """

    def reach(self, quota: Float[Tensor, " N"], num_candidates: int) -> int:
        """Return how many of a node's most similar candidates must be known; the others may be left out."""
        return num_candidates


class Threshold(Selection):
    """Keep what lies above one threshold per node, as published.

    Bisections, from the mean similarity, between the least one and 1, meet the quota roughly: the more
    candidates are alike, the more of them it takes.

    Args:
        bisections: Their number; published: 5.

    Raises:
        ValueError: a number that is not in 1..24, beyond which float32 knows no thresholds between.
    """

    bisections: int

    def __init__(self, *, bisections: int = 5) -> None:
        if not (isinstance(bisections, Integral) and 1 <= bisections <= 24):
            raise ValueError(f"Expected bisections in 1..24 (got {bisections})")
        self.bisections = bisections

    def __call__(self, similarity: Float[Tensor, "N K"], quota: Float[Tensor, " N"]) -> Bool[Tensor, "N K"]:
        threshold = similarity.mean(dim=1)
        low, high = similarity.amin(dim=1), torch.ones_like(threshold)
        for _ in range(self.bisections):
            too_many = (similarity > threshold[:, None]).sum(dim=1) > quota
            low = torch.where(too_many, threshold, low)
            high = torch.where(too_many, high, threshold)
            threshold = torch.where(too_many, threshold + high, threshold + low) / 2
        return similarity > threshold[:, None]


class TopD(Selection):
    """Keep exactly the rounded quota's number of most similar candidates; of equal ones the first."""

    def counts(self, quota: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Return how many candidates each node keeps, whole numbers."""
        return quota.round()

    def __call__(self, similarity: Float[Tensor, "N K"], quota: Float[Tensor, " N"]) -> Bool[Tensor, "N K"]:
        order = similarity.argsort(dim=1, descending=True, stable=True)
        wanted = torch.arange(similarity.size(1), device=similarity.device) < self.counts(quota)[:, None]
        return torch.zeros_like(wanted).scatter_(1, order, wanted)

    def reach(self, quota: Float[Tensor, " N"], num_candidates: int) -> int:
        return int(self.counts(quota).max().item())


class KNN(TopD):
    """Keep the k most similar candidates of every node, whatever its quota.

    Args:
        k: Number of neighbours, at most 256.

    Raises:
        ValueError: `k` is no number of candidates.
    """

    k: int

    def __init__(self, *, k: int) -> None:
        if not (isinstance(k, Integral) and 1 <= k <= CANDIDATES**2):
            raise ValueError(f"Expected k in 1..{CANDIDATES**2} (got {k})")
        self.k = k

    def counts(self, quota: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        return torch.full_like(quota, self.k)


def kept_mask(
    similarity: Float[Tensor, "G 64 256"],
    quota: Float[Tensor, " N"],
    candidates: Candidates,
    selection: Selection,
) -> Bool[Tensor, "N 256"]:
    """Return which of its group's candidates each node keeps, `N x 256`: all where nothing is chosen.

    Args:
        similarity: Cosine similarity of each group's queries with its candidates, `G x 64 x 256`.
        quota: Wanted number of neighbours per node, `N`.
        candidates: The groups.
        selection: Who chooses.
    """
    keep = selection(similarity[candidates.group, candidates.slot], quota)
    return keep | ~keep.any(dim=1, keepdim=True)


def kept_bits(keep: Bool[Tensor, "*nodes 256"]) -> Int32[Tensor, "*nodes 8"]:
    """Pack which candidates are kept, `... x 256`, into words of 32 bits, lowest first: `... x 8`, int32."""
    bit = torch.arange(32, dtype=torch.int32, device=keep.device)
    return (keep.unflatten(-1, (-1, 32)).int() << bit).sum(-1, dtype=torch.int32)


def kept_edges(
    similarity: Float[Tensor, "G 64 256"],
    quota: Float[Tensor, " N"],
    candidates: Candidates,
    selection: Selection,
) -> KeptEdges:
    """Turn the chosen candidates of every node into edges.

    Args:
        similarity: Cosine similarity of each group's queries with its candidates, `G x 64 x 256`.
        quota: Wanted number of neighbours per node, `N`.
        candidates: The groups.
        selection: Who chooses. A node for which nothing is chosen keeps all its candidates.
    """
    target, place = kept_mask(similarity, quota, candidates, selection).nonzero(as_tuple=True)
    group, slot = candidates.group[target], candidates.slot[target]
    source = candidates.candidate[group, place]
    offset = slot_offsets(target.device)[slot, place]
    return KeptEdges(torch.stack([source, target]), offset, similarity[group, slot, place])

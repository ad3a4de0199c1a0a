"""Score -> number of neighbours per node."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from glic_pyg.graph.candidates import Candidates


class Quota(ABC):
    """How many neighbours each node is to have."""

    @abstractmethod
    def __call__(
        self,
        score: Float[Tensor, " N"],
        candidates: Candidates,
        batch: Int64[Tensor, " N"],
        *,
        degree: float,
    ) -> Float[Tensor, " N"]:
        """Share a budget out among nodes; called without gradient.

        Args:
            score: Positive score per node, `N`.
            candidates: The groups.
            batch: Each node's picture, `N`.
            degree: Average number of neighbours.

        Returns:
            Quota per node, `N`, within 1..256, not rounded.
        """


class GroupQuota(Quota):
    """Share each group's budget out in proportion to its nodes' scores.

    d_i = clamp(degree * |group| * S_i / sum_{j in group} S_j, 1, 256)
    """

    def __call__(
        self,
        score: Float[Tensor, " N"],
        candidates: Candidates,
        batch: Int64[Tensor, " N"],
        *,
        degree: float,
    ) -> Float[Tensor, " N"]:
        return _share(score, candidates.group, degree, candidates)


class MapQuota(Quota):
    """Share each picture's budget out in proportion to its nodes' scores: `GroupQuota` of one large group.

    So the paper states it, while the published model has the group's.
    """

    def __call__(
        self,
        score: Float[Tensor, " N"],
        candidates: Candidates,
        batch: Int64[Tensor, " N"],
        *,
        degree: float,
    ) -> Float[Tensor, " N"]:
        return _share(score, batch, degree, candidates)


def _share(
    score: Float[Tensor, " N"], part: Int64[Tensor, " N"], degree: float, candidates: Candidates
) -> Float[Tensor, " N"]:
    num_groups, num_candidates = candidates.candidate.shape  # at least as many groups as pictures
    total = score.new_zeros(num_groups).index_add_(0, part, score)
    members = torch.zeros_like(total).index_add_(0, part, torch.ones_like(score))
    budget = degree * members / total
    return (score * budget[part]).clamp(1, num_candidates)

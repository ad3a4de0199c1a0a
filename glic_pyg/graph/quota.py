"""Score -> number of neighbours per node."""

from torch import Tensor

from glic_pyg.graph.candidates import Candidates


def group_quota(score: Tensor, candidates: Candidates, *, degree: int) -> Tensor:
    """Share each group's budget out in proportion to its nodes' scores.

        d_i = clamp(degree * |group| * S_i / sum_{j in group} S_j, 1, 256)

    Args:
        score: Positive score per node, `N`.
        candidates: The groups.
        degree: Average number of neighbours.

    Returns:
        Quota per node, `N`, not rounded.
    """
    num_groups, num_candidates = candidates.candidate.shape
    total = score.new_zeros(num_groups).index_add_(0, candidates.group, score)
    members = candidates.group.bincount(minlength=num_groups)
    budget = degree * members / total
    return (score * budget[candidates.group]).clamp(1, num_candidates)

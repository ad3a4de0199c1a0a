"""Parts of a graph by torch-cluster: windows by its `grid_cluster`, the nearest candidates by its `knn`."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torch_geometric.data import Data

from glic_pyg.errors import require
from glic_pyg.graph.candidates import CANDIDATES, CPU, QUERIES, WINDOW_MARGIN, Candidates, CandidateSet
from glic_pyg.graph.grid import MapSize
from glic_pyg.graph.similarity import Centered, Cosine

with require("torch_cluster", extra="cluster", purpose="graphs by torch-cluster"):
    from torch_cluster import grid_cluster, knn

GROUPS_AT_ONCE = 8  # bounds the pairs of feature vectors held at a time


class TorchClusterWindows(CandidateSet):
    """`LocalWindows`, found by `torch_cluster.grid_cluster`; the groups are the same."""

    def __call__(self, data: Data) -> Candidates:
        return local_windows(data.map_size, data.x.device)


class TorchClusterCosine(Cosine):
    """`Cosine` of a node's `k` nearest candidates, found by `torch_cluster.knn`.

    On a GPU, `k` is at most 100, torch-cluster's bound: the published `Threshold`, which needs to know all
    candidates, works on the CPU alone.
    """

    def __call__(
        self, unit: Float[Tensor, "N_and_zero C"], candidates: Candidates, *, k: int
    ) -> Float[Tensor, "G 64 256"]:
        return similarities(unit, candidates, k=k)


class TorchClusterCentered(TorchClusterCosine, Centered):
    """`Centered` of a node's `k` nearest candidates, see `TorchClusterCosine`."""


def local_windows(map_size: MapSize, device: torch.device = CPU) -> Candidates:
    """Group the nodes as `glic_pyg.graph.candidates.local_windows` does.

    Queries are the cells of one 8 x 8 grid. The candidate windows overlap by half, so they are the
    cells of four 16 x 16 grids, shifted against each other by 8 rows and columns.
    """
    batch_size, height, width = map_size
    num_nodes = batch_size * height * width
    groups_high, groups_wide = -(-height // QUERIES), -(-width // QUERIES)
    pos = torch.cartesian_prod(*(torch.arange(n, device=device) for n in map_size)).view(-1, 3)
    picture, row, column = pos.unbind(dim=1)
    candidate = pos.new_full((batch_size * groups_high * groups_wide, CANDIDATES**2), num_nodes)
    for down in range(min(2, groups_high)):
        for right in range(min(2, groups_wide)):
            top, left = QUERIES * down - WINDOW_MARGIN, QUERIES * right - WINDOW_MARGIN
            high, wide = -(-(groups_high - down) // 2), -(-(groups_wide - right) // 2)
            bottom, end = top + CANDIDATES * high, left + CANDIDATES * wide
            inside = (row >= top) & (row < bottom) & (column >= left) & (column < end)
            node = inside.nonzero().squeeze(1)
            cell = _cells(pos[node], CANDIDATES, (0, top, left), (batch_size - 1, bottom - 1, end - 1))
            window_row, window_column = cell // wide % high * 2 + down, cell % wide * 2 + right
            group = (picture[node] * groups_high + window_row) * groups_wide + window_column
            place = (row[node] - top) % CANDIDATES * CANDIDATES + (column[node] - left) % CANDIDATES
            candidate[group, place] = node
    return Candidates(
        candidate=candidate,
        group=_cells(pos, QUERIES, (0, 0, 0), (batch_size - 1, height - 1, width - 1)),
        slot=row % QUERIES * QUERIES + column % QUERIES,
        shift=pos.new_full((len(pos), 2), WINDOW_MARGIN).to(torch.int8),
        stride=(1, 1),
    )


def similarities(
    unit: Float[Tensor, "N_and_zero C"], candidates: Candidates, *, k: int
) -> Float[Tensor, "G 64 256"]:
    """Cosine similarity of every node with its `k` nearest candidates, found by `knn` batched by group.

    For unit vectors the nearest in Euclidean distance are the most similar, which spares the
    cosine option that torch-cluster lacks on the CPU. Zero nodes get length 1 along an axis of their own,
    which takes them as far away as a cosine of 0 is.

    Args:
        unit: Normalised features, `(N + 1) x C`; the last row is the zero node.
        candidates: The groups.
        k: Number of candidates to find, at most 256 (100 on CUDA, torch-cluster's bound).

    Returns:
        `G x 64 x 256`, minus infinity where a candidate is not among the `k` nearest.
    """
    num_groups, num_candidates = candidates.candidate.shape
    order = candidates.group.argsort(stable=True)
    group = candidates.group[order]
    similarity = unit.new_full((num_groups, QUERIES**2, num_candidates), -torch.inf)
    lifted = torch.cat([unit, 1 - unit.square().sum(dim=1, keepdim=True)], dim=1)
    for first in range(0, num_groups, GROUPS_AT_ONCE):
        members = candidates.candidate[first : first + GROUPS_AT_ONCE]
        inside = (group >= first) & (group < first + len(members))
        node, batch = order[inside], group[inside] - first
        near = lifted[members.flatten()]
        near_batch = torch.arange(len(members), device=unit.device).repeat_interleave(num_candidates)
        query, found = knn(near, F.pad(unit[node], (0, 1)), k, near_batch, batch, batch_size=len(members))
        asking = node[query]
        cosine = (unit[asking] * near[found, :-1]).sum(dim=1)
        similarity[candidates.group[asking], candidates.slot[asking], found % num_candidates] = cosine
    return similarity


def _cells(
    pos: Int64[Tensor, "N 3"], side: int, start: tuple[int, int, int], end: tuple[int, int, int]
) -> Int64[Tensor, " N"]:
    """Return the grid cell of each position (picture, row, column), numbered in that order."""
    size = pos.new_tensor([side, side, 1]).float()
    first, last = pos.new_tensor(start[::-1]).float(), pos.new_tensor(end[::-1]).float()
    return grid_cluster(pos.flip(1).float(), size, first, last)  # its first axis runs fastest

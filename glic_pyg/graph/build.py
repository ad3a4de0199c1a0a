"""Feature map -> two directed graphs, local and global.

    feature map --> nodes ---> similarity with candidates --+
         |                                                   +--> selection --> edge_index
         +--> score --> damped --> quota per group ----------+
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from glic_pyg.graph import csr_selection
from glic_pyg.graph.candidates import Candidates, global_mesh, local_windows
from glic_pyg.graph.complexity import damp, sobel_rms
from glic_pyg.graph.grid import MapSize, to_nodes
from glic_pyg.graph.quota import group_quota
from glic_pyg.graph.selection import kept_edges

GROUPS_AT_ONCE = 16  # so many groups' features fit the processor's caches


class Graphs(NamedTuple):
    """The two graphs of one feature map; see `GraphBuilder`."""

    local: Data
    global_: Data


class GraphBuilder:
    """Build the local and the global graph of feature maps.

    Args:
        degree: Average number of neighbours per node.
        selection: How candidates are chosen, see `glic_pyg.graph.selection.select`.
        neighbors: `arithmetic` or `torch_cluster`: who groups nodes and ranks candidates.
    """

    def __init__(
        self,
        *,
        degree: int = 64,
        selection: Literal["threshold", "top_d"] = "threshold",
        neighbors: Literal["arithmetic", "torch_cluster"] = "arithmetic",
    ) -> None:
        self.degree = degree
        self.selection = selection
        self.neighbors = neighbors

    @torch.no_grad()
    def __call__(self, feature_map: Tensor) -> Graphs:
        """Build both graphs; no gradient flows into the feature map.

        Args:
            feature_map: `B x C x H x W`, any size.

        Returns:
            Two Data objects. Each has the nodes (`x`, `pos`, `batch`, `map_size`), per node
            `score` (damped) and `quota`, its `candidates`, and per edge, candidate -> query, sorted by
            target: `edge_index`, an EdgeIndex of sparse size `(N + 1, N)` whose source `N` is the zero
            node; `offset` (`E x 2`, int8, rows and columns in steps of the group's grid, -7..15)
            and `similarity` (`E`, cosine).
        """
        feature_map = feature_map.detach()
        data = to_nodes(feature_map)
        data.score = damp(sobel_rms(feature_map)).flatten()
        unit = F.normalize(data.x, dim=1)
        unit = torch.cat([unit, unit.new_zeros(1, unit.size(1))])
        windows = self._local_windows(data.map_size, feature_map.device)
        mesh = global_mesh(data.map_size, feature_map.device)
        return Graphs(self._connect(data, unit, windows), self._connect(data, unit, mesh))

    def _local_windows(self, map_size: MapSize, device: torch.device) -> Candidates:
        if self.neighbors == "arithmetic":
            return local_windows(map_size, device)
        from glic_pyg.graph import torch_cluster_neighbors

        return torch_cluster_neighbors.local_windows(map_size, device)

    def _similarities(self, unit: Tensor, candidates: Candidates, quota: Tensor) -> Tensor:
        if self.neighbors == "arithmetic":
            return batched_similarities(unit, candidates)
        from glic_pyg.graph import torch_cluster_neighbors

        # The bisection starts from the mean and minimum over all candidates; top_d needs the quota only.
        k = candidates.candidate.size(1) if self.selection == "threshold" else round(quota.max().item())
        return torch_cluster_neighbors.similarities(unit, candidates, k=k)

    def _connect(self, data: Data, unit: Tensor, candidates: Candidates) -> Data:
        quota = group_quota(data.score, candidates, degree=self.degree)
        similarity = self._similarities(unit, candidates, quota)
        if self.selection == "threshold" and unit.device.type == "cpu" and unit.dtype == torch.float32:
            kept = csr_selection.kept_edges(similarity, quota, candidates)
        else:
            kept = kept_edges(similarity, quota, candidates, method=self.selection)
        graph = Data(**data.to_dict())
        graph.quota = quota
        graph.candidates = candidates
        graph.edge_index = EdgeIndex(
            kept.index, sparse_size=(data.num_nodes + 1, data.num_nodes), sort_order="col"
        )
        graph.offset = kept.offset
        graph.similarity = kept.similarity
        return graph


def batched_similarities(unit: Tensor, candidates: Candidates) -> Tensor:
    """Cosine similarity of every group's queries with its candidates, by one matrix product per group.

    Args:
        unit: Normalised features, `(N + 1) x C`; the last row is the zero node.
        candidates: The groups.

    Returns:
        `G x 64 x 256`, zero for places without a node.
    """
    similarity = unit.new_empty(*candidates.node.shape, candidates.candidate.size(1))
    parts = (x.split(GROUPS_AT_ONCE) for x in (candidates.node, candidates.candidate, similarity))
    for queries, near, result in zip(*parts, strict=True):
        torch.bmm(unit[queries], unit[near].transpose(1, 2), out=result)
    return similarity

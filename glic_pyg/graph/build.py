"""Feature map -> directed graphs, as published a local and a global one.

feature map --> nodes ---> similarity with candidates --+
     |                                                   +--> selection --> edge_index
     +--> score --> damped --> quota per group ----------+
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call
from torch_geometric import EdgeIndex
from torch_geometric.data import Data

from glic_pyg.graph import csr_selection
from glic_pyg.graph.candidates import Candidates, CandidateSet, GlobalMesh, LocalWindows
from glic_pyg.graph.complexity import Score, Sobel, damp
from glic_pyg.graph.grid import to_nodes
from glic_pyg.graph.quota import GroupQuota, Quota
from glic_pyg.graph.selection import Selection, Threshold, kept_edges

GROUPS_AT_ONCE = 16  # so many groups' features fit the processor's caches


class Graphs(NamedTuple):
    """The two graphs of one feature map with the published candidate sets; see `GraphBuilder`."""

    local: Data
    global_: Data


class GraphBuilder:
    """Build a graph of feature maps from each of some candidate sets.

    Args:
        degree: Average number of neighbours per node.
        candidates: Where the nodes of each graph look for neighbours; by default `LocalWindows` and
            `GlobalMesh`, the local and the global graph.
        score: How much a node's surroundings vary, by default `Sobel`. It belongs to all graphs.
        quota: Score -> number of neighbours, by default `GroupQuota`.
        selection: Which candidates are kept, by default `Threshold`.
        neighbors: `arithmetic` or `torch_cluster`: who ranks candidates, and groups nodes by default.
    """

    def __init__(
        self,
        *,
        degree: int = 64,
        candidates: Sequence[CandidateSet] | None = None,
        score: Score | None = None,
        quota: Quota | None = None,
        selection: Selection | None = None,
        neighbors: Literal["arithmetic", "torch_cluster"] = "arithmetic",
    ) -> None:
        published = (LocalWindows(neighbors=neighbors), GlobalMesh())
        self.degree = degree
        self.candidates = published if candidates is None else tuple(candidates)
        self.score = Sobel() if score is None else score
        self.quota = GroupQuota() if quota is None else quota
        self.selection = Threshold() if selection is None else selection
        self.neighbors = neighbors

    def __call__(self, feature_map: Tensor) -> Graphs | tuple[Data, ...]:
        """Build the graphs, in float32 whatever autocast says; no gradient flows into the feature map.

        Args:
            feature_map: `B x C x H x W`, any size, any precision.

        Returns:
            A Data object for each candidate set, as `Graphs` for those of the published model. Each has
            the nodes (`x`, `pos`, `batch`, `map_size`), per node `score` (damped) and `quota`, its
            `candidates`, and per edge, candidate -> query, sorted by target: `edge_index`, an EdgeIndex of
            sparse size `(N + 1, N)` whose source `N` is the zero node; `offset` (`E x 2`, int8, rows and
            columns in steps of the group's grid, -7..15) and `similarity` (`E`, cosine). Where the score has
            weights, `gate` (`N`) is the score over its picture's mean, with a gradient for them.
        """
        feature_map = feature_map.detach().float()
        with torch.autocast(feature_map.device.type, enabled=False):
            score = damp(self._score(feature_map))
            with torch.no_grad():
                graphs = tuple(self._build(feature_map, score.detach()))
            if next(self.score.parameters(), None) is not None:
                gate = (score / score.mean(dim=(-2, -1), keepdim=True)).flatten()
                for graph in graphs:
                    graph.gate = gate
        published = [type(candidates) for candidates in self.candidates] == [LocalWindows, GlobalMesh]
        return Graphs(*graphs) if published else graphs

    def _score(self, feature_map: Tensor) -> Tensor:
        """Score in float32, of whatever precision the score's weights are."""
        weights = dict(chain(self.score.named_parameters(), self.score.named_buffers()))
        single = {name: x.float() for name, x in weights.items() if x.is_floating_point()}
        return functional_call(self.score, single, feature_map).float()

    def _build(self, feature_map: Tensor, score: Tensor) -> Iterator[Data]:
        data = to_nodes(feature_map)
        data.score = score.flatten()
        unit = F.normalize(data.x, dim=1)
        unit = torch.cat([unit, unit.new_zeros(1, unit.size(1))])
        for candidates in self.candidates:
            yield self._connect(data, unit, candidates(data))

    def _similarities(self, unit: Tensor, candidates: Candidates, quota: Tensor) -> Tensor:
        if self.neighbors == "arithmetic":
            return batched_similarities(unit, candidates)
        from glic_pyg.graph import torch_cluster_neighbors

        k = self.selection.reach(quota, candidates.candidate.size(1))
        return torch_cluster_neighbors.similarities(unit, candidates, k=k)

    def _connect(self, data: Data, unit: Tensor, candidates: Candidates) -> Data:
        quota = self.quota(data.score, candidates, data.batch, degree=self.degree)
        similarity = self._similarities(unit, candidates, quota)
        compiled = unit.device.type == "cpu" and unit.dtype == torch.float32
        if compiled and type(self.selection) is Threshold:
            kept = csr_selection.kept_edges(similarity, quota, candidates)
        else:
            kept = kept_edges(similarity, quota, candidates, self.selection)
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

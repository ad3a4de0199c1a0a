"""Feature map -> directed graphs, as published a local and a global one.

feature map --> nodes ---> similarity with candidates --+
     |                                                   +--> selection --> edge_index
     +--> score --> damped --> quota per group ----------+
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Num
from torch import Tensor, nn
from torch.func import functional_call
from torch_geometric.data import Data

from glic_pyg.eager import eager
from glic_pyg.graph.candidates import CANDIDATES, Candidates, CandidateSet, GlobalMesh, LocalWindows
from glic_pyg.graph.complexity import Score, Sobel, damp
from glic_pyg.graph.grid import FeatureMapError, to_nodes
from glic_pyg.graph.kernels import selection as compiled
from glic_pyg.graph.quota import GroupQuota, Quota
from glic_pyg.graph.selection import (
    KeptEdges,
    Selection,
    Threshold,
    kept_bits,
    kept_edges,
    kept_mask,
)
from glic_pyg.graph.similarity import Cosine, Similarity
from glic_pyg.kernels import HasKernels

NORM_EPS = 1e-12  # as torch.nn.functional.normalize has it


class Graph(Data):
    """A directed graph of the nodes of feature maps, of one picture or several.

    Its last node, `N`, is the zero node, which stands for what is outside of the map: a source of edges
    without features. Its `score`, `quota` and `gate` are 0, its `pos` is (-1, -1), its `batch` is B.

    PyG's `Batch` of several graphs puts in place of `batch` which graph of the list a node is of, the zero
    nodes' own too; `pos[:, 0] >= 0` leaves those out, and `ptr[1:] - 1` are their ids. The graphs that it
    gives back have 0 there: where they are of several pictures, `map_size` tells them apart.

    Args:
        x: Features, `(N + 1) x C`, float32.
        pos: Row and column, `(N + 1) x 2`.
        batch: Picture, `N + 1`.
        score: How much a node's surroundings vary, damped, `N + 1`.
        quota: Wanted number of neighbours, `N + 1`.
        gate: Only where the score has weights: it over its picture's mean, `N + 1`, with a gradient for them.
        edge_index: Candidate -> query, sorted by query, `2 x E`; none towards the zero node.
        offset: Rows and columns in steps of the group's grid, -7..15, `E x 2`, int8.
        similarity: Cosine, `E`.
        queries: Nodes of each group of 8 x 8, `G x 64`, the zero node where there is none.
        candidates: What each group could choose from, on a grid of 16 x 16, `G x 256`.
        shift: A node's own place in its candidates' grid minus the one in its queries' grid: an edge's offset
            minus its target's shift is its length in steps of the candidates' grid, `(N + 1) x 2`, int8.
        stride: Rows and columns of the map per step of the candidates' grid.
        map_size: `(B, H, W)`, `N = B * H * W`.
        groups: Only of a graph built without edges, for kernels that need no list of them: the groups, in
            place of all of the above but gate, stride and map size.
        kept: With it: which of its group's candidates a node keeps. Bit `k % 32` of word `k // 32` tells of
            candidate `k`, `(N + 1) x 8`, int32.
    """

    @property
    def zero_node(self) -> int:
        """The zero node's id, N."""
        return self.num_nodes - 1

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what PyG's `Batch` adds to a value of the next graph: to node ids, the number of nodes."""
        if key in ("queries", "candidates"):
            return self.num_nodes
        if key == "batch":  # each graph is one of the batch
            return 1
        return super().__inc__(key, value, *args, **kwargs)


class GraphBuilder(HasKernels, nn.Module):
    """Build a graph of feature maps from each of some candidate sets.

    The kernels of the CPU find cosines and the edges that this package's selections keep in compiled code,
    which holds no similarities but those of edges. Those of Triton do so, from features to bits, where no
    edges are wanted.

    Args:
        degree: Average number of neighbours per node, 1..256.
        candidates: Where the nodes of each graph look for neighbours; by default `LocalWindows` and
            `GlobalMesh`, the local and the global graph.
        score: How much a node's surroundings vary, by default `Sobel`. It belongs to all graphs.
        quota: Score -> number of neighbours, by default `GroupQuota`.
        selection: Which candidates are kept, by default `Threshold`.
        similarity: What candidates are ranked by, by default `Cosine`.

    Raises:
        ValueError: a degree that no node can have, or no candidate sets.
    """

    degree: float
    candidates: tuple[CandidateSet, ...]
    score: Score
    quota: Quota
    selection: Selection
    similarity: Similarity

    def __init__(
        self,
        *,
        degree: float = 64,
        candidates: Sequence[CandidateSet] | None = None,
        score: Score | None = None,
        quota: Quota | None = None,
        selection: Selection | None = None,
        similarity: Similarity | None = None,
    ) -> None:
        if not (isinstance(degree, Real) and 1 <= degree <= CANDIDATES**2):
            raise ValueError(f"Expected a degree in 1..{CANDIDATES**2} (got {degree})")
        super().__init__()
        self.degree = degree
        self.candidates = (LocalWindows(), GlobalMesh()) if candidates is None else tuple(candidates)
        if not self.candidates:
            raise ValueError("Expected at least one candidate set (got none)")
        self.score = Sobel() if score is None else score
        self.quota = GroupQuota() if quota is None else quota
        self.selection = Threshold() if selection is None else selection
        self.similarity = Cosine() if similarity is None else similarity

    @eager  # the number of edges depends on the data
    def forward(self, feature_map: Num[Tensor, "B C H W"], *, edges: bool = True) -> tuple[Graph, ...]:
        """Build the graphs, in float32 whatever autocast says; no gradient flows into the feature map.

        Args:
            feature_map: `B x C x H x W`, any size, any precision.
            edges: Whether to list the edges, or tell by bits which candidates are kept.

        Returns:
            A graph for each candidate set, in their order: by default the local and the global one.

        Raises:
            FeatureMapError: no map of numbers of that shape, or an infinite score.
        """
        feature_map = feature_map.detach().float()
        with torch.autocast(feature_map.device.type, enabled=False):
            nodes = to_nodes(feature_map)
            score = damp(self._score(feature_map))
            with torch.no_grad():
                graphs = tuple(self._build(nodes, score.detach().flatten(), edges=edges))
            if next(self.score.parameters(), None) is not None:
                gate = F.pad((score / score.mean(dim=(-2, -1), keepdim=True)).flatten(), (0, 1))
                for graph in graphs:
                    graph.gate = gate
        return graphs

    def _score(self, feature_map: Float32[Tensor, "B C H W"]) -> Float32[Tensor, "B H W"]:
        """Score in float32, of whatever precision the score's weights are."""
        weights = dict(chain(self.score.named_parameters(), self.score.named_buffers()))
        single = {name: x.float() for name, x in weights.items() if x.is_floating_point()}
        score = functional_call(self.score, single, feature_map).float()
        if score.shape != (expected := feature_map[:, 0].shape):
            raise ValueError(f"Expected a score of shape {tuple(expected)} (got {tuple(score.shape)})")
        return score

    def _build(self, nodes: Data, score: Float[Tensor, " N"], *, edges: bool) -> Iterator[Graph]:
        compared = self.similarity.features(nodes)
        norm = compared.norm(dim=1, keepdim=True)
        if not (norm.isfinite().all() & score.isfinite().all()):  # asked of N numbers, not of N x C
            raise FeatureMapError(
                "Expected a feature map of finite numbers, norms and scores "
                f"(got up to {nodes.x.abs().max():g}, scores up to {score.max():g})"
            )
        unit = compared.new_zeros(len(compared) + 1, compared.size(1))
        torch.div(compared, norm.clamp_min(NORM_EPS), out=unit[:-1])
        shared: dict[str, Any] = {"map_size": nodes.map_size}
        if edges:
            shared |= {
                "x": torch.cat([nodes.x, nodes.x.new_zeros(1, nodes.x.size(1))]),
                "pos": F.pad(nodes.pos, (0, 0, 0, 1), value=-1),
                "batch": F.pad(nodes.batch, (0, 1), value=nodes.map_size[0]),
                "score": F.pad(score, (0, 1)),
            }
        for find in self.candidates:
            candidates = find(nodes)
            quota = self.quota(score, candidates, nodes.batch, degree=self.degree)
            if not edges:
                kept = self._kept_bits(unit, quota, candidates)
                graph = Graph(**shared, num_nodes=len(unit), groups=candidates, kept=kept)
                if candidates.shift is not None:
                    graph.stride = candidates.stride
                yield graph
                continue
            chosen = self._kept_edges(unit, quota, candidates)
            graph = Graph(
                **shared,
                quota=F.pad(quota, (0, 1)),
                edge_index=chosen.index,
                offset=chosen.offset,
                similarity=chosen.similarity,
                queries=candidates.node,
                candidates=candidates.candidate,
            )
            if candidates.shift is not None:
                graph.shift, graph.stride = F.pad(candidates.shift, (0, 0, 0, 1)), candidates.stride
            yield graph

    def _similarity(
        self, unit: Float[Tensor, "N_and_zero C"], quota: Float[Tensor, " N"], candidates: Candidates
    ) -> Float[Tensor, "G 64 256"]:
        k = self.selection.reach(quota, candidates.candidate.size(1))
        return self.similarity(unit, candidates, k=k)

    def _kept_edges(
        self, unit: Float[Tensor, "N_and_zero C"], quota: Float[Tensor, " N"], candidates: Candidates
    ) -> KeptEdges:
        if self._by_cosine and compiled.takes(self.selection) and self.kernels_for(unit) == "cpu":
            return compiled.kept_edges(unit, quota, candidates, self.selection)
        return kept_edges(self._similarity(unit, quota, candidates), quota, candidates, self.selection)

    @property
    def _by_cosine(self) -> bool:
        return type(self.similarity).__call__ is Cosine.__call__

    def _kept_bits(self, unit: Tensor, quota: Tensor, candidates: Candidates) -> Tensor:
        if self._by_cosine and type(self.selection) is Threshold and self.kernels_for(unit) == "triton":
            from glic_pyg.graph.kernels import triton_threshold

            bisections = self.selection.bisections
            groups = candidates.node, candidates.candidate
            return triton_threshold.kept_bits(unit, quota, *groups, bisections=bisections)
        similarity = self._similarity(unit, quota, candidates)
        keep = kept_mask(similarity, quota, candidates, self.selection)
        return F.pad(kept_bits(keep), (0, 0, 0, 1))

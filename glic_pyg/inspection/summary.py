"""What a graph is like, in a few numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F

from glic_pyg.graph import Graph
from glic_pyg.graph.candidates import CANDIDATES, QUERIES, WINDOW_MARGIN
from glic_pyg.inspection.neighborhood import degrees
from glic_pyg.inspection.stages import SCOPES, Graphs


@dataclass(frozen=True)
class GraphSummary:
    """Numbers about one graph.

    Edges of a node with itself and with zero nodes count for the degree only.

    Args:
        nodes: How many.
        edges: Kept ones.
        mean_degree: Kept edges per node.
        median_degree: The lower median.
        most_degree: The greatest.
        zero_share: Share of the edges that come from the zero node.
        similarity: Mean cosine similarity along the kept edges, the graph's homophily.
        candidate_similarity: The same along all edges that could have been kept; what a graph that
            chooses at random would have.
        length: Mean length of the edges, in pixels.
        beyond_window: Share of the edges whose source is outside the target's local window.
    """

    nodes: int
    edges: int
    mean_degree: float
    median_degree: int
    most_degree: int
    zero_share: float
    similarity: float
    candidate_similarity: float
    length: float
    beyond_window: float


def summarize(graph: Graph, *, node_size: int) -> GraphSummary:
    """Sum up one of a stage's graphs.

    Args:
        graph: As `GraphBuilder` made it.
        node_size: Pixels per side of a node.
    """
    source, target = graph.edge_index
    degree = degrees(graph)
    is_zero = source == graph.zero_node
    counted = ~is_zero & (source != target)
    source, target = source[counted], target[counted]
    place, center = graph.pos[source], graph.pos[target]
    start = center // QUERIES * QUERIES - WINDOW_MARGIN
    beyond = ((place < start) | (place >= start + CANDIDATES)).any(dim=1)
    return GraphSummary(
        nodes=graph.zero_node,
        edges=graph.num_edges,
        mean_degree=float(degree.float().mean()),
        median_degree=int(degree.median()),
        most_degree=int(degree.max()),
        zero_share=float(is_zero.float().mean()),
        similarity=float(graph.similarity[counted].mean()),
        candidate_similarity=_candidate_similarity(graph),
        length=float((place - center).float().norm(dim=1).mean()) * node_size,
        beyond_window=float(beyond.float().mean()),
    )


def _candidate_similarity(graph: Graph) -> float:
    """Return the mean similarity of all nodes with their candidates, but themselves and zero nodes.

    A sum over all pairs of a group is one product: of the sum of its queries and that of its candidates.
    """
    unit, zero = F.normalize(graph.x, dim=1).double(), graph.zero_node
    total = pairs = 0.0
    for query, near in zip(graph.queries.split(64), graph.candidates.split(64), strict=True):
        total += float((unit[query].sum(dim=1) * unit[near].sum(dim=1)).sum())
        pairs += int(((query < zero).sum(dim=1) * (near < zero).sum(dim=1)).sum())
    pairs -= zero
    return (total - float((unit**2).sum())) / pairs if pairs else float("nan")


COLUMNS = {
    "nodes": ("nodes", "d"),
    "edges": ("edges", "d"),
    "mean_degree": ("degree", ".2f"),
    "median_degree": ("median", "d"),
    "most_degree": ("most", "d"),
    "zero_share": ("zero nodes", ".1%"),
    "similarity": ("similarity", ".3f"),
    "candidate_similarity": ("of candidates", ".3f"),
    "length": ("length, pixels", ".1f"),
    "beyond_window": ("beyond window", ".1%"),
}


def summary_table(stages: Mapping[str, Graphs], *, node_sizes: Mapping[str, int]) -> list[list[str]]:
    """Return a table's cells: a line of headings, then one per stage and graph.

    Args:
        stages: Both graphs of each stage.
        node_sizes: Pixels per side of a node, of each stage.
    """
    lines = [["stage", "graph", *(heading for heading, _ in COLUMNS.values())]]
    for stage, graphs in stages.items():
        for scope, graph in zip(SCOPES, graphs, strict=True):
            summary = dataclasses.asdict(summarize(graph, node_size=node_sizes[stage]))
            lines.append([stage, scope, *(format(summary[name], how) for name, (_, how) in COLUMNS.items())])
    return lines

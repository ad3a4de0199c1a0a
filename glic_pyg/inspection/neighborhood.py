"""One node's kept neighbours, and how many each node has."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from glic_pyg.graph import Graph


@dataclass(frozen=True)
class Neighborhood:
    """The kept edges towards one node.

    Args:
        node: The node's id.
        zero: The zero node's id.
        edge: Places of the edges among the graph's, `K`.
        source: Ids of the neighbours, `K`.
        offset: Their offsets in steps of the group's grid, `K x 2`.
        similarity: Their cosine similarities with the node, `K`.
    """

    node: int
    zero: int
    edge: Tensor
    source: Tensor
    offset: Tensor
    similarity: Tensor

    @property
    def is_zero(self) -> Tensor:
        """Which of the neighbours are the zero node, `K`."""
        return self.source == self.zero

    @property
    def num_zero(self) -> int:
        """How many of the neighbours are the zero node."""
        return int(self.is_zero.sum())

    @property
    def has_self(self) -> bool:
        """Whether the node is among its own neighbours."""
        return bool((self.source == self.node).any())


def neighborhood(graph: Graph, node: int) -> Neighborhood:
    """Return the kept edges towards a node of one of a stage's graphs."""
    source, target = graph.edge_index
    edge = (target == node).nonzero().flatten()
    return Neighborhood(node, graph.zero_node, edge, source[edge], graph.offset[edge], graph.similarity[edge])


def degrees(graph: Graph) -> Tensor:
    """Return each node's number of kept neighbours, `N`; the node itself and zero nodes count."""
    return graph.edge_index[1].bincount(minlength=graph.zero_node)

"""One node's kept neighbours, and how many each node has; parts of a stage's graphs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glic_pyg.errors import UserError
from glic_pyg.graph import Graph
from glic_pyg.graph.grid import MapSize


class NodeError(UserError, ValueError):
    """Nodes that are not there; the message is one line for the user."""


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


def node_id(node: tuple[int, int], map_size: MapSize) -> int:
    """Return the id of the node in a row and column.

    Raises:
        NodeError: the map has no such place.
    """
    (row, column), (_, height, width) = node, map_size
    if not (0 <= row < height and 0 <= column < width):
        raise NodeError(f"Expected a node of a {height} x {width} map (got row {row}, column {column})")
    return row * width + column


def region_nodes(map_size: MapSize, top: int, left: int, height: int, width: int) -> Tensor:
    """Return the ids, ascending, of the nodes in a rectangle of a map.

    Raises:
        NodeError: the rectangle is empty, or not within the map.
    """
    _, rows, columns = map_size
    if not (0 <= top < top + height <= rows and 0 <= left < left + width <= columns):
        got = f"{height} x {width} from row {top}, column {left}"
        raise NodeError(f"Expected a region of a {rows} x {columns} map (got {got})")
    ids = torch.arange(rows * columns).view(rows, columns)
    return ids[top : top + height, left : left + width].flatten()


def nodes_within(graphs: Iterable[Graph], nodes: Sequence[int], hops: int) -> Tensor:
    """Return the ids, ascending, of nodes and of all that reach them over so many kept edges of any graph.

    That is what these nodes can know after so many layers, but for zero nodes and convolutions.

    Args:
        graphs: Of one stage.
        nodes: Ids.
        hops: How many edges, 0 or more.
    """
    graphs = list(graphs)
    within = torch.zeros(graphs[0].zero_node + 1, dtype=torch.bool)
    within[list(nodes)] = True
    for _ in range(hops):
        found = [source[within[target]] for source, target in (graph.edge_index for graph in graphs)]
        within[torch.cat(found)] = True
        within[-1] = False  # the zero node
    return within.nonzero().flatten()

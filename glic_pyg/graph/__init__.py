"""Feature map -> directed graphs. Nothing in here learns."""

from glic_pyg.graph.build import Graph, GraphBuilder, Graphs
from glic_pyg.graph.grid import FeatureMapError, to_map, to_nodes

__all__ = ["FeatureMapError", "Graph", "GraphBuilder", "Graphs", "to_map", "to_nodes"]

"""Feature map -> directed graphs.

`glic_pyg.graph.torch_cluster` has parts that need the package torch-cluster.
"""

import glic_pyg.upstream  # noqa: F401 - before torch_geometric
from glic_pyg.graph.build import Graph, GraphBuilder
from glic_pyg.graph.candidates import AnchorMesh, Candidates, CandidateSet, GlobalMesh, LocalWindows
from glic_pyg.graph.complexity import (
    EPS,
    ChannelScore,
    LocalEntropy,
    RescalingResidual,
    Score,
    Sobel,
    Uniform,
)
from glic_pyg.graph.grid import FeatureMapError, to_map, to_nodes
from glic_pyg.graph.quota import GroupQuota, MapQuota, Quota
from glic_pyg.graph.selection import KNN, Selection, Threshold, TopD
from glic_pyg.graph.similarity import Centered, Cosine, Similarity

__all__ = [
    "EPS",
    "KNN",
    "AnchorMesh",
    "CandidateSet",
    "Candidates",
    "Centered",
    "ChannelScore",
    "Cosine",
    "FeatureMapError",
    "GlobalMesh",
    "Graph",
    "GraphBuilder",
    "GroupQuota",
    "LocalEntropy",
    "LocalWindows",
    "MapQuota",
    "Quota",
    "RescalingResidual",
    "Score",
    "Selection",
    "Similarity",
    "Sobel",
    "Threshold",
    "TopD",
    "Uniform",
    "to_map",
    "to_nodes",
]

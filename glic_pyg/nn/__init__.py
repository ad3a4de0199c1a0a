"""Message passing on given edges, and the blocks around it."""

import glic_pyg.upstream  # noqa: F401 - before torch_geometric
from glic_pyg.kernels import HasKernels, use_kernels
from glic_pyg.nn.conv import ConvBlock, GatedFeedForward, LayerNorm2d
from glic_pyg.nn.distance_bias import DistanceBias
from glic_pyg.nn.gfa import FeedForwardStage, GFALayer, GFAStage
from glic_pyg.nn.graph_attention import GraphAttention
from glic_pyg.nn.layer_aggregation import LayerAggregation
from glic_pyg.nn.learned_score import LearnedScore
from glic_pyg.nn.position_bias import PositionBias
from glic_pyg.nn.wavelet import WaveletDown, WaveletUp

__all__ = [
    "ConvBlock",
    "DistanceBias",
    "FeedForwardStage",
    "GFALayer",
    "GFAStage",
    "GatedFeedForward",
    "GraphAttention",
    "HasKernels",
    "LayerAggregation",
    "LayerNorm2d",
    "LearnedScore",
    "PositionBias",
    "WaveletDown",
    "WaveletUp",
    "use_kernels",
]

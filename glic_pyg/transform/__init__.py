"""The transforms between image and latent, and the builders that make them from a configuration."""

from functools import partial
from typing import Any

from torch_geometric.nn import MessagePassing

from glic_pyg.config import ConfigError, GraphConfig, ModelConfig
from glic_pyg.graph import CandidateSet, GraphBuilder, Quota, Score, Selection, Similarity
from glic_pyg.nn import GFAStage
from glic_pyg.nn.graph_attention import Backend
from glic_pyg.parts import find_class, make_part
from glic_pyg.transform.analysis import AnalysisTransform
from glic_pyg.transform.synthesis import SynthesisTransform

__all__ = [
    "AnalysisTransform",
    "SynthesisTransform",
    "build_analysis",
    "build_graph_stage",
    "build_synthesis",
]


def build_analysis(config: ModelConfig, backend: Backend | None = None) -> AnalysisTransform:
    """Make g_a."""
    return AnalysisTransform(**_arguments(config, backend))


def build_synthesis(config: ModelConfig, backend: Backend | None = None) -> SynthesisTransform:
    """Make g_s."""
    return SynthesisTransform(**_arguments(config, backend))


def _arguments(config: ModelConfig, backend: Backend | None) -> dict[str, Any]:
    return {
        "channels": config.channels,
        "latent_channels": config.latent_channels,
        "depths": config.depths,
        "ffn_ratios": config.ffn_ratios,
        "graph_stage": partial(build_graph_stage, config, backend),
    }


def build_graph_stage(
    config: ModelConfig, backend: Backend | None = None, *, channels: int, depth: int, ffn_ratio: int
) -> GFAStage:
    """Make a graph stage of a model.

    Raises:
        ConfigError: a part does not exist, or not with its settings; or a layer that does not work.
    """
    layer = None
    if config.aggregation.name != "attention":
        cls = find_class("aggregation", config.aggregation.name, MessagePassing)
        layer = partial(cls, **config.aggregation.settings)
    try:
        return GFAStage(
            channels=channels,
            depth=depth,
            heads=config.heads,
            ffn_ratio=ffn_ratio,
            position_hidden=config.position_hidden,
            position=config.position,
            graph_builder=_graph_builder(config.graph, channels),
            layer=layer,
            backend=backend,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _graph_builder(config: GraphConfig, channels: int) -> GraphBuilder:
    return GraphBuilder(
        degree=config.degree,
        candidates=[make_part("candidates", part, CandidateSet) for part in config.candidates],
        score=make_part("score", config.score, Score, channels=channels),
        quota=make_part("quota", config.quota, Quota),
        selection=make_part("selection", config.selection, Selection),
        similarity=make_part("similarity", config.similarity, Similarity),
    )

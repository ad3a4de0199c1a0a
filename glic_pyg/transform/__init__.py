"""The transforms between image and latent, and the builders that make them from a configuration."""

from typing import Any

from glic_pyg.config import ModelConfig
from glic_pyg.graph import GraphBuilder
from glic_pyg.nn.graph_attention import Backend
from glic_pyg.transform.analysis import AnalysisTransform
from glic_pyg.transform.synthesis import SynthesisTransform

__all__ = ["AnalysisTransform", "SynthesisTransform", "build_analysis", "build_synthesis"]


def build_analysis(config: ModelConfig, backend: Backend | None = None) -> AnalysisTransform:
    """Make g_a."""
    return AnalysisTransform(**_arguments(config), backend=backend)


def build_synthesis(config: ModelConfig, backend: Backend | None = None) -> SynthesisTransform:
    """Make g_s."""
    return SynthesisTransform(**_arguments(config), backend=backend)


def _arguments(config: ModelConfig) -> dict[str, Any]:
    return {
        "channels": config.channels,
        "latent_channels": config.latent_channels,
        "depths": config.depths,
        "heads": config.heads,
        "ffn_ratios": config.ffn_ratios,
        "position_hidden": config.position_hidden,
        "graph_builder": GraphBuilder(
            degree=config.graph.degree,
            selection=config.graph.selection,
            neighbors=config.graph.neighbors,
        ),
    }

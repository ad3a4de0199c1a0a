"""A configuration made into modules: all parts by name, and all builders.

Parts are those of the package, or by their import path the user's own. The builders take a configuration
apart; modules never see it.
"""

from __future__ import annotations

import glic_pyg.upstream  # noqa: F401 - before torch_geometric

# isort: split
import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from compressai.latent_codecs import HyperpriorLatentCodec
from compressai.latent_codecs.gain import GainHyperpriorLatentCodec
from torch_geometric.nn import MessagePassing

from glic_pyg.config import GRAPH_STRIDES, ConfigError, GraphConfig, ModelConfig, Part
from glic_pyg.entropy import GainUnits, latent_codec
from glic_pyg.errors import PackageError
from glic_pyg.graph import CandidateSet, GraphBuilder, Quota, Score, Selection, Similarity
from glic_pyg.nn import FeedForwardStage, GFAStage
from glic_pyg.transform import AnalysisTransform, SynthesisTransform

T = TypeVar("T")

NAMES: Mapping[str, Mapping[str, str]] = {
    "aggregation": {"attention": "glic_pyg.nn.graph_attention.GraphAttention"},
    "candidates": {
        "local": "glic_pyg.graph.candidates.LocalWindows",
        "global": "glic_pyg.graph.candidates.GlobalMesh",
        "anchors": "glic_pyg.graph.candidates.AnchorMesh",
        "torch_cluster": "glic_pyg.graph.torch_cluster.TorchClusterWindows",
    },
    "score": {
        "sobel": "glic_pyg.graph.complexity.Sobel",
        "local_entropy": "glic_pyg.graph.complexity.LocalEntropy",
        "rescaling_residual": "glic_pyg.graph.complexity.RescalingResidual",
        "none": "glic_pyg.graph.complexity.Uniform",
        "learned": "glic_pyg.nn.learned_score.LearnedScore",
    },
    "quota": {
        "group": "glic_pyg.graph.quota.GroupQuota",
        "map": "glic_pyg.graph.quota.MapQuota",
    },
    "selection": {
        "threshold": "glic_pyg.graph.selection.Threshold",
        "top_d": "glic_pyg.graph.selection.TopD",
        "knn": "glic_pyg.graph.selection.KNN",
    },
    "similarity": {
        "cosine": "glic_pyg.graph.similarity.Cosine",
        "centered": "glic_pyg.graph.similarity.Centered",
        "torch_cluster": "glic_pyg.graph.torch_cluster.TorchClusterCosine",
        "torch_cluster_centered": "glic_pyg.graph.torch_cluster.TorchClusterCentered",
    },
}
"""Per kind of part the names of those that come with the package; any other name is an import path."""


def build_analysis(config: ModelConfig) -> AnalysisTransform:
    """Make g_a."""
    return AnalysisTransform(**_arguments(config))


def build_synthesis(config: ModelConfig) -> SynthesisTransform:
    """Make g_s."""
    return SynthesisTransform(**_arguments(config))


def _arguments(config: ModelConfig) -> dict[str, Any]:
    return {
        "channels": config.channels,
        "latent_channels": config.latent_channels,
        "depths": config.depths,
        "ffn_ratios": config.ffn_ratios,
        "graph_stages": tuple(partial(build_graph_stage, config, stride=stride) for stride in GRAPH_STRIDES),
    }


def build_graph_stage(
    config: ModelConfig, *, stride: int, channels: int, depth: int, ffn_ratio: int
) -> GFAStage | FeedForwardStage:
    """Make a graph stage of a model; where there are no graphs, what is left of it.

    Raises:
        ConfigError: a part does not exist, or not with its settings; or a layer that does not work.
    """
    if not config.graph.candidates or stride not in config.graph.strides:
        return FeedForwardStage(channels=channels, depth=depth, ffn_ratio=ffn_ratio)
    layer: Callable[..., MessagePassing] | None = None
    if config.aggregation.name != "attention":
        cls: Callable[..., MessagePassing] = find_class(
            "aggregation", config.aggregation.name, MessagePassing
        )
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


def build_entropy_model(config: ModelConfig) -> HyperpriorLatentCodec | GainHyperpriorLatentCodec:
    """Make the latent codec of y."""
    return latent_codec(
        latent_channels=config.latent_channels,
        hyper_channels=config.hyper_channels,
        groups=config.groups,
        hyper_depth=config.hyper_depth,
        hyper_ratio=config.hyper_ffn_ratio,
        context_ratio=config.context_ffn_ratio,
        context_min_channels=config.context_min_channels,
        parameters_min_channels=config.parameters_min_channels,
        has_gains=config.qualities > 1,
    )


def build_gains(config: ModelConfig) -> GainUnits | None:
    """Make the gains of a model of several qualities."""
    if config.qualities == 1:
        return None
    return GainUnits(
        qualities=config.qualities,
        latent_channels=config.latent_channels,
        hyper_channels=config.hyper_channels,
    )


def find_class(kind: str, name: str, base: type[T]) -> type[T]:
    """Return the class of a part.

    Args:
        kind: A key of `NAMES`.
        name: One of its names, or the import path of a class in a module that Python finds
            (`package.module.Class`).
        base: What the class must be derived from: nothing else that a file names is ever called.

    Raises:
        ConfigError: no such class, or not derived from `base`.
        PackageError: it needs a package that is not installed.
    """
    module, _, attribute = NAMES[kind].get(name, name).rpartition(".")
    if not module:
        raise ConfigError(
            f"Expected {kind} to be one of {', '.join(NAMES[kind])} or the import path of a class "
            f"(got {name})"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except PackageError:
        raise
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"Expected {kind} to be a class that Python finds (got {name}: {error}); "
            "its folder must be in PYTHONPATH"
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"Expected {kind} to be derived from {base.__name__} (got {name})")
    return found


def make_part(kind: str, part: Part, base: type[T], **known: Any) -> T:
    """Make a part.

    Args:
        kind: A key of `NAMES`.
        part: Its name and settings.
        base: See `find_class`.
        known: Further settings, for a class that takes them.

    Raises:
        ConfigError: no such class, or it does not take the settings.
    """
    cls = find_class(kind, part.name, base)
    taken = inspect.signature(cls).parameters
    settings = {key: value for key, value in known.items() if key in taken} | dict(part.settings)
    try:
        return cls(**settings)
    except Exception as error:  # whatever a part says about settings it cannot take
        raise ConfigError(
            f"Expected settings that {kind} {part.name} takes (got {settings}: {error})"
        ) from error

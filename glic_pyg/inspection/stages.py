"""The graphs that a model builds on its way through a picture."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glic_pyg.codec import GLIC
from glic_pyg.config import HYPER_STRIDE, LATENT_STRIDE
from glic_pyg.graph import Graph
from glic_pyg.graph.grid import MapSize
from glic_pyg.image import pad
from glic_pyg.nn.gfa import GFAStage
from glic_pyg.nn.graph_attention import GraphAttention
from glic_pyg.progress import tell

STAGES = ("g_a.1", "g_a.2", "g_s.1", "g_s.2")
"""The graph stages, numbered per transform in the order of the data flow: at H/4, H/8; H/8, H/4."""

SCOPES = ("local", "global")
"""A stage's two graphs, in the order of `Graphs`."""

MAX_PIXELS = 2**22


def stages_with_graphs(model: GLIC) -> list[str]:
    """Return those of `STAGES` that build graphs."""
    return [stage for stage in STAGES if isinstance(_stage(model, stage), GFAStage)]


def _stage(model: GLIC, stage: str) -> nn.Module:
    transform, number = stage.split(".")
    first = 1 if transform == "g_a" else 0  # after the conv blocks, or before them
    return getattr(model, transform).stages[first + int(number) - 1]


def stage_module(model: GLIC, stage: str) -> GFAStage:
    """Return a stage of a model.

    Args:
        model: The model.
        stage: One of `STAGES`.

    Raises:
        ValueError: no such stage, or none with graphs.
    """
    if stage not in STAGES:
        raise ValueError(f"Expected one of the stages {', '.join(STAGES)} (got {stage})")
    module = _stage(model, stage)
    if not isinstance(module, GFAStage):
        raise ValueError(f"Expected a stage with graphs (got {stage}, which has none)")
    return module


class Graphs(NamedTuple):
    """The two graphs of a stage with the published candidate sets."""

    local: Graph
    global_: Graph


@dataclass(frozen=True)
class StageRun:
    """What a stage did with a picture.

    Args:
        graphs: The graphs that it built.
        attentions: Those of its layers; none of layers that aggregate otherwise.
        inputs: What each of them was given, `N x C`.
    """

    graphs: tuple[Graph, ...]
    attentions: list[GraphAttention]
    inputs: list[Tensor]

    @property
    def pair(self) -> Graphs:
        """The local and the global graph.

        Raises:
            ValueError: another number of graphs.
        """
        if len(self.graphs) != len(SCOPES):
            raise ValueError(f"Expected a local and a global graph (got {len(self.graphs)} graphs)")
        return Graphs(*self.graphs)


@dataclass(frozen=True)
class ModelRun:
    """What a whole model did with a picture.

    Args:
        stages: What each of `STAGES` did that has graphs.
        x_hat: The restored picture, `1 x 3 x H x W` in [0, 1].
        bits: Estimated bits of each position of y, `H'/16 x W'/16` (H', W' the padded sides); those of z are
            spread evenly over the positions that one of its own stands for.
        quality: Of the model of several; None for a model of one.
    """

    stages: dict[str, StageRun]
    x_hat: Tensor
    bits: Tensor
    quality: int | None


@torch.no_grad()
def run_model(model: GLIC, image: Tensor) -> ModelRun:
    """Run a model once, wherever it is, at its middle quality, and keep what it did, on the CPU.

    Args:
        model: The model, in eval mode.
        image: One picture in [0, 1], `1 x 3 x H x W`, any size and anywhere; the model sees it padded.
    """
    image = image.to(model.device)
    tell("running the model")
    with _watching(model, stages_with_graphs(model)) as stages:
        out = model(image)
    bits = {name: -value.log2().sum(dim=1)[0].cpu() for name, value in out["likelihoods"].items()}
    each = HYPER_STRIDE // LATENT_STRIDE  # positions of y along one of z
    spread = bits["z"].repeat_interleave(each, dim=0).repeat_interleave(each, dim=1) / each**2
    return ModelRun(
        stages=stages,
        x_hat=out["x_hat"].clamp(0, 1).cpu(),
        bits=bits["y"] + spread,
        quality=model.config.default_quality,
    )


@torch.no_grad()
def run_stages(model: GLIC, image: Tensor, stages: Iterable[str] | None = None) -> dict[str, StageRun]:
    """Run a model once, wherever it is, and keep what some of its stages did, on the CPU.

    Args:
        model: The model, in eval mode.
        image: One picture in [0, 1], `1 x 3 x H x W`, any size and anywhere; the model sees it padded.
        stages: Of `STAGES`; by default all that have graphs.

    Raises:
        ValueError: no such stage, or none with graphs.
    """
    image, stages = image.to(model.device), list(stages_with_graphs(model) if stages is None else stages)
    tell("running the model")
    with _watching(model, stages) as runs:
        if all(stage.startswith("g_a") for stage in stages):
            model.g_a(pad(image, HYPER_STRIDE))
        else:
            model(image)
    return runs


@contextmanager
def _watching(model: GLIC, stages: Iterable[str]) -> Iterator[dict[str, StageRun]]:
    """Keep what stages do while the model runs; the dict is filled at the end."""
    modules = {stage: stage_module(model, stage) for stage in stages}
    attentions = {
        stage: [a for layer in m.layers if isinstance(a := layer.aggregate, GraphAttention)]
        for stage, m in modules.items()
    }
    graphs: dict[nn.Module, tuple[Graph, ...]] = {}
    inputs: dict[nn.Module, Tensor] = {}
    hooks = [
        module.graph_builder.register_forward_hook(
            lambda builder, args, built: graphs.update(
                {builder: built if "edge_index" in built[0] else builder.forward(*args)}
            )
        )
        for module in modules.values()
    ]
    hooks += [
        attention.register_forward_pre_hook(lambda module, args: inputs.update({module: args[0]}))
        for attention in itertools.chain(*attentions.values())
    ]
    runs: dict[str, StageRun] = {}
    try:
        yield runs
    finally:
        for hook in hooks:
            hook.remove()
    on_cpu = model.device.type == "cpu"
    for stage, module in modules.items():
        runs[stage] = StageRun(
            graphs=tuple(_on_cpu(graph) for graph in graphs[module.graph_builder]),
            attentions=[a if on_cpu else copy.deepcopy(a).cpu() for a in attentions[stage]],
            inputs=[inputs[attention].cpu() for attention in attentions[stage]],
        )


def _on_cpu(graph: Graph) -> Graph:
    if not graph.x.is_cpu:
        graph = graph.cpu()
        graph.map_size = tuple(graph.map_size)  # PyG has made a list of it
    return graph


def stage_graphs(model: GLIC, image: Tensor, stage: str) -> Graphs:
    """Return the two graphs of one stage, see `run_stages`."""
    return run_stages(model, image, [stage])[stage].pair


def node_size(image: Tensor, map_size: MapSize) -> int:
    """Return the side of the square of pixels that a node of a stage stands for."""
    return pad(image, HYPER_STRIDE).size(-1) // map_size[2]


def limit_size(image: Tensor) -> Tensor:
    """Scale a picture down to `MAX_PIXELS` if it has more, with a warning: graphs need a lot of memory.

    Args:
        image: `1 x 3 x H x W`.
    """
    height, width = image.shape[-2:]
    scale = math.sqrt(MAX_PIXELS / (height * width))
    if scale >= 1:
        return image
    size = (max(1, int(height * scale)), max(1, int(width * scale)))
    warnings.warn(f"picture scaled down from {width} x {height} to {size[1]} x {size[0]}", stacklevel=2)
    return F.interpolate(image, size, mode="bilinear", antialias=True)

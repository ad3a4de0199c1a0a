"""The graphs that a model builds on its way through a picture."""

from __future__ import annotations

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from glic_pyg.codec import GLIC, MULTIPLE
from glic_pyg.graph import Graphs
from glic_pyg.graph.grid import MapSize
from glic_pyg.image import pad
from glic_pyg.nn.gfa import GFAStage

STAGES = ("g_a.1", "g_a.2", "g_s.1", "g_s.2")
"""The graph stages, numbered per transform in the order of the data flow: at H/4, H/8; H/8, H/4."""

MAX_PIXELS = 2**22


@torch.no_grad()
def stage_graphs(model: GLIC, image: Tensor, stage: str) -> Graphs:
    """Return the two graphs that a stage builds for a picture.

    Args:
        model: The model, in eval mode.
        image: One picture in [0, 1], `1 x 3 x H x W`, any size; the model sees it padded.
        stage: One of `STAGES`.

    Raises:
        ValueError: no such stage.
    """
    if stage not in STAGES:
        raise ValueError(f"Expected one of the stages {', '.join(STAGES)} (got {stage})")
    transform, number = stage.split(".")
    graph_stages = [m for m in getattr(model, transform).stages if isinstance(m, GFAStage)]
    module = graph_stages[int(number) - 1]
    inputs: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, args: inputs.extend(args))
    try:
        if transform == "g_a":
            model.g_a(pad(image, MULTIPLE))
        else:
            model(image)
    finally:
        hook.remove()
    return module.graph_builder(inputs[0])


def node_size(image: Tensor, map_size: MapSize) -> int:
    """Return the side of the square of pixels that a node of a stage stands for."""
    return pad(image, MULTIPLE).size(-1) // map_size[2]


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

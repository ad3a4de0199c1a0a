"""How much each edge counts: the attention that a stage's layers give it."""

from __future__ import annotations

import torch
from torch import Tensor

from glic_pyg.errors import UserError
from glic_pyg.inspection.stages import StageRun


class LayerError(UserError, ValueError):
    """A layer or head that a stage does not have; the message is one line for the user."""


@torch.no_grad()
def stage_attention(run: StageRun, *, head: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the attention of a stage's first layer on each of its graphs.

    Args:
        run: What the stage did with a picture.
        head: From 0; by default the mean of all heads.

    Returns:
        Per edge of the local and of the global graph, positive; those towards one node sum to 1.

    Raises:
        LayerError: no such head, or the stage has no layer on its global graph.
    """
    if len(run.attentions) < 2:
        raise LayerError(f"Expected a layer on each graph of the stage (got {len(run.attentions)} layer)")
    heads = run.attentions[0].heads
    if head is not None and not 0 <= head < heads:
        raise LayerError(f"Expected a head in 0..{heads - 1} (got {head})")
    local, global_ = (
        attention(x, graph, return_attention_weights=True)[1][1]
        for attention, x, graph in zip(run.attentions[:2], run.inputs[:2], run.graphs, strict=True)
    )
    if head is None:
        return local.mean(dim=1), global_.mean(dim=1)
    return local[:, head], global_[:, head]

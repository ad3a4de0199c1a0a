"""How much each edge counts: the attention that a stage's layers give it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import softmax

from glic_pyg.codec import GLIC
from glic_pyg.graph import Graphs
from glic_pyg.inspection.stages import run_to, stage_module
from glic_pyg.nn.graph_attention import MAX_LOGIT_SCALE, GraphAttention
from glic_pyg.nn.position_bias import table_row


class LayerError(ValueError):
    """A layer or head that a stage does not have; the message is one line for the user."""


@torch.no_grad()
def stage_attention(
    model: GLIC, image: Tensor, stage: str, graphs: Graphs, *, head: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the attention of a stage's first layer on each of its graphs.

    Args:
        model: The model, in eval mode.
        image: One picture in [0, 1], `1 x 3 x H x W`.
        stage: One of `STAGES`.
        graphs: The stage's graphs for this picture.
        head: From 0; by default the mean of all heads.

    Returns:
        Per edge of the local and of the global graph, positive; those towards one node sum to 1.

    Raises:
        ValueError: no such stage.
        LayerError: no such head, or the stage has no layer on its global graph.
    """
    layers = stage_module(model, stage).layers[:2]
    if len(layers) < 2:
        raise LayerError(f"Expected a layer on each graph of stage {stage} (got {len(layers)} layer)")
    heads = layers[0].attention.heads
    if head is not None and not 0 <= head < heads:
        raise LayerError(f"Expected a head in 0..{heads - 1} (got {head})")
    inputs: list[Tensor] = []
    hooks = [
        layer.attention.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for layer in layers
    ]
    try:
        run_to(model, image, [stage])
    finally:
        for hook in hooks:
            hook.remove()
    weights = [
        attention_weights(layer.attention, x, graph)
        for layer, x, graph in zip(layers, inputs, graphs, strict=True)
    ]
    local, global_ = (w.mean(dim=1) if head is None else w[:, head] for w in weights)
    return local, global_


def attention_weights(attention: GraphAttention, x: Tensor, graph: Data) -> Tensor:
    """Return the weights by which a layer adds up the values of a node's neighbours, see `GraphAttention`.

    Args:
        attention: The layer.
        x: Its input, `N x C`.
        graph: The graph it works on.

    Returns:
        `E x heads`.
    """
    source, target = graph.edge_index.as_tensor()
    shape = (x.size(0), attention.heads, -1)
    query = F.normalize(attention.query(x).view(shape), dim=-1)
    key = F.normalize(attention.key_value(x).chunk(2, dim=1)[0].reshape(shape), dim=-1)
    key = torch.cat([key, torch.zeros_like(key[:1])])
    scale = attention.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
    bias = attention.position_bias()[table_row(graph.offset).long()]
    # Head by head: all heads' queries and keys of all edges at once would take the most memory by far.
    cosine = [(query[target, h] * key[source, h]).sum(dim=1) for h in range(attention.heads)]
    return softmax(torch.stack(cosine, dim=1) * scale + bias, target, num_nodes=x.size(0))

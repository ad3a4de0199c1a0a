"""How much each edge counts: the attention that a stage's layers give it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import softmax

from glic_pyg.errors import UserError
from glic_pyg.graph import Graph
from glic_pyg.inspection.stages import StageRun
from glic_pyg.nn.graph_attention import MAX_LOGIT_SCALE, GraphAttention


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
        attention_weights(attention, x, graph)
        for attention, x, graph in zip(run.attentions[:2], run.inputs[:2], run.graphs, strict=True)
    )
    if head is None:
        return local.mean(dim=1), global_.mean(dim=1)
    return local[:, head], global_[:, head]


def attention_weights(attention: GraphAttention, x: Tensor, graph: Graph) -> Tensor:
    """Return the weights by which a layer adds up the values of a node's neighbours, see `GraphAttention`.

    Args:
        attention: The layer.
        x: Its input, `N x C`, without the zero node's features.
        graph: The graph it works on.

    Returns:
        `E x heads`.
    """
    source, target = graph.edge_index
    query, key = (F.normalize(part, dim=-1) for part in queries_and_keys(attention, x))
    key = torch.cat([key, torch.zeros_like(key[:1])])
    table, row = attention.bias_rows(graph.offset, target, graph.get("shift"), graph.get("stride"))
    bias = table[row.long()]
    # Head by head: all heads' queries and keys of all edges at once would take the most memory by far.
    cosine = [(query[target, h] * key[source, h]).sum(dim=1) for h in range(attention.heads)]
    return softmax(torch.stack(cosine, dim=1) * logit_scale(attention) + bias, target, num_nodes=x.size(0))


def queries_and_keys(attention: GraphAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a layer makes of each node to compare it with others, not normalised.

    Args:
        attention: The layer.
        x: Its input, `N x C`.

    Returns:
        Queries and keys, `N x heads x C/heads`.
    """
    shape = (x.size(0), attention.heads, -1)
    return attention.query(x).view(shape), attention.key_value(x).chunk(2, dim=1)[0].reshape(shape)


def logit_scale(attention: GraphAttention) -> Tensor:
    """Return the factor of a layer's cosines, one per head."""
    return attention.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()

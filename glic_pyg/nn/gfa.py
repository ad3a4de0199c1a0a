"""Graph feature aggregation: a layer on one graph, and the stage that alternates two graphs.

x --+--> graphs, as published a local and a global one (built once, no gradient)
    |        |         |         |
    +--> local --> global --> local --> ... --> y
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from glic_pyg.eager import eager
from glic_pyg.graph import FeatureMapError, Graph, GraphBuilder, to_map
from glic_pyg.nn.conv import GatedFeedForward
from glic_pyg.nn.graph_attention import Backend, GraphAttention
from glic_pyg.nn.layer_aggregation import LayerAggregation


class GFALayer(nn.Module):
    """Aggregation over a graph's edges, then a feed-forward part that mixes each node's 3 x 3 surroundings.

        x = x + gate * aggregation(LN(x));  x = FFN(x), which norms its input and adds it

    The gate is there only if the graph has one: where its score has weights.

    Args:
        channels: Features per node.
        heads: Attention heads.
        ffn_ratio: Expansion of the feed-forward part.
        position_hidden: Hidden width of the position MLP.
        position: What the attention's bias knows of an edge, see `GraphAttention`.
        layer: A PyG layer to aggregate by, see `LayerAggregation`, in place of attention; the two arguments
            before and the next one then mean nothing.
        backend: Who computes the attention, see `GraphAttention`.
    """

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        ffn_ratio: int,
        position_hidden: int,
        position: Literal["grid", "distance"] = "grid",
        layer: Callable[..., MessagePassing] | None = None,
        backend: Backend | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        if layer is None:
            self.attention = GraphAttention(
                channels=channels,
                heads=heads,
                position_hidden=position_hidden,
                position=position,
                backend=backend,
            )
        self.aggregation = None if layer is None else LayerAggregation(layer, channels=channels)
        self.ffn = GatedFeedForward(channels, ratio=ffn_ratio, depthwise=True, eps=1e-5)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """Update node features `N x C`, of all nodes of `graph` but the zero node, along its edges."""
        normed = self.norm(x)
        if self.aggregation is None:
            update = self.attention(
                normed,
                graph.edge_index,
                graph.offset,
                graph.queries,
                graph.candidates,
                shift=graph.get("shift"),
                stride=graph.get("stride"),
            )
        else:
            update = self.aggregation(normed, graph)
        if "gate" in graph:
            update = (graph.gate[:-1, None] * update).to(update.dtype)
        x = x + update
        return self.ffn(to_map(x, graph.map_size)).permute(0, 2, 3, 1).reshape_as(x)


class GFAStage(nn.Module):
    """Layers that take turns with the graphs of the stage's input, as published a local and a global one.

    Defaults are those of the published model's stage at H/8.

        stage = GFAStage(channels=64, depth=2, graph_builder=GraphBuilder(degree=16))
        y = stage(x)  # B x 64 x H x W, any size

    Args:
        channels: Features per position.
        depth: Number of layers; even ones, from 0, work on the local graph.
        heads: Attention heads, which divide the channels.
        ffn_ratio: Expansion of the feed-forward parts.
        position_hidden: Hidden width of the position MLPs.
        position: What the attention's bias knows of an edge, see `GraphAttention`.
        graph_builder: Makes the graphs; one without candidate sets makes none, and layers are their
            feed-forward parts only.
        layer: A PyG layer, a class or a `functools.partial` of one, to aggregate by in place of this
            package's attention, see `LayerAggregation`; `heads`, `position_hidden` and `backend` then mean
            nothing.
        backend: Who computes the attention, see `GraphAttention`.

    Raises:
        ValueError: the layer does not work, or heads do not divide the channels.
    """

    def __init__(
        self,
        *,
        channels: int,
        depth: int = 5,
        heads: int = 8,
        ffn_ratio: int = 2,
        position_hidden: int = 512,
        position: Literal["grid", "distance"] = "grid",
        graph_builder: GraphBuilder | None = None,
        layer: Callable[..., MessagePassing] | None = None,
        backend: Backend | None = None,
    ) -> None:
        super().__init__()
        self.graph_builder = GraphBuilder() if graph_builder is None else graph_builder
        self.score = (
            self.graph_builder.score
        )  # a module of the stage, so that its weights, if any, are trained
        if not self.graph_builder.candidates:
            self.layers = nn.ModuleList(
                GatedFeedForward(channels, ratio=ffn_ratio, depthwise=True, eps=1e-5) for _ in range(depth)
            )
            return
        self.layers = nn.ModuleList(
            GFALayer(
                channels=channels,
                heads=heads,
                ffn_ratio=ffn_ratio,
                position_hidden=position_hidden,
                position=position,
                layer=layer,
                backend=backend,
            )
            for _ in range(depth)
        )

    def forward(self, feature_map: Tensor) -> Tensor:
        """Map `B x C x H x W`, any size, to the same shape.

        Raises:
            FeatureMapError: a map that is none, or is not finite; in training, what is not finite stays so.
        """
        graphs = self._graphs(feature_map)
        if not graphs:
            for layer in self.layers:
                feature_map = layer(feature_map)
            return feature_map
        x = feature_map.permute(0, 2, 3, 1).reshape(-1, feature_map.size(1))
        for i, layer in enumerate(self.layers):
            x = layer(x, graphs[i % len(graphs)])
        return to_map(x, graphs[0].map_size)

    @eager
    def _graphs(self, feature_map: Tensor) -> Sequence[Graph]:
        try:
            return self.graph_builder(feature_map)
        except FeatureMapError:
            if not self.training or feature_map.isfinite().all():
                raise
            # Any graph will do: the loss is not finite either, and training leaves such a step out.
            return self.graph_builder(torch.zeros_like(feature_map))


@torch.no_grad()
def silence_attention(model: nn.Module) -> None:
    """Let all graph layers begin as their feed-forward parts: what attention adds to a node is zero."""
    for module in model.modules():
        if isinstance(module, GraphAttention):
            module.output.weight.zero_()
            module.output.bias.zero_()

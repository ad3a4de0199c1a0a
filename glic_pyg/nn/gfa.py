"""Graph feature aggregation: a layer on one graph, and the stage that alternates two graphs.

x --+--> graphs, as published a local and a global one (built once, no gradient)
    |        |         |         |
    +--> local --> global --> local --> ... --> y
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from glic_pyg.eager import eager
from glic_pyg.graph import FeatureMapError, Graph, GraphBuilder, to_map
from glic_pyg.nn.conv import GatedFeedForward
from glic_pyg.nn.graph_attention import GraphAttention
from glic_pyg.nn.layer_aggregation import LayerAggregation

EPS = 1e-5  # of the layers' normalisations


class GFALayer(nn.Module):
    """Aggregation over a graph's edges, then a feed-forward part that mixes each node's 3 x 3 surroundings.

        x = x + gate * aggregation(LN(x));  x = FFN(x), which norms its input and adds it

    The gate is there only if the graph has one: where its score has weights.

    Args:
        aggregation: `GraphAttention`, as published, or a `LayerAggregation`, of the same number of channels.
        channels: Features per node.
        ffn_ratio: Expansion of the feed-forward part.
    """

    def __init__(
        self, aggregation: GraphAttention | LayerAggregation, *, channels: int, ffn_ratio: int
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, EPS)
        self.aggregate = aggregation
        self.ffn = _feed_forward(channels, ffn_ratio)

    def forward(self, x: Float[Tensor, "N C"], graph: Graph, edges: Any = None) -> Float[Tensor, "N C"]:
        """Update node features `N x C`, of all nodes of `graph` but the zero node, along its edges.

        Args:
            x: The features.
            graph: The graph.
            edges: What the aggregation's `prepare` returns of the graph; several layers may share it.
        """
        if isinstance(self.aggregate, GraphAttention):
            update = self.aggregate(x, graph, edges, norm=self.norm)
        else:
            update = self.aggregate(self.norm(x), graph, edges)
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
        graph_builder: Makes the graphs.
        layer: A PyG layer, a class or a `functools.partial` of one, to aggregate by in place of this
            package's attention, see `LayerAggregation`; `heads` and `position_hidden` then mean nothing.

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
    ) -> None:
        super().__init__()
        self.graph_builder = GraphBuilder() if graph_builder is None else graph_builder

        def aggregation() -> GraphAttention | LayerAggregation:
            if layer is not None:
                return LayerAggregation(layer, channels=channels)
            return GraphAttention(
                channels=channels, heads=heads, position_hidden=position_hidden, position=position
            )

        self.layers = nn.ModuleList(
            GFALayer(aggregation(), channels=channels, ffn_ratio=ffn_ratio) for _ in range(depth)
        )

    def forward(self, feature_map: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Map `B x C x H x W`, any size, to the same shape.

        Raises:
            FeatureMapError: a map that is none, or is not finite; in training, what is not finite stays so.
        """
        graphs = self._graphs(feature_map)
        x = feature_map.permute(0, 2, 3, 1).reshape(-1, feature_map.size(1))
        for i, layer in enumerate(self.layers):
            x = layer(x, *graphs[i % len(graphs)])
        return to_map(x, graphs[0][0].map_size)

    @eager
    def _graphs(self, feature_map: Float[Tensor, "B C H W"]) -> list[tuple[Graph, Any]]:
        """Return each graph and what all layers on it share."""
        aggregates = [cast(GFALayer, layer).aggregate for layer in self.layers]
        fused = all(isinstance(a, GraphAttention) and a.fuses(feature_map) for a in aggregates)
        build = partial(self.graph_builder, edges=False) if fused else self.graph_builder
        try:
            graphs = build(feature_map)
        except FeatureMapError:
            if not self.training or feature_map.isfinite().all():
                raise
            # Any graph will do: the loss is not finite either, and training leaves such a step out.
            graphs = build(torch.zeros_like(feature_map))
        return [(graph, aggregates[0].prepare(graph)) for graph in graphs]


class FeedForwardStage(nn.Module):
    """What is left of a `GFAStage` without graphs: the feed-forward parts of its layers.

    Args:
        channels: Features per position.
        depth: Number of layers.
        ffn_ratio: Expansion of the feed-forward parts.
    """

    def __init__(self, *, channels: int, depth: int, ffn_ratio: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_feed_forward(channels, ffn_ratio) for _ in range(depth)))

    def forward(self, feature_map: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Map `B x C x H x W`, any size, to the same shape."""
        return self.layers(feature_map)


def _feed_forward(channels: int, ratio: int) -> GatedFeedForward:
    return GatedFeedForward(channels, ratio=ratio, depthwise=True, eps=EPS)


@torch.no_grad()
def silence_attention(model: nn.Module) -> None:
    """Let all graph layers begin as their feed-forward parts: what attention adds to a node is zero."""
    for module in model.modules():
        if isinstance(module, GraphAttention):
            module.output.weight.zero_()
            module.output.bias.zero_()

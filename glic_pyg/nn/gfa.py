"""Graph feature aggregation: a layer on one graph, and the stage that alternates two graphs.

x --+--> local and global graph (built once, no gradient)
    |        |         |         |
    +--> local --> global --> local --> ... --> y
"""

from torch import Tensor, nn
from torch_geometric.data import Data

from glic_pyg.graph import GraphBuilder, to_map
from glic_pyg.nn.conv import GatedFeedForward
from glic_pyg.nn.graph_attention import Backend, GraphAttention


class GFALayer(nn.Module):
    """Attention over a graph's edges, then a feed-forward part that mixes each node's 3 x 3 surroundings.

        x = x + attention(LN(x));  x = FFN(x), which norms its input and adds it

    Args:
        channels: Features per node.
        heads: Attention heads.
        ffn_ratio: Expansion of the feed-forward part.
        position_hidden: Hidden width of the position MLP.
        backend: Who computes the attention, see `GraphAttention`.
    """

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        ffn_ratio: int,
        position_hidden: int,
        backend: Backend | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = GraphAttention(
            channels=channels, heads=heads, position_hidden=position_hidden, backend=backend
        )
        self.ffn = GatedFeedForward(channels, ratio=ffn_ratio, depthwise=True, eps=1e-5)

    def forward(self, x: Tensor, graph: Data) -> Tensor:
        """Update node features `N x C`, the nodes of `graph`, along its edges."""
        x = x + self.attention(self.norm(x), graph.edge_index, graph.offset, graph.candidates)
        return self.ffn(to_map(x, graph.map_size)).permute(0, 2, 3, 1).reshape_as(x)


class GFAStage(nn.Module):
    """Layers that alternate between the local and the global graph of the stage's input.

    Args:
        channels: Features per position.
        depth: Number of layers; even ones, from 0, work on the local graph.
        heads: Attention heads.
        ffn_ratio: Expansion of the feed-forward parts.
        position_hidden: Hidden width of the position MLPs.
        graph_builder: Makes the graphs.
        backend: Who computes the attention, see `GraphAttention`.
    """

    def __init__(
        self,
        *,
        channels: int,
        depth: int,
        heads: int,
        ffn_ratio: int,
        position_hidden: int,
        graph_builder: GraphBuilder,
        backend: Backend | None = None,
    ) -> None:
        super().__init__()
        self.graph_builder = graph_builder
        self.layers = nn.ModuleList(
            GFALayer(
                channels=channels,
                heads=heads,
                ffn_ratio=ffn_ratio,
                position_hidden=position_hidden,
                backend=backend,
            )
            for _ in range(depth)
        )

    def forward(self, feature_map: Tensor) -> Tensor:
        """Map `B x C x H x W`, any size, to the same shape."""
        graphs = self.graph_builder(feature_map)
        x = feature_map.permute(0, 2, 3, 1).reshape(-1, feature_map.size(1))
        for i, layer in enumerate(self.layers):
            x = layer(x, graphs[i % 2])
        return to_map(x, graphs.local.map_size)

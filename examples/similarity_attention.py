"""A graph layer to put in the attention's place: it learns how much the similarity counts that chose an edge.

PYTHONPATH=examples glic ablate examples/similarity*.yaml -d PHOTOS -o runs/similarity --seeds 0

trains a small codec with it and one without the term of similarity, and compares the two.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax


class SimilarityAttention(MessagePassing):
    """Cosine attention whose logits have a term for the cosine of the nodes' features themselves.

        a_ij = s_h cos(q_i, k_j) + b_h(offset_ij) + w_h cos(x_i, x_j)

    over the edges `j -> i` and per head `h`. Graphs keep the most similar candidates, and no gradient reaches
    that choice. Through the last term, whose weights `w` begin at zero, it reaches the similarity.

    Args:
        in_channels: Features per node.
        out_channels: The same after it.
        heads: Attention heads, which divide the channels.
        hidden: Width of the layer that makes biases of offsets.
        similar: Whether there is the last term.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, heads: int = 4, hidden: int = 16, similar: bool = True
    ) -> None:
        super().__init__(aggr="add", node_dim=0)
        self.heads = heads
        self.query = nn.Linear(in_channels, in_channels)
        # Without biases what is outside of the picture, the last node, stays zero.
        self.key = nn.Linear(in_channels, in_channels, bias=False)
        self.value = nn.Linear(in_channels, in_channels, bias=False)
        self.scale = nn.Parameter(torch.full((heads,), math.log(10)))
        self.bias = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, heads))
        self.similar = nn.Parameter(torch.zeros(heads)) if similar else None
        self.output = nn.Linear(in_channels, out_channels)
        nn.init.zeros_(self.output.weight)  # a layer begins as its feed-forward part alone
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        query, key = (F.normalize(self._of_heads(layer(x)), dim=-1) for layer in (self.query, self.key))
        return self.output(
            self.propagate(
                edge_index,
                query=self.scale.exp()[:, None] * query,
                key=key,
                value=self._of_heads(self.value(x)),
                unit=F.normalize(x, dim=-1),
                bias=self.bias(edge_attr[:, :2]),
            )
        )

    def message(
        self,
        query_i: Tensor,
        key_j: Tensor,
        value_j: Tensor,
        unit_i: Tensor,
        unit_j: Tensor,
        bias: Tensor,
        index: Tensor,
        size_i: int,
    ) -> Tensor:
        logit = (query_i * key_j).sum(dim=-1) + bias
        if self.similar is not None:
            logit = logit + self.similar * (unit_i * unit_j).sum(dim=-1, keepdim=True)
        weight = softmax(logit, index, num_nodes=size_i)
        return (weight[..., None] * value_j).flatten(1)

    def _of_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.heads, -1))

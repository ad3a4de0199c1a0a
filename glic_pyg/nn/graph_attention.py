"""Edge-conditioned attention on a directed graph."""

import math
from typing import Literal, Optional, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax

from glic_pyg.graph.candidates import Candidates
from glic_pyg.nn.kernels.csr_attention import csr_attention
from glic_pyg.nn.kernels.window_attention import window_attention
from glic_pyg.nn.pointwise import Linear, linear
from glic_pyg.nn.position_bias import PositionBias, table_row

Backend = Literal["reference", "csr", "windows"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

FUSIBLE = (torch.float32, torch.bfloat16, torch.float16)
MAX_LOGIT_SCALE = 4.6052  # ln 100, rounded as published


class GraphAttention(MessagePassing):
    """Aggregate neighbours by cosine attention with a bias per relative position.

        a_ij = s_h cos(q_i, k_j) + b_h(offset_ij)
        x_i' = W_o sum_j softmax_j(a_ij) v_j

    over the edges `j -> i` and per head `h`, with `q = W_q x`, `[k, v] = W_kv x`. The zero node, source
    `N` of the graph, has `k = v = 0`: its edges add to the softmax's denominator only.

    Args:
        channels: Features per node, in and out.
        heads: Attention heads; head `h` owns channels `h * channels / heads` and following.
        position_hidden: Hidden width of the position MLP.
        backend: `reference` passes messages edge by edge; `csr` computes the same in one fused pass per node,
            on the CPU, in float32 whether features have 32 bits or 16, for edges sorted by target; `windows`
            computes it as dense attention under a mask, for edges that were chosen from known candidates. By
            default `csr` where that is possible, else on a GPU `windows` where that is possible, else
            `reference`.

    Raises:
        ValueError: an unknown backend, or channels that heads do not divide.
    """

    SUPPORTS_FUSED_EDGE_INDEX = True

    def __init__(
        self, *, channels: int, heads: int, position_hidden: int, backend: Backend | None = None
    ) -> None:
        super().__init__(aggr="add", node_dim=0)
        if channels % heads:
            raise ValueError(f"Expected channels divisible by {heads} heads (got {channels})")
        if backend is not None and backend not in BACKENDS:
            raise ValueError(f"Expected backend to be one of {', '.join(BACKENDS)} (got {backend})")
        self.heads = heads
        self.head_channels = channels // heads
        self.backend = backend
        self.query = Linear(channels, channels)
        self.key_value = Linear(channels, 2 * channels)
        self.output = Linear(channels, channels)
        self.logit_scale = nn.Parameter(torch.full((heads,), math.log(10)))
        self.position_bias = PositionBias(heads=heads, hidden=position_hidden)

    def forward(
        self, x: Tensor, edge_index: EdgeIndex, offset: Tensor, candidates: Candidates | None = None
    ) -> Tensor:
        """Aggregate.

        Args:
            x: Node features, `N x C`.
            edge_index: Edges of sparse size `(N + 1, N)`, source `N` being the zero node.
            offset: Row and column offset per edge, `E x 2`, -7..15.
            candidates: What the edges were chosen from; `windows` needs it, and `csr` is faster with it.

        Returns:
            `N x C`.

        Raises:
            ValueError: a backend is demanded for what it cannot take.
        """
        num_nodes = x.size(0)
        scale, bias = self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp(), self.position_bias()
        shared = {"size": (num_nodes + 1, num_nodes), "bias": bias, "row": table_row(offset)}
        backend = self._choose(x, edge_index, candidates)
        self.fuse = backend == "csr"
        if self.fuse:
            query, key_value = self._heads_last(self.query, x), self._heads_last(self.key_value, x)
            out = self.propagate(
                edge_index,
                query=query.squeeze(1).float(),
                key_value=torch.cat([key_value, key_value.new_zeros(1, *key_value.shape[1:])]).float(),
                scale=scale.float(),
                order=torch.arange(num_nodes) if candidates is None else candidates.order,
                **shared | {"bias": bias.float()},
            )
            weight = self._reordered(self.output.weight.T).T
            return linear(out.flatten(1).to(query.dtype), weight, self.output.bias)
        query = self.query(x).view(num_nodes, self.heads, self.head_channels)
        key_value = self.key_value(x).view(num_nodes, 2, self.heads, self.head_channels)
        if backend == "windows":
            out = window_attention(query, key_value, scale, bias, edge_index, offset, candidates)
            return self.output(out.flatten(1))
        key, value = F.pad(key_value, (0, 0, 0, 0, 0, 0, 0, 1)).unbind(dim=1)
        out = self.propagate(
            edge_index,
            query=(None, F.normalize(query, dim=-1) * scale[:, None]),
            key=(F.normalize(key, dim=-1), None),
            value=(value, None),
            **shared,
        )
        return self.output(out.flatten(1))

    def _heads_last(self, layer: Linear, x: Tensor) -> Tensor:
        """Apply a layer whose weights, not features, were put in order: `N x parts x D x heads`."""
        features = linear(x, self._reordered(layer.weight), self._reordered(layer.bias))
        return features.unflatten(1, (-1, self.head_channels, self.heads))

    def _reordered(self, parameter: Tensor) -> Tensor:
        """Order the channels of the first axis by those of a head first, then by head."""
        return parameter.unflatten(0, (-1, self.heads, self.head_channels)).transpose(1, 2).flatten(0, 2)

    def _choose(self, x: Tensor, edge_index: EdgeIndex, candidates: Candidates | None) -> Backend:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        by_target = isinstance(edge_index, EdgeIndex) and edge_index.is_sorted_by_col
        fusible = device == "cpu" and dtype in FUSIBLE and by_target
        if self.backend is None:
            if fusible:
                return "csr"
            return "windows" if device == "cuda" and candidates is not None else "reference"
        if self.backend == "csr" and not fusible:
            order = "sorted" if by_target else "not sorted"
            raise ValueError(
                "Expected nodes of 32 or 16 bits on the CPU and an EdgeIndex sorted by target for csr "
                f"(got {dtype} on {x.device}, {order})"
            )
        if self.backend == "windows" and candidates is None:
            raise ValueError("Expected the candidates of the edges for backend windows (got none)")
        return self.backend

    def message(
        self,
        query_i: Tensor,
        key_j: Tensor,
        value_j: Tensor,
        bias: Tensor,
        row: Tensor,
        index: Tensor,
        ptr: Optional[Tensor],  # noqa: UP045 - PyG inspects these annotations and knows Optional only
        size_i: Optional[int],  # noqa: UP045
    ) -> Tensor:
        logit = (query_i * key_j).sum(dim=-1) + bias[row.int()]
        return softmax(logit, index, ptr, size_i)[..., None] * value_j

    def message_and_aggregate(
        self,
        edge_index: EdgeIndex,
        query: Tensor,
        key_value: Tensor,
        scale: Tensor,
        bias: Tensor,
        row: Tensor,
        order: Tensor,
    ) -> Tensor:
        (indptr, source), _ = edge_index.get_csc()
        return csr_attention(query, key_value, scale, bias, row, indptr, source, order)

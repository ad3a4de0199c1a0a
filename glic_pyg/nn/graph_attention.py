"""Edge-conditioned attention on a directed graph."""

import math
from typing import Literal, Optional, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax

from glic_pyg.nn.distance_bias import DistanceBias, distance_row
from glic_pyg.nn.kernels.csr_attention import csr_attention, pointers
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
        position: Whether the bias is a `PositionBias`, as published, or a `DistanceBias`.
        backend: `reference` passes messages edge by edge; `csr` computes the same in one fused pass per node,
            on the CPU, in float32 whether features have 32 bits or 16, for edges sorted by target; `windows`
            computes it as dense attention under a mask, for edges that were chosen from known candidates. By
            default `csr` where that is possible, else on a GPU `windows` where that is possible, else
            `reference`.

    Raises:
        ValueError: an unknown backend, or channels that heads do not divide.
    """

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        position_hidden: int,
        position: Literal["grid", "distance"] = "grid",
        backend: Backend | None = None,
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
        bias = PositionBias if position == "grid" else DistanceBias
        self.position_bias = bias(heads=heads, hidden=position_hidden)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        offset: Tensor,
        queries: Tensor | None = None,
        candidates: Tensor | None = None,
        *,
        shift: Tensor | None = None,
        stride: tuple[int, int] | None = None,
    ) -> Tensor:
        """Aggregate.

        Args:
            x: Node features, `N x C`, without the zero node's.
            edge_index: Edges to nodes `0..N - 1` from these and the zero node, `N`; `2 x E`.
            offset: Row and column offset per edge, `E x 2`, -7..15.
            queries: The nodes of each group, `G x 64`, `N` where there is none: `windows` needs it, and `csr`
                is faster with it.
            candidates: What the edges of each group were chosen from, `G x 256`; `windows` needs it.
            shift: See `Graph`, `N x 2` or more; a `DistanceBias` needs it.
            stride: See `Graph`; a `DistanceBias` needs it.

        Returns:
            `N x C`.

        Raises:
            ValueError: a backend is demanded for what it cannot take, edges without an offset, queries of
                other nodes, or a distance is wanted of candidates that tell none.
        """
        if offset.shape != (edge_index.size(1), 2):
            raise ValueError(
                f"Expected an offset for each of {edge_index.size(1)} edges (got {tuple(offset.shape)})"
            )
        scale = self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
        bias, row = self.bias_rows(offset, edge_index[1], shift, stride)
        if self.backend in (None, "csr") and (indptr := self._pointers(x, edge_index)) is not None:
            return self._by_csr(x, scale, bias, row, indptr, edge_index[0], queries)
        num_nodes, grouped = len(x), queries is not None and candidates is not None
        query = self.query(x).view(num_nodes, self.heads, self.head_channels)
        key_value = self.key_value(x).view(num_nodes, 2, self.heads, self.head_channels)
        if self.backend == "windows" or (self.backend is None and x.is_cuda and grouped):
            if queries is None or candidates is None:
                raise ValueError("Expected the candidates of the edges for backend windows (got none)")
            out = window_attention(
                query, key_value, scale, bias, row, edge_index, offset, queries, candidates
            )
            return self.output(out.flatten(1))
        key, value = F.pad(key_value, (0, 0, 0, 0, 0, 0, 0, 1)).unbind(dim=1)
        out = self.propagate(
            edge_index,
            size=(num_nodes + 1, num_nodes),
            query=(None, F.normalize(query, dim=-1) * scale[:, None]),
            key=(F.normalize(key, dim=-1), None),
            value=(value, None),
            bias=bias,
            row=row,
        )
        return self.output(out.flatten(1))

    def bias_rows(
        self, offset: Tensor, target: Tensor, shift: Tensor | None, stride: tuple[int, int] | None
    ) -> tuple[Tensor, Tensor]:
        """Return the position bias.

        Args:
            offset: Row and column offset per edge, `E x 2`.
            target: Its query, `E`.
            shift: See `forward`.
            stride: See `forward`.

        Returns:
            A table, `R x heads`, and each edge's row in it, `E`, int16.
        """
        if isinstance(self.position_bias, PositionBias):
            return self.position_bias(), table_row(offset)
        if shift is None or stride is None:
            raise ValueError("Expected candidates that tell their distance, shift and stride (got none)")
        return self.position_bias(stride), distance_row(offset - shift[target])

    def _pointers(self, x: Tensor, edge_index: Tensor) -> Tensor | None:
        """Return where each node's edges begin, `N + 1`, if `csr` can take them."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        fits = device == "cpu" and dtype in FUSIBLE
        indptr = pointers(edge_index, len(x)) if fits else None
        if self.backend == "csr" and indptr is None:
            raise ValueError(
                "Expected nodes of 32 or 16 bits on the CPU and edges between them sorted by target for csr "
                f"(got {dtype} on {x.device}{', not sorted' if fits else ''})"
            )
        return indptr

    def _by_csr(
        self,
        x: Tensor,
        scale: Tensor,
        bias: Tensor,
        row: Tensor,
        indptr: Tensor,
        source: Tensor,
        queries: Tensor | None,
    ) -> Tensor:
        query, key_value = self._heads_last(self.query, x), self._heads_last(self.key_value, x)
        key_value = torch.cat([key_value, key_value.new_zeros(1, *key_value.shape[1:])])
        order = torch.arange(len(x), device=x.device) if queries is None else queries[queries < len(x)]
        if len(order) != len(x):
            raise ValueError(f"Expected each of {len(x)} nodes among the queries (got {len(order)})")
        features = (query.squeeze(1).float(), key_value.float(), scale.float(), bias.float())
        out = csr_attention(*features, row, indptr, source, order)
        weight = self._reordered(self.output.weight.T).T
        return linear(out.flatten(1).to(query.dtype), weight, self.output.bias)

    def _heads_last(self, layer: Linear, x: Tensor) -> Tensor:
        """Apply a layer whose weights, not features, were put in order: `N x parts x D x heads`."""
        features = linear(x, self._reordered(layer.weight), self._reordered(layer.bias))
        return features.unflatten(1, (-1, self.head_channels, self.heads))

    def _reordered(self, parameter: Tensor) -> Tensor:
        """Order the channels of the first axis by those of a head first, then by head."""
        return parameter.unflatten(0, (-1, self.heads, self.head_channels)).transpose(1, 2).flatten(0, 2)

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

"""Edge-conditioned attention on a directed graph."""

import math
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int16, Int64
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import softmax

from glic_pyg.graph import Graph
from glic_pyg.kernels import HasKernels
from glic_pyg.nn.distance_bias import DistanceBias
from glic_pyg.nn.kernels.csr_attention import csr_attention, pointers
from glic_pyg.nn.kernels.linear import linear_parts
from glic_pyg.nn.pointwise import Linear, linear
from glic_pyg.nn.position_bias import PositionBias

if TYPE_CHECKING:
    from glic_pyg.nn.kernels.triton_attention import Groups

FUSIBLE = (torch.float32, torch.bfloat16, torch.float16)
WIDEST_FUSIBLE = 32  # channels of a head: a group's then fit what a small GPU has for Triton's kernel
MAX_LOGIT_SCALE = 4.6052  # ln 100, rounded as published


class CSR(NamedTuple):
    """Edges sorted by target.

    Args:
        pointers: Where each node's edges begin, `N + 1`.
        order: The order in which the nodes are worked on, `N`, see `csr_attention`.
    """

    pointers: Int[Tensor, " N_and_zero"]
    order: Int64[Tensor, " N"]


class AttentionEdges(NamedTuple):
    """What attention reads of a graph's edges, whatever its weights: made once for all layers on a graph.

    Args:
        row: Each edge's row in the table of biases, `E`, int16; none of a graph without edges.
        csr: For the kernel of the CPU, where it can take the edges.
        groups: For the kernel by Triton, of a graph without edges.
    """

    row: Int16[Tensor, " E"] | None
    csr: CSR | None = None
    groups: "Groups | None" = None


class GraphAttention(HasKernels, MessagePassing):
    """Aggregate neighbours by cosine attention with a bias per relative position.

        a_ij = s_h cos(q_i, k_j) + b_h(offset_ij)
        x_i' = W_o sum_j softmax_j(a_ij) v_j

    over the edges `j -> i` and per head `h`, with `q = W_q x`, `[k, v] = W_kv x`. The zero node, source
    `N` of the graph, has `k = v = 0`: its edges add to the softmax's denominator only.

    The kernels are `reference`: messages edge by edge; `cpu`: one fused pass per node, in float32 whether
    features have 32 bits or 16, for edges sorted by target; `triton`: one fused pass per group, for graphs
    built without edges, and the reference for those that list them. Where none are chosen, the reference
    takes what those of the device cannot. See `HasKernels`.

    Args:
        channels: Features per node, in and out.
        heads: Attention heads; head `h` owns channels `h * channels / heads` and following.
        position_hidden: Hidden width of the position MLP.
        position: Whether the bias is a `PositionBias`, as published, or a `DistanceBias`.

    Raises:
        ValueError: channels that heads do not divide.
    """

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        position_hidden: int,
        position: Literal["grid", "distance"] = "grid",
    ) -> None:
        super().__init__(aggr="add", node_dim=0)
        if channels % heads:
            raise ValueError(f"Expected channels divisible by {heads} heads (got {channels})")
        self.heads = heads
        self.head_channels = channels // heads
        self.query = Linear(channels, channels)
        self.key_value = Linear(channels, 2 * channels)
        self.output = Linear(channels, channels)
        self.logit_scale = nn.Parameter(torch.full((heads,), math.log(10)))
        bias = PositionBias if position == "grid" else DistanceBias
        self.position_bias = bias(heads=heads, hidden=position_hidden)

    def fuses(self, x: Tensor) -> bool:
        """Return whether features are for the kernel by Triton, which needs no list of edges."""
        fits = self._dtype(x) in FUSIBLE and self.head_channels <= WIDEST_FUSIBLE
        return fits and self.kernels_for(x) == "triton"

    def prepare(self, graph: Graph) -> AttentionEdges:
        """Return what `forward` reads of a graph's edges; it depends on no weights.

        Args:
            graph: See `forward`.

        Raises:
            ValueError: edges without an offset, queries of other nodes, no edges where kernels need them, or
                a distance is wanted of candidates that tell none.
        """
        if "kept" in graph:
            if (kernels := self.kernels_for(graph.kept)) != "triton":
                raise ValueError(f"Expected a graph with edges for kernels {kernels} (got one without)")
            from glic_pyg.nn.kernels.triton_attention import groups_of

            distance = isinstance(self.position_bias, DistanceBias)
            return AttentionEdges(None, groups=groups_of(graph.groups, heads=self.heads, distance=distance))
        edge_index, num_nodes = graph.edge_index, graph.zero_node
        if graph.offset.shape != (edge_index.size(1), 2):
            raise ValueError(
                f"Expected an offset for each of {edge_index.size(1)} edges (got {tuple(graph.offset.shape)})"
            )
        row, queries = self.position_bias.rows(graph), graph.get("queries")
        if self.kernels_for(edge_index) != "cpu":
            return AttentionEdges(row)
        every = torch.arange(num_nodes, device=edge_index.device)
        order = every if queries is None else queries[queries < num_nodes]
        if len(order) != num_nodes:
            raise ValueError(f"Expected each of {num_nodes} nodes among the queries (got {len(order)})")
        begins = pointers(edge_index, num_nodes)
        return AttentionEdges(row, csr=None if begins is None else CSR(begins, order))

    def forward(
        self,
        x: Float[Tensor, "N C"],
        graph: Graph,
        edges: AttentionEdges | None = None,
        *,
        norm: nn.LayerNorm | None = None,
        return_attention_weights: bool = False,
    ) -> (
        Float[Tensor, "N C"]
        | tuple[Float[Tensor, "N C"], tuple[Int64[Tensor, "2 E"], Float[Tensor, "E heads"]]]
    ):
        """Aggregate.

        Args:
            x: Node features, `N x C`, without the zero node's.
            graph: `N + 1` nodes, the last one the zero node, with `edge_index` to the others and an `offset`
                for each edge. The kernel of the CPU is faster where it has `queries`; a `DistanceBias` needs
                `shift` and `stride`.
            edges: What `prepare` returns of the graph; several layers may share it.
            norm: What normalises the features before, if anything does; the kernel of the CPU does it in
                passing.
            return_attention_weights: Return the weights of the sum, too.

        Returns:
            `N x C`; or that and, as in PyG, a pair of `edge_index` and weights, `E x heads`.

        Raises:
            ValueError: kernels are demanded for what they cannot take, features of other nodes, or see
                `prepare`.
        """
        if len(x) != graph.zero_node:
            raise ValueError(f"Expected features of {graph.zero_node} nodes (got {len(x)})")
        edges = self.prepare(graph) if edges is None else edges
        bias = self.position_bias(graph.get("stride"))
        weights = None
        csr = None if edges.row is None else self._csr(x, edges)
        if norm is not None and (csr is None or return_attention_weights or not self._compiles(x)):
            x, norm = norm(x), None
        if edges.row is None:
            out = self._by_triton(x, bias, graph.kept, cast("Groups", edges.groups))
        elif csr is not None:
            out = self._by_csr(x, graph.edge_index[0], bias, edges.row, csr, norm)
        else:
            query, key_value = self._query_key_value(x)
            weights = self._weights(query, key_value, graph.edge_index, bias, edges.row)
            value = F.pad(key_value[:, 1], (0, 0, 0, 0, 0, 1))
            size = (len(x) + 1, len(x))
            out = self.propagate(graph.edge_index, size=size, value=(value, None), weight=weights)
            out = self.output(out.flatten(1))
        if not return_attention_weights:
            return out
        if edges.row is None:
            raise ValueError("Expected a graph with edges for their weights (got one without)")
        if weights is None:
            weights = self._weights(*self._query_key_value(x), graph.edge_index, bias, edges.row)
        return out, (graph.edge_index, weights)

    def message(self, value_j: Tensor, weight: Tensor) -> Tensor:
        return weight[..., None] * value_j

    def scale(self) -> Float[Tensor, " heads"]:
        """Return the factor of the cosines, `heads`."""
        return self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()

    def _weights(
        self,
        query: Float[Tensor, "N heads D"],
        key_value: Float[Tensor, "N 2 heads D"],
        edge_index: Int64[Tensor, "2 E"],
        bias: Float[Tensor, "rows heads"],
        row: Int16[Tensor, " E"],
    ) -> Float[Tensor, "E heads"]:
        """Return the weight of each edge, `E x heads`: the definition."""
        query = _unit(query) * self.scale()[:, None]
        key = F.pad(_unit(key_value[:, 0]), (0, 0, 0, 0, 0, 1))
        source, target = edge_index
        # Head by head: all heads' queries and keys of all edges at once would take the most memory by far.
        cosine = [
            (query[:, h].index_select(0, target) * key[:, h].index_select(0, source)).sum(dim=-1)
            for h in range(self.heads)
        ]
        bias = bias.index_select(0, row.int())  # backward one addition, where `bias[row]` sorts
        return softmax(torch.stack(cosine, dim=1) + bias, target, num_nodes=len(query))

    def _query_key_value(
        self, x: Float[Tensor, "N C"]
    ) -> tuple[Float[Tensor, "N heads D"], Float[Tensor, "N 2 heads D"]]:
        """Return queries, `N x heads x D`, and keys and values, `N x 2 x heads x D`."""
        shape = (self.heads, self.head_channels)
        return self.query(x).unflatten(1, shape), self.key_value(x).unflatten(1, (2, *shape))

    def _dtype(self, x: Tensor) -> torch.dtype:
        """Return the type of what linear layers make of features."""
        device = x.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype

    def _by_triton(self, x: Tensor, bias: Tensor, kept: Tensor, groups: "Groups") -> Tensor:
        from glic_pyg.nn.kernels.triton_attention import triton_attention

        out = triton_attention(*self._query_key_value(x), self.scale(), bias, kept, groups)
        return self.output(out.flatten(1))

    def _csr(self, x: Tensor, edges: AttentionEdges) -> CSR | None:
        """Return the edges for the kernel of the CPU, if it is wanted and can take them and the features."""
        dtype = self._dtype(x)
        csr = edges.csr if dtype in FUSIBLE else None
        if self.kernels == "cpu" and csr is None:
            unsorted = ", not sorted" if edges.csr is None else ""
            raise ValueError(
                "Expected nodes of 32 or 16 bits and edges between them sorted by target for kernels cpu "
                f"(got {dtype}{unsorted})"
            )
        return csr

    def _compiles(self, x: Tensor) -> bool:
        """Return whether the linear maps are compiled, too: they have the kernels of the CPU."""
        return self.query.kernels_for(x) == "cpu" and self._dtype(x) == torch.float32

    def _by_csr(
        self, x: Tensor, source: Tensor, bias: Tensor, row: Tensor, csr: CSR, norm: nn.LayerNorm | None
    ) -> Tensor:
        first, shape = x.size(1), (-1, self.head_channels, self.heads)
        # Weights, not features, are put in order: of channels of a head first, then of heads.
        both = self.query, self.key_value
        weights = self._reordered(torch.cat([layer.weight for layer in both]))
        biases = self._reordered(torch.cat([layer.bias for layer in both]))
        if self._compiles(x):
            query, key_value = linear_parts(x, weights, biases, first=first, norm=norm)
        else:
            query, key_value = linear(x, weights, biases).tensor_split([first], dim=1)
            key_value = torch.cat([key_value, key_value.new_zeros(1, key_value.size(1))])
        query, key_value = query.unflatten(1, shape), key_value.unflatten(1, shape)
        features = (query.squeeze(1).float(), key_value.float(), self.scale().float(), bias.float())
        out = csr_attention(*features, row, csr.pointers, source, csr.order).flatten(1)
        weight = self._reordered(self.output.weight.T).T
        if self._compiles(x):
            return linear_parts(out, weight, self.output.bias, first=first)[0]
        return linear(out.to(query.dtype), weight, self.output.bias)

    def _reordered(self, parameter: Tensor) -> Tensor:
        """Order the channels of the first axis by those of a head first, then by head."""
        return parameter.unflatten(0, (-1, self.heads, self.head_channels)).transpose(1, 2).flatten(0, 2)


def _unit(x: Tensor) -> Tensor:
    """Divide vectors by their norm; zeros stay zeros, in float16 too, which rounds 1e-12 to none."""
    return F.normalize(x, dim=-1, eps=max(1e-12, torch.finfo(x.dtype).tiny))

"""A graph stage without edge lists: groups are views of the map, neighbours a mask, and every shape is fixed.

    map --> score --> quota ----+
     |                          v
     +--> groups of 64 or 256 queries x 256 candidates --> mask --> attention of every layer

The same meaning as `GFAStage`, from the same weights, for the published candidate sets on maps whose sides
are multiples of 16. No number is fetched from the device and no shape depends on the content, so that a whole
training step can be one CUDA graph. On the global graph four groups share their candidates: their queries
stand together.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glic_pyg.codec import GLIC
from glic_pyg.graph.candidates import (
    CANDIDATES,
    QUERIES,
    WINDOW_MARGIN,
    Candidates,
    GlobalMesh,
    LocalWindows,
    global_mesh,
    local_windows,
    slot_offsets,
)
from glic_pyg.graph.complexity import damp
from glic_pyg.graph.grid import to_map, to_nodes
from glic_pyg.graph.quota import GroupQuota
from glic_pyg.graph.selection import Threshold
from glic_pyg.graph.similarity import Centered, Cosine
from glic_pyg.nn.conv import ConvBlock, GatedFeedForward
from glic_pyg.nn.distance_bias import DistanceBias, distance_row
from glic_pyg.nn.gfa import GFALayer, GFAStage
from glic_pyg.nn.graph_attention import GraphAttention
from glic_pyg.nn.position_bias import table_row


def on_gpu(x: Tensor) -> bool:
    """Whether the kernels for GPUs can take it."""
    return x.is_cuda


class LocalGroups:
    """Windows of 8 x 8 queries, each in the middle of its 16 x 16 candidates."""

    def __init__(self, height: int, width: int) -> None:
        self.grid = height // QUERIES, width // QUERIES
        self.stride = 1, 1

    def queries(self, x: Tensor) -> Tensor:
        """`B x C x H x W` -> `G x 64 x C`."""
        b, c = x.shape[:2]
        x = x.view(b, c, self.grid[0], QUERIES, self.grid[1], QUERIES)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, QUERIES**2, c)

    def candidates(self, x: Tensor) -> Tensor:
        """`B x C x H x W` -> `G x 256 x C`; zeros outside the map."""
        x = F.pad(x, (WINDOW_MARGIN,) * 4).unfold(2, CANDIDATES, QUERIES).unfold(3, CANDIDATES, QUERIES)
        return x.permute(0, 2, 3, 4, 5, 1).reshape(-1, CANDIDATES**2, x.size(1))

    def to_map(self, x: Tensor, batch_size: int) -> Tensor:
        """`G x 64 x C` -> `B x C x H x W`."""
        x = x.view(batch_size, *self.grid, QUERIES, QUERIES, -1).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(*x.shape[:2], self.grid[0] * QUERIES, self.grid[1] * QUERIES)

    def offsets(self) -> Tensor:
        """Grid offsets of the published table, `64 x 256 x 2`."""
        return slot_offsets()

    def steps(self) -> Tensor:
        """Candidate minus query in positions, `64 x 256 x 2`."""
        return slot_offsets() - WINDOW_MARGIN


class GlobalGroups:
    """Strided meshes of 8 x 8 queries; the four that share a mesh of 16 x 16 candidates are one group."""

    def __init__(self, height: int, width: int) -> None:
        self.stride = height // CANDIDATES, width // CANDIDATES

    def queries(self, x: Tensor) -> Tensor:
        """`B x C x H x W` -> `G x 256 x C`, in the order (parity of the group, slot) of rows and columns."""
        b, c = x.shape[:2]
        x = x.view(b, c, QUERIES, 2, self.stride[0], QUERIES, 2, self.stride[1])
        return x.permute(0, 4, 7, 3, 6, 2, 5, 1).reshape(-1, 4 * QUERIES**2, c)

    def candidates(self, x: Tensor) -> Tensor:
        """`B x C x H x W` -> `G x 256 x C`."""
        b, c = x.shape[:2]
        x = x.view(b, c, CANDIDATES, self.stride[0], CANDIDATES, self.stride[1])
        return x.permute(0, 3, 5, 2, 4, 1).reshape(-1, CANDIDATES**2, c)

    def to_map(self, x: Tensor, batch_size: int) -> Tensor:
        """`G x 256 x C` -> `B x C x H x W`."""
        x = x.view(batch_size, *self.stride, 2, 2, QUERIES, QUERIES, -1)
        x = x.permute(0, 7, 5, 3, 1, 6, 4, 2)
        return x.reshape(*x.shape[:2], CANDIDATES * self.stride[0], CANDIDATES * self.stride[1])

    def offsets(self) -> Tensor:
        """Grid offsets of the published table, `256 x 256 x 2`."""
        return slot_offsets().repeat(4, 1, 1)

    def steps(self) -> Tensor:
        """Candidate minus query in steps of the candidate grid, `256 x 256 x 2`."""
        query = torch.cartesian_prod(*[torch.arange(2)] * 2, *[torch.arange(QUERIES)] * 2)
        query = 2 * query[:, 2:] + query[:, :2]
        candidate = torch.cartesian_prod(*[torch.arange(CANDIDATES)] * 2)
        return candidate[None] - query[:, None]


class DenseStage:
    """A stage called without edges.

    Args:
        stage: The stage; local windows and global mesh, threshold, group quota, attention.

    Raises:
        TypeError: a stage of other parts.
    """

    def __init__(self, stage: GFAStage) -> None:
        builder = stage.graph_builder
        kinds = [type(candidates) for candidates in builder.candidates]
        parts = [type(builder.selection), type(builder.quota)]
        known = type(builder.similarity) in (Cosine, Centered) and parts == [Threshold, GroupQuota]
        if kinds != [LocalWindows, GlobalMesh] or not known:
            raise TypeError(f"Expected the published parts of graphs (got {builder})")
        self.stage = stage
        self.places: dict[torch.Size, list[tuple[LocalGroups | GlobalGroups, Tensor]]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Map `B x C x H x W`, sides multiples of 16, to the same shape."""
        if on_gpu(x):
            return self._fused(x)
        groups = self._groups(x)
        masks = self._masks(x, [g for g, _ in groups])
        for i, layer in enumerate(self.stage.layers):
            k = i % len(groups)
            x = dense_layer(layer, x, *groups[k], masks[k])
        return x

    def _fused(self, x: Tensor) -> Tensor:
        """Do the same by the kernels for GPUs, as `GFAStage` does, without asking the host."""
        size = x.shape[0], *x.shape[2:]
        graphs = self._graphs(x)
        x = x.permute(0, 2, 3, 1).reshape(-1, x.size(1))
        for i, layer in enumerate(self.stage.layers):
            x = fused_layer(layer, x, size, *graphs[i % len(graphs)])
        return to_map(x, size)

    @torch.no_grad()
    def _graphs(self, x: Tensor) -> list[tuple[Candidates, Tensor]]:
        """Return both graphs' groups, and by bits who is kept."""
        from glic_pyg.graph.kernels.triton_threshold import kept_bits

        builder, size = self.stage.graph_builder, (x.shape[0], *x.shape[2:])
        with torch.autocast(x.device.type, enabled=False):
            nodes = to_nodes(x.detach().float())
            score = damp(builder.score(x.detach().float())).flatten()
            unit = F.pad(F.normalize(builder.similarity.features(nodes), dim=1), (0, 0, 0, 1))
            graphs = []
            for find in (local_windows, global_mesh):
                candidates = find(size, x.device)
                quota = builder.quota(score, candidates, nodes.batch, degree=builder.degree)
                groups = candidates.node, candidates.candidate
                bits = kept_bits(unit, quota, *groups, bisections=builder.selection.bisections)
                graphs.append((candidates, bits))
        return graphs

    def _groups(self, x: Tensor) -> list[tuple[LocalGroups | GlobalGroups, Tensor]]:
        """Return both graphs' groups, and the row of the bias table of each query and candidate."""
        size = x.shape[2:]
        if size not in self.places:
            distance = isinstance(self.stage.layers[0].aggregate.position_bias, DistanceBias)
            groups = LocalGroups(*size), GlobalGroups(*size)
            rows = [distance_row(g.steps()) if distance else table_row(g.offsets()) for g in groups]
            self.places[size] = [(g, r.long().to(x.device)) for g, r in zip(groups, rows, strict=True)]
        return self.places[size]

    @torch.no_grad()
    def _masks(self, x: Tensor, groups: list[LocalGroups | GlobalGroups]) -> list[Tensor]:
        """Return who is kept: for each graph `G x queries x 256`."""
        builder = self.stage.graph_builder
        with torch.autocast(x.device.type, enabled=False):
            x = x.detach().float()
            score = damp(builder.score(x))[:, None]
            if isinstance(builder.similarity, Centered):
                x = x - x.mean((2, 3), keepdim=True)
            unit = F.normalize(x, dim=1)
            masks = []
            for g in groups:
                similarity = g.queries(unit) @ g.candidates(unit).transpose(1, 2)
                scores = g.queries(score)[..., 0].unflatten(1, (-1, QUERIES**2))
                quota = builder.degree * QUERIES**2 * scores / scores.sum(-1, keepdim=True)
                quota = quota.clamp(1, CANDIDATES**2).flatten()
                keep = builder.selection(similarity.flatten(0, 1), quota)
                masks.append((keep | ~keep.any(1, keepdim=True)).view_as(similarity))
        return masks


def dense_layer(
    layer: GFALayer, x: Tensor, groups: LocalGroups | GlobalGroups, rows: Tensor, mask: Tensor
) -> Tensor:
    """Apply a layer to a map, `B x C x H x W`.

    Args:
        layer: Its weights.
        x: The map.
        groups: Who may see whom.
        rows: Row of the bias table of each query and candidate, `queries x 256`.
        mask: Who is kept, `G x queries x 256`.
    """
    a: GraphAttention = layer.aggregate
    normed = layer.norm(x.movedim(1, -1))
    query = a.query(normed).movedim(-1, 1)
    key, value = a.key_value(normed).movedim(-1, 1).chunk(2, dim=1)
    key = F.normalize(key.unflatten(1, (a.heads, -1)), dim=2).flatten(1, 2)
    query = F.normalize(query.unflatten(1, (a.heads, -1)), dim=2).flatten(1, 2)

    def heads(x: Tensor) -> Tensor:
        x = x.unflatten(-1, (a.heads, -1)).transpose(1, 2)
        return F.pad(x, (0, -a.head_channels % 8))  # the fused kernels take multiples of 8

    scale = a.scale()
    table = a.position_bias(groups.stride) if isinstance(a.position_bias, DistanceBias) else a.position_bias()
    # The softmax does not see a constant: without it a half-precision bias is finer.
    bias = (table - table.mean(0)).T[:, rows]
    query = heads(groups.queries(query))
    key, value = heads(groups.candidates(key)), heads(groups.candidates(value))
    query = query * scale[:, None, None].to(query.dtype)
    bias = bias.to(query.dtype).masked_fill(~mask[:, None], -torch.inf)
    out = F.scaled_dot_product_attention(query, key, value.to(query.dtype), attn_mask=bias, scale=1.0)
    out = out[..., : a.head_channels]
    out = groups.to_map(out.transpose(1, 2).flatten(2), len(x))
    x = x + a.output(out.movedim(1, -1)).movedim(-1, 1)
    return layer.ffn(x)


def fused_layer(
    layer: GFALayer, x: Tensor, size: tuple[int, int, int], candidates: Candidates, kept: Tensor
) -> Tensor:
    """Apply a layer to nodes, `N x C`, by the kernels for GPUs."""
    from triton_blocks import layer_norm

    from glic_pyg.nn.kernels.triton_attention import groups_of, triton_attention

    a: GraphAttention = layer.aggregate
    normed = layer_norm(x, layer.norm.weight, layer.norm.bias, layer.norm.eps)
    query = a.query(normed).unflatten(1, (a.heads, -1))
    key_value = a.key_value(normed).unflatten(1, (2, a.heads, -1))
    groups = groups_of(candidates, heads=a.heads, distance=isinstance(a.position_bias, DistanceBias))
    with torch.autocast(x.device.type, enabled=False):
        bias = a.position_bias(candidates.stride)
    out = triton_attention(query, key_value, a.scale(), bias, kept, groups)
    x = x + a.output(out.flatten(1)).to(x.dtype)
    return layer.ffn(to_map(x, size)).permute(0, 2, 3, 1).reshape(-1, x.size(1))


def make_dense(model: GLIC) -> None:
    """Let a model be called without edges, on a GPU by kernels for it; its weights and their names stay."""
    for module in model.modules():
        if isinstance(module, GFAStage):
            module.forward = DenseStage(module)
        elif isinstance(module, GatedFeedForward):
            module.forward = partial(feed_forward, module)
        elif isinstance(module, ConvBlock):
            module.mix = partial(mix, module)


def feed_forward(ffn: GatedFeedForward, x: Tensor) -> Tensor:
    """Do what `GatedFeedForward.forward` does, by kernels for GPUs where they are."""
    if not on_gpu(x):
        return GatedFeedForward.forward(ffn, x)
    from triton_blocks import depthwise, gate, layer_norm

    rows = x.permute(0, 2, 3, 1)
    hidden = F.linear(
        layer_norm(rows, ffn.norm.weight, ffn.norm.bias, ffn.norm.eps), ffn.project_in.weight.flatten(1)
    )
    hidden = hidden.permute(0, 3, 1, 2)
    if ffn.depthwise is not None:
        hidden = depthwise(hidden, ffn.depthwise)
    out = F.linear(gate(hidden).permute(0, 2, 3, 1), ffn.project_out.weight.flatten(1))
    return x + out.permute(0, 3, 1, 2)


def mix(block: ConvBlock, x: Tensor) -> Tensor:
    """Do what `ConvBlock.mix` does, by kernels for GPUs where they are."""
    if not on_gpu(x):
        return ConvBlock.mix(block, x)
    from triton_blocks import depthwise

    def pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
        return F.linear(x.permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias).permute(0, 3, 1, 2)

    shortcut = x if block.adaptor is None else pointwise(block.adaptor, x)
    return shortcut + pointwise(
        block.conv2, depthwise(F.leaky_relu(pointwise(block.conv1, x), 0.01), block.depthwise)
    )

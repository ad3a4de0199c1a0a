"""The rival of `lab/benchmark.py`: the same codec with dense attention under a mask.

Every window of 64 queries computes the scores of all its 256 candidates, and a mask takes back those that are
no edges. Its blocks are plain PyTorch modules in PyTorch's default memory layout. Written from the paper's
description; it shares our model's weights and gives its numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glic_pyg import GLIC
from glic_pyg.config import ConfigError, GraphConfig, ModelConfig
from glic_pyg.graph import Candidates, Cosine, GroupQuota, Sobel, Threshold, candidates, to_map
from glic_pyg.graph.candidates import CANDIDATES, slot_offsets
from glic_pyg.graph.complexity import damp
from glic_pyg.kernels import use_kernels
from glic_pyg.nn.conv import ConvBlock, GatedFeedForward
from glic_pyg.nn.gfa import GFALayer, GFAStage
from glic_pyg.nn.graph_attention import GraphAttention
from glic_pyg.nn.position_bias import table_row

MASKED = -100.0


def make_dense(model: GLIC) -> None:
    """Replace the transforms' conv blocks and graph stages by dense ones with the same weights.

    The entropy model stays: what it computes is part of a file's meaning.

    Raises:
        ConfigError: graphs or layers of another kind than the published ones.
    """
    published = ModelConfig(graph=GraphConfig(degree=model.config.graph.degree))
    if (model.config.graph, model.config.aggregation) != (published.graph, published.aggregation):
        raise ConfigError(
            f"Expected published graphs and attention for the dense rival (got {model.config.name}); "
            "name other --kernels"
        )
    for transform in (model.g_a, model.g_s):
        use_kernels(transform, "reference")
    for parent in [*model.g_a.modules(), *model.g_s.modules()]:
        for name, child in parent.named_children():
            if isinstance(child, ConvBlock):
                setattr(parent, name, PlainConvBlock(child))
            elif isinstance(child, GFAStage):
                setattr(parent, name, DenseStage(child))


class PlainFeedForward(nn.Module):
    """The gated feed-forward part, module by module."""

    def __init__(self, part: GatedFeedForward) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        """Map `B x C x H x W`."""
        return self.part(x)


class PlainConvBlock(nn.Module):
    """The conv block, module by module."""

    def __init__(self, block: ConvBlock) -> None:
        super().__init__()
        self.block = block
        self.ffn = PlainFeedForward(block.ffn)

    def forward(self, x: Tensor) -> Tensor:
        """Map `B x C x H x W` to `B x C' x H x W`."""
        return self.ffn(self.block.mix(x.contiguous()))


class DenseAttention(nn.Module):
    """Attention of all queries to all candidates of their group."""

    def __init__(self, attention: GraphAttention) -> None:
        super().__init__()
        self.attention = attention
        self.register_buffer("row", table_row(slot_offsets().view(-1, 2)).long(), persistent=False)

    def forward(self, x: Tensor, groups: Candidates, mask: Tensor) -> Tensor:
        """Aggregate node features `N x C`; the additive `mask` is `G x 64 x 256`."""
        part = self.attention
        heads = part.heads
        padded = F.pad(_plain(part.query, x), (0, 0, 0, 1))
        query = padded[groups.node].unflatten(-1, (heads, -1)).transpose(1, 2)
        padded = F.pad(_plain(part.key_value, x), (0, 0, 0, 1))
        key, value = padded[groups.candidate].unflatten(-1, (2, heads, -1)).unbind(2)
        key, value = key.transpose(1, 2), value.transpose(1, 2)
        scale = part.scale()[:, None, None]
        scores = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-1, -2) * scale
        bias = part.position_bias()[self.row].T.view(heads, *mask.shape[1:])
        scores = scores + bias + mask[:, None]
        out = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        return _plain(part.output, out[groups.group, groups.slot])


class DenseLayer(nn.Module):
    """A graph layer with dense attention."""

    def __init__(self, layer: GFALayer) -> None:
        super().__init__()
        self.norm = layer.norm
        self.attention = DenseAttention(layer.aggregate)
        self.ffn = PlainFeedForward(layer.ffn)

    def forward(self, x: Tensor, groups: Candidates, mask: Tensor) -> Tensor:
        """Map `B x C x H x W`."""
        nodes = x.permute(0, 2, 3, 1).reshape(-1, x.size(1))
        nodes = self.attention(self.norm(nodes), groups, mask)
        batch_size, _, height, width = x.shape
        return self.ffn(x + to_map(nodes, (batch_size, height, width)).contiguous())


class DenseStage(nn.Module):
    """A graph stage whose two graphs are masks."""

    def __init__(self, stage: GFAStage) -> None:
        super().__init__()
        self.degree = stage.graph_builder.degree
        self.layers = nn.ModuleList(DenseLayer(layer) for layer in stage.layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map `B x C x H x W`."""
        x = x.contiguous()
        graphs = self._graphs(x.detach())
        for i, layer in enumerate(self.layers):
            x = layer(x, *graphs[i % 2])
        return x

    @torch.no_grad()
    def _graphs(self, x: Tensor) -> list[tuple[Candidates, Tensor]]:
        batch_size, channels, height, width = x.shape
        score = damp(Sobel()(x)).flatten()
        unit = F.normalize(x.permute(0, 2, 3, 1).reshape(-1, channels), dim=1)
        unit = torch.cat([unit, unit.new_zeros(1, channels)])
        batch = torch.arange(batch_size, device=x.device).repeat_interleave(height * width)
        graphs = []
        for find in (candidates.local_windows, candidates.global_mesh):
            groups = find((batch_size, height, width), x.device)
            similarity = Cosine()(unit, groups, k=CANDIDATES**2)
            quota = GroupQuota()(score, groups, batch, degree=self.degree)
            quota = F.pad(quota, (0, 1), value=1.0)[groups.node]
            keep = Threshold()(similarity.flatten(0, 1), quota.flatten())
            keep = keep | ~keep.any(dim=1, keepdim=True)
            mask = torch.where(keep, 0.0, MASKED).view_as(similarity)
            graphs.append((groups, mask))
        return graphs


def _plain(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)

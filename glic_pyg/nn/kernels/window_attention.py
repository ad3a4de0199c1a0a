"""Cosine attention over the edges of a graph as dense attention within its groups, for accelerators.

Every group of 64 queries computes the scores of all its 256 candidates and a mask takes back those that are
no edges: four times the arithmetic, but in the form that a GPU is fastest at.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from glic_pyg.graph import Graph
from glic_pyg.graph.candidates import CANDIDATES, QUERIES, places

GROUPS_AT_ONCE = 1024  # bounds the scores that exist at a time


class Windows(NamedTuple):
    """The edges of a graph as places among the candidates of its groups.

    Args:
        queries: The nodes of each group, `G x 64`, `N` where there is none.
        candidates: What the edges of each group were chosen from, `G x 256`.
        place: Each node's place among the slots of all groups, `N`.
        rows: Row of the table of biases for each edge, `G x 64 x 256`, int16, -1 where there is none.
        alone: Slots without edges, `G x 64`.
    """

    queries: Tensor
    candidates: Tensor
    place: Tensor
    rows: Tensor
    alone: Tensor


def windows_of(graph: Graph, row: Tensor) -> Windows:
    """Lay a graph's edges out by group, in any order of edges.

    Args:
        graph: With `queries` and `candidates`.
        row: Row of the table of biases for each edge, `E`, int16.
    """
    queries, candidates, offset = graph.queries, graph.candidates, graph.offset
    place = places(queries, graph.zero_node)
    num_groups, slots = queries.shape
    at = place[graph.edge_index[1]]
    down, right = at % slots // QUERIES + offset[:, 0], at % QUERIES + offset[:, 1]
    rows = row.new_full((num_groups * slots, CANDIDATES**2), -1)
    rows[at, down * CANDIDATES + right] = row
    rows = rows.view(num_groups, slots, -1)
    return Windows(queries, candidates, place, rows, (rows < 0).all(dim=-1))


def window_attention(
    query: Tensor, key_value: Tensor, scale: Tensor, bias: Tensor, windows: Windows
) -> Tensor:
    """Compute what `glic_pyg.nn.kernels.csr_attention` does, on any device.

    Args:
        query: `N x heads x D`.
        key_value: Keys and values, `N x 2 x heads x D`.
        scale: `heads`.
        bias: `R x heads`.
        windows: The edges.

    Returns:
        `N x heads x D`; zero for a target without edges.
    """
    queries, candidates, place, rows, alone = windows
    query = F.pad(F.normalize(query, dim=-1) * scale[:, None], (0, 0, 0, 0, 0, 1)).transpose(0, 1)
    key, value = F.pad(key_value, (0, 0, 0, 0, 0, 0, 0, 1)).unbind(dim=1)
    key, value = F.normalize(key, dim=-1).transpose(0, 1), value.transpose(0, 1)
    bias = bias.to(query.dtype)
    parts = []
    for first in range(0, len(queries), GROUPS_AT_ONCE):
        some = slice(first, first + GROUPS_AT_ONCE)
        near = candidates[some]
        # A slot without edges may look anywhere, lest its softmax be of nothing.
        unwanted = (rows[some] < 0) & ~alone[some][..., None]
        mask = bias[rows[some].clamp(min=0).int()].movedim(-1, 1)
        parts.append(
            F.scaled_dot_product_attention(
                query[:, queries[some]].transpose(0, 1),
                key[:, near].transpose(0, 1),
                value[:, near].transpose(0, 1),
                attn_mask=mask.masked_fill(unwanted[:, None], -torch.inf),
                scale=1.0,
            )
        )
    out = torch.cat(parts).transpose(1, 2).masked_fill(alone[..., None, None], 0)
    return out.flatten(0, 1)[place]

"""Continuous relative position bias: a small MLP over the 23 x 23 possible offsets."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Int16
from torch import Tensor, nn

from glic_pyg.graph import Graph

LOWEST, HIGHEST = -15, 7  # the coordinates the published table covers
SIDE = HIGHEST - LOWEST + 1
BOUND = 16


class PositionBias(nn.Sequential):
    """Bias per offset and head.

        bias(offset) = 16 * sigmoid(MLP(coordinates(offset)))

    with each coordinate `c` of the table mapped to `sign(c') log2(|c'| + 1) / log2(8)`, `c' = 8c/7`.

    Args:
        heads: Number of attention heads.
        hidden: Hidden width of the MLP.
    """

    coordinates: Float[Tensor, "529 2"]

    def __init__(self, *, heads: int, hidden: int) -> None:
        super().__init__(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, heads, bias=False))
        axis = torch.arange(LOWEST, HIGHEST + 1, dtype=torch.float32) * 8 / HIGHEST
        axis = axis.sign() * torch.log2(axis.abs() + 1) / math.log2(8)
        self.register_buffer("coordinates", torch.cartesian_prod(axis, axis), persistent=False)

    def forward(self, stride: Sequence[int] | None = None) -> Float[Tensor, "529 heads"]:
        """Return the bias table, `529 x heads`, whatever the stride; `rows` finds the edges' rows."""
        return BOUND * super().forward(self.coordinates).sigmoid()

    def rows(self, graph: Graph) -> Int16[Tensor, " E"]:
        """Return the row of each of a graph's edges, `E`, int16."""
        return table_row(graph.offset)


def table_row(offset: Int[Tensor, "*edges 2"]) -> Int16[Tensor, " *edges"]:
    """Return the row of the bias table that belongs to each edge's offset.

    Offsets run from -7 to 15 while the table's coordinates run from -15 to 7: rows wrap around, so
    that an offset does not meet its own coordinates. Published weights were trained this way.

    Args:
        offset: Row and column offset in grid steps, -7..15, `... x 2`.

    Returns:
        `...`, int16, 0..528.
    """
    row, column = offset.short().unbind(dim=-1)
    return ((row - 7) * SIDE + (column - 7)) % SIDE**2

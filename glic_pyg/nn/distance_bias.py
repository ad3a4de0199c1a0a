"""Relative position bias that knows how far apart two nodes are, whatever the map's size."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Int16
from torch import Tensor, nn

from glic_pyg.graph import Graph
from glic_pyg.nn.position_bias import BOUND

FARTHEST = 15  # steps between a node and its candidate, along an axis
SIDE = 2 * FARTHEST + 1


class DistanceBias(nn.Sequential):
    """Bias per distance and head.

        bias(distance) = 16 * sigmoid(MLP(coordinates)),  c = sign(distance) log2(|distance| + 1) / 3

    The distance is counted in positions of the map along each axis: steps of the graph's candidate grid times
    their stride. So it tells far candidates from near ones in the global graph too, and the strides of large
    pictures from those of small ones. The published model has a `PositionBias`, whose offsets are between
    two different grids.

    Args:
        heads: Number of attention heads.
        hidden: Hidden width of the position MLP.
    """

    def __init__(self, *, heads: int, hidden: int) -> None:
        super().__init__(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, heads, bias=False))

    def forward(self, stride: Sequence[int]) -> Float[Tensor, "961 heads"]:
        """Return the bias table, `961 x heads`; `rows` finds the edges' rows.

        Args:
            stride: Positions per step of the candidate grid, along rows and columns.
        """
        steps = torch.arange(-FARTHEST, FARTHEST + 1, device=next(self.parameters()).device)
        rows, columns = (steps.sign() * torch.log2((steps * s).abs() + 1.0) / 3 for s in stride)
        return BOUND * super().forward(torch.cartesian_prod(rows, columns)).sigmoid()

    def rows(self, graph: Graph) -> Int16[Tensor, " E"]:
        """Return the row of each of a graph's edges, `E`, int16.

        Raises:
            ValueError: the graph's candidates tell no distance.
        """
        if "shift" not in graph or "stride" not in graph:
            raise ValueError("Expected candidates that tell their distance, shift and stride (got none)")
        # That of `offset - shift[target]`, in a pass per term: rows are linear in steps.
        of_target = SIDE**2 - 1 - distance_row(graph.shift)
        row = of_target.index_select(0, graph.edge_index[1])
        return row.add_(graph.offset[:, 0], alpha=SIDE).add_(graph.offset[:, 1])


def distance_row(steps: Int[Tensor, "*edges 2"]) -> Int16[Tensor, " *edges"]:
    """Return the row of the bias table that belongs to each distance.

    Args:
        steps: Candidate minus node in steps of the candidate grid, rows and columns, -15..15, `... x 2`.

    Returns:
        `...`, int16, 0..960.
    """
    row, column = steps.short().unbind(dim=-1)
    return (row + FARTHEST) * SIDE + column + FARTHEST

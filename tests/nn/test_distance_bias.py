import math

import pytest
import torch

from glic_pyg.graph import GraphBuilder
from glic_pyg.nn.distance_bias import DistanceBias, distance_row


def test_a_row_holds_the_mlp_of_its_distance_in_positions():
    torch.manual_seed(0)
    bias = DistanceBias(heads=3, hidden=8)
    table = bias((4, 6))
    steps = torch.tensor([[-15, 15], [0, 0], [2, -7]])
    for step, row in zip(steps.tolist(), distance_row(steps).tolist(), strict=True):
        positions = [step[0] * 4, step[1] * 6]
        coordinates = [math.copysign(math.log2(abs(p) + 1) / 3, p) for p in positions]
        hidden = torch.relu(bias[0](torch.tensor(coordinates)))
        expected = 16 * torch.sigmoid(bias[2](hidden))
        torch.testing.assert_close(table[row], expected)


def test_every_distance_has_a_row_of_its_own():
    axis = torch.arange(-15, 16)
    rows = distance_row(torch.cartesian_prod(axis, axis))
    assert rows.sort().values.tolist() == list(range(961))


@pytest.mark.parametrize("strides", [((1, 1), (1, 1)), ((2, 3), (4, 9))])
def test_the_same_distance_has_the_same_bias_whatever_the_stride(strides):
    torch.manual_seed(0)
    bias = DistanceBias(heads=2, hidden=8)
    (a, b), (c, d) = strides
    far = torch.tensor([[4 * c // a, 2 * d // b], [4, 2]])  # the same positions away
    one, other = distance_row(far).tolist()
    torch.testing.assert_close(bias((a, b))[one], bias((c, d))[other])


def test_rows_of_a_graph_are_those_of_its_distances():
    torch.manual_seed(0)
    for graph in GraphBuilder(degree=16)(torch.randn(1, 8, 40, 56)):
        steps = graph.offset.long() - graph.shift.long()[graph.edge_index[1]]
        expected = [31 * (down + 15) + right + 15 for down, right in steps.tolist()]
        assert DistanceBias(heads=2, hidden=8).rows(graph).tolist() == expected

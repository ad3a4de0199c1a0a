import math

import pytest
import torch

from glic_pyg.nn.position_bias import PositionBias, table_row


def mapped(c):
    c = 8 * c / 7
    return math.copysign(math.log2(abs(c) + 1) / math.log2(8), c)


def test_coordinates_are_their_definition():
    expected = [(mapped(row), mapped(column)) for row in range(-15, 8) for column in range(-15, 8)]
    coordinates = PositionBias(heads=2, hidden=3).coordinates
    torch.testing.assert_close(coordinates.double(), torch.tensor(expected, dtype=torch.double))
    assert coordinates.dtype == torch.float32


def test_bias_is_its_definition():
    module = PositionBias(heads=3, hidden=5)
    table = module()
    assert table.shape == (529, 3)
    for index, (row, column) in enumerate(module.coordinates.tolist()):
        hidden = torch.relu(module[0].weight @ torch.tensor([row, column]) + module[0].bias)
        torch.testing.assert_close(table[index], 16 * torch.sigmoid(module[2].weight @ hidden))


def test_the_table_is_not_stored_and_the_last_layer_has_no_bias():
    assert set(PositionBias(heads=3, hidden=5).state_dict()) == {"0.weight", "0.bias", "2.weight"}


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64])
def test_table_row_is_its_definition(dtype):
    offset = torch.cartesian_prod(torch.arange(-7, 16), torch.arange(-7, 16)).to(dtype)
    row = table_row(offset)
    assert row.dtype == torch.int16
    assert row.tolist() == [((dr - 7) * 23 + (dc - 7)) % 529 for dr, dc in offset.tolist()]
    assert row.unique().numel() == 529


@pytest.mark.parametrize(
    ("offset", "row", "coordinates"),
    [
        ((7, 7), 0, (-15, -15)),
        ((15, 15), 8 * 23 + 8, (-7, -7)),
        ((7, 6), 528, (7, 7)),  # before the first row: the last
        ((-7, -7), 529 - 14 * 23 - 14, (-7, -6)),
        ((0, 0), 529 - 7 * 23 - 7, (0, 1)),
        ((7, 15), 8, (-15, -7)),
    ],
)
def test_rows_wrap_around(offset, row, coordinates):
    assert table_row(torch.tensor([offset])).item() == row
    expected = [mapped(c) for c in coordinates]
    assert PositionBias(heads=1, hidden=1).coordinates[row].tolist() == pytest.approx(expected)

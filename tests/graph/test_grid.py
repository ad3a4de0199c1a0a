import pytest
import torch

from glic_pyg.graph import to_map, to_nodes


def test_nodes_are_positions_in_row_major_order():
    feature_map = torch.randn(2, 3, 4, 5)
    data = to_nodes(feature_map)
    assert data.num_nodes == 40
    assert data.map_size == (2, 4, 5)
    node = 0
    for b in range(2):
        for row in range(4):
            for column in range(5):
                assert torch.equal(data.x[node], feature_map[b, :, row, column])
                assert data.pos[node].tolist() == [row, column]
                assert data.batch[node] == b
                node += 1


@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 3, 4, 5), (1, 8, 7, 2)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_to_map_inverts_to_nodes(size, memory_format):
    feature_map = torch.randn(size).to(memory_format=memory_format)
    data = to_nodes(feature_map)
    back = to_map(data.x, data.map_size)
    assert torch.equal(back, feature_map)
    assert back.data_ptr() == data.x.data_ptr()


def test_gradients_flow_through():
    feature_map = torch.randn(1, 2, 3, 4, requires_grad=True)
    data = to_nodes(feature_map)
    weight = torch.randn(1, 2, 3, 4)
    (to_map(data.x, data.map_size) * weight).sum().backward()
    assert torch.equal(feature_map.grad, weight)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("size", [(3, 4, 5), (1, 2, 3, 4, 5), (1, 3, 0, 4), (0, 3, 4, 4)])
def test_anything_but_a_feature_map_is_refused(size):
    with pytest.raises(ValueError, match=r"Expected a feature map B x C x H x W \(got \("):
        to_nodes(torch.zeros(size))

import pytest
import torch
import torch.nn.functional as F

from glic_pyg.nn.kernels.linear import added_linear, normed_linear


@pytest.mark.parametrize("nodes", [1, 64, 131])
@pytest.mark.parametrize(("channels", "outputs", "first"), [(5, 12, 4), (16, 48, 16), (24, 9, 9)])
def test_linear_maps_of_normed_nodes(nodes, channels, outputs, first):
    torch.manual_seed(0)
    x, weight, bias = 3 + torch.randn(nodes, channels), torch.randn(outputs, channels), torch.randn(outputs)
    scale, shift = torch.randn(2, channels)
    one, other = normed_linear(x, scale, shift, 1e-5, weight, bias, first=first)
    normed = F.layer_norm(x.double(), (channels,), scale.double(), shift.double(), 1e-5)
    expected = F.linear(normed, weight.double(), bias.double())
    expected = F.pad(expected, (0, 0, 0, 1))
    torch.testing.assert_close(one.double(), expected[:-1, :first], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other.double(), expected[:, first:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "outputs"), [(5, 3), (48, 48), (8, 60)])
def test_added_linear_maps(channels, outputs):
    torch.manual_seed(0)
    x, nodes = torch.randn(70, channels), torch.randn(70, outputs)
    weight, bias = torch.randn(outputs, channels), torch.randn(outputs)
    expected = nodes.double() + F.linear(x.double(), weight.double(), bias.double())
    out = added_linear(x, nodes, weight, bias)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)

import pytest
import torch
import torch.nn.functional as F

from glic_pyg.nn.kernels.linear import linear_parts


@pytest.mark.parametrize("nodes", [1, 64, 131])
@pytest.mark.parametrize(("channels", "outputs", "first"), [(5, 12, 4), (16, 48, 16), (24, 9, 9)])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("normed", [False, True])
def test_parts_of_a_linear_map(nodes, channels, outputs, first, threads, normed, set_num_threads):
    set_num_threads(threads)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(nodes, channels), torch.randn(outputs, channels), torch.randn(outputs)
    norm = torch.nn.LayerNorm(channels, eps=0.1)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    one, other = linear_parts(x, weight, bias, first=first, norm=norm if normed else None)
    x = norm(x).detach() if normed else x
    expected = F.pad(F.linear(x.double(), weight.double(), bias.double()), (0, 0, 0, 1))
    torch.testing.assert_close(one.double(), expected[:-1, :first], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(other.double(), expected[:, first:], rtol=1e-5, atol=1e-5)

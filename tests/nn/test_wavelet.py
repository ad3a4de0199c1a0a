import math

import pytest
import torch

from glic_pyg.nn.wavelet import WaveletDown, WaveletUp, haar_kernels


@pytest.fixture
def x():
    return torch.randn(2, 3, 6, 10, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def haar(x):
    """By its definition, block by block: all LL channels, then LH, HL, HH."""
    a, b, c, d = x[..., 0::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    return torch.cat([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d], dim=1) / 2


def test_haar_is_orthonormal():
    kernels = haar_kernels().flatten(1)
    torch.testing.assert_close(kernels @ kernels.T, torch.eye(4))


def randomised(module):
    torch.manual_seed(0)
    torch.nn.init.normal_(module.log_scale, 0.25, 0.1)
    torch.nn.init.normal_(module.linear.bias)
    return module.double()


@pytest.mark.parametrize("module", [WaveletDown(3, 8), WaveletUp(8, 3)], ids=["down", "up"])
def test_gains_start_at_half_but_for_hh(module):
    assert module.log_scale.tolist() == [0.5] * 9 + [0.0] * 3
    assert set(module.state_dict()) == {"log_scale", "linear.weight", "linear.bias"}


def test_down_is_its_definition(x):
    down = randomised(WaveletDown(3, 8))
    scaled = haar(x).movedim(1, -1) * down.log_scale.exp()
    expected = scaled @ down.linear.weight.T + down.linear.bias
    torch.testing.assert_close(down(x), expected.movedim(-1, 1))


def test_up_is_its_definition(x):
    up = randomised(WaveletUp(3, 4))
    mapped = (x.movedim(1, -1) @ up.linear.weight.T + up.linear.bias) / up.log_scale.exp()
    result = up(x)
    assert result.shape == (2, 4, 12, 20)
    torch.testing.assert_close(haar(result), mapped.movedim(-1, 1))


def test_up_inverts_down_with_the_inverse_map(x):
    down, up = randomised(WaveletDown(3, 12)), randomised(WaveletUp(12, 3))
    with torch.no_grad():
        up.log_scale.copy_(down.log_scale)
        up.linear.weight.copy_(down.linear.weight.inverse())
        up.linear.bias.copy_(-up.linear.weight @ down.linear.bias)
    torch.testing.assert_close(up(down(x)), x)


@pytest.mark.parametrize(
    "module",
    [WaveletDown(3, 8), WaveletDown(2, 20), WaveletUp(8, 3), WaveletUp(30, 3)],
    ids=["down_to_fewer", "down_to_more", "up_to_more", "up_to_fewer"],
)
def test_orthogonality_loss(module):
    weight = module.linear.weight
    smaller = min(weight.shape)
    torch.nn.init.orthogonal_(weight)
    assert module.orthogonality_loss() < 1e-12
    with torch.no_grad():
        weight.mul_(math.sqrt(3))
    # The Gram matrix is 3 times the identity: off by 2 on the diagonal.
    torch.testing.assert_close(module.orthogonality_loss(), torch.tensor(4 / smaller))
    module.orthogonality_loss().backward()
    assert weight.grad.abs().max() > 0


def test_orthogonality_loss_is_its_definition():
    for module in (WaveletDown(3, 8), WaveletUp(8, 3)):
        weight = module.linear.weight.detach()
        gram = weight @ weight.T if weight.size(1) > weight.size(0) else weight.T @ weight
        expected = ((gram - torch.eye(8)) ** 2).mean()
        torch.testing.assert_close(module.orthogonality_loss().detach(), expected)

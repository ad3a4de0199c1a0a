import pytest
import torch
import torch.nn.functional as F

from glic_pyg.kernels import use_kernels
from glic_pyg.nn.upsampling import Upsampling, upsample


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_is_a_convolution_and_a_pixel_shuffle(side, layout):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 4, 7).contiguous(memory_format=layout)
    weight, bias = torch.randn(12, 5, side, side), torch.randn(12)
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    y = upsample(*inputs)
    expected = F.pixel_shuffle(F.conv2d(*exact, padding=side // 2), 2)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    slope = torch.randn(y.shape)
    found = torch.autograd.grad(y, inputs, slope)
    for gradient, value in zip(found, torch.autograd.grad(expected, exact, slope.double()), strict=True):
        torch.testing.assert_close(gradient.double(), value, rtol=1e-5, atol=1e-5)


def test_kernels_mean_the_same(monkeypatch):
    module, x = Upsampling(5, 3), torch.randn(2, 5, 4, 7)
    torch.testing.assert_close(use_kernels(module, "cpu")(x), use_kernels(module, "reference")(x))
    assert list(module.state_dict()) == ["0.weight", "0.bias"]
    monkeypatch.setattr("glic_pyg.nn.upsampling.upsample", lambda *_: torch.full((2, 3, 8, 14), 7.0))
    assert (use_kernels(module, "cpu")(x) == 7).all()
    assert not (use_kernels(module, "reference")(x) == 7).any()

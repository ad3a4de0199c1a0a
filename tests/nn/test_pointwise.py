import pytest
import torch
import torch.nn.functional as F

from glic_pyg.nn.pointwise import PointwiseConv2d, linear


@pytest.mark.parametrize(
    ("rows", "by_onednn"),
    [
        ((0,), False),
        ((1,), False),
        ((8, 16, 16), False),
        ((4099,), False),
        ((4, 32, 32), True),
        ((7, 5, 112), True),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_as_in_double_precision_whoever_computes_it(rows, by_onednn, bias):
    x = torch.randn(*rows, 24, requires_grad=True)
    weight = torch.randn(40, 24, requires_grad=True)
    bias = torch.randn(40, requires_grad=True) if bias else None
    inputs = (x, weight) if bias is None else (x, weight, bias)
    with torch.profiler.profile() as profile:
        y = linear(*inputs)
    assert ("aten::mkldnn_convolution" in {event.key for event in profile.key_averages()}) == by_onednn
    expected = F.linear(*(value.double() for value in inputs))
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)

    slope = torch.randn_like(y)
    found = torch.autograd.grad(y, inputs, slope)
    exact = torch.autograd.grad(expected, inputs, slope.double())
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rows", "by_onednn"), [((255,), False), ((256,), True), ((509,), False)])
@torch.no_grad()
def test_small_products_too_go_to_onednn_without_gradients(rows, by_onednn):
    x, weight = torch.randn(*rows, 24), torch.randn(40, 24)
    with torch.profiler.profile() as profile:
        y = linear(x, weight)
    assert ("aten::mkldnn_convolution" in {event.key for event in profile.key_averages()}) == by_onednn
    torch.testing.assert_close(y.double(), F.linear(x.double(), weight.double()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_a_convolution_in_any_memory_format(memory_format):
    convolution = PointwiseConv2d(24, 40)
    x = torch.randn(2, 24, 16, 20)
    expected = F.conv2d(x.double(), convolution.weight.double(), convolution.bias.double())
    y = convolution(x.contiguous(memory_format=memory_format))
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    assert y.is_contiguous(memory_format=memory_format)

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from glic_pyg.nn.kernels.linear import linear_parts

NODES = [1, 64, 131]
SIZES = [(5, 12, 4), (16, 48, 16), (24, 9, 9)]  # channels, outputs, first
CASES = product(NODES, SIZES, [1, 3], [False, True])


def drawn(nodes, channels, outputs):
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm(channels, eps=0.1)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return torch.randn(nodes, channels), torch.randn(outputs, channels), torch.randn(outputs), norm


@pytest.fixture(params=CASES, ids=str)
def case(request, set_num_threads):
    """Nodes, weight and bias, a norm or none, and how many channels come first."""
    nodes, (channels, outputs, first), threads, normed = request.param
    set_num_threads(threads)
    *tensors, norm = drawn(nodes, channels, outputs)
    return *tensors, norm if normed else None, first


def test_parts_of_a_linear_map(case):
    x, weight, bias, norm, first = case
    one, other = linear_parts(x, weight, bias, first=first, norm=norm)
    x = norm(x).detach() if norm else x
    expected = F.pad(F.linear(x.double(), weight.double(), bias.double()), (0, 0, 0, 1))
    torch.testing.assert_close(one.double(), expected[:-1, :first], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(other.double(), expected[:, first:], rtol=1e-5, atol=1e-5)


def test_gradients(case):
    x, weight, bias, norm, first = case
    slope = torch.randn(len(x) + 1, len(weight))
    inputs = [x, weight, bias, *(norm.parameters() if norm else ())]
    for tensor in inputs:
        tensor.requires_grad_()
    one, other = linear_parts(x, weight, bias, first=first, norm=norm)
    found = torch.autograd.grad((one, other), inputs, (slope[:-1, :first], slope[:, first:]))
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    rows = F.layer_norm(exact[0], x.shape[1:], *exact[3:], eps=norm.eps) if norm else exact[0]
    expected = torch.autograd.grad(F.linear(rows, *exact[1:3]), exact, slope[:-1].double())
    for gradient, value in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient.double(), value, rtol=1e-4, atol=1e-4)


def test_of_fixed_weights_only_the_nodes_have_a_gradient():
    x, weight, bias, norm = drawn(131, 16, 48)
    norm.requires_grad_(False)
    one, other = linear_parts(x.requires_grad_(), weight, bias, first=16, norm=norm)
    (one.sum() + other.sum()).backward()
    exact = x.detach().double().requires_grad_()
    F.linear(norm.double()(exact), weight.double(), bias.double()).sum().backward()
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-4, atol=1e-4)
    assert weight.grad is norm.weight.grad is None

"""Gradients of feed-forward parts and conv blocks against their modules one by one, in double precision."""

import copy

import pytest
import torch

from glic_pyg.kernels import use_kernels
from glic_pyg.nn import conv
from glic_pyg.nn.conv import ConvBlock, GatedFeedForward
from glic_pyg.nn.kernels import feed_forward, feed_forward_gradients

PARTS = {
    "feed-forward": lambda channels: GatedFeedForward(channels, ratio=3),
    "depthwise": lambda channels: GatedFeedForward(channels, ratio=3, depthwise=True),
    "block": lambda channels: ConvBlock(channels, channels, ratio=2),
    "adaptor": lambda channels: ConvBlock(channels, channels + 4, ratio=2),
}
SIZES = [(2, 5, 9, 7), (1, 5, 1, 1), (1, 9, 2, 30), (3, 16, 8, 1)]


def drawn(name, channels):
    torch.manual_seed(0)
    part = PARTS[name](channels)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return part


def gradients(part, x, slope):
    """Return what the part makes of x, and the gradients of x and of whatever weights ask for them."""
    x = x.detach().requires_grad_()
    out = part(x)
    wanted = [x, *(weight for weight in part.parameters() if weight.requires_grad)]
    return [out, *torch.autograd.grad(out, wanted, slope)]


def assert_same_gradients(part, x, slope=None):
    """Compare with the modules, one by one, in double precision."""
    exact = use_kernels(copy.deepcopy(part).double(), "reference")
    slope = torch.randn(exact(x.double()).shape) if slope is None else slope
    expected = gradients(exact, x.double(), slope.double())
    for found, value in zip(gradients(use_kernels(part, "cpu"), x, slope), expected, strict=True):
        assert found.dtype == torch.float32
        scale = value.abs().max().item()
        torch.testing.assert_close(found.double(), value, rtol=1e-4, atol=1e-5 * max(1, scale))


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("positions", [1, 6, 64])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kept", [1, 1000])
def test_gradients(name, size, positions, threads, kept, monkeypatch, set_num_threads):
    monkeypatch.setattr(feed_forward_gradients, "KEPT", kept)
    monkeypatch.setattr(feed_forward, "LEAST", 1)
    monkeypatch.setattr(feed_forward, "POSITIONS", positions)
    set_num_threads(threads)
    assert_same_gradients(drawn(name, size[1]), torch.randn(size))


@pytest.mark.parametrize("name", PARTS)
def test_of_fixed_weights_only_the_input_has_a_gradient(name):
    part = drawn(name, 5).requires_grad_(False)
    assert_same_gradients(part, torch.randn(2, 5, 9, 7))


@pytest.mark.parametrize("name", PARTS)
def test_gradients_of_some_weights_alone(name):
    part = drawn(name, 5)
    list(part.parameters())[-1].requires_grad_(False)
    assert_same_gradients(part, torch.randn(2, 5, 9, 7))
    out = part(torch.randn(2, 5, 9, 7))  # whose own gradient nobody wants
    out.sum().backward()
    assert part.ffn.norm.bias.grad is not None if "ffn" in dir(part) else part.norm.bias.grad is not None


@pytest.mark.parametrize("name", PARTS)
def test_gradients_of_maps_in_other_layouts(name):
    x = torch.randn(2, 5, 9, 14)[..., ::2].contiguous(memory_format=torch.channels_last)
    part = drawn(name, 5)
    slope = torch.randn(1, 1, 9, 7).expand(part(x).shape)
    assert_same_gradients(part, x, slope)


def test_gates_far_from_zero():
    part = drawn("feed-forward", 5)
    torch.nn.init.normal_(part.project_in.weight, std=30)
    assert_same_gradients(part, torch.randn(2, 5, 9, 7))


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_gradients_every_time(name, threads, set_num_threads):
    set_num_threads(threads)
    part, x = drawn(name, 16), torch.randn(3, 16, 20, 11)
    first, second = (gradients(part, x, torch.ones_like(part(x))) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("name", ["feed-forward", "depthwise", "block"])
def test_one_pass_where_it_is_meant(name, monkeypatch):
    for function in ("feed_forward_with_gradients", "mixing_with_gradients"):
        monkeypatch.setattr(conv, function, lambda x, *_: x * 0 + 7)
    part, x = drawn(name, 5), torch.randn(2, 5, 9, 7)
    assert (part(x) == 7).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert not (part(x) == 7).any()
    assert not (part.double()(x.double()) == 7).any()
    assert not (use_kernels(part.float(), "reference")(x) == 7).any()


def test_a_gradient_has_none():
    x = torch.randn(1, 5, 3, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(drawn("block", 5)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()

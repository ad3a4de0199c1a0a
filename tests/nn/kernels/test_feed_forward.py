"""Feed-forward parts and conv blocks in one pass against their modules one by one, in double precision."""

import numpy as np
import pytest
import torch

from glic_pyg.kernels import use_kernels
from glic_pyg.nn import conv
from glic_pyg.nn.conv import ConvBlock, GatedFeedForward
from glic_pyg.nn.kernels import feed_forward


def make(depthwise, channels=5):
    return drawn(GatedFeedForward(channels, ratio=3, depthwise=depthwise))


def drawn(part):
    torch.manual_seed(0)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return part


def picture(size):
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def assert_computes(part, x):
    """Compare a part's forward pass, without gradients, with that of its modules in double precision."""
    expected = use_kernels(part.double(), "reference")(x.double())
    out = use_kernels(part.float(), "cpu")(x)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)


SIZES = pytest.mark.parametrize("size", [(2, 5, 9, 7), (1, 5, 1, 1), (1, 5, 2, 30), (3, 16, 8, 1)], ids=str)


@pytest.mark.parametrize("depthwise", [False, True])
@SIZES
@pytest.mark.parametrize("positions", [1, 6, 64])
@pytest.mark.parametrize("threads", [1, 2])
@torch.no_grad()
def test_values(depthwise, size, positions, threads, monkeypatch, set_num_threads):
    monkeypatch.setattr(feed_forward, "LEAST", 1)
    monkeypatch.setattr(feed_forward, "POSITIONS", positions)
    set_num_threads(threads)
    assert_computes(make(depthwise, size[1]), picture(size))


@SIZES
@pytest.mark.parametrize("positions", [1, 6, 64])
@pytest.mark.parametrize("more", [0, 4])
@torch.no_grad()
def test_conv_blocks(size, positions, more, monkeypatch):
    monkeypatch.setattr(feed_forward, "LEAST", 1)
    monkeypatch.setattr(feed_forward, "POSITIONS", positions)
    assert_computes(drawn(ConvBlock(size[1], size[1] + more, ratio=2)), picture(size))


@pytest.mark.parametrize("part", [make(True), ConvBlock(5, 5, ratio=2)], ids=["feed-forward", "block"])
@pytest.mark.parametrize("grad", [False, True])
def test_no_pictures(part, grad, set_num_threads):
    set_num_threads(2)
    x = torch.empty(0, 5, 9, 7, requires_grad=grad)
    with torch.set_grad_enabled(grad):
        assert part(x).shape == x.shape
    if grad:
        part(x).sum().backward()
        assert x.grad.shape == x.shape
        assert not any(weight.grad.any() for weight in part.parameters())


def test_gelu():
    x = np.concatenate([np.linspace(-9, 9, 4000), [-1e30, -100, 0, 100, 1e30]]).astype(np.float32)
    features = np.stack([x, np.ones_like(x)], 1).repeat(8, 1).ravel()  # 8 channels each
    out = np.empty(8 * len(x), np.float32)
    feed_forward._gate(features, 16, out, len(x))
    expected = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    assert np.abs(out.reshape(-1, 8).T - expected)[:, :4000].max() < 2e-6
    np.testing.assert_allclose(out[::8][4000:], expected[4000:], atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("part", [make(True), ConvBlock(5, 5, ratio=2)], ids=["feed-forward", "block"])
def test_one_pass_where_it_is_meant(part, monkeypatch):
    x = picture((2, 5, 9, 7))
    for name in ("normed_feed_forward", "conv_block"):
        monkeypatch.setattr(conv, name, lambda x, *_: x * 0 + 7)
    assert not (part(x) == 7).all()
    with torch.no_grad():
        assert (part(x) == 7).all()
        assert not (part.double()(x.double()) == 7).any()
        assert not (use_kernels(part.float(), "reference")(x) == 7).any()


def test_neither_layout_nor_inference_mode_changes_the_values():
    part, x = make(True), picture((2, 5, 9, 7))
    before = x.clone()
    with torch.no_grad():
        out = part(x)
        torch.testing.assert_close(part(x.contiguous(memory_format=torch.channels_last)), out)
    with torch.inference_mode():
        torch.testing.assert_close(part(x), out)
    assert torch.equal(x, before)

"""The feed-forward part in bands against the same modules called one after the other, in double precision."""

import pytest
import torch

from glic_pyg.kernels import use_kernels
from glic_pyg.nn.conv import GatedFeedForward
from glic_pyg.nn.kernels import feed_forward


def make(depthwise):
    torch.manual_seed(0)
    part = GatedFeedForward(5, ratio=3, depthwise=depthwise)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return part


def picture(size):
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("size", [(2, 5, 9, 7), (1, 5, 1, 1), (1, 5, 2, 30), (3, 5, 8, 1)], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 100])
@torch.no_grad()
def test_values(depthwise, size, rows, monkeypatch):
    monkeypatch.setattr(feed_forward, "FEATURES_AT_ONCE", rows * size[3] * 30)
    part, x = make(depthwise), picture(size)
    expected = use_kernels(make(depthwise).double(), "reference")(x.double())
    torch.testing.assert_close(part(x).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("shapes_unchecked")
def test_bands_are_used_without_gradients_alone(monkeypatch):
    part, x = make(True), picture((2, 5, 9, 7))
    monkeypatch.setattr(GatedFeedForward, "_in_bands", lambda *_: "in bands")
    assert part(x).shape == x.shape
    with torch.no_grad():
        assert part(x) == "in bands"
        assert part.double()(x.double()).shape == x.shape
        assert use_kernels(part.float(), "gpu")(x).shape == x.shape


def test_neither_layout_nor_inference_mode_changes_the_values():
    part, x = make(True), picture((2, 5, 9, 7))
    before = x.clone()
    with torch.no_grad():
        out = part(x)
        torch.testing.assert_close(part(x.contiguous(memory_format=torch.channels_last)), out)
    with torch.inference_mode():
        torch.testing.assert_close(part(x), out)
    assert torch.equal(x, before)


def test_bands_cover_every_row_once(monkeypatch):
    monkeypatch.setattr(feed_forward, "FEATURES_AT_ONCE", 3 * 7 * 4)
    assert list(feed_forward.bands(8, 7, 4)) == [(0, 3), (3, 6), (6, 8)]
    assert list(feed_forward.bands(2, 1000, 4)) == [(0, 1), (1, 2)]

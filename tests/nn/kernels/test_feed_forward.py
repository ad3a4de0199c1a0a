"""The feed-forward part in bands against the same modules called one after the other, in double precision."""

import pytest
import torch

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
def test_values_and_gradients(depthwise, size, rows, monkeypatch):
    monkeypatch.setattr(feed_forward, "FEATURES_AT_ONCE", rows * size[3] * 30)
    part, exact = make(depthwise), make(depthwise).double()
    x = picture(size).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    out, expected = part(x), exact(exact_x)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)
    direction = torch.randn(size)
    out.backward(direction)
    expected.backward(direction.double())
    for (name, p), q in zip(part.named_parameters(), exact.parameters(), strict=True):
        tolerance = 1e-5 * q.grad.abs().max().item()
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-4, atol=tolerance, msg=name)
    torch.testing.assert_close(x.grad.double(), exact_x.grad, rtol=1e-4, atol=1e-5)


def test_neither_layout_nor_gradients_change_the_values():
    part, x = make(True), picture((2, 5, 9, 7))
    before = x.clone()
    out = part(x)
    torch.testing.assert_close(part(x.contiguous(memory_format=torch.channels_last)), out)
    with torch.inference_mode():
        torch.testing.assert_close(part(x), out)
    assert torch.equal(x, before)


def test_nothing_as_wide_as_the_hidden_features_is_kept_for_the_backward_pass():
    part, x = make(True), picture((1, 5, 16, 16)).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        part(x)
    assert max(kept) == x.numel()


def test_bands_cover_every_row_once(monkeypatch):
    monkeypatch.setattr(feed_forward, "FEATURES_AT_ONCE", 3 * 7 * 4)
    assert list(feed_forward.bands(8, 7, 4)) == [(0, 3), (3, 6), (6, 8)]
    assert list(feed_forward.bands(2, 1000, 4)) == [(0, 1), (1, 2)]


@pytest.mark.parametrize("depthwise", [False, True])
def test_registration_as_an_operator(depthwise):
    part = make(depthwise)
    arguments = (
        picture((1, 3, 4, 5)).requires_grad_(),
        part.norm.weight,
        part.norm.bias,
        part.project_in.weight.detach().flatten(1).requires_grad_(),
        part.depthwise.weight if depthwise else None,
        part.project_out.weight.detach().flatten(1).requires_grad_(),
        1e-6,
    )
    torch.library.opcheck(torch.ops.glic_pyg.normed_feed_forward.default, arguments)

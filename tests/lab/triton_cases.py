"""The kernels for GPUs, on the CPU by Triton's interpreter, where Triton is installed."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "lab"))

import triton_blocks as blocks
from dense_stage import make_dense

from glic_pyg.graph import Centered, GraphBuilder
from glic_pyg.kernels import use_kernels
from glic_pyg.nn import GFAStage


def assert_gradients_match(one, other, leaves):
    gradient = torch.randn(one.shape)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    for a, b in zip(
        torch.autograd.grad(one, leaves, gradient), torch.autograd.grad(other, leaves, gradient), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def random(*shape):
    return torch.randn(shape, requires_grad=True)


def test_layer_norm():
    torch.manual_seed(0)
    x, weight, bias = random(150, 24), random(24), random(24)
    expected = F.layer_norm(x, (24,), weight, bias, 1e-5)
    assert_gradients_match(blocks.layer_norm(x, weight, bias, 1e-5), expected, (x, weight, bias))


@pytest.mark.parametrize(("side", "bias", "channels"), [(3, False, 40), (5, True, 24)])
def test_depthwise(side, bias, channels):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels, bias=bias)
    x = random(2, channels, 9, 12)
    assert_gradients_match(blocks.depthwise(x, conv), conv(x), (x, *conv.parameters()))


def test_gate():
    torch.manual_seed(0)
    x = random(2, 30, 5, 7)
    a, b = x.chunk(2, dim=1)
    assert_gradients_match(blocks.gate(x), F.gelu(a) * b, (x,))


def test_a_stage_of_kernels_is_that_of_the_definition(monkeypatch):
    torch.manual_seed(0)
    builder = GraphBuilder(degree=16, similarity=Centered())
    stage = GFAStage(
        channels=8,
        depth=2,
        heads=2,
        ffn_ratio=1,
        position_hidden=8,
        position="distance",
        graph_builder=builder,
    )
    use_kernels(stage, "reference")
    x = random(1, 8, 16, 16)
    expected = stage(x)
    make_dense(stage)
    monkeypatch.setattr("dense_stage.on_gpu", lambda x: True)
    assert_gradients_match(stage(x), expected, (x, *stage.parameters()))

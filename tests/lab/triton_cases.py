"""The kernels for GPUs, on the CPU by Triton's interpreter, where Triton is installed."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "lab"))

import triton_blocks as blocks
from triton_attention import triton_attention
from triton_selection import kept_candidates

from glic_pyg.graph.selection import Threshold

NODES, HEADS, WIDTH = 150, 2, 12


def assert_gradients_match(one, other, leaves):
    gradient = torch.randn(one.shape)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    for a, b in zip(
        torch.autograd.grad(one, leaves, gradient), torch.autograd.grad(other, leaves, gradient), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def random(*shape):
    return torch.randn(shape, requires_grad=True)


@pytest.fixture
def groups():
    """Four groups of random nodes, some slots empty, and random candidates, zero nodes among them."""
    torch.manual_seed(0)
    node = torch.randperm(256).clamp(max=NODES).view(4, 64)
    return node.int(), torch.randint(0, NODES + 1, (4, 256)).int()


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


def test_kept_candidates(groups):
    node, candidate = groups
    unit, quota = F.normalize(torch.randn(NODES, 40) + 0.5, dim=1), torch.rand(NODES) * 40 + 1
    padded = torch.cat([unit, unit.new_zeros(1, 40)])
    similarity = padded[node.long()] @ padded[candidate.long()].transpose(1, 2)
    real = node < NODES
    expected = Threshold()(similarity[real], quota[node[real].long()])
    expected = expected | ~expected.any(dim=1, keepdim=True)
    found = kept_candidates(unit, quota, node, candidate, bisections=5)[real] != 0
    assert (found != expected).float().mean() < 1e-3  # ties


def test_attention(groups):
    node, candidate = groups
    query, key, value = (random(NODES, HEADS, WIDTH) for _ in range(3))
    bias = random(2, HEADS, 64, 256)
    keep = torch.rand(4, 64, 256) < 0.1
    keep[..., 0] = True

    def grouped(x, ids):
        return F.pad(x, (0, 0, 0, 0, 0, 1))[ids.long()].transpose(1, 2)

    logits = grouped(query, node) @ grouped(key, candidate).transpose(2, 3) + bias.repeat_interleave(2, dim=0)
    weights = logits.masked_fill(~keep[:, None], -torch.inf).softmax(-1)
    of_slots = (weights @ grouped(value, candidate)).transpose(1, 2)
    expected = torch.zeros(NODES + 1, HEADS, WIDTH).index_put(
        (node.long().flatten(),), of_slots.flatten(0, 1)
    )
    out = triton_attention(query, key, value, bias, keep.to(torch.uint8), node, candidate)
    seen = torch.zeros(NODES + 1, dtype=torch.bool)
    seen[node.long().flatten()] = True
    seen = seen[:-1, None, None]
    out, expected = torch.where(seen, out, 0), torch.where(seen, expected[:-1], 0)
    assert_gradients_match(out, expected, (value, key, bias))

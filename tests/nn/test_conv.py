from copy import deepcopy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from glic_pyg.nn.conv import ConvBlock, GatedFeedForward, LayerNorm2d
from glic_pyg.nn.upsampling import Upsampling


def layer_norm(x, weight, bias):
    mean = x.mean(1, keepdim=True)
    variance = ((x - mean) ** 2).mean(1, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * weight[:, None, None] + bias[:, None, None]


def feed_forward(ffn, x):
    """As a matrix product per position."""
    normed = layer_norm(x, ffn.norm.weight, ffn.norm.bias)
    hidden = torch.einsum("oi,bihw->bohw", ffn.project_in.weight[..., 0, 0], normed)
    if ffn.depthwise is not None:
        hidden = F.conv2d(F.pad(hidden, (1, 1, 1, 1)), ffn.depthwise.weight, groups=hidden.shape[1])
    half = hidden.shape[1] // 2
    gated = F.gelu(hidden[:, :half]) * hidden[:, half:]
    return x + torch.einsum("oi,bihw->bohw", ffn.project_out.weight[..., 0, 0], gated)


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(2, 6, 5, 7, dtype=torch.double)


def randomised(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.double()


def test_layer_norm(x):
    norm = randomised(LayerNorm2d(6))
    torch.testing.assert_close(norm(x), layer_norm(x, norm.weight, norm.bias))


def test_layer_norm_of_constant_features_is_its_bias():
    norm = LayerNorm2d(4)
    torch.nn.init.normal_(norm.bias)
    torch.testing.assert_close(
        norm(torch.ones(1, 4, 2, 2)), norm.bias[None, :, None, None].expand(1, 4, 2, 2)
    )


@pytest.mark.parametrize("depthwise", [False, True])
def test_gated_feed_forward(x, depthwise):
    ffn = randomised(GatedFeedForward(6, ratio=3, depthwise=depthwise))
    assert ffn.project_in.weight.shape == (36, 6, 1, 1)
    assert ffn.project_out.weight.shape == (6, 18, 1, 1)
    torch.testing.assert_close(ffn(x), feed_forward(ffn, x))


@pytest.mark.parametrize("out_channels", [6, 8])
def test_conv_block(x, out_channels):
    block = randomised(ConvBlock(6, out_channels, ratio=2))
    mixed = F.leaky_relu(F.conv2d(x, block.conv1.weight, block.conv1.bias), 0.01)
    mixed = F.conv2d(F.pad(mixed, (2, 2, 2, 2)), block.depthwise.weight, block.depthwise.bias, groups=6)
    mixed = F.conv2d(mixed, block.conv2.weight, block.conv2.bias)
    shortcut = x if out_channels == 6 else F.conv2d(x, block.adaptor.weight, block.adaptor.bias)
    torch.testing.assert_close(block(x), feed_forward(block.ffn, mixed + shortcut))


def test_conv_block_has_an_adaptor_only_where_widths_differ():
    assert not any("adaptor" in name for name in ConvBlock(4, 4, ratio=1).state_dict())
    assert any("adaptor" in name for name in ConvBlock(4, 6, ratio=1).state_dict())


@pytest.mark.parametrize("make", [partial(ConvBlock, 6, 8, ratio=2), partial(GatedFeedForward, 6, ratio=2)])
@pytest.mark.parametrize("gradient", [True, False])
def test_blocks_are_the_same_on_every_device(make, gradient, device):
    torch.manual_seed(0)
    block, x = make(), torch.randn(2, 6, 9, 14)
    with torch.set_grad_enabled(gradient):
        expected = block(x)
        found = block.to(device)(x.to(device)).cpu()
    assert (found - expected).norm() <= 2e-3 * expected.norm()  # GPUs' convolutions round to 11 bits


@pytest.mark.parametrize("part", [ConvBlock(5, 9, ratio=2), Upsampling(5, 3)], ids=["block", "upsampling"])
@pytest.mark.parametrize("grad", [False, True])
def test_weights_may_be_given_from_outside(part, grad):
    """As plain tensors, by `torch.func.functional_call`."""
    x = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(1))
    weights = {name: 2 * weight.detach() for name, weight in part.named_parameters()}
    twice = deepcopy(part)
    twice.load_state_dict(weights)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(torch.func.functional_call(part, weights, (x,)), twice(x))

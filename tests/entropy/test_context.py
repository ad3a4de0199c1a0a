import pytest
import torch
from compressai.layers import CheckerboardMaskedConv2d

from glic_pyg.entropy.context import CheckerboardConv2d, PointwiseBlock, channel_context, group_codec


def test_masked_convolution_is_compressais_but_leaves_its_weights_alone():
    torch.manual_seed(0)
    ours, theirs = CheckerboardConv2d(3, 6, 5, padding=2), CheckerboardMaskedConv2d(3, 6, 5, padding=2)
    theirs.load_state_dict(ours.state_dict())
    before, where = ours.weight.detach().clone(), ours.weight.data_ptr()
    x = torch.randn(2, 3, 8, 8)
    out = ours(x)
    torch.testing.assert_close(out, theirs(x))
    out.square().sum().backward()
    theirs(x).square().sum().backward()
    assert (ours.weight.data_ptr(), torch.equal(ours.weight, before)) == (where, True)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad * theirs.mask)
    assert theirs.weight.grad[ours.mask == 0].abs().min() > 0


def test_pointwise_block_reads_one_position():
    torch.manual_seed(0)
    block = PointwiseBlock(3, 5, ratio=2)
    x = torch.randn(1, 3, 4, 4)
    changed = x.clone()
    changed[..., 1, 2] += 1
    different = (block(x) != block(changed)).any(1)[0]
    assert different.nonzero().tolist() == [[1, 2]]


def test_pointwise_block():
    torch.manual_seed(0)
    block = PointwiseBlock(3, 5, ratio=2)
    x = torch.randn(1, 3, 4, 4)
    linear = torch.einsum("oi,bihw->bohw", block.conv.weight[..., 0, 0], x) + block.conv.bias[:, None, None]
    torch.testing.assert_close(block(x), block.ffn(linear))


@pytest.mark.parametrize(
    ("before", "group", "widths"),
    [
        (16, 16, [192, 192, 32]),
        (128, 192, [213, 298, 384]),  # interpolated and floored
    ],
)
def test_channel_context_widths(before, group, widths):
    net = channel_context(before, group, ratio=4, min_channels=192)
    assert [net[i].ffn.norm.weight.numel() for i in (0, 2, 4)] == widths


@pytest.mark.parametrize(
    ("group", "side", "widths"),
    [
        (16, 384, [384, 384, 32]),
        (64, 128 + 384, [469, 384, 128]),
        (192, 384 + 384, [896, 640, 384]),
    ],
)
def test_parameter_aggregation_widths(group, side, widths):
    net = group_codec(group, side, ratio=4, min_channels=384).entropy_parameters
    assert [net[i].ffn.norm.weight.numel() for i in (0, 2, 4)] == widths


def test_anchors_come_first_and_give_context_to_the_rest():
    torch.manual_seed(0)
    codec = group_codec(2, 4, ratio=1, min_channels=4).eval()
    side, y = torch.randn(1, 4, 4, 4), torch.randn(1, 2, 4, 4)
    anchors = (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 0
    likelihoods = codec(y, side)["likelihoods"]["y"]

    other_rest = codec(torch.where(anchors, y, y + 7.3), side)
    torch.testing.assert_close(other_rest["likelihoods"]["y"][..., anchors], likelihoods[..., anchors])

    other_anchors = codec(torch.where(anchors, y + 7.3, y), side)
    assert not torch.allclose(other_anchors["likelihoods"]["y"][..., ~anchors], likelihoods[..., ~anchors])


def test_scales_come_before_means():
    torch.manual_seed(0)
    codec = group_codec(2, 4, ratio=1, min_channels=4).eval()
    last = codec.entropy_parameters[-1]
    last.ffn.norm.weight.data.zero_()  # leaves the convolution and, with the biases, constants
    last.conv.weight.data.zero_()
    last.conv.bias.data[:] = torch.tensor([3.0, 3.0, 0.25, 0.25])
    y_hat = codec(torch.zeros(1, 2, 4, 4), torch.randn(1, 4, 4, 4))["y_hat"]
    torch.testing.assert_close(y_hat, torch.full_like(y_hat, 0.25))

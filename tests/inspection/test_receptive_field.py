import pytest
import torch
from torch import nn

from glic_pyg.graph import GraphBuilder
from glic_pyg.inspection import centered_mean, convolutions_only, energy_area, receptive_fields
from glic_pyg.nn.gfa import GFAStage


def test_of_a_convolution_is_its_squared_kernel():
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, padding=1)
    field, corner = receptive_fields(conv, torch.rand(1, 2, 7, 9), [(4, 5), (0, 0)])
    energy = conv.weight.detach().double().sum(dim=0).square().sum(dim=0)
    expected = torch.zeros(7, 9, dtype=torch.double)
    expected[3:6, 4:7] = energy / energy.sum()
    torch.testing.assert_close(field, expected, atol=1e-6, rtol=1e-5)
    assert corner.count_nonzero() == 4
    assert float(corner.sum()) == pytest.approx(1)


def test_blocks_of_outputs():
    field = receptive_fields(nn.Upsample(scale_factor=4), torch.rand(1, 1, 5, 6), [(2, 3)], block=4)[0]
    assert field.nonzero().tolist() == [[2, 3]]


def test_matches_differences_through_a_graph_stage():
    torch.manual_seed(0)
    builder = GraphBuilder(degree=6)
    stage = GFAStage(
        channels=4, depth=2, heads=2, ffn_ratio=1, position_hidden=4, graph_builder=builder
    ).double()
    x = torch.randn(1, 4, 16, 16, dtype=torch.double)
    graphs = builder(x)
    builder.forward = lambda _: graphs  # constants of the gradient
    field = receptive_fields(stage, x, [(8, 5)])[0]
    energy = torch.zeros(16, 16, dtype=torch.double)
    with torch.no_grad():
        for row, column in [(8, 5), (7, 5), (0, 0), (3, 9), (15, 2), (8, 4)]:
            for channel in range(4):
                step = torch.zeros_like(x)
                step[0, channel, row, column] = 1e-5
                change = (stage(x + step) - stage(x - step))[0, :, 8, 5].sum() / 2e-5
                energy[row, column] += change**2
    places = [(8, 5), (7, 5), (0, 0), (3, 9), (15, 2), (8, 4)]
    ratio = torch.stack([energy[p] for p in places]) / energy[8, 5]
    expected = torch.stack([field[p] for p in places]) / field[8, 5]
    torch.testing.assert_close(ratio, expected, rtol=1e-4, atol=1e-9)


def test_without_attention_a_stage_sees_its_surroundings_only():
    torch.manual_seed(0)
    stage = GFAStage(
        channels=4, depth=2, heads=2, ffn_ratio=1, position_hidden=4, graph_builder=GraphBuilder(degree=6)
    )
    x = torch.randn(1, 4, 16, 16)
    with convolutions_only(stage):
        alone = receptive_fields(stage, x, [(8, 5)])[0]
    assert set(map(tuple, alone.nonzero().tolist())) == {(r, c) for r in range(6, 11) for c in range(3, 8)}
    whole = receptive_fields(stage, x, [(8, 5)])[0]
    assert whole.count_nonzero() > alone.count_nonzero()
    assert not any(module._forward_hooks for module in stage.modules())


def test_energy_area():
    assert energy_area(torch.full((10, 10), 3.0)) == 90
    assert energy_area(torch.tensor([0.05, 0.0, 0.5, 0.45])) == 2
    assert energy_area(torch.tensor([0.05, 0.0, 0.5, 0.45]), share=0.99) == 3
    x = torch.arange(-60, 61) / 10.0
    gaussian = torch.exp(-(x[:, None] ** 2 + x**2) / 2)
    # A Gaussian of variance 1 holds 90 % within the radius sqrt(2 ln 10).
    assert energy_area(gaussian) / 100 == pytest.approx(2 * torch.pi * 2.302585, rel=0.01)


def test_centered_mean():
    fields = torch.zeros(2, 3, 4)
    fields[0, 0, 0] = fields[1, 2, 3] = 1  # each at its own place
    fields[1, 2, 2] = 0.5  # left of it
    mean = centered_mean(fields, [(0, 0), (2, 3)])
    assert mean.shape == (5, 7)
    assert {tuple(place): mean[tuple(place)].item() for place in mean.nonzero().tolist()} == {
        (2, 3): 1,
        (2, 2): 0.25,
    }

import math

import pytest
import torch

from glic_pyg.entropy import GainUnits


@pytest.fixture
def units():
    units = GainUnits(qualities=3, latent_channels=4, hyper_channels=2)
    for logs in units.parameters():
        torch.nn.init.normal_(logs, generator=torch.Generator().manual_seed(len(logs[0])))
    return units


def test_between_qualities_gains_are_weighted_geometric_means(units):
    gains = units(torch.tensor([1.0, 2.25, 3.0]))
    assert {name: tuple(gain.shape) for name, gain in gains.items()} == {
        "y": (3, 4, 1, 1),
        "y_inverse": (3, 4, 1, 1),
        "z": (3, 2, 1, 1),
        "z_inverse": (3, 2, 1, 1),
    }
    for name, logs in units.named_parameters():
        for channel, (low, middle, high) in enumerate(logs.T.tolist()):
            expected = [math.exp(low), math.exp(middle) ** 0.75 * math.exp(high) ** 0.25, math.exp(high)]
            assert gains[name][:, channel].flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_first_gains_undo_each_other_and_grow_with_quality():
    gains = GainUnits(qualities=8, latent_channels=4, hyper_channels=2)(torch.arange(1.0, 9.0))
    torch.testing.assert_close(gains["y"] * gains["y_inverse"], torch.ones(8, 4, 1, 1))
    assert (gains["y"].diff(dim=0) > 0).all()
    assert (gains["z"] == 1).all()


def test_only_the_neighbours_gains_learn(units):
    sum(gain.sum() for gain in units(torch.tensor([2.5])).values()).backward()
    for logs in units.parameters():
        assert logs.grad[0].count_nonzero() == 0
        assert (logs.grad[1:] != 0).all()

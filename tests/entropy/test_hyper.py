import torch

from glic_pyg.entropy.hyper import hyper_analysis, hyper_synthesis
from glic_pyg.nn.conv import ConvBlock


def test_hyper_analysis_quarters_both_sides():
    h_a = hyper_analysis(latent_channels=6, hyper_channels=4, depth=2, ratio=1)
    assert h_a(torch.zeros(2, 6, 8, 12)).shape == (2, 4, 2, 3)


def test_hyper_synthesis_inverts_the_shape_and_doubles_the_channels():
    h_s = hyper_synthesis(hyper_channels=4, depth=2, ratio=1)
    assert h_s(torch.zeros(2, 4, 2, 3)).shape == (2, 8, 8, 12)


def test_depth_counts_the_blocks_per_resolution():
    for depth in (1, 3):
        h_a = hyper_analysis(latent_channels=6, hyper_channels=4, depth=depth, ratio=1)
        h_s = hyper_synthesis(hyper_channels=4, depth=depth, ratio=1)
        for net in (h_a, h_s):
            is_block = [isinstance(module, ConvBlock) for module in net]
            assert is_block == [False, *[True] * depth, False, *[True] * depth, False]

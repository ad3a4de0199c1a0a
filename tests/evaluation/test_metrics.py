import math

import pytest
import torch

from glic_pyg.evaluation.metrics import bpp, psnr


def test_bpp_counts_every_byte():
    assert bpp(bytes(30), torch.zeros(1, 3, 4, 5)) == 12


def test_psnr_is_that_of_the_rounded_and_clamped_pictures():
    x = torch.full((1, 3, 4, 4), 100 / 255)
    assert psnr(x, x + 0.4 / 255) == math.inf  # rounds to the same
    assert psnr(x, x + 10 / 255) == pytest.approx(10 * math.log10(255**2 / 100))
    assert psnr(torch.ones_like(x), x * 0 + 1.5) == math.inf


def test_psnr_averages_the_error_over_channels():
    x = torch.zeros(1, 3, 2, 2)
    y = x.clone()
    y[:, 0] = 3 / 255
    assert psnr(x, y) == pytest.approx(10 * math.log10(255**2 / 3))

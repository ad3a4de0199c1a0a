import math

import pytest
import torch

from glic_pyg.metrics import bpp, decibels, ms_ssim, psnr, psnr_unrounded


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


def test_unrounded_psnr_sees_what_rounding_hides():
    x = torch.full((1, 3, 4, 4), 100 / 255)
    assert psnr_unrounded(x, x + 0.4 / 255) == pytest.approx(10 * math.log10(255**2 / 0.16), rel=1e-4)
    assert psnr_unrounded(x, x) == math.inf


def test_ms_ssim_of_constants_is_their_luminance_term():
    """Contrast and structure are 1 on all scales; the luminance of the coarsest counts 0.1333."""
    x, y = torch.full((1, 3, 176, 176), 100 / 255), torch.full((1, 3, 176, 176), 140 / 255)
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 100 * 140 + c1) / (100**2 + 140**2 + c1)
    assert ms_ssim(x, y) == pytest.approx(luminance**0.1333, rel=1e-4)
    assert ms_ssim(x, x + 0.4 / 255) == pytest.approx(1)
    assert decibels(0.99) == pytest.approx(20)
    assert decibels(1.0) == math.inf
    assert math.isnan(decibels(math.nan))
    assert math.isnan(ms_ssim(x[..., :160], y[..., :160]))


@pytest.mark.parametrize("metric", [psnr, psnr_unrounded, ms_ssim])
@pytest.mark.parametrize("shape", [(1, 1, 176, 176), (3, 176, 176), (1, 3, 176, 177), (2, 3, 176, 176)])
def test_pictures_of_two_shapes_are_refused(metric, shape):
    with pytest.raises(ValueError, match=r"Expected pictures of one shape \(got \(1, 3, 176, 176\) and \("):
        metric(torch.zeros(1, 3, 176, 176), torch.zeros(shape))

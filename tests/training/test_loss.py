"""The loss against the formula written out."""

import math

import pytest
import torch

from glic_pyg.training.loss import RateDistortionLoss


def test_loss_is_the_formula():
    generator = torch.Generator().manual_seed(0)
    x, x_hat = torch.rand(2, 2, 3, 64, 128, generator=generator, dtype=torch.float64)
    y = torch.rand(2, 5, 4, 8, generator=generator, dtype=torch.float64)
    z = torch.rand(2, 3, 1, 2, generator=generator, dtype=torch.float64)
    result = RateDistortionLoss(0.013)(
        {"x_hat": x_hat, "likelihoods": {"y": y, "z": z}}, x, torch.tensor(0.7)
    )

    pairs = zip(x.flatten().tolist(), x_hat.flatten().tolist(), strict=True)
    mse = math.fsum((a - b) ** 2 for a, b in pairs) / x.numel()
    bits = math.fsum(-math.log2(p) for p in [*y.flatten().tolist(), *z.flatten().tolist()])
    bpp = bits / (2 * 64 * 128)
    assert result.mse.item() == pytest.approx(mse)
    assert result.bpp.item() == pytest.approx(bpp)
    assert result.psnr.item() == pytest.approx(10 * math.log10(1 / mse))
    assert result.loss.item() == pytest.approx(0.013 * 255**2 * mse + bpp + 0.1 * 0.7)


def test_all_parts_have_gradients():
    x_hat, likelihood = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 4, 4)
    orthogonality = torch.tensor(0.5)
    leaves = [t.requires_grad_() for t in (x_hat, likelihood, orthogonality)]
    output = {"x_hat": x_hat, "likelihoods": {"y": likelihood}}
    RateDistortionLoss(0.01)(output, torch.rand(1, 3, 64, 64), orthogonality).loss.backward()
    assert all(leaf.grad.abs().sum() > 0 for leaf in leaves)
    assert orthogonality.grad.item() == pytest.approx(0.1)

"""The loss against the formula written out."""

import math

import pytest
import torch

from glic_pyg.training.loss import RateDistortionLoss


@pytest.mark.parametrize("lmbda", [[0.013], [0.002, 0.01, 0.05]])
def test_loss_is_the_formula(lmbda):
    generator = torch.Generator().manual_seed(0)
    x, x_hat = torch.rand(2, 2, 3, 64, 128, generator=generator, dtype=torch.float64)
    y = torch.rand(2, 5, 4, 8, generator=generator, dtype=torch.float64)
    z = torch.rand(2, 3, 1, 2, generator=generator, dtype=torch.float64)
    quality = [1, len(lmbda)]
    output = {"x_hat": x_hat, "likelihoods": {"y": y, "z": z}}
    result = RateDistortionLoss(lmbda, distortion="mse")(output, x, torch.tensor(0.7), torch.tensor(quality))

    losses, mses, bpps = [], [], []
    for i, q in enumerate(quality):
        pairs = zip(x[i].flatten().tolist(), x_hat[i].flatten().tolist(), strict=True)
        mses.append(math.fsum((a - b) ** 2 for a, b in pairs) / x[i].numel())
        probabilities = [*y[i].flatten().tolist(), *z[i].flatten().tolist()]
        bpps.append(math.fsum(-math.log2(p) for p in probabilities) / (64 * 128))
        weight = math.sqrt(math.prod(lmbda) ** (1 / len(lmbda)) / lmbda[q - 1])
        losses.append(weight * (lmbda[q - 1] * 255**2 * mses[i] + bpps[i]))
    assert result.mse.item() == pytest.approx(sum(mses) / 2)
    assert result.bpp.item() == pytest.approx(sum(bpps) / 2)
    assert result.psnr.item() == pytest.approx(10 * math.log10(2 / sum(mses)))
    assert result.loss.item() == pytest.approx(sum(losses) / 2 + 0.1 * 0.7)


def test_ms_ssim_may_be_the_distortion():
    """Against the definition of Wang et al., 2003, for pictures where it has a closed form: constants.

    Contrast and structure are then 1 on every scale, and the luminance of the coarsest is left.
    """
    x, x_hat = torch.full((1, 3, 192, 192), 0.5), torch.full((1, 3, 192, 192), 0.7)
    output = {"x_hat": x_hat, "likelihoods": {"y": torch.full((1, 1, 1, 1), 0.5)}}
    loss = RateDistortionLoss([8.73], distortion="ms-ssim")
    result = loss(output, x, torch.tensor(0.0), torch.tensor([1]))
    luminance = (2 * 0.5 * 0.7 + 0.01**2) / (0.5**2 + 0.7**2 + 0.01**2)
    assert result.loss.item() == pytest.approx(8.73 * (1 - luminance**0.1333) + 1 / 192**2, rel=0.03)


def test_all_parts_have_gradients():
    x_hat, likelihood = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 4, 4)
    orthogonality = torch.tensor(0.5)
    leaves = [t.requires_grad_() for t in (x_hat, likelihood, orthogonality)]
    output = {"x_hat": x_hat, "likelihoods": {"y": likelihood}}
    loss = RateDistortionLoss([0.01], distortion="mse")
    loss(output, torch.rand(1, 3, 64, 64), orthogonality, torch.tensor([1])).loss.backward()
    assert all(leaf.grad.abs().sum() > 0 for leaf in leaves)
    assert orthogonality.grad.item() == pytest.approx(0.1)

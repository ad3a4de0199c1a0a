import pytest
import torch
import torch.nn.functional as F

from glic_pyg.graph.complexity import damp, sobel_rms


def sobel_rms_by_convolution(x):
    channels = x.size(1)

    def filtered(x, kernel):
        kernel = torch.tensor(kernel, dtype=x.dtype).expand(channels, 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)

    gx = filtered(x, [[1 / 4, 0, -1 / 4], [2 / 4, 0, -2 / 4], [1 / 4, 0, -1 / 4]])
    gy = filtered(x, [[1 / 4, 2 / 4, 1 / 4], [0, 0, 0], [-1 / 4, -2 / 4, -1 / 4]])
    magnitude = (gx**2 + gy**2 + 1e-9).sqrt()
    gauss = torch.exp(-0.5 * (torch.tensor([-1.0, 0.0, 1.0], dtype=torch.double) / 0.8) ** 2)
    gauss = gauss / gauss.sum()
    blurred = filtered(magnitude, (gauss[:, None] * gauss).tolist())
    return (blurred**2).mean(dim=1).sqrt()


@pytest.mark.parametrize("size", [(2, 5, 16, 16), (1, 3, 7, 12), (1, 1, 1, 1), (2, 4, 1, 9), (1, 2, 2, 3)])
def test_sobel_rms_is_its_definition(size):
    x = torch.randn(size, dtype=torch.double)
    torch.testing.assert_close(sobel_rms(x), sobel_rms_by_convolution(x))


def test_sobel_rms_agrees_with_the_golden_score(golden):
    data = golden("gfa_small.npz")
    torch.testing.assert_close(sobel_rms(data["x"]), data["score"], rtol=1e-4, atol=0)


def test_a_flat_map_scores_almost_nothing_but_above_zero():
    score = sobel_rms(torch.full((1, 3, 6, 5), 7.0))
    torch.testing.assert_close(score, torch.full((1, 6, 5), 1e-9).sqrt())


def test_a_ramp_scores_its_slope():
    ramp = 3.0 * torch.arange(9.0).expand(1, 2, 8, 9)
    # Inside, that is; the difference spans two columns.
    torch.testing.assert_close(sobel_rms(ramp)[0, :, 2:-2], torch.full((8, 5), 6.0))


def test_damp_keeps_the_mean_and_shrinks_deviations_per_picture():
    score = torch.rand(3, 4, 5, dtype=torch.double) * torch.tensor([1.0, 10.0, 100.0])[:, None, None]
    damped = damp(score)
    for before, after in zip(score, damped, strict=True):
        torch.testing.assert_close(after.mean(), before.mean())
        torch.testing.assert_close((after - after.mean()) * 1.5, before - before.mean())


def test_damped_scores_stay_positive():
    score = torch.zeros(1, 8, 8)
    score[0, 3, 3] = 1.0
    assert (damp(score) > 0).all()

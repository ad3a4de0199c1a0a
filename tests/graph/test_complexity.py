import itertools
import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from glic_pyg.graph.complexity import LocalEntropy, RescalingResidual, Sobel, Uniform, damp


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
    torch.testing.assert_close(Sobel()(x), sobel_rms_by_convolution(x))


@pytest.mark.parametrize("size", [(2, 5, 16, 16), (1, 3, 7, 12), (1, 1, 1, 1), (2, 8, 1, 9), (1, 2, 2, 3)])
@pytest.mark.parametrize("threads", [1, 3])
def test_sobel_in_one_pass_is_its_definition(size, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(Sobel, "of_channels", None)
    x = torch.randn(size)
    torch.testing.assert_close(
        Sobel()(x).double(), sobel_rms_by_convolution(x.double()), rtol=1e-5, atol=1e-7
    )


def test_means_in_one_pass_are_those_of_the_channels():
    x = torch.randn(2, 3, 9, 10)
    score = Sobel(pooling="mean")
    torch.testing.assert_close(score(x), score.of_channels(x).mean(1))


def test_sobel_rms_agrees_with_the_golden_score(golden):
    data = golden("gfa_small.npz")
    torch.testing.assert_close(Sobel()(data["x"]), data["score"], rtol=1e-4, atol=0)


def test_a_flat_map_scores_almost_nothing_but_above_zero():
    score = Sobel()(torch.full((1, 3, 6, 5), 7.0))
    torch.testing.assert_close(score, torch.full((1, 6, 5), 1e-9).sqrt())


def test_a_ramp_scores_its_slope():
    ramp = 3.0 * torch.arange(9.0).expand(1, 2, 8, 9)
    # Inside, that is; the difference spans two columns.
    torch.testing.assert_close(Sobel()(ramp)[0, :, 2:-2], torch.full((8, 5), 6.0))


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


def entropy_by_definition(values: list[float], low: float, high: float, bins: int) -> float:
    counts = Counter(min(int((v - low) / (high - low) * bins), bins - 1) for v in values)
    return -sum(n / len(values) * math.log2(n / len(values)) for n in counts.values())


def test_local_entropy_is_its_definition():
    x = torch.randn(2, 3, 6, 7, dtype=torch.double)
    found = LocalEntropy(bins=4, window=3).of_channels(x)
    for b, c, row, column in itertools.product(range(2), range(3), range(6), range(7)):
        near = [
            x[b, c, min(max(row + i, 0), 5), min(max(column + j, 0), 6)].item()
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
        ]
        low, high = x[b, c].min().item(), x[b, c].max().item()
        expected = entropy_by_definition(near, low, high, 4)
        assert found[b, c, row, column].item() == pytest.approx(expected, abs=1e-8)


def test_local_entropy_of_even_shares_is_the_logarithm_of_their_number():
    x = torch.arange(4.0).repeat(8, 6)[None, None, :, :].contiguous()  # columns 0 1 2 3 0 1 2 3 ...
    found = LocalEntropy(bins=4, window=5)(x)[0, 4, 4:-4]
    # Five columns hold one value twice.
    expected = -(3 * 0.2 * math.log2(0.2) + 0.4 * math.log2(0.4))
    torch.testing.assert_close(found, torch.full_like(found, expected))


@pytest.mark.parametrize("side", [1, 2, 8])
def test_rescaling_residual_loses_what_changes_from_one_position_to_the_next(side):
    checks = (torch.arange(16)[:, None] // side + torch.arange(16)) % 2
    x = (3.0 * checks)[None, None].double()
    found = RescalingResidual()(x)
    if side == 1:  # rows alternate: their halves are flat
        torch.testing.assert_close(found, torch.full_like(found, 1.5))
    assert found.min() > 0
    ramp = torch.arange(16.0, dtype=torch.double).expand(1, 2, 16, 16)
    torch.testing.assert_close(
        RescalingResidual()(ramp)[..., 2:-2], torch.full((1, 16, 12), 1e-9**0.5).double()
    )


@pytest.mark.parametrize("score", [Sobel, LocalEntropy, RescalingResidual])
def test_pooling_over_channels(score):
    x = torch.randn(2, 5, 9, 12, dtype=torch.double)
    each = torch.stack([score()(x[:, i : i + 1]) for i in range(5)])
    torch.testing.assert_close(score(pooling="mean")(x), each.mean(dim=0))
    torch.testing.assert_close(score(pooling="rms")(x), each.square().mean(dim=0).sqrt())


@pytest.mark.parametrize("score", [Sobel(), LocalEntropy(), RescalingResidual(), Uniform()])
@pytest.mark.parametrize("size", [(2, 3, 16, 16), (1, 2, 1, 1), (1, 2, 1, 7), (1, 1, 5, 2)])
def test_every_score_is_positive_and_of_one_picture_alone(score, size):
    x = torch.randn(size)
    for values in (x, torch.zeros(size)):
        before = values.clone()
        found = score(values)
        assert found.shape == (size[0], *size[2:])
        assert (found > 0).all()
        torch.testing.assert_close(score(values[:1]), found[:1])
        assert torch.equal(values, before)


@pytest.mark.usefixtures("shapes_unchecked")
def test_what_scores_refuse():
    with pytest.raises(ValueError, match=r"^Expected pooling to be one of rms, mean \(got max\)$"):
        Sobel(pooling="max")
    with pytest.raises(ValueError, match=r"an odd window up to 31 \(got 8 and 4\)$"):
        LocalEntropy(window=4)


@pytest.mark.parametrize("pooling", ["rms", "mean"])
@pytest.mark.parametrize("score", [Sobel, LocalEntropy, RescalingResidual])
def test_scores_are_the_same_on_every_device(score, pooling, device):
    x = torch.randn(2, 5, 17, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(score(pooling=pooling)(x.to(device)).cpu(), score(pooling=pooling)(x))

import pytest
import torch

from glic_pyg.build import build_analysis


@torch.no_grad()
@pytest.mark.parametrize("size", ["128x128", "128x256"])
def test_golden_parity(published_g_a, golden, assert_parity, size):
    data = golden(f"published_{size}.npz")
    stages = []  # what the next convolution reads: a stage's output with its shortcut
    hooks = [
        down.register_forward_pre_hook(lambda _, x: stages.append(x[0])) for down in published_g_a.down[1:]
    ]
    y = published_g_a(data["x"])
    for hook in hooks:
        hook.remove()
    assert_parity(y, data["y"])
    for i, stage in enumerate(stages):
        tolerance = 1e-5 if i == 0 else 1e-3  # ties can be in graphs only
        found = {
            "mean": stage.mean(dim=(0, 2, 3)),
            "std": stage.std(dim=(0, 2, 3)),
            "corner": stage[0, :8, :4, :4],
        }
        for name, value in found.items():
            expected = data[f"stage{i}_{name}"]
            assert (value - expected).abs().max() < tolerance * expected.abs().max(), (i, name)


@pytest.mark.parametrize("size", [(1, 16, 16), (2, 48, 80), (1, 16, 96)], ids=str)
def test_any_multiples_of_16(tiny_config, noise, size):
    batch_size, height, width = size
    y = build_analysis(tiny_config)(noise(batch_size, 3, height, width))
    assert y.shape == (batch_size, tiny_config.latent_channels, height // 16, width // 16)
    assert y.isfinite().all()


def test_every_parameter_learns(tiny_config, noise, assert_all_learn):
    torch.manual_seed(0)
    g_a = build_analysis(tiny_config)
    (g_a(noise(2, 3, 48, 80)).square().mean() + g_a.orthogonality_loss()).backward()
    assert_all_learn(g_a)


@pytest.mark.parametrize("size", [(8, 16), (16, 40), (100, 64), (17, 16)])
def test_other_sizes_are_refused(tiny_config, size):
    message = rf"Expected sides that are multiples of 16 \(got \({size[0]}, {size[1]}\)\)"
    with pytest.raises(ValueError, match=message):
        build_analysis(tiny_config)(torch.zeros(1, 3, *size))


def test_pictures_of_a_batch_are_independent(tiny_config, noise):
    torch.manual_seed(0)
    g_a = build_analysis(tiny_config).double()
    x = noise(3, 3, 48, 80).double()
    torch.testing.assert_close(g_a(x), torch.cat([g_a(picture[None]) for picture in x]))


def test_shortcuts_run_beside_the_main_path(tiny_config, noise):
    """Without the main path what remains is the chain of wavelets."""
    torch.manual_seed(0)
    g_a = build_analysis(tiny_config)
    torch.nn.init.zeros_(g_a.down[-1].weight)
    torch.nn.init.zeros_(g_a.down[-1].bias)
    x = expected = noise(1, 3, 32, 48)
    for wavelet in g_a.shortcuts:
        expected = wavelet(expected)
    torch.testing.assert_close(g_a(x), expected)


def test_orthogonality_loss_is_the_sum_over_shortcuts(tiny_config):
    g_a = build_analysis(tiny_config)
    assert len(g_a.shortcuts) == 4
    losses = [wavelet.orthogonality_loss() for wavelet in g_a.shortcuts]
    torch.testing.assert_close(g_a.orthogonality_loss(), torch.stack(losses).sum())

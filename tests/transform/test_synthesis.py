import pytest
import torch

from glic_pyg.build import build_synthesis


@torch.no_grad()
@pytest.mark.parametrize("size", ["128x128", "128x256"])
def test_golden_parity(published_g_s, golden, assert_parity, size):
    data = golden(f"published_{size}.npz")
    assert_parity(published_g_s(data["y_hat"]), data["x_hat"])


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 5), (1, 1, 6)], ids=str)
def test_any_size(tiny_config, noise, size):
    batch_size, height, width = size
    x_hat = build_synthesis(tiny_config)(noise(batch_size, tiny_config.latent_channels, height, width))
    assert x_hat.shape == (batch_size, 3, 16 * height, 16 * width)
    assert x_hat.isfinite().all()


def test_every_parameter_learns(tiny_config, noise, assert_all_learn):
    torch.manual_seed(0)
    g_s = build_synthesis(tiny_config)
    x_hat = g_s(noise(2, tiny_config.latent_channels, 3, 5))
    (x_hat.square().mean() + g_s.orthogonality_loss()).backward()
    assert_all_learn(g_s)


def test_pictures_of_a_batch_are_independent(tiny_config, noise):
    torch.manual_seed(0)
    g_s = build_synthesis(tiny_config).double()
    y_hat = noise(3, tiny_config.latent_channels, 3, 5).double()
    torch.testing.assert_close(g_s(y_hat), torch.cat([g_s(latent[None]) for latent in y_hat]))


def test_shortcuts_run_beside_the_main_path(tiny_config, noise):
    """Without the main path what remains is the chain of wavelets."""
    torch.manual_seed(0)
    g_s = build_synthesis(tiny_config)
    torch.nn.init.zeros_(g_s.up[-1][0].weight)
    torch.nn.init.zeros_(g_s.up[-1][0].bias)
    y_hat = expected = noise(1, tiny_config.latent_channels, 2, 3)
    for wavelet in g_s.shortcuts:
        expected = wavelet(expected)
    torch.testing.assert_close(g_s(y_hat), expected)


def test_orthogonality_loss_is_the_sum_over_shortcuts(tiny_config):
    g_s = build_synthesis(tiny_config)
    assert len(g_s.shortcuts) == 4
    losses = [wavelet.orthogonality_loss() for wavelet in g_s.shortcuts]
    torch.testing.assert_close(g_s.orthogonality_loss(), torch.stack(losses).sum())

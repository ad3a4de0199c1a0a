"""The coder in training, against CompressAI's latent codecs."""

import copy
import dataclasses

import pytest
import torch
from compressai.entropy_models import EntropyModel

from glic_pyg.build import build_entropy_model
from glic_pyg.entropy import dithered_latents, forward_latents
from glic_pyg.entropy.forward import Checkerboard


@pytest.fixture(params=[1, 3], ids=["one quality", "several"])
def codec(request, tiny_config):
    torch.manual_seed(0)
    codec = build_entropy_model(dataclasses.replace(tiny_config, qualities=request.param))
    with torch.no_grad():
        for name, weight in codec.named_parameters():
            if weight.ndim >= 2 and "bottleneck" not in name:  # symbols of all sizes, scales of all kinds
                weight.normal_(std=weight[0].numel() ** -0.5)
    return codec.double()


@pytest.fixture
def y(tiny_config):
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(2, tiny_config.latent_channels, 8, 12, generator=generator, dtype=torch.double)


@pytest.fixture
def known_noise(monkeypatch):
    """In place of random noise: what depends on the value alone, so that the order of values is free."""
    quantize = EntropyModel.quantize

    def known(self, inputs, mode, means=None):
        if mode == "noise":
            return inputs + 0.5 * torch.sin(1000 * inputs.detach())
        return quantize(self, inputs, mode, means)

    monkeypatch.setattr(EntropyModel, "quantize", known)


def gains(codec, y):
    torch.manual_seed(2)
    shape = (len(y), codec.hyper.entropy_bottleneck.channels, 1, 1)
    return [(torch.rand(shape, dtype=torch.double) + 0.5).requires_grad_() for _ in range(2)]


def losses(out):
    """A loss that sees every likelihood and latent by another weight."""
    total = 0.0
    for x in (out["y_hat"], *(value.log() for value in out["likelihoods"].values())):
        generator = torch.Generator().manual_seed(x.numel())
        total = total + (x * torch.randn(x.shape, generator=generator, dtype=torch.double)).sum()
    return total


def gradients(codec, inputs, loss):
    names = [name for name, _ in codec.named_parameters()]
    found = torch.autograd.grad(loss, [*codec.parameters(), *inputs], allow_unused=True)
    return dict(zip([*names, *range(len(inputs))], found, strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_is_compressais_forward_in_values_and_gradients(codec, y, known_noise, training):
    codec.train(training)
    several = type(codec).__name__.startswith("Gain")
    z_gain, inverse = gains(codec, y) if several else (1.0, 1.0)
    more = {"y_gain": 1.0, "z_gain": z_gain, "y_gain_inv": 1.0, "z_gain_inv": inverse} if several else {}
    y.requires_grad_()
    theirs = codec(y, **more)
    ours = forward_latents(codec, y, z_gain=z_gain, z_gain_inverse=inverse)
    torch.testing.assert_close(ours, theirs)

    inputs = [y, z_gain, inverse] if several else [y]
    expected = gradients(codec, inputs, losses(theirs))
    found = gradients(codec, inputs, losses(ours))
    for name, gradient in expected.items():
        if str(name).endswith(".quantiles"):  # which have a loss of their own
            assert found[name] is None
            continue
        if str(name).endswith("context_prediction.weight"):
            gradient = gradient * codec.get_submodule(name.removesuffix(".weight")).mask
        torch.testing.assert_close(found[name], gradient, msg=lambda text, name=name: f"{name}: {text}")


def test_rounded_latents_are_the_coders_and_leave_the_encoder_alone(codec, y):
    codec.train()
    several = type(codec).__name__.startswith("Gain")
    z_gain, inverse = gains(codec, y) if several else torch.ones(2, 1, 1, requires_grad=True)
    y.requires_grad_()
    out = forward_latents(codec, y, z_gain=z_gain, z_gain_inverse=inverse, rounded=True)
    in_use = copy.deepcopy(codec).eval()
    torch.testing.assert_close(out, forward_latents(in_use, y, z_gain=z_gain, z_gain_inverse=inverse))
    found = gradients(codec, [y, z_gain], losses(out))
    encoder = {name for name in found if name in (0, 1) or "h_a" in name or name.endswith("quantiles")}
    assert {name for name, gradient in found.items() if gradient is None} == encoder


def test_gradients_of_rounded_latents_are_those_of_small_changes(codec, y):
    """What follows y_hat is as smooth in the decoder's weights as its symbols are steady."""
    codec.train()

    def y_hat():
        return forward_latents(codec, y, z_gain=1.0, z_gain_inverse=1.0, rounded=True)["y_hat"]

    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    found = gradients(codec, [], (y_hat() * weight).sum())
    names = [name for name, gradient in found.items() if gradient is not None]
    assert any(name.startswith("hyper.h_s") for name in names)
    generator = torch.Generator().manual_seed(4)
    directions = {
        name: torch.randn(found[name].shape, generator=generator, dtype=torch.double) for name in names
    }
    slope = sum((found[name] * directions[name]).sum() for name in names)
    values = []
    for step in (1e-7, -2e-7):
        with torch.no_grad():
            for name, direction in directions.items():
                codec.get_parameter(name).add_(direction, alpha=step)
            values.append((y_hat() * weight).sum())
    torch.testing.assert_close((values[0] - values[1]) / 2e-7, slope, rtol=1e-4, atol=0)


def test_the_rate_of_rounded_latents_draws_means_to_the_latents(codec, y):
    """One step down the rate's gradient lessens the rate, of the means alone."""
    codec.train()
    names = [name for name, _ in codec.y.named_parameters() if name.endswith("project_out.weight")]
    last = [codec.y.get_parameter(name) for name in names if name.endswith("4.ffn.project_out.weight")]
    assert len(last) >= len(codec.y.groups)

    def rate():
        out = forward_latents(codec, y, z_gain=1.0, z_gain_inverse=1.0, rounded=True)
        return -out["likelihoods"]["y"].log().sum()

    before = rate()
    slopes = torch.autograd.grad(before, last)
    with torch.no_grad():
        for parameter, slope in zip(last, slopes, strict=True):
            slope[: len(slope) // 2] = 0  # scales
            parameter.sub_(slope, alpha=0.01 / slope.norm().item())
        assert rate() < before


def test_checkerboard_is_the_order_of_the_coder(codec, tiny_config):
    x = torch.randn(2, 3, 6, 8)
    board = Checkerboard.of(x)
    theirs = codec.y.latent_codec["y0"].unembed(x)  # halves, each B x C x H x W/2
    ours = board.split(x).movedim(-1, 1).unflatten(2, (2, 6, 4)).movedim(2, 0)
    assert torch.equal(ours, theirs)
    assert torch.equal(board.merge(board.split(x)), x)


def dithered(model, y, width, curvature=0.0):
    gains = model.gains(None)
    return dithered_latents(
        model.latent_codec,
        y,
        z_gain=gains["z"],
        z_gain_inverse=gains["z_inverse"],
        width=width,
        curvature=torch.full((y.size(1),), curvature),
        generator=torch.Generator().manual_seed(0),
    )


def test_without_dither_symbols_and_bits_are_the_coders(tiny_model):
    y = 3 * torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(0))
    y_hat, bits = dithered(tiny_model, y, 0)
    expected = tiny_model.likelihoods(y, rounded=True)
    torch.testing.assert_close(y_hat, expected["y_hat"])
    torch.testing.assert_close(bits, -expected["likelihoods"]["y"].log2().sum())


def test_dither_moves_only_what_is_near_the_middle_of_two_symbols(tiny_model):
    y = 3 * torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(0))
    plain, _ = dithered(tiny_model, y, 0)
    moved, _ = dithered(tiny_model, y, 0.5)
    first = (moved - plain)[:, :4]  # whose means nothing before them changes, in the anchors
    board = torch.arange(8)[:, None] + torch.arange(12)
    anchors = first[..., board % 2 == 0]
    far = (y - plain)[:, :4][..., board % 2 == 0].abs() < 0.25
    assert anchors[far].abs().max() == 0
    torch.testing.assert_close(anchors.abs().max(), torch.tensor(1.0))


def test_the_gradient_of_bits_is_what_the_next_symbol_costs(tiny_model):
    """Of the last half of the last group, on which nothing else depends."""
    y = 3 * torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    y.requires_grad_()
    y_hat, bits = dithered(tiny_model, y, 0)
    _, curved = dithered(tiny_model, y, 0, curvature=3.0)
    assert curved == bits
    (with_curvature,) = torch.autograd.grad(curved, y)
    (gradient,) = torch.autograd.grad(bits, y)
    odd = (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 1
    for channel, row, column in [(12, 0, 1), (13, 1, 0), (15, 2, 3), (14, 3, 2)]:
        assert odd[row, column]
        costs = []
        for up in (0, 1):
            tried = y.detach().clone()
            below = (y - y_hat)[0, channel, row, column].detach() < 0
            # y_hat is the nearer symbol: the lower one where the residual is above it, else the upper one.
            tried[0, channel, row, column] = y_hat[0, channel, row, column].detach() + up - int(below)
            costs.append(dithered(tiny_model, tried, 0)[1])
        torch.testing.assert_close(
            gradient[0, channel, row, column], costs[1] - costs[0], atol=2e-3, rtol=1e-3
        )
        up = -1.5 if below else 1.5  # half of it, towards the middle between the two
        torch.testing.assert_close((with_curvature - gradient)[0, channel, row, column], torch.tensor(up))

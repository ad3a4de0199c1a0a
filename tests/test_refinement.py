import math
import zlib
from pathlib import Path

import pytest
import torch
from pytorch_msssim import ms_ssim

from glic_pyg import GLIC, ModelConfig, bitstream
from glic_pyg.bitstream import decode, encode
from glic_pyg.codec import QualityError
from glic_pyg.container import unpack
from glic_pyg.image import to_8bit
from glic_pyg.metrics import bpp, psnr
from glic_pyg.refinement import EffortError, check_effort, cost, refine, trade
from glic_pyg.tiles import Tiling

GOLDEN = Path(__file__).parent / "golden" / "files"
LAMBDA = 0.02
LEFT, RIGHT = slice(0, 320), slice(128, 448)


@pytest.fixture(scope="module")
def x():
    noise = torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, (60, 100), mode="bicubic").clamp(0, 1)


def loss(model, data, x):
    error = 255**2 * (decode(model, data).mul(255).round() / 255 - x.mul(255).round() / 255).square().mean()
    return bpp(data, x) + LAMBDA * error.item()


@pytest.mark.parametrize("quality", [2.5, 4])
def test_a_refined_file_is_an_ordinary_one_and_better(variable_model, x, quality):
    before = encode(variable_model, x, quality)
    after = encode(variable_model, x, quality, effort=1, lmbda=LAMBDA)
    assert loss(variable_model, after, x) < loss(variable_model, before, x)
    assert unpack(after).quality == unpack(before).quality
    assert after == encode(variable_model, x, quality, effort=1, lmbda=LAMBDA)


def test_a_model_of_one_quality_is_told_its_lambda(tiny_model, x):
    before, after = encode(tiny_model, x), encode(tiny_model, x, effort=1, lmbda=LAMBDA)
    assert loss(tiny_model, after, x) < loss(tiny_model, before, x)
    with pytest.raises(
        QualityError, match=r"Expected the lambda of its training .*of one quality \(got none"
    ):
        encode(tiny_model, x, effort=1)


@pytest.mark.parametrize("lmbda", [1e-6, 1e-3, 1, 1e3])
def test_the_start_is_kept_where_nothing_is_better(variable_model, x, lmbda):
    y = variable_model.analyse(x)
    gains = []
    refined = refine(
        variable_model, x, y, 2, steps=12, lmbda=lmbda, watch=lambda *told: gains.append(told[2])
    )
    weight = lmbda * x[0, 0].numel()
    before, after = (
        c.bits + weight * c.distortion for c in (cost(variable_model, x, some, 2) for some in (y, refined))
    )
    assert after <= before
    assert gains == sorted(gains)
    assert gains[-1] == pytest.approx(1 - after / before)


def test_what_never_gets_better_stays(variable_model, x, monkeypatch):
    """Steps into the wild are tried, and left."""
    monkeypatch.setattr("glic_pyg.refinement.LEARNING_RATE", 50.0)
    y, told = variable_model.analyse(x), []
    refined = refine(variable_model, x, y, 2, steps=40, lmbda=LAMBDA, watch=lambda *now: told.append(now))
    assert torch.equal(refined, y)
    assert told == [(step, 40, 0) for step in range(1, 31)]  # no more is tried after three quarters


def test_effort_that_there_is_not_is_refused(variable_model, x):
    for effort in (-1, 5, 1.0, "1"):
        with pytest.raises(EffortError, match=rf"Expected an effort in 0\.\.4 \(got {effort}\)"):
            encode(variable_model, x, effort=effort)


def test_watching_ends_it_with_the_best_so_far(variable_model, x):
    y, told = variable_model.analyse(x), []

    def watch(done, steps, gain):
        told.append((done, steps, gain))
        return done == 11

    refined = refine(variable_model, x, y, 3, steps=1000, lmbda=LAMBDA, watch=watch)
    assert [done for done, *_ in told] == list(range(1, 12))
    assert {steps for _, steps, _ in told} == {1000}
    whole = refine(variable_model, x, y, 3, steps=1000, lmbda=LAMBDA, watch=lambda done, *_: done == 30)
    assert not torch.equal(whole, y)
    assert torch.equal(refined, y)  # judged at every 25th step


def test_weights_get_no_gradient_and_are_as_before(variable_model, x):
    asked = []
    hook = variable_model.g_s.register_forward_hook(
        lambda module, *_: asked.append(any(p.requires_grad for p in module.parameters()))
    )
    refine(variable_model, x, variable_model.analyse(x), 2, steps=2, lmbda=LAMBDA)
    hook.remove()
    assert True in asked[:1]  # the start is judged as ever
    assert asked[1:3] == [False, False]
    assert all(p.requires_grad and p.grad is None for p in variable_model.parameters())


def test_a_lambda_is_the_slope_of_the_pictures_own_curve(variable_model, x):
    y = variable_model.analyse(x)
    files = [encode(variable_model, x, quality) for quality in (1.5, 2.5)]
    rates = [8 * sum(map(len, unpack(data).strings)) / x[0, 0].numel() for data in files]
    errors = [255**2 / 10 ** (psnr(x, decode(variable_model, data)) / 10) for data in files]
    slope = trade(variable_model, x, y, 2)
    if errors[1] < errors[0]:
        assert slope == pytest.approx((rates[1] - rates[0]) / (errors[0] - errors[1]))
    else:  # weights that were never trained may do worse with more bits
        assert slope is None


def test_without_a_slope_nothing_is_done(variable_model, x, monkeypatch):
    monkeypatch.setattr("glic_pyg.refinement.trade", lambda *_, **__: None)
    y = variable_model.analyse(x)
    assert refine(variable_model, x, y, 2, steps=5) is y


def test_the_default_device_does_not_matter(variable_model, x):
    expected = encode(variable_model, x, 2, effort=1)
    with torch.device("meta"):
        assert encode(variable_model, x, 2, effort=1) == expected


def test_large_pictures_are_refined_in_tiles(variable_model, photo):
    x = photo(128, 384)
    y = variable_model.analyse(x)
    shapes, done = set(), []
    hook = variable_model.g_s.register_forward_hook(lambda _, inputs, out: shapes.add(tuple(out.shape[-2:])))
    refined = refine(
        variable_model,
        x,
        y,
        2,
        steps=4,
        lmbda=LAMBDA,
        tiling=Tiling(256),
        watch=lambda *t: done.append(t[:2]),
    )
    hook.remove()
    assert {shape for shape in shapes if shape != (128, 384)} == {(128, 256)}
    assert done == [(step, 8) for step in range(1, 9)]
    before, after = (cost(variable_model, x, some, 2) for some in (y, refined))
    weight = LAMBDA * x[0, 0].numel()
    assert after.bits + weight * after.distortion <= before.bits + weight * before.distortion


def test_a_bound_on_memory_makes_tiles_smaller(variable_model, photo):
    x = photo(64, 64).expand(1, 3, 64, 64)
    large = torch.empty(1, 3, 2048, 2048, dtype=torch.uint8)
    free = bitstream.refining_for(variable_model, large, None)
    bound = bitstream.refining_for(variable_model, large, 1400 << 20)
    assert bound["tiling"].side < min(free["tiling"].side, bound["restoring"].side)
    data = encode(variable_model, x, 2, effort=1, lmbda=LAMBDA, max_memory=1400 << 20)
    assert math.isfinite(psnr(x, decode(variable_model, data)))


def test_what_is_refined_for_ms_ssim_is_better_in_it(variable_model, photo):
    x = photo(176, 192)
    y = variable_model.analyse(x)
    told = {"steps": 10, "lmbda": 30.0}
    refined = refine(variable_model, x, y, 3, distortion="ms-ssim", **told)
    costs = []
    for latents in (y, refined):
        strings, y_hat = variable_model.code(latents, 3)
        restored = to_8bit(variable_model.synthesise(y_hat, (176, 192))).float()
        similarity = ms_ssim(to_8bit(x).float(), restored, data_range=255).item()
        costs.append(8 * sum(map(len, strings)) / (176 * 192) + 30 * (1 - similarity))
    assert costs[1] < costs[0]
    variable_model.info = {"distortion": "ms-ssim"}
    try:
        assert torch.equal(refine(variable_model, x, y, 3, **told), refined)
    finally:
        variable_model.info = {}


def test_ms_ssim_is_the_mean_of_the_tiles(variable_model, photo):
    x = photo(192, 448)
    y = variable_model.analyse(x)
    data = encode(variable_model, x, 2)
    restored = to_8bit(decode(variable_model, data)).float()
    parts = [ms_ssim(to_8bit(x).float()[..., at], restored[..., at], data_range=255) for at in (LEFT, RIGHT)]
    found = cost(variable_model, x, y, 2, distortion="ms-ssim", tiling=Tiling(320))
    assert found.distortion == pytest.approx(1 - sum(parts).item() / 2)
    assert found.bits == 8 * sum(map(len, unpack(data).strings))


def test_what_is_too_small_for_ms_ssim_is_refused(variable_model, x):
    message = r"Expected sides of at least 161 pixels to refine for ms-ssim \(got 100 x 60\)"
    with pytest.raises(EffortError, match=message):
        encode(variable_model, x, 2, effort=1, distortion="ms-ssim")
    with pytest.raises(EffortError, match=r"Expected a distortion of mse or ms-ssim \(got psnr\)"):
        encode(variable_model, x, 2, effort=1, distortion="psnr")


@pytest.mark.parametrize(
    ("info", "distortion", "enough"),
    [
        ({"lambda": [LAMBDA]}, None, True),
        ({"lambda": [LAMBDA], "distortion": "mse"}, "mse", True),
        ({"lambda": [LAMBDA], "distortion": "ms-ssim"}, "mse", False),
        ({"lambda": [LAMBDA, 1]}, None, False),
        ({"lambda": [-1.0]}, None, False),
        ({"lambda": ["1"]}, None, False),
        ({"lambda": 1}, None, False),
    ],
)
def test_a_checkpoint_knows_its_lambda(tiny_model, x, info, distortion, enough, tmp_path):
    tiny_model.save(tmp_path / "a.safetensors", info=info)
    model = GLIC.from_pretrained(tmp_path / "a.safetensors")
    assert model.identity == tiny_model.identity
    if not enough:
        with pytest.raises(QualityError, match=r"Expected the lambda of its training"):
            check_effort(model, 1, distortion=distortion)
        return
    y = model.analyse(x)
    expected = refine(tiny_model, x, y, steps=10, lmbda=LAMBDA)
    assert torch.equal(refine(model, x, y, steps=10, distortion=distortion), expected)


def test_the_published_configuration_is_refined():
    """With weights from a seed, which prove the mechanics alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GLIC(ModelConfig()).eval()
        x = torch.rand(1, 3, 64, 64)
    model.update(force=True)
    y = 3 * model.analyse(x)  # else nearly all of it rounds to zeros
    refined = refine(model, x, y, steps=2, lmbda=0.1)
    before, after = (cost(model, x, some) for some in (y, refined))
    assert after.bits + 0.1 * 64**2 * after.distortion < before.bits + 0.1 * 64**2 * before.distortion
    strings, y_hat = model.code(refined)
    assert torch.equal(model.decode(strings, (64, 64)), y_hat)


def test_a_refined_file_of_another_day_decodes():
    """Written by this version, with refined latents, for the reader that earlier versions had as well."""
    model = GLIC.from_pretrained(GOLDEN / "of_2.safetensors")
    data = (GOLDEN / "refined.glic").read_bytes()
    y_hat = model.decode(unpack(data).strings, (72, 120), unpack(data).quality / 256)
    assert zlib.crc32(y_hat.numpy().data) == unpack(data).latent_checksum
    assert decode(model, data).shape == (1, 3, 72, 120)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_refines_for_every_decoder(x):
    model = GLIC.from_pretrained(GOLDEN / "of_2.safetensors")
    before = encode(model, x, 2)
    after = encode(GLIC.from_pretrained(GOLDEN / "of_2.safetensors").to("cuda"), x, 2, effort=1, lmbda=LAMBDA)
    assert loss(model, after, x) < loss(model, before, x)

import copy
import hashlib
import os
import random
import re
import subprocess
import sys

import pytest
import torch

from glic_pyg import GLIC, checkpoint
from glic_pyg.bitstream import encode
from glic_pyg.codec import ModelError, QualityError
from glic_pyg.entropy import LatentError
from glic_pyg.image import pad, to_8bit
from glic_pyg.picture import ImageError

SIZES = [(1, 1), (17, 33), (500, 333), (8, 3000), (64, 128)]


@pytest.mark.parametrize("size", SIZES)
def test_decoder_has_the_encoders_latents_bit_for_bit(tiny_model, photo, size):
    x = photo(*size)
    coded = tiny_model.compress(x)
    assert coded["shape"] == size
    decoded = tiny_model.decompress(coded["strings"], coded["shape"])
    assert torch.equal(decoded["y_hat"], coded["y_hat"])
    assert coded["y_hat"].count_nonzero() > 0
    assert decoded["x_hat"].shape == x.shape
    assert 0 <= decoded["x_hat"].min() <= decoded["x_hat"].max() <= 1


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_forward_agrees_with_the_file(tiny_model, photo, size):
    x = photo(*size)
    out = tiny_model(x)
    coded = tiny_model.compress(x)
    y = tiny_model.g_a(pad(x, 64))
    assert (coded["y_hat"] - y).abs().max() <= 0.5001
    assert (out["y_hat"] - y).abs().max() <= 0.5001
    # Means in integers are a little off; where they are near a half, the rounded value is by one.
    assert ((coded["y_hat"] - out["y_hat"]).abs() > 0.1).float().mean() < 0.1
    decoded = tiny_model.decompress(coded["strings"], size)
    torch.testing.assert_close(
        decoded["x_hat"], tiny_model.g_s(coded["y_hat"])[..., : size[0], : size[1]].clamp(0, 1)
    )


@torch.no_grad()
def test_the_steps_make_the_whole(variable_model, photo):
    x = photo(100, 70)
    coded = variable_model.compress(x, 2.5)
    y = variable_model.analyse(x)
    assert torch.equal(y, variable_model.g_a(pad(x, 64)))
    strings, y_hat = variable_model.code(y, 2.5)
    assert [[string] for string in strings] == coded["strings"]
    assert len(strings) == variable_model.num_strings
    assert torch.equal(y_hat, coded["y_hat"])
    assert torch.equal(variable_model.decode(strings, (100, 70), 2.5), y_hat)
    x_hat = variable_model.synthesise(y_hat, (100, 70))
    assert torch.equal(x_hat, variable_model.decompress(coded["strings"], (100, 70), 2.5)["x_hat"])
    assert torch.equal(variable_model.synthesise(y_hat, (100, 70), dtype=torch.uint8), to_8bit(x_hat))
    out = variable_model(x, 2.5)
    assert torch.equal(variable_model.likelihoods(y, 2.5)["likelihoods"]["y"], out["likelihoods"]["y"])


@pytest.mark.parametrize("quality", [1, 2.6, 4])
def test_every_quality_decodes_to_the_encoders_latents(variable_model, photo, quality):
    x = photo(100, 90)
    coded = variable_model.compress(x, quality)
    decoded = variable_model.decompress(coded["strings"], coded["shape"], quality)
    assert torch.equal(decoded["y_hat"], coded["y_hat"])
    with torch.no_grad():
        out = variable_model(x, torch.tensor([quality]))
    step = variable_model.gain(torch.tensor([quality]))["y_inverse"]
    assert (((out["y_hat"] - coded["y_hat"]) / step).abs() > 0.1).float().mean() < 0.1


def test_higher_quality_is_nearer_to_the_latents_and_larger(variable_model, photo):
    x = photo(128, 128)
    with torch.no_grad():
        y = variable_model.g_a(x)
    coded = [variable_model.compress(x, quality) for quality in (1, 2, 3, 4)]
    errors = [(c["y_hat"] - y).square().mean().item() for c in coded]
    sizes = [sum(len(string) for (string,) in c["strings"]) for c in coded]
    assert errors == sorted(errors, reverse=True)
    assert sizes == sorted(sizes)


def test_impossible_qualities_are_refused(tiny_model, variable_model, photo):
    with pytest.raises(QualityError, match=r"Expected a quality in 1\.\.4 \(got nan\)"):
        variable_model.compress(photo(8, 8), float("nan"))
    with pytest.raises(QualityError, match=r"Expected a quality in 1\.\.4 \(got tensor\(\[1.0"):
        variable_model(photo(8, 8).repeat(2, 1, 1, 1), torch.tensor([1.0, 0.5]))
    with pytest.raises(QualityError, match=r"Expected no quality for a model of one \(got 2\)"):
        tiny_model.compress(photo(8, 8), 2)


def test_the_middle_quality_is_the_default(variable_model, photo):
    x = photo(64, 64)
    assert torch.equal(variable_model.compress(x)["y_hat"], variable_model.compress(x, 2)["y_hat"])


def test_a_batch_may_mix_qualities(variable_model, photo):
    x = photo(64, 128)
    with torch.no_grad():
        batch = variable_model(x.repeat(2, 1, 1, 1), torch.tensor([1.0, 3.5]))
        for i, quality in enumerate([1.0, 3.5]):
            alone = variable_model(x, torch.tensor([quality]))
            torch.testing.assert_close(batch["y_hat"][i : i + 1], alone["y_hat"])


def test_there_is_one_quality_or_one_per_picture(variable_model, photo):
    x = photo(64, 64)
    for count, qualities in [(1, [1.0, 2.0]), (3, [1.0, 2.0]), (2, [])]:
        message = rf"Expected one quality, or {count} \(got {len(qualities)}\)"
        with pytest.raises(QualityError, match=message):
            variable_model(x.repeat(count, 1, 1, 1), torch.tensor(qualities))
    with pytest.raises(QualityError, match=r"Expected one quality, or 1 \(got 2\)"):
        variable_model.compress(x, torch.tensor([1.0, 2.0]))
    for quality in ("2", [2.0], 10**400, -1, 0, 0.999, 4.001, float("inf"), float("nan"), 1j):
        with pytest.raises(QualityError, match=r"Expected a quality in 1\.\.4 \(got "):
            variable_model.compress(x, quality)


def test_forward_takes_batches_and_gives_gradients(tiny_config):
    model = GLIC(tiny_config)
    out = model(torch.rand(2, 3, 64, 128))
    assert out["x_hat"].shape == (2, 3, 64, 128)
    assert out["likelihoods"]["y"].shape == (2, 16, 4, 8)
    assert out["likelihoods"]["z"].shape == (2, 8, 1, 2)
    bits = -sum(p.log2().sum() for p in out["likelihoods"].values())
    (bits + out["x_hat"].square().sum() + model.orthogonality_loss()).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {"latent_codec.hyper.entropy_bottleneck.quantiles"}  # aux_loss alone moves them


def test_aux_loss_trains_the_quantiles_alone(tiny_config):
    model = GLIC(tiny_config)
    model.aux_loss().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"latent_codec.hyper.entropy_bottleneck.quantiles"}


DECODE = """
import hashlib, sys, torch
from glic_pyg import GLIC
model = GLIC.from_pretrained(sys.argv[1])
coded = torch.load(sys.argv[2], weights_only=True)
for threads in (1, 3):
    torch.set_num_threads(threads)
    y_hat = model.decompress(coded["strings"], coded["shape"])["y_hat"]
    print(hashlib.sha256(y_hat.numpy()).hexdigest())
"""


def test_another_process_with_other_threads_has_the_same_latents(tiny_model, photo, tmp_path):
    tiny_model.save(tmp_path / "model.safetensors")
    coded = tiny_model.compress(photo(200, 300))
    digest = hashlib.sha256(coded.pop("y_hat").numpy()).hexdigest()
    torch.save(coded, tmp_path / "coded.pt")
    command = [sys.executable, "-c", DECODE, tmp_path / "model.safetensors", tmp_path / "coded.pt"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [digest, digest]


def test_number_of_threads_stays(tiny_model, photo):
    coded = tiny_model.compress(photo(64, 64))  # numba, when it starts, sets a number of its own
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        tiny_model.compress(photo(64, 64))
        tiny_model.decompress(coded["strings"], coded["shape"])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_compress_takes_one_picture(tiny_model):
    for shape in [(2, 3, 64, 64), (1, 1, 64, 64), (3, 64, 64), (1, 3, 0, 64)]:
        with pytest.raises(ValueError, match=r"Expected a picture of shape 1 x 3 x H x W \(got "):
            tiny_model.compress(torch.zeros(shape))


def at(index, value):
    def change(x):
        x = x.clone()
        x[0, 0, *index] = value
        return x

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at((0, 0), torch.nan), r"Expected a picture of floats in \[0, 1\] \(got nan\.\.nan\)"),
        (at((3, 7), torch.inf), r"in \[0, 1\] \(got .*\.\.inf\)"),
        (at((3, 7), -torch.inf), r"in \[0, 1\] \(got -inf\.\."),
        (at((7, 7), 1e12), r"in \[0, 1\] \(got .*\.\.999999995904\.0\)"),
        (at((7, 7), 1.0000001), r"in \[0, 1\] \(got .*\.\.1\.0000001192092896\)"),
        (at((7, 7), -1e-9), r"in \[0, 1\] \(got -9\.9"),
        (lambda x: 255 * x, r"in \[0, 1\] \(got .*\.\.2"),
        (lambda x: 2 * x - 1, r"in \[0, 1\] \(got -"),
        (lambda x: x.double() * 1e300, r"in \[0, 1\] \(got "),
        (lambda x: (2 * x).half(), r"in \[0, 1\] \(got "),
        (lambda x: x.int(), r"Expected a picture of uint8, or of floats in \[0, 1\] \(got torch\.int32\)"),
        (lambda x: x.char(), r"uint8, or of floats in \[0, 1\] \(got torch\.int8\)"),
        (lambda x: x.bool(), r"uint8, or of floats in \[0, 1\] \(got torch\.bool\)"),
        (lambda x: torch.complex(x, x), r"uint8, or of floats in \[0, 1\] \(got torch\.complex64\)"),
        (
            lambda x: x.to(torch.float8_e4m3fn),
            r"uint8, or of floats in \[0, 1\] \(got torch\.float8_e4m3fn\)",
        ),
        (lambda x: x.numpy(), r"Expected a picture as a tensor \(got ndarray\)"),
        (lambda x: None, r"Expected a picture as a tensor \(got NoneType\)"),
    ],
)
def test_what_is_no_picture_is_refused(tiny_model, photo, change, message):
    x = change(photo(8, 8))
    with pytest.raises(ImageError, match=message):
        tiny_model.compress(x)
    with pytest.raises(ImageError, match=message):
        encode(tiny_model, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_pictures_of_any_floats_are_coded_as_float32(tiny_model, photo, dtype):
    x = photo(64, 64).to(dtype)
    assert encode(tiny_model, x) == encode(tiny_model, x.float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_has_no_influence(tiny_model, photo, dtype):
    expected = tiny_model.compress(photo(64, 64))
    restored = tiny_model.decompress(expected["strings"], (64, 64))
    with torch.autocast("cpu", dtype):
        coded = tiny_model.compress(photo(64, 64))
        decoded = tiny_model.decompress(coded["strings"], (64, 64))
    assert coded["strings"] == expected["strings"]
    assert torch.equal(decoded["x_hat"], restored["x_hat"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_other_floats_are_refused(tiny_model, photo, dtype):
    model = copy.deepcopy(tiny_model).to(dtype)
    message = rf"Expected a model in float32 \(got {dtype} in g_a\."
    with pytest.raises(ModelError, match=message):
        model.compress(photo(8, 8))
    with pytest.raises(ModelError, match=message):
        model.decompress([[b""]] * 5, (64, 64))
    expected = tiny_model.compress(photo(64, 64))["strings"]
    if dtype == torch.float64:
        assert model.float().compress(photo(64, 64))["strings"] == expected
    else:  # its weights are rounded
        assert model.float().compress(photo(64, 64))["strings"] != expected


@pytest.mark.parametrize("context", ["dtype", "meta"])
def test_defaults_of_the_process_have_no_influence(child, tiny_model, tmp_path, context):
    """Nor are tables kept that were made under them."""
    tiny_model.save(tmp_path / "model.safetensors")
    printed = child(DEFAULTS, tmp_path / "model.safetensors", context)
    assert printed[0] == printed[1]


DEFAULTS = """
import hashlib, sys, torch
from glic_pyg import GLIC
from glic_pyg.bitstream import encode
torch.set_num_threads(1)
x = torch.rand(1, 3, 64, 70, generator=torch.Generator().manual_seed(0))
if sys.argv[2] == "dtype":
    torch.set_default_dtype(torch.float64)
    print(hashlib.sha256(encode(GLIC.from_pretrained(sys.argv[1]), x)).hexdigest())
    torch.set_default_dtype(torch.float32)
else:
    with torch.device("meta"):  # where no tensor holds anything
        model = GLIC.from_pretrained(sys.argv[1])
        assert model.device.type == "cpu"
        print(hashlib.sha256(encode(model, x)).hexdigest())
print(hashlib.sha256(encode(GLIC.from_pretrained(sys.argv[1]), x)).hexdigest())
"""

UNSOUND = """
import copy, sys, torch
from glic_pyg import GLIC
from glic_pyg.entropy import LatentError, TableError
torch.set_num_threads(1)
sound = GLIC.from_pretrained(sys.argv[1])
x = torch.rand(1, 3, 64, 64)
LAST = "latent_codec.y.latent_codec.y1.entropy_parameters.2.conv.bias"
for value in (float("nan"), float("inf"), -1e38, 1e30, 1e12):
    for name in ("g_a.down.3.bias", "latent_codec.hyper.h_a.4.bias", LAST,
                 "latent_codec.hyper.entropy_bottleneck.quantiles"):
        model = copy.deepcopy(sound)
        with torch.no_grad():
            model.get_parameter(name).fill_(value)
        try:
            model.compress(x)
        except LatentError as error:
            print(name, value, error)
for table in ("_quantized_cdf", "_cdf_length", "_offset"):
    for value in (0, 1, 2**31 - 1, -2**31):
        for owner in ("hyper.entropy_bottleneck", "y.latent_codec.y0.y.gaussian_conditional"):
            model = copy.deepcopy(sound)
            model.compress(x)
            part = model.latent_codec.get_submodule(owner)
            part.load_state_dict(part.state_dict() | {table: torch.full_like(getattr(part, table), value)})
            for code in (lambda: model.compress(x), lambda: model.decompress([[b""]] * 5, (64, 64))):
                try:
                    code()
                except TableError as error:
                    print(table, value, error)
                except LatentError:
                    pass
"""


def test_what_the_coder_cannot_bear_does_not_reach_it(child, tiny_model, tmp_path):
    tiny_model.save(tmp_path / "model.safetensors")
    lines = child(UNSOUND, tmp_path / "model.safetensors")
    assert (
        sum(re.search(r"Expected values of [yz] below 8388608 \(got ", line) is not None for line in lines)
        == 20
    )
    # Offsets of 0 are sound.
    assert sum(line.startswith("_") and " Expected " in line for line in lines[20:]) == (3 * 4 - 1) * 2 * 2


def test_weights_that_make_no_picture_are_told(tiny_model, photo):
    model = copy.deepcopy(tiny_model)
    with torch.no_grad():
        model.g_s.shortcuts[2].log_scale.fill_(-6e4)  # finite, but not what it stands for
    x = photo(40, 56)
    y_hat = model.analyse(x).round()
    message = r"^Expected weights that make a picture of these latents \(got NaN or infinity\)$"
    for dtype in (torch.float32, torch.uint8):
        with pytest.raises(ModelError, match=message):
            model.synthesise(y_hat, (40, 56), dtype=dtype)


def test_wrong_number_of_strings(tiny_model):
    with pytest.raises(LatentError, match=r"Expected 5 strings of one picture \(got 2\)"):
        tiny_model.decompress([[b"1234"], [b"1234"]], (64, 64))
    with pytest.raises(LatentError, match=r"Expected 5 strings of one picture \(got 5 of another number of"):
        tiny_model.decompress([[b"1234", b"1234"]] * 5, (64, 64))


@pytest.mark.parametrize("shape", [(0, 0), (5, 0), (-1, 5)])
def test_strings_of_no_picture(tiny_model, photo, shape):
    strings = tiny_model.compress(photo(8, 8))["strings"]
    with pytest.raises(LatentError, match=rf"with pixels \(got one of {shape[1]} x {shape[0]}\)$"):
        tiny_model.decompress(strings, shape)


def test_strings_of_anything_are_decoded_to_something_or_refused(tiny_model):
    rng = random.Random(0)
    for _ in range(5):
        strings = [
            [rng.randbytes(length)] for length in (320, 320, 832, 832, 128)
        ]  # the longest there may be
        assert tiny_model.decompress(strings, (64, 64))["x_hat"].shape == (1, 3, 64, 64)
    for length in (0, 1, 7, 8):
        with pytest.raises(
            LatentError, match=rf"Expected a string of \d+ symbols \(got {length} bytes\): cut"
        ):
            tiny_model.decompress([[b"\xff" * length]] * 5, (64, 64))


def test_tables_are_required(tiny_config):
    model = GLIC(tiny_config)
    message = r"Expected a model with probability tables \(got one without\); call update\(\) first"
    with pytest.raises(ValueError, match=message):
        model.compress(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=message):
        model.decompress([[b""]] * 5, (64, 64))


@torch.no_grad()
def test_integers_follow_weights_and_tables(tiny_config, other_tiny_model, photo):
    torch.manual_seed(0)
    model = GLIC(tiny_config).eval()
    model.update()
    before = model.compress(photo(64, 64))["y_hat"]
    model.load_state_dict(other_tiny_model.state_dict())
    expected = other_tiny_model.compress(photo(64, 64))
    assert model.compress(photo(64, 64))["strings"] == expected["strings"]
    for weight in model.latent_codec.hyper.h_s.parameters():
        weight.mul_(2)
    model.update(force=True)
    changed = model.compress(photo(64, 64))["y_hat"]
    assert not torch.equal(changed, expected["y_hat"])
    assert not torch.equal(changed, before)


@torch.no_grad()
@pytest.mark.parametrize(
    "part", ["latent_codec", "latent_codec.hyper", "latent_codec.hyper.h_s", "latent_codec.y"]
)
@pytest.mark.parametrize("way", ["load", "assign", "copy", "replace", "optimise"])
def test_integers_follow_any_part(tiny_model, other_tiny_model, photo, part, way):
    """As a model does that was never used before, and the decoder of another process."""
    model, fresh = copy.deepcopy(tiny_model), copy.deepcopy(tiny_model)
    x = photo(64, 64)
    before = model.compress(x)
    for changed in (model, fresh):
        module, source = changed.get_submodule(part), copy.deepcopy(other_tiny_model.get_submodule(part))
        if way == "replace":
            owner, _, name = part.rpartition(".")
            setattr(changed.get_submodule(owner), name, source)
        elif way == "copy":
            for mine, other in zip(module.parameters(), source.parameters(), strict=True):
                mine.copy_(other)
        elif way == "optimise":
            for mine, other in zip(module.parameters(), source.parameters(), strict=True):
                mine.grad = mine - other
            torch.optim.SGD(module.parameters(), lr=1.0).step()
        else:
            module.load_state_dict(source.state_dict(), assign=way == "assign")
    after = model.compress(x)
    assert after["strings"] != before["strings"]
    assert after["strings"] == fresh.compress(x)["strings"]
    assert torch.equal(model.decompress(after["strings"], (64, 64))["y_hat"], after["y_hat"])


def test_integers_are_made_once(tiny_model, photo):
    model = copy.deepcopy(tiny_model)
    model.compress(photo(64, 64))
    nets = model.probability_nets()
    model(photo(64, 64))
    coded = model.compress(photo(8, 8))
    model.decompress(coded["strings"], coded["shape"])
    assert model.probability_nets() is nets


def test_integers_are_no_part_of_a_checkpoint(tiny_model, photo):
    names = set(tiny_model.state_dict())
    tiny_model.compress(photo(64, 64))
    assert set(tiny_model.state_dict()) == names
    assert names == {name for name in names if name.split(".")[0] in ("g_a", "latent_codec", "g_s")}


def test_from_pretrained_is_ready(tiny_model, photo, tmp_path):
    tiny_model.save(tmp_path / "model.safetensors")
    model = GLIC.from_pretrained(tmp_path / "model.safetensors")
    assert not model.training
    assert model.config == tiny_model.config
    assert model.compress(photo(64, 64))["strings"] == tiny_model.compress(photo(64, 64))["strings"]


def test_from_pretrained_names_the_first_difference(tiny_model, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    state = tiny_model.state_dict()
    monkeypatch.setattr(
        tiny_model, "state_dict", lambda: {k: v for k, v in state.items() if k != "g_s.up.0.0.bias"}
    )
    tiny_model.save(path)
    with pytest.raises(checkpoint.CheckpointError, match=r"Expected g_s\.up\.0\.0\.bias in .* \(got none\)"):
        GLIC.from_pretrained(path)

import io

import pytest
import torch
from PIL import Image

from glic_pyg import refinement
from glic_pyg.errors import PackageError
from glic_pyg.evaluation import codecs
from glic_pyg.evaluation.codecs import RIVALS, CompressaiCodec, GlicCodec, Options, PillowCodec, load_codec
from glic_pyg.evaluation.compressai_models import build_compressai
from glic_pyg.image import crop, pad
from glic_pyg.metrics import psnr


@pytest.mark.parametrize("name", list(RIVALS))
def test_rivals_files_grow_with_quality_and_come_nearer(photo, name):
    if name == "jpegxl":
        pytest.importorskip("pillow_jxl")
    codec = load_codec(name)
    x = photo(96, 128)
    ends = [codec.qualities[0], codec.qualities[-1]]
    low, high = (codec.encode(x, quality) for quality in ends)
    assert len(low) < len(high)
    assert psnr(x, codec.decode(low)) < psnr(x, codec.decode(high))
    with Image.open(io.BytesIO(high)) as image:
        assert image.format == codec.format


def test_jpeg_is_pillows_with_halved_colours(photo):
    codec = PillowCodec("jpeg")
    with Image.open(io.BytesIO(codec.encode(photo(64, 64), 50))) as image:
        assert [(h, v) for _, h, v, _ in image.layer] == [(2, 2), (1, 1), (1, 1)]


def test_jpeg2000_transforms_colours_and_takes_the_wavelet_for_lossy_files(photo):
    data = PillowCodec("jpeg2000").encode(photo(64, 64), 30)
    coding_style = data[data.index(b"\xff\x52") :]  # ISO 15444-1, A.6.1
    assert coding_style[8] == 1  # multiple component transformation
    assert coding_style[13] == 0  # 9-7 irreversible


def test_the_file_nearest_in_size_to_another(photo):
    codec = PillowCodec("jpeg")
    x = photo(40, 56)
    sizes = [len(codec.encode(x, quality)) for quality in codec.fine]
    assert sizes == sorted(sizes)  # else halving the range need not find it
    for wanted in (1, 700, 1000, 10**6):
        found = abs(len(codec.encode_to_size(x, wanted)) - wanted)
        assert found <= max(min(abs(size - wanted) for size in sizes), codecs.CLOSE * wanted)


def test_a_model_makes_a_file_of_a_wanted_size_or_the_nearest_end(
    variable_model, model_file, photo, tmp_path
):
    variable_model.save(tmp_path / "variable.safetensors")
    x = photo(128, 128)
    codec = GlicCodec(tmp_path / "variable.safetensors")
    least, most = (len(codec.encode(x, quality)) for quality in (1, 4))
    wanted = (least + most) // 2
    assert abs(len(codec.encode_to_size(x, wanted)) - wanted) < 0.1 * wanted
    assert len(codec.encode_to_size(x, least // 2)) == least
    assert len(codec.encode_to_size(x, 2 * most)) == most
    only = GlicCodec(model_file)
    assert only.encode_to_size(x, 1) == only.encode(x, None)


@pytest.mark.parametrize(("effort", "steps"), [(0, 0), (1, 1), (4, 1)])
def test_a_model_refines_before_it_is_timed(variable_model, tmp_path, monkeypatch, effort, steps):
    """Though the black picture that it codes has no lambda of its own."""
    variable_model.save(tmp_path / "variable.safetensors")
    monkeypatch.setattr(refinement, "trade", lambda *_, **__: None)
    done, latents = [], refinement.dithered_latents
    monkeypatch.setattr(
        refinement, "dithered_latents", lambda *args, **how: done.append(1) or latents(*args, **how)
    )
    GlicCodec(tmp_path / "variable.safetensors", Options(effort=effort)).warm()
    assert len(done) == steps


def test_a_rival_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(codecs.features, "check", lambda _: False)
    with pytest.raises(PackageError, match=r"Expected a Pillow with avif \(got .* without\)"):
        load_codec("avif")


def test_a_model_of_compressai(photo, monkeypatch):
    monkeypatch.setattr(codecs, "load_compressai", lambda name, quality, device: model)
    torch.manual_seed(0)
    model = build_compressai("bmshj2018-factorized")
    model.g_a[-1].weight.mul_(50)  # else y rounds to zeros
    codec = CompressaiCodec("bmshj2018-factorized")
    x = photo(70, 90)
    data, other = codec.encode(x, 1), codec.encode(1 - x, 1)
    coded = model.compress(pad(x, 64))
    assert codec.payload(data) == len(coded["strings"][0][0])
    assert len(data) == codec.payload(data) + 15
    restored = crop(model.decompress(coded["strings"], coded["shape"])["x_hat"], 70, 90).clamp(0, 1)
    assert torch.equal(codec.decode(data), restored)  # not what was coded last
    assert not torch.equal(codec.decode(other), restored)
    assert codec.estimate(x, 1) == pytest.approx(8 * codec.payload(data), rel=0.2)


def test_a_model_of_compressai_with_two_strings(photo, monkeypatch):
    """Another codec of the same weights decodes the file."""
    monkeypatch.setattr(codecs, "load_compressai", lambda name, quality, device: models[quality])
    models = {}
    for quality in (1, 2):
        torch.manual_seed(quality)
        models[quality] = build_compressai("bmshj2018-hyperprior")
    x = photo(70, 90)
    data = CompressaiCodec("bmshj2018-hyperprior").encode(x, 2)
    coded = models[2].compress(pad(x, 64))
    assert CompressaiCodec("bmshj2018-hyperprior").payload(data) == sum(len(s) for (s,) in coded["strings"])
    x_hat = models[2].decompress(coded["strings"], coded["shape"])["x_hat"]
    assert torch.equal(CompressaiCodec("bmshj2018-hyperprior").decode(data), crop(x_hat, 70, 90).clamp(0, 1))

import io

import pytest
import torch
from PIL import Image

from glic_pyg.config import ConfigError
from glic_pyg.evaluation import codecs
from glic_pyg.evaluation.codecs import RIVALS, CompressaiCodec, PillowCodec, load_codec
from glic_pyg.evaluation.compressai_models import build_compressai
from glic_pyg.evaluation.metrics import psnr


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


def test_a_rival_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(codecs.features, "check", lambda _: False)
    with pytest.raises(ConfigError, match=r"Expected a Pillow with avif \(got .* without\)"):
        load_codec("avif")


def test_a_model_of_compressai(photo, monkeypatch):
    monkeypatch.setattr(codecs, "load_compressai", lambda name, quality: model)
    torch.manual_seed(0)
    model = build_compressai("bmshj2018-factorized")
    codec = CompressaiCodec("bmshj2018-factorized")
    x = photo(70, 90)
    data = codec.encode(x, 1)
    assert len(data) == codec.payload(data) > 0
    assert codec.decode(data).shape == x.shape
    assert codec.estimate(x, 1) == pytest.approx(8 * len(data), rel=0.2)

import io

import numpy as np
import pytest
import torch
from PIL import Image

from glic_pyg import bitstream
from glic_pyg.bulk import Decoder, Encoder, Evaluator
from glic_pyg.errors import UsageError
from glic_pyg.image import png_bytes, read_image, to_8bit
from glic_pyg.metrics import psnr

MORE = {"height", "width", "bpp", "psnr", "seconds", "notes", "error"}


@pytest.fixture
def batch(photo):
    """Two pictures with a broken one between them, as an engine hands them out."""
    data = [png_bytes(photo(64, 48)), b"no picture", png_bytes(photo(32, 80))]
    return {
        "path": np.array(["a.png", "b.png", "c.png"], object),
        "bytes": np.array(data, object),
        "id": [7, 8, 9],
    }


def test_there_and_back_by_batches(tiny_model, batch):
    coded = Encoder(tiny_model)(batch)
    assert coded.keys() == batch.keys() | MORE
    assert list(coded["id"]) == [7, 8, 9]
    expected = [bitstream.encode(tiny_model, read_image(io.BytesIO(batch["bytes"][i]))) for i in (0, 2)]
    assert list(coded["bytes"]) == [expected[0], b"", expected[1]]
    assert coded["bpp"][2] == pytest.approx(8 * len(expected[1]) / (32 * 80))
    assert np.isnan(coded["bpp"][1])
    assert list(coded["error"][[0, 2]]) == ["", ""]
    assert coded["error"][1].startswith("Expected a picture (got b.png: ")

    restored = Decoder(tiny_model)({name: list(column) for name, column in coded.items()})
    for i in (0, 2):
        x_hat = bitstream.decode(tiny_model, coded["bytes"][i])
        assert (to_8bit(read_image(io.BytesIO(restored["bytes"][i]))) == to_8bit(x_hat)).all()
    assert (restored["height"][2], restored["width"][2]) == (32, 80)
    assert restored["error"][1].startswith("Expected a .glic file ")


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_want_of_memory_is_a_pictures_error(tiny_model, batch, monkeypatch, error):
    encode, small = bitstream.encode, (32, 80)

    def encode_small(model, x, *arguments, **options):
        if x.shape[-2:] != small:
            raise error
        return encode(model, x, *arguments, **options)

    monkeypatch.setattr(bitstream, "encode", encode_small)
    coded = Encoder(tiny_model)(batch)
    assert coded["error"][0] == "Expected enough memory for a.png (got no more)"
    assert (coded["error"][2], bool(coded["bytes"][2])) == ("", True)


def test_figures_are_of_the_restored_picture(tiny_model, batch):
    row = Evaluator(tiny_model).row("a.png", batch["bytes"][0])
    x = read_image(io.BytesIO(batch["bytes"][0]))
    data = bitstream.encode(tiny_model, x)
    assert row["bytes"] == data
    assert row["psnr"] == pytest.approx(psnr(x, bitstream.decode(tiny_model, data)))
    assert row["seconds"] > 0


def test_what_is_lost_is_noted(tiny_model):
    file = io.BytesIO()
    Image.fromarray(np.uint16([[1, 65535]])).save(file, "png")
    assert Encoder(tiny_model).row("a.png", file.getvalue())["notes"].startswith("has more than 8 bits")


def test_a_file_that_is_too_large_is_a_row(tiny_model, batch):
    row = Encoder(tiny_model, max_pixels=4).row("a.png", batch["bytes"][0])
    assert row["error"].startswith("Expected at most 4 pixels (got a.png: ")


def test_aims_exclude_each_other(tiny_model):
    with pytest.raises(UsageError, match="Expected one of quality, target_bpp and target_psnr"):
        Encoder(tiny_model, quality=3, target_psnr=30)


def test_a_file_of_too_many_bytes_is_a_row(tiny_model):
    encoder = Encoder(tiny_model, max_pixels=4)
    row = encoder.row("a.png", bytes(encoder.most_bytes(b"") + 1))
    assert row["error"].startswith("Expected a file of at most ")

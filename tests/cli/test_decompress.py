import io

import numpy as np
import pytest
from PIL import Image

from glic_pyg import bitstream
from glic_pyg.chunks import add_chunks, chunks_of
from glic_pyg.image import to_pil
from glic_pyg.picture import Picture


@pytest.fixture
def coded(tiny_model, photo, tmp_path):
    path = tmp_path / "a.glic"
    path.write_bytes(bitstream.encode(tiny_model, photo(20, 30)))
    return path


def refuse(glic, *arguments):
    status, out, err = glic("decompress", *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    return err


def test_bad_files_give_one_line_and_no_picture(glic, model_file, other_tiny_model, coded, tmp_path):
    target = tmp_path / "a.png"
    data = coded.read_bytes()
    arguments = (coded, "-o", target, "--model", model_file)

    other = tmp_path / "other.safetensors"
    other_tiny_model.save(other)
    err = refuse(glic, coded, "-o", target, "--model", other)
    assert err.startswith(f"error: {coded}: Expected a file of this model")

    coded.write_bytes(data[:50])
    assert "damaged or cut short" in refuse(glic, *arguments)
    coded.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    assert "damaged or cut short" in refuse(glic, *arguments)
    coded.unlink()
    assert refuse(glic, *arguments) == f"error: No such file or directory: {coded}\n"
    assert not target.exists()


@pytest.mark.parametrize(
    ("output", "words", "format"),
    [
        ("a.PNG", [], "PNG"),
        ("a.jpg", [], "JPEG"),
        ("a.webp", [], "WEBP"),
        ("a.png", ["--format", "jpeg"], "JPEG"),
        ("a", ["--format", "TIFF"], "TIFF"),
        ("a", ["--format", "jpg"], "JPEG"),
        ("folder/", [], "PNG"),
        ("folder/", ["--format", "bmp"], "BMP"),
    ],
)
def test_formats(glic, tiny_model, model_file, coded, tmp_path, output, words, format):
    status, _, err = glic("decompress", coded, "-o", f"{tmp_path}/{output}", "--model", model_file, *words)
    assert (status, err) == (0, "")
    name = output if output != "folder/" else f"folder/a.{format.lower()}"
    with Image.open(tmp_path / name) as image:
        assert (image.format, image.mode, image.size) == (format, "RGB", (30, 20))
        expected = io.BytesIO()
        to_pil(bitstream.decode(tiny_model, coded.read_bytes())).save(expected, format, quality=95)
        assert np.array_equal(np.array(image), np.array(Image.open(expected)))


def test_a_folder_in_another_format(glic, model_file, coded, tmp_path):
    (tmp_path / "in").mkdir()
    coded.rename(tmp_path / "in" / "a.b.glic")
    arguments = (tmp_path / "in", "-o", tmp_path / "out.png", "--model", model_file, "--format", "webp")
    assert glic("decompress", *arguments)[0] == 0
    assert (tmp_path / "out.png" / "a.b.webp").read_bytes()[8:12] == b"WEBP"
    assert glic("decompress", *arguments)[1] == "1 of 1 files were done already\n"


@pytest.mark.parametrize("output", ["a", "a.glic", "a.txt", "a.psd"])
def test_formats_that_are_not_written(glic, model_file, coded, tmp_path, output):
    err = refuse(glic, coded, "-o", tmp_path / output, "--model", model_file)
    assert err.startswith("error: Expected an output name that ends in .png, or as another format that")
    assert err.endswith(f"or --format (got {tmp_path / output})\n")
    err = refuse(glic, coded, "-o", tmp_path / "a.png", "--model", model_file, "--format", "psd")
    assert err.startswith("error: Expected a format that Pillow writes, one of ")
    assert err.endswith(" (got psd)\n")


def test_a_format_that_holds_no_such_picture(glic, model_file, coded, tmp_path):
    err = refuse(glic, coded, "-o", tmp_path / "a.xbm", "--model", model_file)
    assert err.startswith("error: Expected a format for RGB pictures of this size (got XBM: ")


@pytest.mark.filterwarnings("default")
def test_transparency_is_composited_where_the_format_has_none(glic, model_file, coded, tmp_path):
    image = Image.new("L", (30, 20), 0)
    image.paste(255, (15, 0, 30, 20))
    chunks = chunks_of(Picture(np.zeros((20, 30, 3), np.uint8), np.array(image)))
    coded.write_bytes(add_chunks(coded.read_bytes(), 4, chunks))
    for name, format in (("a.jpg", "JPEG"), ("a.ppm", "PPM")):
        status, _, err = glic("decompress", coded, "-o", tmp_path / name, "--model", model_file)
        told = f"{format} holds no transparency: composited over white"
        assert (status, err) == (0, f"warning: {coded}: {told}\n")
        with Image.open(tmp_path / name) as written:
            assert np.array(written)[:, :8].min() > 245
            assert np.array(written)[:, 23:].mean() < 230

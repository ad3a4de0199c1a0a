"""The plugin beside Pillow's own: what JPEG's and PNG's do, it does."""

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, UnidentifiedImageError

from glic_pyg import bitstream
from glic_pyg.chunks import add_chunks
from glic_pyg.codec import QualityError
from glic_pyg.container import unpack
from glic_pyg.image import to_8bit

PIXELS = np.asarray(Image.effect_noise((40, 30), 60).convert("RGB"))


@pytest.fixture
def plugin(tiny_model, other_tiny_model, monkeypatch):
    """The plugin with two models for the time of a test."""
    import glic_pyg.pillow as plugin

    monkeypatch.setattr(plugin, "_models", [])
    plugin.register(tiny_model, other_tiny_model)
    return plugin


def in_memory(path):
    return Image.open(io.BytesIO(path.read_bytes()))


@pytest.fixture
def saved(plugin, tmp_path):
    """A picture saved: picture, settings -> path."""

    def save(image=None, **settings):
        path = tmp_path / "a.glic"
        (Image.fromarray(PIXELS) if image is None else image).save(path, **settings)
        return path

    return save


def with_alpha(mode):
    image = Image.fromarray(PIXELS).convert(mode[:-1])
    image.putalpha(Image.linear_gradient("L").resize(image.size).point(lambda value: max(value, 1)))
    return image


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_there_and_back(saved, tiny_model, mode):
    image = with_alpha(mode) if mode.endswith("A") else Image.fromarray(PIXELS).convert(mode)
    path = saved(image)
    x = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
    plain = bitstream.encode(tiny_model, x)
    assert unpack(path.read_bytes()).strings == unpack(plain).strings
    expected = Image.fromarray(to_8bit(bitstream.decode(tiny_model, plain))[0].permute(1, 2, 0).numpy())
    expected = expected.convert(mode.removesuffix("A"))
    if mode.endswith("A"):
        expected.putalpha(image.getchannel("A"))
    with Image.open(path) as back:
        assert (back.format, back.mode, back.size, back.get_format_mimetype()) == (
            "GLIC", mode, (40, 30), "image/x-glic"
        )  # fmt: skip
        assert np.array_equal(back, expected)
    with Image.open(path) as back:
        assert np.array_equal(back.convert("CMYK"), expected.convert("CMYK"))
        assert pickle.loads(pickle.dumps(back)).size == (40, 30)


def test_settings_are_those_of_the_encoder(plugin, saved, variable_model):
    plugin.register(variable_model)
    path = saved(quality=3.5)
    assert unpack(path.read_bytes()).quality == 3.5 * 256
    with pytest.raises(QualityError, match=r"Expected a quality in 1\.\.4 \(got 95\)"):
        saved(quality=95)
    before = path.read_bytes()
    assert saved(quality=1.5, optimize=True).read_bytes() != before  # others' settings do not matter


def test_any_open_file_and_any_name(plugin, tmp_path):
    image, file = Image.fromarray(PIXELS), io.BytesIO()
    image.save(file, "GLIC")
    image.save(tmp_path / "a.GLIC")
    assert file.getvalue() == (tmp_path / "a.GLIC").read_bytes()
    (tmp_path / "a").write_bytes(file.getvalue())
    with open(tmp_path / "a", "rb") as opened, Image.open(opened) as back:
        back.load()
        assert not opened.closed
    with Image.open(tmp_path / "a", formats=["GLIC"]) as back:
        assert back.size == (40, 30)
    assert Image.registered_extensions()[".glic"] == "GLIC"


def test_pixels_are_decoded_when_they_are_needed(plugin, saved, monkeypatch):
    path, decoded = saved(), []
    decode = bitstream.decode
    monkeypatch.setattr(bitstream, "decode", lambda *a, **k: decoded.append(1) or decode(*a, **k))
    with Image.open(path) as image:
        assert image.draft("L", (8, 8)) is None
        assert image.tell() == 0
        image.seek(0)
        with pytest.raises(EOFError):
            image.seek(1)
        assert not decoded
        assert image.fp is not None
        image.load()
        assert image.fp is None  # closed, as Pillow's own do
        image.load()
        assert len(decoded) == 1
    image = Image.open(path)
    image.thumbnail((10, 10))
    assert image.size == (10, 8)
    image = Image.open(path)
    image.close()
    with pytest.raises(ValueError, match="closed image"):
        image.load()


def test_size_and_mode_are_there_without_torch(saved, child):
    exif = Image.Exif()
    exif[0x010F] = "me"
    path = saved(with_alpha("LA"), exif=exif)
    program = """
import sys
from PIL import Image
import glic_pyg.pillow
image = Image.open(sys.argv[1])
print(image.mode, image.size, image.getexif()[0x010F], "torch" in sys.modules, "numpy" in sys.modules)
image.verify()
print("torch" in sys.modules)
"""
    assert child(program, path) == ["LA (40, 30) me False False", "False"]


def test_truncated_files_are_what_truncated_png_files_are(saved, tmp_path):
    data = saved().read_bytes()
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    png = (tmp_path / "a.png").read_bytes()
    for whole, lengths in ((png, (len(png) // 2, 60)), (data, (len(data) - 1, len(data) // 2, 30))):
        for length in lengths:
            image = Image.open(io.BytesIO(whole[:length]))
            assert (image.size, image.mode) == ((40, 30), "RGB")
            with pytest.raises(OSError):
                image.load()
            with pytest.raises(OSError):
                image.load()
    for whole in (png, data):
        for length in (0, 3, 12):
            with pytest.raises(UnidentifiedImageError):
                Image.open(io.BytesIO(whole[:length]))


def test_damage_is_noticed_by_verify_and_load(saved, monkeypatch):
    data = bytearray(saved().read_bytes())
    with Image.open(io.BytesIO(data)) as image:
        image.verify()
        assert image.fp is None
    data[-20] ^= 1
    with Image.open(io.BytesIO(data)) as image, pytest.raises(OSError, match="Expected checksum"):
        image.verify()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # half a picture there is not
    with Image.open(io.BytesIO(data)) as image, pytest.raises(OSError, match="Expected checksum"):
        image.load()


@pytest.mark.parametrize("data", [b"GLIF" + bytes(60), b"GLIC\x00" + bytes(60), b"\xff\xd8" + bytes(60), b""])
def test_foreign_files_are_not_identified(plugin, data):
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(data))


def test_later_formats_are_told(plugin):
    expected = r"Expected a \.glic file of format 1\.\.4 \(got 9: a newer glic_pyg's\)"
    with pytest.warns(UserWarning, match=expected), pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"GLIC\x09" + bytes(60)))


def test_files_of_other_models(plugin, saved, tiny_model, other_tiny_model):
    path = saved()
    plugin.register(other_tiny_model)
    with Image.open(path) as image:
        assert image.size == (40, 30)
        expected = "Expected a file of a model that glic_pyg.pillow.register was given"
        with pytest.raises(OSError, match=expected):
            image.load()
    plugin.register(other_tiny_model, tiny_model)
    in_memory(path).load()


def test_the_shipped_model_needs_no_registering(plugin, tmp_path, monkeypatch):
    from glic_pyg import GLIC

    model = GLIC.from_pretrained("glic_nano")
    x = torch.from_numpy(PIXELS.copy()).permute(2, 0, 1)[None]
    (tmp_path / "a.glic").write_bytes(data := bitstream.encode(model, x))
    expected = to_8bit(bitstream.decode(model, data))[0].permute(1, 2, 0)
    assert np.array_equal(Image.open(tmp_path / "a.glic"), expected)


def test_metadata_travel_or_what_is_given_or_none(saved):
    ours, theirs = Image.Exif(), Image.Exif()
    ours[0x010F], theirs[0x010F] = "ours", "theirs"
    image = Image.fromarray(PIXELS)
    image.info = {"exif": theirs.tobytes(), "xmp": b"<theirs>"}
    back = in_memory(saved(image))
    assert back.getexif()[0x010F] == "theirs"
    assert back.info["xmp"] == b"<theirs>"
    back = in_memory(saved(image, exif=ours, xmp=b"<ours>"))
    assert (back.getexif()[0x010F], back.info["xmp"]) == ("ours", b"<ours>")
    back = in_memory(saved(image, exif=b"", xmp=None))
    assert back.info == {}
    assert image.info == {"exif": theirs.tobytes(), "xmp": b"<theirs>"}


def test_orientation_is_applied(saved):
    exif = Image.Exif()
    exif[0x0112] = 6
    back = in_memory(saved(exif=exif))
    assert (back.size, dict(back.getexif())) == ((30, 40), {})


def test_other_modes(saved):
    for mode, expected in {"P": "RGB", "1": "L", "CMYK": "RGB", "HSV": "RGB", "RGBa": "RGBA"}.items():
        image = with_alpha("RGBA") if mode == "RGBa" else Image.fromarray(PIXELS)
        assert in_memory(saved(image.convert(mode))).mode == expected
    with pytest.warns(UserWarning, match=r"a\.glic has more than 8 bits per channel: comes back with 8"):
        assert in_memory(saved(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257))).mode == "L"


def test_a_file_that_cannot_be_saved_is_not_there(saved, tmp_path):
    with pytest.raises(ValueError, match="Expected"):
        saved(quality=3)  # of a model of one quality
    assert not (tmp_path / "a.glic").exists()
    with pytest.raises(ValueError, match=r"Expected grey values in 0..1 .got picture: -1.0..300.0."):
        Image.fromarray(np.float32([[-1, 300]])).save(tmp_path / "a.glic")


def test_alpha_that_is_broken(plugin, saved):
    data = saved().read_bytes()
    broken = add_chunks(data, 4, {"ALPH": b"no PNG"})
    image = Image.open(io.BytesIO(broken))
    assert image.mode == "RGBA"
    with pytest.raises(OSError, match="Expected alpha as a PNG file of 40 x 30 grey pixels"):
        image.load()


def test_imageio(saved):
    iio = pytest.importorskip("imageio.v3")
    path = saved()
    expected = np.asarray(in_memory(path))
    assert np.array_equal(iio.imread(path), expected)
    assert np.array_equal(iio.imread(path, plugin="pillow"), expected)
    assert iio.improps(path, plugin="pillow").shape == (30, 40, 3)


def test_torchvisions_folders(saved, tmp_path):
    from torchvision.datasets import DatasetFolder
    from torchvision.datasets.folder import default_loader

    path = saved()
    (tmp_path / "cats").mkdir()
    path.rename(tmp_path / "cats" / "a.glic")
    data = DatasetFolder(tmp_path, default_loader, extensions=(".glic",))
    image, label = data[0]
    assert (image.mode, image.size, label, data.classes) == ("RGB", (40, 30), 0, ["cats"])

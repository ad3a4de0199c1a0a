import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from glic_pyg import image as images
from glic_pyg.image import (
    ImageError,
    crop,
    pad,
    picture_size,
    picture_suffixes,
    read_image,
    read_pixels,
    to_8bit,
    to_float,
    write_png,
)

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4


def saved(tmp_path, image, name="a.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def as_tensor(pixels):
    """H x W x 3 in 0..255 -> 1 x 3 x H x W in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None] / 255


def test_rgb_is_read_exactly(tmp_path):
    x = read_image(saved(tmp_path, Image.fromarray(RGB)))
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, as_tensor(RGB), rtol=0, atol=0)


def test_pictures_of_8_bits_stay_so_until_they_are_floats(tmp_path):
    path = saved(tmp_path, Image.fromarray(RGB))
    pixels = read_pixels(path)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (1, 3, 4, 5))
    assert torch.equal(to_float(pixels), read_image(path))
    assert torch.equal(to_8bit(pixels), pixels)
    assert torch.equal(to_float(read_image(path)), read_image(path))
    assert read_pixels(saved(tmp_path, Image.fromarray(np.uint16([[7]])), "b.png")).dtype == torch.float32


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
@pytest.mark.filterwarnings("ignore:.* has transparent parts")
def test_bands_are_joined_without_a_seam(tmp_path, monkeypatch, mode):
    image = Image.effect_noise((7, 50), 80).convert("RGB").convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    whole = read_image(saved(tmp_path, image))
    monkeypatch.setattr(images, "PIXELS_AT_ONCE", 7 * 3)
    assert torch.equal(read_image(tmp_path / "a.png"), whole)


def test_size_is_read_from_the_head(tmp_path):
    path = saved(tmp_path, Image.new("L", (64, 65)))
    path.write_bytes(path.read_bytes()[:60])
    assert picture_size(path) == (65, 64)
    path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"Expected a picture \(got .*a\.png: cannot identify"):
        picture_size(path)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(tmp_path, mode):
    image = Image.fromarray(RGB).convert(mode)
    x = read_image(saved(tmp_path, image, "a.tiff"))
    torch.testing.assert_close(x, as_tensor(image.convert("RGB")), rtol=0, atol=0)


def test_16_bit_grey_keeps_its_precision(tmp_path):
    values = np.array([[0, 1, 256, 65535]], dtype=np.uint16)
    x = read_image(saved(tmp_path, Image.fromarray(values)))
    expected = torch.tensor([[[0, 1, 256, 65535]] * 3]) / 65535
    torch.testing.assert_close(x, expected[:, :, None])


def test_float_grey_is_in_0_to_1(tmp_path):
    values = np.array([[0, 0.25, 1]], dtype=np.float32)
    x = read_image(saved(tmp_path, Image.fromarray(values), "a.tiff"))
    torch.testing.assert_close(x[0, :, 0], torch.tensor([[0, 0.25, 1]] * 3))
    too_bright = saved(tmp_path, Image.fromarray(values * 255), "b.tiff")
    with pytest.raises(ImageError, match=r"Expected grey values in 0\.\.1 \(got .*b\.tiff: 0\.0\.\.255\.0\)"):
        read_image(too_bright)


def test_alpha_is_composited_over_white_with_a_warning(tmp_path):
    pixels = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], dtype=np.uint8)
    with pytest.warns(UserWarning, match=r"a\.png has transparent parts: composited over white"):
        x = read_image(saved(tmp_path, Image.fromarray(pixels)))
    expected = as_tensor([[[200, 100, 0], [255, 255, 255], [244, 224, 204]]])
    torch.testing.assert_close(x, expected, rtol=0, atol=1 / 255)


def test_transparent_palette_colour_is_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    with pytest.warns(UserWarning, match="composited over white"):
        x = read_image(saved(tmp_path, image, "a.gif", transparency=1))
    torch.testing.assert_close(x, as_tensor([[[10, 20, 30], [255, 255, 255]]]))


def test_opaque_alpha_needs_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = read_image(saved(tmp_path, Image.fromarray(RGB).convert("RGBA")))
    torch.testing.assert_close(x, as_tensor(RGB))


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    x = read_image(saved(tmp_path, Image.fromarray(RGB), exif=exif))
    torch.testing.assert_close(x, as_tensor(np.rot90(RGB, -1).copy()))


def test_too_large_a_picture_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("L", (64, 65)).save(tmp_path / "large.png")
    assert read_image(tmp_path / "large.png", max_pixels=64 * 65).shape == (1, 3, 65, 64)
    data = (tmp_path / "large.png").read_bytes()
    (tmp_path / "large.png").write_bytes(data[: data.index(b"IDAT") + 8])  # little but the header
    with pytest.raises(ImageError, match=r"Expected at most 4159 pixels \(got .*large\.png: 64 x 65\)"):
        read_image(tmp_path / "large.png", max_pixels=64 * 65 - 1)
    Image.new("L", (2**16, 1)).save(tmp_path / "long.png")
    with pytest.raises(ImageError, match=r"Expected sides of at most 65535 pixels \(got .*long.png: 65536 x"):
        read_image(tmp_path / "long.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(ImageError, match=r"Expected a picture \(got .*large\.png: .* exceeds limit of 4000"):
        read_image(tmp_path / "large.png")


def test_unreadable_files_give_one_line(tmp_path):
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, "JPEG")
    (tmp_path / "short.jpg").write_bytes(whole.getvalue()[:900])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    for name, reason in {
        "short.jpg": "truncated",
        "text.png": "cannot identify image file",
        "empty.png": "cannot identify image file",
        "missing.png": "No such file or directory",
    }.items():
        with pytest.raises(ImageError, match=rf"Expected a picture \(got .*{name}: .*{reason}") as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_png_round_trip_rounds_and_clamps(tmp_path):
    x = torch.tensor([-0.2, 0.4 / 255, 0.6 / 255, 1.3]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    write_png(x, tmp_path / "a.png")
    assert to_8bit(x)[0, 0].flatten().tolist() == [0, 0, 1, 255]
    torch.testing.assert_close(read_image(tmp_path / "a.png"), to_8bit(x) / 255)
    with Image.open(tmp_path / "a.png") as image:
        assert (image.format, image.mode) == ("PNG", "RGB")


def test_write_png_takes_one_picture(tmp_path):
    with pytest.raises(ValueError, match=r"Expected a picture of shape 1 x 3 x H x W \(got \(2, 3, 4, 4\)\)"):
        write_png(torch.zeros(2, 3, 4, 4), tmp_path / "a.png")


@pytest.mark.parametrize("size", [(1, 1), (8, 3), (64, 128), (65, 63)])
def test_pad_replicates_and_crop_undoes(size):
    x = torch.rand(1, 3, *size)
    padded = pad(x, 64)
    height, width = size
    assert padded.shape[-2:] == (-(-height // 64) * 64, -(-width // 64) * 64)
    assert torch.equal(crop(padded, height, width), x)
    assert torch.equal(
        padded[..., height - 1 :, :width], x[..., -1:, :].expand_as(padded[..., height - 1 :, :width])
    )
    assert torch.equal(
        padded[..., width - 1 :], padded[..., width - 1 : width].expand_as(padded[..., width - 1 :])
    )


def test_picture_suffixes():
    assert {".png", ".jpg", ".jpeg", ".webp", ".tiff"} <= picture_suffixes()
    assert not {".pdf", ".glic", ".txt"} & picture_suffixes()

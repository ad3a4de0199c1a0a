import importlib.util
import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from glic_pyg import picture as pictures
from glic_pyg.image import (
    crop,
    pad,
    read_image,
    read_pixels,
    to_8bit,
    to_float,
    write_png,
)
from glic_pyg.picture import ImageError, picture_size, picture_suffixes, read_picture

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4


def saved(tmp_path, image, name="a.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def as_tensor(pixels):
    """H x W x 3 in 0..255 -> 1 x 3 x H x W in [0, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None] / 255


def png(rows, color_type, *, transparent=None):
    """Return a PNG file; PNG specification, 11.2 and 11.3.1.

    Args:
        rows: H x W x channels of 8 or 16 bits, or rows of bytes with two grey pixels each.
        color_type: 0, 2, 4 or 6.
        transparent: Values of the colour that is.
    """

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    if isinstance(rows, np.ndarray):
        height, width, depth = *rows.shape[:2], 8 * rows.itemsize
        rows = [row.astype(rows.dtype.newbyteorder(">")).tobytes() for row in rows]
    else:
        height, width, depth = len(rows), 2 * len(rows[0]), 4
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))
    clear = b"" if transparent is None else chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + clear + pixels + chunk(b"IEND", b"")


def tiff(values, *, order="<", white_is_0=False, bits=None, extra=None):
    """Return an uncompressed TIFF file; TIFF 6.0, 2 and 8.

    Args:
        values: H x W of grey or H x W x channels, of any type; bytes of one row.
        order: Of bytes, "<" or ">".
        white_is_0: The photometric interpretation of grey.
        bits: Per value, if they are not those of its type.
        extra: What the channel after the colours is.
    """
    height, width = values.shape[:2]
    channels = values[0, 0].size
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    if bits is not None:
        width = width * 8 // bits
    tags = {
        256: [width], 257: [height], 258: [bits or 8 * values.itemsize] * channels, 259: [1],
        262: [2 if channels > 2 else int(not white_is_0)], 273: [8], 277: [channels], 278: [height],
        279: [len(data)], 339: [{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * channels,
    } | ({338: [extra]} if extra else {})  # fmt: skip
    entries, after, start = b"", b"", 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            after += packed
            packed = struct.pack(f"{order}I", start + len(after) - len(packed))
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
    head = struct.pack(f"{order}2sHI", {"<": b"II", ">": b"MM"}[order], 42, 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + after


def read(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    return read_image(tmp_path / "a")


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
    monkeypatch.setattr(pictures, "PIXELS_AT_ONCE", 7 * 3)
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


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("white_is_0", [False, True], ids=["black is 0", "white is 0"])
def test_grey_tiffs_of_any_depth_and_byte_order_look_alike(tmp_path, white_is_0, order):
    values = np.arange(0, 256, 5, dtype=np.uint8).reshape(4, 13)
    look = values / 255 if not white_is_0 else 1 - values / 255
    expected = torch.from_numpy(look).float().expand(1, 3, -1, -1)
    twins = [values, values.astype(np.uint16) * 257, (values / 255).astype(np.float32)]
    if (order, white_is_0) == ("<", False):  # Pillow knows no others
        twins.append(values.astype(np.uint32) * 0x01010101)
    for twin in twins:
        x = read(tmp_path, tiff(twin, order=order, white_is_0=white_is_0))
        assert x.dtype == torch.float32
        torch.testing.assert_close(x, expected)


def test_12_bit_grey_has_the_range_of_12_bits(tmp_path):
    packed = np.frombuffer(bytes.fromhex("000fff800123"), np.uint8)[None]  # 000, fff, 800, 123
    x = read(tmp_path, tiff(packed, bits=12))
    torch.testing.assert_close(x[0, 0], torch.tensor([[0, 0xFFF, 0x800, 0x123]]) / 4095)


def test_whole_numbers_with_a_sign_are_in_0_to_65535(tmp_path):
    x = read(tmp_path, tiff(np.int32([[0, 1, 65535]])))
    torch.testing.assert_close(x[0, 0], torch.tensor([[0, 1 / 65535, 1]]))
    for values in (np.int16([[-1, 3]]), np.int32([[65536, 3]])):
        with pytest.raises(ImageError, match=r"Expected grey values in 0\.\.65535 \(got "):
            read(tmp_path, tiff(values))


def test_16_bit_colors_have_their_upper_bits_read(tmp_path):
    deep = RGB.astype(np.uint16) * 256 + 255
    for data in (png(deep, 2), tiff(deep), tiff(deep, order=">")):
        assert torch.equal(read(tmp_path, data), as_tensor(RGB))


COLORS = np.uint8([[[0, 0, 0], [200, 100, 50], [0, 0, 1], [255, 255, 255]]])
ALPHA = np.uint8([[255, 51, 0, 128]])


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
@pytest.mark.filterwarnings("ignore:.* has transparent parts")
def test_transparency_of_16_bits_is_that_of_8(tmp_path, channels):
    colors = COLORS[..., :channels]
    over_white = 255 - (255 - colors.astype(float)) * ALPHA[..., None] / 255
    expected = torch.from_numpy(over_white).expand(-1, -1, 3).permute(2, 0, 1)[None] / 255
    eight = np.concatenate([colors, ALPHA[..., None]], -1)
    for pixels in (eight, eight.astype(np.uint16) * 257):
        x = read(tmp_path, png(pixels, 4 if channels == 1 else 6))
        torch.testing.assert_close(x.double(), expected, rtol=0, atol=1 / 255)
        if channels == 3:
            x = read(tmp_path, tiff(pixels, extra=2))
            torch.testing.assert_close(x.double(), expected, rtol=0, atol=1 / 255)


@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_one_color_is_transparent(tmp_path, channels, deep):
    """And no other: not one that differs in its lower 8 bits only."""
    clear = [7, 8, 9][:channels]
    pixels = np.array(
        [[clear, [200] * channels, [*clear[:-1], clear[-1] + 1]]], np.uint16 if deep else np.uint8
    )
    with pytest.warns(UserWarning, match=r"a has transparent parts: composited over white$"):
        x = read(tmp_path, png(pixels, 2 if channels == 3 else 0, transparent=clear))
    seen = np.where((pixels == clear).all(-1, keepdims=True), np.iinfo(pixels.dtype).max, pixels)
    kept = seen >> 8 if deep and channels == 3 else seen
    expected = torch.from_numpy(kept / (65535 if deep and channels == 1 else 255)).float()
    torch.testing.assert_close(x, expected.expand(-1, -1, 3).permute(2, 0, 1)[None])


def test_grey_of_16_bits_with_alpha_is_grey():
    """Which Pillow reads as colours, and cannot write."""
    grey = np.stack([np.full((1, 4), 30000), ALPHA.astype(int) * 257], -1).astype(np.uint16)
    picture = read_picture(io.BytesIO(png(grey, 4)))
    assert (picture.channels, picture.is_deep) == (2, True)
    assert np.array_equal(picture.alpha, ALPHA)
    assert set(picture.pixels.flatten()) == {30000 >> 8}


def test_deep_colors_of_png_are_noticed():
    assert read_picture(io.BytesIO(png(RGB.astype(np.uint16) * 257, 2))).is_deep
    assert not read_picture(io.BytesIO(png(RGB, 2))).is_deep


def test_a_transparent_grey_of_few_bits(tmp_path):
    with pytest.warns(UserWarning, match="composited over white"):
        x = read(tmp_path, png([bytes([0x3C])], 0, transparent=[3]))  # of 0..15
    torch.testing.assert_close(x[0, 0], torch.tensor([[1, 12 / 15]]))


def test_premultiplied_alpha(tmp_path):
    for pixels in (np.uint8([[[100, 128]]]), np.uint8([[[100, 100, 100, 128]]])):
        with pytest.warns(UserWarning, match="composited over white"):
            data = tiff(pixels, extra=1)
            if pixels.shape[-1] == 2:  # grey is no colour
                data = data.replace(struct.pack("<HHII", 262, 4, 1, 2), struct.pack("<HHII", 262, 4, 1, 1))
            x = read(tmp_path, data)
        torch.testing.assert_close(x, torch.full_like(x, (100 + 127) / 255), rtol=0, atol=1.5 / 255)


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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
def test_every_orientation_is_that_of_exif(tmp_path, suffix, orientation):
    """The row and column that are said to be the first ones; Exif 2.3, table 4."""
    turned = {1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.swapaxes(0, 1),
              6: np.rot90(RGB, -1), 7: RGB[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(RGB)}  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"tiffinfo": {0x0112: orientation}} if suffix == "tiff" else {"exif": exif, "lossless": True}
    x = read_image(saved(tmp_path, Image.fromarray(RGB), f"a.{suffix}", **how))
    torch.testing.assert_close(x, as_tensor(turned[orientation].copy()))


def test_deep_grey_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 9999
    x = read_image(saved(tmp_path, Image.fromarray(values), exif=exif))
    torch.testing.assert_close(x[0, 0], torch.from_numpy(np.rot90(values, -1) / 65535).float())


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff", "avif"])
def test_of_an_animation_the_first_picture_is_taken(tmp_path, suffix):
    colors = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    first, *others = [Image.new("RGB", (64, 64), color) for color in colors]
    path = tmp_path / f"a.{suffix}"
    first.save(path, save_all=True, append_images=others, quality=100)
    with pytest.warns(UserWarning, match=rf"a\.{suffix} has more than one picture: the first is taken$"):
        x = read_image(path)
    assert (x * 255 - torch.tensor(colors[0]).view(1, 3, 1, 1)).abs().max() < 4


def test_an_animation_that_ends_early_has_a_first_picture(tmp_path):
    first, second = (Image.effect_noise((64, 64), spread) for spread in (20, 90))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    data = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(data[:-1000])
    with pytest.warns(UserWarning, match="more than one picture"):
        x = read_image(tmp_path / "a.gif")
    torch.testing.assert_close(x[0, 0], torch.from_numpy(np.array(first)) / 255)


def test_jpeg_xl_is_read_by_its_plugin_which_others_do_not_need(tmp_path):
    pytest.importorskip("pillow_jxl")
    path = saved(tmp_path, Image.fromarray(RGB), "a.jxl", lossless=True)
    x = read_image(path)
    torch.testing.assert_close(x, as_tensor(RGB))
    saved(tmp_path, Image.fromarray(RGB), "a.png")
    program = f"""
import sys
from glic_pyg.image import read_pixels
from glic_pyg.picture import picture_suffixes
assert ".jxl" in picture_suffixes()
read_pixels({str(tmp_path / "a.png")!r})
assert "pillow_jxl" not in sys.modules
print(read_pixels({str(path)!r}).flatten().tolist())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str((x * 255).int().flatten().tolist())


def test_jpeg_xl_without_its_plugin(tmp_path, monkeypatch):
    (tmp_path / "a.jxl").write_bytes(b"\xff\x0a" + bytes(20))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(Image.OPEN, "JXL", raising=False)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "JXL"])
    needs = r"JPEG XL needs package pillow_jxl: pip install 'glic_pyg\[jpegxl\]'"
    with pytest.raises(ImageError, match=rf"\(got .*a\.jxl: {needs}\)"):
        read_image(tmp_path / "a.jxl")


def test_avif_is_read(tmp_path):
    x = read_image(saved(tmp_path, Image.new("RGB", (32, 32), (200, 100, 50)), "a.avif", quality=100))
    assert (x * 255 - torch.tensor([200, 100, 50]).view(1, 3, 1, 1)).abs().max() < 3


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

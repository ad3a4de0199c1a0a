import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from glic_pyg.errors import FileError
from glic_pyg.formats import format_named, image_bytes, writable

RGB = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
ALPHA = np.linspace(0, 255, 42).astype(np.uint8).reshape(6, 7)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


def picture(mode="RGB", **info):
    image = Image.fromarray(RGB).convert(mode.removesuffix("A"))
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(ALPHA))
    image.info = info
    return image


def exif():
    exif = Image.Exif()
    exif[0x010F] = "me"
    exif.get_ifd(ExifTags.IFD.Exif)[0x829A] = 0.5
    return exif.tobytes()


def written(image, format):
    data, notes = image_bytes(image, format)
    return Image.open(io.BytesIO(data)), notes


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG2000"])
def test_what_a_format_holds_comes_back(format, mode):
    image, notes = written(picture(mode), format)
    assert (image.format, image.mode, notes) == (format, mode, [])
    if format != "JPEG2000":
        assert np.array_equal(image, picture(mode))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "AVIF", "JPEG"])
def test_metadata_travel(format):
    source = picture(exif=exif(), xmp=XMP, icc_profile=PROFILE)
    image, notes = written(source, format)
    assert notes == []
    assert image.getexif()[0x010F] == "me"
    assert image.getexif().get_ifd(ExifTags.IFD.Exif)[0x829A] == 0.5
    assert image.info["icc_profile"] == PROFILE
    xmp = image.info["xmp"]
    assert (xmp.encode() if isinstance(xmp, str) else xmp) == XMP
    assert source.info.keys() == {"exif", "xmp", "icc_profile"}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "AVIF", "JPEG", "GIF"])
def test_nothing_is_written_that_is_not_there(format):
    image, _ = written(picture(), format)
    assert not {"icc_profile", "exif", "xmp"} & image.info.keys()
    assert 0x010F not in image.getexif()


@pytest.mark.parametrize("format", ["JPEG", "BMP", "PPM", "EPS"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_that_is_not_held_is_composited_over_white(format, mode):
    if (format, mode) == ("BMP", "RGBA"):
        mode = "LA"
    data, notes = image_bytes(picture(mode), format)
    assert notes == [f"{format} holds no transparency: composited over white"]
    if format == "EPS":  # which Ghostscript would have to read
        return
    image = Image.open(io.BytesIO(data))
    grey = picture(mode).convert(mode[:-1])
    weight = (ALPHA / 255).reshape(6, 7, *[1] * (np.ndim(grey) - 2))
    expected = np.array(grey) * weight + 255 * (1 - weight)
    assert abs(np.array(image.convert(mode[:-1])) - expected).max() <= (1 if format != "JPEG" else 255)


def test_a_profile_that_is_not_held_is_converted():
    blue_for_red = bytearray(PROFILE)
    red, blue = PROFILE.index(b"rXYZ"), PROFILE.index(b"bXYZ")
    blue_for_red[red : red + 4], blue_for_red[blue : blue + 4] = b"bXYZ", b"rXYZ"
    for mode in ("RGB", "RGBA"):
        source = picture(mode, icc_profile=bytes(blue_for_red))
        image, notes = written(source, "TGA")
        assert notes == ["TGA holds no colour profile: converted to sRGB"]
        channels = np.array(image)
        assert abs(channels[..., :3].astype(int) - RGB[..., ::-1]).max() <= 2
        if mode == "RGBA":
            assert np.array_equal(channels[..., 3], ALPHA)
    image, notes = written(picture(icc_profile=b"no profile"), "TGA")
    assert notes == ["TGA holds no colour profile: left out, since it is broken"]
    assert np.array_equal(image, RGB)


def test_metadata_that_is_not_held_is_told():
    _, notes = written(picture(exif=exif(), xmp=XMP), "BMP")
    assert notes == [f"BMP does not hold this {kind} data: left out" for kind in ("EXIF", "XMP")]
    long = exif() + bytes(70_000)
    image, notes = written(picture(exif=long, xmp=XMP), "JPEG")
    assert notes == ["JPEG does not hold this EXIF data: left out"]
    assert image.info["xmp"] == XMP
    image, notes = written(picture(exif=exif(), xmp=bytes(70_000)), "JPEG")
    assert notes == ["JPEG does not hold this XMP data: left out"]
    assert image.getexif()[0x010F] == "me"


def test_fewer_colours_and_pixels_are_told():
    noise = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    image, notes = written(Image.fromarray(noise), "GIF")
    assert (image.mode, notes) == ("P", ["GIF holds fewer colours"])
    image, notes = written(Image.fromarray(noise), "ICO")
    assert max(image.size) <= 256
    assert notes == ["ICO does not hold 400 x 300 pixels: made smaller"]


def test_of_a_large_picture_nothing_else_is_told(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # Pillow warns of more, and refuses twice as many
    assert image_bytes(picture("RGBA"), "PNG")[1] == []
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert image_bytes(picture("RGBA"), "PNG")[1] == []


def test_formats_are_found_by_name_and_suffix():
    assert format_named("jpg") == format_named(".JPG") == ("JPEG", ".jpg")
    assert format_named("JPEG") == ("JPEG", ".jpeg")
    assert format_named("tif") == ("TIFF", ".tif")
    assert format_named("JPEG2000")[0] == "JPEG2000"
    assert {".png", ".webp", ".avif", ".bmp"} <= writable().keys()
    for name in ("psd", "", "glic", "../x"):
        with pytest.raises(FileError, match=r"Expected a format that Pillow writes, one of .*png.* \(got "):
            format_named(name)


def test_jpeg_xl_is_written_by_its_plugin():
    pytest.importorskip("pillow_jxl")
    image, notes = written(picture("RGBA", exif=exif(), icc_profile=PROFILE), format_named("jxl")[0])
    assert (image.format, image.mode, notes) == ("JXL", "RGBA", [])


@pytest.mark.parametrize("format", ["XBM", "GRIB"])
def test_formats_for_other_pictures(format):
    with pytest.raises(FileError, match=rf"Expected a format for RGB pictures of this size \(got {format}: "):
        image_bytes(picture(), format)

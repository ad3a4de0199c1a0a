import io
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image

from glic_pyg.limits import MAX_METADATA_BYTES
from glic_pyg.picture import ImageError, picture_suffixes, read_picture

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4
ALPHA = np.array([[0, 1, 128, 254, 255]] * 4, np.uint8)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" a="b"/></x:xmpmeta>'


def saved(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return file


def with_alpha(mode="RGBA"):
    image = Image.fromarray(RGB).convert(mode[:-1])
    image.putalpha(Image.fromarray(ALPHA))
    return image


def exif_of(data):
    exif = Image.Exif()
    exif.load(data)
    return exif


def tiff_structure(*entries, after=b""):
    """Return EXIF data: tag, type, count and 4 bytes of each entry; TIFF 6.0, section 2."""
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return head + b"".join(struct.pack("<HHI", *e[:3]) + e[3] for e in entries) + bytes(4) + after


ORIENTATION_6 = (0x0112, 3, 1, struct.pack("<HH", 6, 0))
MAKE = (0x010F, 2, 3, b"me\0\0")


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4), ("P", 3), ("I;16", 1)],
)
def test_channels_are_the_files(mode, channels):
    if mode.endswith("A"):
        image = with_alpha(mode)
    elif mode == "I;16":
        image = Image.fromarray(RGB[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(RGB).convert(mode)
    picture = read_picture(saved(image))
    assert picture.channels == channels
    assert picture.is_deep == (mode == "I;16")
    if mode != "I;16":
        assert np.array_equal(picture.pixels, image.convert("RGBA").convert("RGB"))
    if channels in (2, 4):
        assert np.array_equal(picture.alpha, ALPHA)
    else:
        assert picture.alpha is None


def test_opaque_alpha_is_none():
    assert read_picture(saved(Image.fromarray(RGB).convert("RGBA"))).channels == 3


@pytest.mark.parametrize(
    ("header", "is_deep"), [(b"P5 1 1 255\n\0", False), (b"P5 1 1 1023\n\0\0", True),
                            (b"P6 1 1 255\n\0\0\0", False), (b"P6 1 1 1023\n\0\0\0\0\0\0", True)]
)  # fmt: skip
def test_more_than_8_bits_are_noticed(header, is_deep):
    assert read_picture(io.BytesIO(header)).is_deep == is_deep


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_exif_travels_byte_for_byte_unless_it_turns(format):
    data = tiff_structure(MAKE, (0x8769, 4, 1, struct.pack("<I", 38)), after=tiff_structure(MAKE)[8:])
    start = b"" if format == "WEBP" else b"Exif\0\0"
    assert read_picture(saved(Image.fromarray(RGB), format, exif=start + data)).exif == data
    turned = tiff_structure(MAKE, ORIENTATION_6)
    picture = read_picture(saved(Image.fromarray(RGB), format, exif=start + turned))
    assert picture.pixels.shape == (5, 4, 3)
    assert dict(exif_of(picture.exif)) == {0x010F: "me"}
    only = read_picture(saved(Image.fromarray(RGB), format, exif=start + tiff_structure(ORIENTATION_6)))
    assert (only.exif, only.notes) == (b"", ())
    assert read_picture(saved(Image.fromarray(RGB), format, exif=start + data), metadata=False).exif == b""


def test_of_a_tiff_only_what_is_about_the_photo():
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "me", 6
    exif.get_ifd(ExifTags.IFD.Exif)[0x829A] = 0.5  # exposure time
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    picture = read_picture(saved(Image.fromarray(RGB), "TIFF", exif=exif.tobytes()))
    read = exif_of(picture.exif)
    assert picture.pixels.shape == (5, 4, 3)
    assert set(read) == {0x010F, 0x8769, 0x8825}
    assert read[0x010F] == "me"
    assert dict(read.get_ifd(ExifTags.IFD.Exif)) == {0x829A: 0.5}
    assert dict(read.get_ifd(ExifTags.IFD.GPSInfo)) == {1: "N"}
    assert read_picture(saved(Image.fromarray(RGB), "TIFF")).exif == b""


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!", b"Exif\0\0II*\0"])
def test_broken_exif_is_left_out_and_told(exif):
    picture = read_picture(saved(Image.fromarray(RGB), "JPEG", exif=exif))
    assert (picture.exif, picture.notes) == (b"", ("has broken EXIF data: left out",))


def test_xmp_travels_without_its_orientation():
    for format in ("JPEG", "WEBP"):
        picture = read_picture(saved(Image.fromarray(RGB), format, xmp=XMP))
        assert picture.pixels.shape == (5, 4, 3)
        assert picture.xmp == XMP.replace(b'tiff:Orientation="6"', b"")
        assert picture.exif == b""


def test_too_long_metadata_are_left_out(tmp_path):
    xmp, exif = bytes(MAX_METADATA_BYTES - 10), tiff_structure(MAKE)
    picture = read_picture(saved(Image.fromarray(RGB), "WEBP", xmp=xmp, exif=exif))
    assert (picture.exif, picture.xmp) == (b"", b"")
    assert picture.notes == (f"has {len(xmp) + len(exif)} bytes of EXIF and XMP data: left out",)


def test_errors_are_those_of_pixels(tmp_path):
    with pytest.raises(ImageError, match=r"Expected at most 19 pixels \(got "):
        read_picture(saved(Image.fromarray(RGB)), max_pixels=19)
    with pytest.raises(ImageError, match=r"Expected a picture \(got .*none"):
        read_picture(tmp_path / "none")


def test_stereo_pictures_are_found_in_folders():
    assert ".mpo" in picture_suffixes()

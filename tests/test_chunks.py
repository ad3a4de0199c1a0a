import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from glic_pyg.chunks import add_chunks, chunks_of, with_chunks
from glic_pyg.container import Bitstream, BitstreamError, pack, unpack
from glic_pyg.picture import Picture

ALPHA = np.random.default_rng(0).integers(0, 256, (6, 7), dtype=np.uint8)
PIXELS = np.zeros((6, 7, 3), np.uint8)
X_HAT = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(0))
PLAIN = Bitstream(bytes(8), 0, 6, 7, 0, (b"abc",))


def png(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def with_sides(data, width, height):
    head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def restored(channels, chunks):
    return with_chunks(X_HAT, unpack(add_chunks(pack(PLAIN), channels, chunks)))


def test_alpha_is_a_png_file_of_grey():
    chunks = chunks_of(Picture(PIXELS, ALPHA, exif=b"II*\0", xmp=b"<x>", icc=b"profile"))
    assert chunks.keys() == {"ALPH", "EXIF", "XMP ", "ICCP"}
    alpha = Image.open(io.BytesIO(chunks["ALPH"]))
    assert (alpha.format, alpha.mode) == ("PNG", "L")
    assert np.array_equal(alpha, ALPHA)
    assert (chunks["EXIF"], chunks["XMP "], chunks["ICCP"]) == (b"II*\0", b"<x>", b"profile")


def test_without_anything_to_tell_a_file_stays_as_it_is():
    data = pack(PLAIN)
    picture = Picture(PIXELS, None)
    assert add_chunks(data, picture.channels, chunks_of(picture)) == data
    grey = unpack(add_chunks(data, 1, {}))
    assert (grey.version, grey.channels, grey.strings) == (4, 1, PLAIN.strings)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_modes(channels, mode):
    chunks = {"late": b"unknown"} | ({"ALPH": png(ALPHA)} if channels in (2, 4) else {})
    image = restored(channels, chunks)
    r, g, b = rgb = (X_HAT[0] * 255).round().int().numpy()
    expected = [(19595 * r + 38470 * g + 7471 * b + 32768) >> 16] if channels < 3 else list(rgb)
    expected += [ALPHA] if channels in (2, 4) else []
    assert image.mode == mode
    assert np.array_equal(np.array(image).reshape(6, 7, -1), np.stack(expected, -1))
    assert image.info == {}


def test_metadata_are_where_pillow_looks_for_them():
    exif = Image.Exif()
    exif[0x010F] = "me"
    image = restored(3, {"EXIF": exif.tobytes()[6:], "XMP ": b"<x>", "ICCP": b"profile"})
    assert dict(image.getexif()) == {0x010F: "me"}
    assert image.info.pop("exif") == exif.tobytes()
    assert image.info == {"xmp": b"<x>", "icc_profile": b"profile"}


@pytest.mark.parametrize(
    ("alpha", "reason"),
    [
        (b"", "not a PNG file"),
        (png(ALPHA)[:-20], ""),
        (png(ALPHA[:, :6]), "6 x 6 of mode L"),
        (png(PIXELS), "7 x 6 of mode RGB"),
        (png(ALPHA.astype(np.uint16)), "7 x 6 of mode I;16"),
        (png(ALPHA > 99), "7 x 6 of mode 1"),
        (b"GIF89a" + bytes(40), "not a PNG file"),
        (with_sides(png(ALPHA), 40_000, 40_000), "40000 x 40000 of mode L"),
    ],
)
def test_alpha_that_is_something_else(alpha, reason):
    expected = rf"Expected alpha as a PNG file of 7 x 6 grey pixels \(got .*{reason}"
    with pytest.raises(BitstreamError, match=expected) as caught:
        restored(4, {"ALPH": alpha})
    assert "\n" not in str(caught.value)


def test_alpha_that_lacks_rows():
    alpha = with_sides(png(ALPHA[:3]), 7, 6)
    with pytest.raises(BitstreamError, match=r"grey pixels \(got "):
        restored(2, {"ALPH": alpha})

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, PngImagePlugin

from glic_pyg.image import read_pixels
from glic_pyg.picture import ImageError, picture_size

Y, X = np.mgrid[:48, :72]
PHOTO = Image.fromarray(
    np.stack(
        [120 + 100 * np.sin(X / 17), 110 + 90 * np.cos(Y / 13), 90 + 80 * np.sin((X + Y) / 23)], -1
    ).astype(np.uint8)
)
KINDS = {
    "one scan": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "grey": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
}


def jpeg(*, mode="RGB", **options):
    file = io.BytesIO()
    PHOTO.convert(mode).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def chunk(name, content, *, damage=0):
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content) ^ damage)
    )


def png(**options):
    file = io.BytesIO()
    PHOTO.save(file, "PNG", **options)
    return file.getvalue()


def read(tmp_path, data, name="a.bin"):
    (tmp_path / name).write_bytes(data)
    return read_pixels(tmp_path / name)


def pixels(image):
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_without_its_end_marker_is_read(tmp_path, kind, missing):
    whole = jpeg(**KINDS[kind])
    with pytest.warns(UserWarning, match=r"a\.bin lacks its end marker: read nonetheless$"):
        x = read(tmp_path, whole[:-missing])
    assert torch.equal(x, pixels(Image.open(io.BytesIO(whole))))


def test_it_keeps_orientation_and_profile(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    whole = jpeg(exif=exif, icc_profile=srgb)
    with pytest.warns(UserWarning, match="lacks its end marker"):
        x = read(tmp_path, whole[:-2])
    assert torch.equal(x, read(tmp_path, whole))
    assert x.shape == (1, 3, 72, 48)


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_that_lacks_more_is_refused(tmp_path, kind):
    """Cut anywhere, also between two scans, each of which is whole, and within a preview."""
    preview = segment(0xE1, b"Exif\0\0" + jpeg())
    whole = jpeg(**KINDS[kind])
    whole = whole[:2] + preview + whole[2:]
    scans = [at for at in range(len(preview), len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    assert (len(scans) > 1) == (kind == "progressive")
    for length in [100, len(preview), *scans[1:], *range(scans[0], len(whole) - 8, 97), len(whole) - 8]:
        with pytest.raises(ImageError, match=r"Expected a picture \(got .*a\.bin: "):
            read(tmp_path, whole[:length])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "progressive"])
def test_a_jpeg_that_ends_too_early_is_refused(tmp_path, kind):
    """Its end marker is there; libjpeg makes grey of the rest, and says nothing."""
    whole = jpeg(**KINDS[kind])
    scan = whole.index(b"\xff\xda")
    for length in range(scan + 20, len(whole) - 60, 97):
        early = whole[:length].rstrip(b"\xff") + b"\xff\xd9"
        assert np.ptp(np.asarray(Image.open(io.BytesIO(early)))[-1, -1]) == 0
        with pytest.raises(ImageError, match=r"Expected a picture \(got .*a\.bin: rows are missing\)$"):
            read(tmp_path, early)


@pytest.mark.parametrize("color", [(128, 128, 128), (0, 0, 0), (200, 30, 60)])
@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"progressive": True}])
def test_a_jpeg_with_a_flat_end_is_read(tmp_path, color, options):
    file = io.BytesIO()
    Image.new("RGB", (33, 41), color).save(file, "JPEG", quality=95, **options)
    x = read(tmp_path, file.getvalue() + b"whatever follows")
    assert (x.int() - torch.tensor(color)[:, None, None]).abs().max() <= 2


BROKEN_SEGMENTS = {
    "JFIF": (0xE0, b"JFIF\0"),
    "Photoshop": (0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04"),
    "Adobe": (0xEE, b"Adobe"),
    "MPF": (0xE2, b"MPF\0II*\0\xff\xff\xff\x7f"),
    "EXIF's head": (0xE1, b"Exif\0\0garbage!"),
    "EXIF's values": (0xE1, b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"),
    "XMP": (0xE1, b'http://ns.adobe.com/xap/1.0/\0<tiff:Orientation="\xff'),
}


@pytest.mark.parametrize("name", BROKEN_SEGMENTS)
@pytest.mark.filterwarnings("ignore:.* left out:UserWarning", "ignore:.* has a colour profile that")
def test_a_jpegs_broken_metadata_is_left_out(tmp_path, name):
    whole = jpeg()
    x = read(tmp_path, whole[:2] + segment(*BROKEN_SEGMENTS[name]) + whole[2:])
    assert torch.equal(x, pixels(Image.open(io.BytesIO(whole))))


def test_what_is_sound_of_the_metadata_is_kept(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = pixels(PHOTO).rot90(-1, (-2, -1))
    data = png(exif=exif)
    with pytest.warns(UserWarning, match=r"a\.bin has broken metadata: left out$"):
        x = read(tmp_path, data[:33] + chunk(b"pHYs", b"") + data[33:])
    assert torch.equal(x, upright)
    whole = jpeg(exif=exif)
    with pytest.warns(UserWarning, match="has broken metadata: left out"):
        x = read(tmp_path, whole[:2] + segment(*BROKEN_SEGMENTS["Photoshop"]) + whole[2:])
    assert x.shape == (1, 3, 72, 48)
    assert picture_size(tmp_path / "a.bin") == (48, 72)


BROKEN_CHUNKS = {
    "profile": chunk(b"iCCP", b"bad\0\0no zlib"),
    "large profile": chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(70 << 20))),
    "large text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(70 << 20))),
    "large XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(70 << 20))),
    "EXIF": chunk(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03"),
    "EXIF as text": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  9\nzz\n")),
    "XMP": chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<tiff:Orientation="\xff'),
    "checksum": chunk(b"tEXt", b"a\0b", damage=1),
    "animation": chunk(b"acTL", bytes(3)),
    "gamma": chunk(b"gAMA", b""),
    "primaries": chunk(b"cHRM", bytes(5)),
}


@pytest.mark.parametrize("place", ["before the pixels", "after the pixels"])
@pytest.mark.parametrize("name", BROKEN_CHUNKS)
@pytest.mark.filterwarnings("ignore:.* left out:UserWarning", "ignore:.* has a colour profile that")
def test_a_pngs_broken_metadata_is_left_out(tmp_path, name, place):
    data = png()
    at = 33 if place == "before the pixels" else len(data) - 12
    assert torch.equal(read(tmp_path, data[:at] + BROKEN_CHUNKS[name] + data[at:]), pixels(PHOTO))


def test_transparency_is_no_metadata(tmp_path):
    image = Image.fromarray(np.uint8([[10, 20]]))
    file = io.BytesIO()
    image.save(file, "PNG", transparency=10)
    data = file.getvalue()
    with pytest.warns(UserWarning) as told:
        x = read(tmp_path, data[:33] + BROKEN_CHUNKS["large text"] + data[33:])
    assert x[0, 0].tolist() == [[255, 20]]
    assert [str(warning.message).partition("a.bin ")[2] for warning in told] == [
        "has broken metadata: left out", "has transparent parts: composited over white",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "broken"),
    [
        ("L", chunk(b"tRNS", b"")),
        ("L", chunk(b"tRNS", b"\1")),
        ("RGB", chunk(b"tRNS", bytes(5))),
        ("RGB", chunk(b"tRNS", bytes(6), damage=1)),
        ("RGBA", chunk(b"tRNS", bytes(6), damage=1)),
        ("P", chunk(b"tRNS", bytes(300))),
    ],
)
def test_broken_transparency_is_left_out(tmp_path, mode, broken):
    image = Image.fromarray(np.uint8([[10, 20, 200]])).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 3  # is kept
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    data = file.getvalue()
    at = data.index(b"IDAT") - 4
    with pytest.warns(UserWarning) as told:
        x = read(tmp_path, data[:at] + broken + data[at:])
    assert torch.equal(x, pixels(image).flip(-1))
    assert [str(warning.message).partition("a.bin ")[2] for warning in told] == [
        "has broken transparency: left out"
    ]


@pytest.mark.parametrize("suffix", ["webp", "png", "jpg"])
@pytest.mark.filterwarnings("ignore:.* left out:UserWarning", "ignore:.* has a colour profile that")
def test_broken_exif_of_any_format(tmp_path, suffix):
    for content in (
        b"",
        b"x",
        b"II*\0",
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff\x12\x01",
        b"\0" * 40,
    ):
        exif = {"exif": b"Exif\0\0" + content} if suffix != "webp" else {"exif": content}
        PHOTO.save(tmp_path / f"a.{suffix}", lossless=True, quality=95, **exif)
        x = read_pixels(tmp_path / f"a.{suffix}").float()
        assert (x - pixels(PHOTO)).abs().mean() < 1


def test_damaged_pixels_are_no_metadata(tmp_path):
    data = bytearray(png())
    data[data.index(b"IDAT") + 40] ^= 255
    with pytest.raises(ImageError):
        read(tmp_path, bytes(data))
    with pytest.raises(ImageError):
        read(tmp_path, png()[:300])


def test_a_picture_in_memory_is_read(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b")
    assert torch.equal(read_pixels(io.BytesIO(png(pnginfo=info))), pixels(PHOTO))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_a_png_with_too_few_rows_is_refused(tmp_path, mode, interlaced):
    """And none that is whole and black."""
    layouts = {"1": (1, 0), "L": (8, 0), "P": (8, 3), "RGB": (8, 2), "RGBA": (8, 6), "I;16": (16, 0)}
    (depth, color), channels = layouts[mode], {"RGB": 3, "RGBA": 4}.get(mode, 1)
    width, height = 13, 9
    passes = [(2, 2), (2, 2), (4, 1), (3, 3), (7, 2), (6, 5), (13, 4)] if interlaced else [(13, 9)]
    lengths = [1 + (columns * depth * channels + 7) // 8 for columns, rows in passes for _ in range(rows)]
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    palette = chunk(b"PLTE", bytes(6)) if mode == "P" else b""

    def file(size: int) -> bytes:
        packed = zlib.compress(bytes(size))
        return (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + palette
            + chunk(b"IDAT", packed[:5]) + chunk(b"IDAT", packed[5:]) + chunk(b"IEND", b"")
        )  # fmt: skip

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(tmp_path, file(sum(lengths))).shape == (1, 3, 9, 13)
    with pytest.raises(ImageError, match=r"a\.bin: rows are missing\)$"):
        read(tmp_path, file(sum(lengths[:-1])))

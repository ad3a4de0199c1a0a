"""Colours are compared with the profiles' own formulas: tone curve, primaries, sRGB's inverse of both."""

import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms

from glic_pyg.image import read_pixels
from glic_pyg.picture import read_picture

# Primaries as XYZ under D50, a column each, of sRGB and of Display P3.
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
GAMMA = struct.pack(">4s4xIH", b"curv", 1, round(2.2 * 256))
COLORS = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), -1).reshape(12, 18, 3)
GREYS = np.arange(256, dtype=np.uint8).reshape(16, 16)
PAPER = {"white": (100, 0, 0), "cyan": (60, -30, -40), "black": (0, 0, 0)}
"""L*, a* and b* of some inks."""


def fixed(*values):
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def xyz(*values):
    return b"XYZ \0\0\0\0" + fixed(*values)


def curve_of_srgb(points):
    v = np.linspace(0, 1, points)
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    return struct.pack(">4s4xI", b"curv", points) + np.round(linear * 65535).astype(">u2").tobytes()


def profile(space, kind=b"mntr", pcs=b"XYZ ", name=b"made", **tags):
    """Return an ICC profile of version 2; ICC.1:2001-04, 6."""
    tags = {
        "desc": struct.pack(">4s4xI", b"desc", len(name) + 1) + name + bytes(79),
        "wtpt": xyz(0.9642, 1, 0.8249),
    } | tags
    tags["cprt"] = b"text\0\0\0\0none\0"
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for key, value in tags.items():
        table += struct.pack(">4sII", key.encode(), start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4xI4s4s4s12s4s28x", start + len(body), 0x02400000, kind, space, pcs, b"", b"acsp")
    return (head + fixed(0.9642, 1, 0.8249)).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def rgb_profile(primaries, curve, **more):
    r, g, b = (xyz(*column) for column in primaries.T)
    return profile(b"RGB ", rXYZ=r, gXYZ=g, bXYZ=b, rTRC=curve, gTRC=curve, bTRC=curve, **more)


def cmyk_profile():
    """Return a profile whose colours, between the corners of the inks' cube, are `PAPER`'s or black."""
    ramp, corners = bytes(range(256)), b""
    for corner in range(16):
        lab = PAPER[{0: "white", 8: "cyan"}.get(corner, "black")]
        corners += bytes([round(lab[0] * 2.55), lab[1] + 128, lab[2] + 128])
    head = struct.pack(">4s4x4B", b"mft1", 4, 3, 2, 0) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    return profile(b"CMYK", b"prtr", b"Lab ", A2B0=head + ramp * 4 + corners + ramp * 3)


def encoded(linear):
    """Return linear light in [0, 1] as sRGB's 8 bits."""
    v = np.clip(linear, 0, 1)
    return np.round(255 * np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055))


def from_lab(lightness, a, b):
    f = (lightness + 16) / 116
    f = np.array([f + a / 500, f, f - b / 200])
    white = np.array([0.9642, 1, 0.8249])
    linear = np.linalg.inv(SRGB) @ (white * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)))
    return encoded(linear)


def read(tmp_path, image, name="a.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return read_pixels(path)[0].permute(1, 2, 0).numpy()


def assert_near(pixels, expected, most=1):
    assert abs(pixels.astype(int) - expected).max() <= most


@pytest.mark.parametrize("kind", ["RGB", "P", "RGBA"])
def test_colors_of_display_p3_become_srgbs(tmp_path, kind):
    image = Image.fromarray(COLORS)
    if kind == "P":
        image = image.quantize(256, dither=Image.Dither.NONE)
        assert_near(np.array(image.convert("RGB")), COLORS, 0)
    if kind == "RGBA":
        image.putalpha(255)
    with pytest.warns(UserWarning, match=r"a\.png has the colour profile made: converted to sRGB$"):
        pixels = read(tmp_path, image, icc_profile=rgb_profile(P3, GAMMA))
    linear = (COLORS / 255) ** (round(2.2 * 256) / 256) @ P3.T @ np.linalg.inv(SRGB).T
    assert_near(pixels, encoded(linear))
    assert abs(pixels.astype(int) - COLORS).max() > 20


def test_transparency_is_composited_in_srgb(tmp_path):
    image = Image.fromarray(np.uint8([[[200, 50, 90, 255], [200, 50, 90, 128], [9, 9, 9, 0]]]))
    with pytest.warns(UserWarning) as told:
        solid, half, clear = read(tmp_path, image, icc_profile=rgb_profile(P3, GAMMA))[0].astype(int)
    assert len(told) == 2
    assert_near(half, solid + (255 - solid) * 127 / 255)
    assert clear.tolist() == [255] * 3


@pytest.mark.parametrize(
    "known",
    [rgb_profile(SRGB, curve_of_srgb(points)) for points in (33, 1024)]
    + [ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()],
    ids=["few points", "many points", "Little CMS's"],
)
def test_srgb_by_any_name_keeps_every_pixel(tmp_path, known):
    image = Image.effect_noise((64, 64), 90)
    image = Image.merge("RGB", (image, image.rotate(90), image.rotate(180)))
    assert np.array_equal(read(tmp_path, image, icc_profile=known), image)  # and nothing is told


@pytest.mark.parametrize("wide", [False, True], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("kind", ["grey", "RGB"])
def test_grey_pictures(tmp_path, kind, wide):
    known = profile(b"GRAY", kTRC=GAMMA) if kind == "grey" else rgb_profile(P3, GAMMA)
    image = Image.fromarray(GREYS.astype(np.uint16) * 257 if wide else GREYS)
    with pytest.warns(UserWarning, match="converted to sRGB"):
        pixels = read(tmp_path, image, icc_profile=known)
    assert_near(pixels, encoded((GREYS / 255)[..., None] ** (round(2.2 * 256) / 256)))


def test_deep_grey_keeps_its_depth_where_nothing_is_converted(tmp_path):
    known = profile(b"GRAY", kTRC=curve_of_srgb(1024))
    pixels = read(tmp_path, Image.fromarray(np.uint16([[1, 2]])), icc_profile=known)
    np.testing.assert_allclose(pixels[0, :, 0], [1 / 65535, 2 / 65535])


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_cmyk_pictures(tmp_path, suffix):
    image = Image.new("CMYK", (24, 8), (0, 0, 0, 0))
    image.paste((255, 0, 0, 0), (8, 0, 16, 8))
    image.paste((0, 0, 0, 255), (16, 0, 24, 8))
    with pytest.warns(UserWarning, match="converted to sRGB"):
        pixels = read(tmp_path, image, f"a.{suffix}", icc_profile=cmyk_profile(), quality=100)
    assert_near(pixels[4, 4::8], [from_lab(*lab) for lab in PAPER.values()], 3)


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (b"no profile", "cannot open profile"),
        (rgb_profile(P3, GAMMA)[:200], "cannot"),
        (rgb_profile(P3 * 0.2, GAMMA), "its white is"),
        (cmyk_profile(), "it is of CMYK, the picture of RGB"),
        (profile(b"GRAY", kTRC=GAMMA), "it is of L, the picture of RGB"),
        (profile(b"XYZ "), "it is of XYZ"),
    ],
    ids=["other bytes", "short", "damaged", "CMYK", "grey", "space"],
)
def test_what_cannot_be_used_is_told_and_left_out(tmp_path, known, reason):
    path = tmp_path / "a.tif"
    Image.fromarray(COLORS).save(path, icc_profile=known)
    with pytest.warns(
        UserWarning, match=rf"a\.tif has a colour profile that cannot be used: .*\({reason}"
    ) as told:
        pixels = read_pixels(path)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(pixels, COLORS)
    assert len(told) == 1
    assert "\n" not in str(told[0].message)


def test_a_profile_in_pieces_with_one_missing(tmp_path):
    file = io.BytesIO()
    Image.fromarray(COLORS).save(file, "JPEG", icc_profile=rgb_profile(P3, GAMMA), quality=100)
    data = file.getvalue().replace(b"ICC_PROFILE\0\x01\x01", b"ICC_PROFILE\0\x01\x02")
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.warns(UserWarning, match="a.jpg has a colour profile that cannot be used"):
        read_pixels(tmp_path / "a.jpg")


def test_a_name_is_one_line_without_escape_sequences(tmp_path):
    known = rgb_profile(P3, GAMMA, name=b"a\x1b[31m\nb")
    with pytest.warns(UserWarning, match=r"has the colour profile a\[31mb: converted"):
        read(tmp_path, Image.fromarray(COLORS), icc_profile=known)


def test_lab_pictures_need_no_profile(tmp_path):
    lab = Image.new("LAB", (4, 4), (153, 98, 88))  # L* times 2.55, a* and b* plus 128
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = read(tmp_path, lab, "a.tif", icc_profile=b"any")
    assert_near(pixels, from_lab(60, -30, -40), 2)


def in_memory(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file


def test_a_profile_is_kept_if_that_is_wanted():
    wide, grey = rgb_profile(P3, GAMMA), profile(b"GRAY", kTRC=GAMMA)
    image = Image.fromarray(COLORS)
    for known in (wide, rgb_profile(SRGB, curve_of_srgb(1024))):
        picture = read_picture(in_memory(image, icc_profile=known), keep_icc=True)
        assert (picture.icc, picture.notes, picture.channels) == (known, (), 3)
        assert np.array_equal(picture.pixels, COLORS)
    picture = read_picture(in_memory(image, icc_profile=wide))
    assert (picture.icc, picture.notes) == (b"", ("has the colour profile made: converted to sRGB",))

    kept = read_picture(in_memory(image.convert("L"), icc_profile=grey), keep_icc=True)
    assert (kept.icc, kept.channels) == (grey, 1)
    kept = read_picture(in_memory(image.convert("L"), icc_profile=wide), keep_icc=True)
    assert (kept.icc, kept.channels) == (wide, 3)  # a profile of colours is of colours
    cmyk = in_memory(image.convert("CMYK"), "TIFF", icc_profile=cmyk_profile())
    picture = read_picture(cmyk, keep_icc=True)
    assert (picture.icc, picture.notes) == (b"", ("has the colour profile made: converted to sRGB",))


def test_a_converted_grey_is_grey():
    image = Image.fromarray(GREYS)
    image.putalpha(100)
    picture = read_picture(in_memory(image, icc_profile=rgb_profile(P3, GAMMA)))
    assert picture.channels == 2
    assert np.ptp(picture.pixels.astype(int), axis=-1).max() <= 1
    assert (picture.alpha == 100).all()

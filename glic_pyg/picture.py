"""What Pillow reads, as numbers: pixels in sRGB, alpha, and what is told about them."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageStat, TiffImagePlugin, UnidentifiedImageError

from glic_pyg.errors import FileError, UserError
from glic_pyg.files import read_file
from glic_pyg.limits import MAX_METADATA_BYTES, MAX_PIXELS, MAX_SIDE
from glic_pyg.mending import lacks_rows, mended
from glic_pyg.srgb import converted, profile_of

T = TypeVar("T")
Source = str | Path | io.BytesIO


class ImageError(UserError, ValueError):
    """A picture that cannot be read or coded; the message is one line for the user."""


PIXELS_AT_ONCE = 1 << 22
BYTES_PER_PIXEL = 8
HEAD_BYTES = 1 << 24
"""What else may be in a file than its pixels."""

BLOCK, GREY, ROUNDING = 8, 128, 4
"""Side of a JPEG block, what libjpeg fills those with that are missing, and how exactly."""
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes an EXIF orientation."""

EXIF_START, TIFF_STARTS = b"Exif\0\0", (b"II*\0", b"MM\0*")
XMP_ORIENTATION = re.compile(
    rb"""tiff:Orientation=("[0-9]"|'[0-9]')|<tiff:Orientation>[0-9]</tiff:Orientation>"""
)
BROKEN_EXIF = "has broken EXIF data: left out"
DEEP = "has more than 8 bits per channel: comes back with 8"

# What Pillow logs of damaged files is in the errors it raises.
logging.getLogger("PIL").addHandler(logging.NullHandler())

# Pillow knows 16-bit grey with white as 0 in one byte order only.
TiffImagePlugin.OPEN_INFO.setdefault((b"MM", 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))


GREY_MODES = ("1", "L", "LA", "La", "F")
TIFF_EXIF = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432)
"""Tags of a TIFF file that are about the photo, not about how the file stores it: EXIF 2.3, table 3."""


@dataclass(frozen=True)
class Picture:
    """A picture as files have them, upright.

    Args:
        pixels: `H x W x 3` of 8 bits (uint8), or `H x W` of grey in [0, 1] (float32), which had more; in sRGB
            unless there is a profile. Colours under an alpha of 0 are whatever the file had.
        alpha: `H x W`, uint8, 255 being opaque; None where all is.
        is_grey: Whether the three channels are the same, since the file has one.
        is_deep: Whether the file has more than 8 bits per channel.
        exif: TIFF's structure, without orientation, or none (b"").
        xmp: XML, or none.
        icc: The profile of the colours, or none.
        notes: What there is to tell: each continues a sentence that begins with the file's name.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    is_grey: bool = False
    is_deep: bool = False
    exif: bytes = b""
    xmp: bytes = b""
    icc: bytes = b""
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """As a .glic file tells them: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha."""
        return (1 if self.is_grey else 3) + (self.alpha is not None)


def read_picture(
    path: Source, *, max_pixels: int = MAX_PIXELS, keep_icc: bool = False, metadata: bool = True
) -> Picture:
    """Read a picture with what `image.read_pixels`, which has the same rules, leaves out.

    - Alpha stays a channel of its own, and colours are those beneath it.
    - EXIF and XMP data come along, without the orientation, which is applied.

    Args:
        path: The file, which may be a pipe; its bytes may be in memory.
        max_pixels: See `image.read_pixels`.
        keep_icc: Whether colours stay in the space of the picture's profile, if it is of RGB or grey.
        metadata: Whether EXIF and XMP data are wanted.

    Raises:
        ImageError: no such file, no picture, damaged, or too large.
    """

    def check_size(image: Image.Image) -> None:
        size = f"{image.width} x {image.height}"
        if image.width * image.height > max_pixels:
            raise ImageError(f"Expected at most {max_pixels} pixels (got {path}: {size})")
        if max(image.size) > MAX_SIDE:
            raise ImageError(f"Expected sides of at most {MAX_SIDE} pixels (got {path}: {size})")

    def read(source: Source, notes: list[str]) -> Picture:
        with _opened(source) as image:
            check_size(image)
            _note_more_pictures(image, notes)
            is_deep, is_grey = _has_deep_colors(image), _is_grey_with_deep_alpha(image)
            alpha = _set_transparent_color(image, source)
            image.load()
            check_size(image)  # some formats tell the true size only now
            if _may_lack_rows(image) and lacks_rows(source):
                raise ValueError("rows are missing")
            if alpha is not None:
                image.putalpha(alpha)
            grey = image.convert("LA") if is_grey else image
            picture = picture_of(grey, notes, keep_icc=keep_icc, metadata=metadata, name=path)
            return replace(picture, is_deep=is_deep or picture.is_deep)

    notes: list[str] = []
    picture = _with_file(path, read, notes, most_bytes(max_pixels))
    return replace(picture, notes=tuple(notes))


def picture_of(
    image: Image.Image,
    notes: list[str],
    *,
    keep_icc: bool = False,
    metadata: bool = True,
    name: object = "picture",
) -> Picture:
    """Return what a picture of Pillow's holds; its metadata is what Pillow finds in it.

    Args:
        image: The picture, loaded.
        notes: Gets what there is to tell.
        keep_icc: See `read_picture`.
        metadata: See `read_picture`.
        name: What errors call it.

    Raises:
        ImageError: grey values beyond black and white.
    """
    is_grey = image.mode in GREY_MODES or image.mode.startswith("I")
    is_deep = image.mode == "F" or image.mode.startswith("I")
    limits = _range_of_grey(image) if is_deep else None
    exif, xmp = (_exif(image, notes), _xmp(image)) if metadata else (b"", b"")
    image = _upright(image, notes)
    profile, icc = profile_of(image, notes), b""
    convert = profile.to_srgb if profile else None
    if profile and keep_icc and profile.mode != "CMYK" and len(profile.data) <= MAX_METADATA_BYTES:
        convert, icc = None, profile.data
        is_grey &= profile.mode == "L"
    elif profile and convert is not None:
        notes.append(f"has the colour profile {profile.name}: converted to sRGB")
    pixels, alpha = _deep_grey(image, *limits, convert, name) if limits else _rgb(image, convert)
    if len(icc) + len(exif) + len(xmp) > MAX_METADATA_BYTES:
        notes.append(f"has {len(exif) + len(xmp)} bytes of EXIF and XMP data: left out")
        exif = xmp = b""
    return Picture(pixels, alpha, is_grey, is_deep, exif, xmp, icc)


def picture_size(path: Source) -> tuple[int, int]:
    """Return height and width of a picture, as its file's head tells them.

    Raises:
        ImageError: no such file, or no picture.
    """

    def size(source: Source, _: list[str]) -> tuple[int, int]:
        with _opened(source) as image:
            return image.height, image.width

    return _with_file(path, size, [], most_bytes())


def _with_file(path: Source, work: Callable[[Source, list[str]], T], notes: list[str], most: int) -> T:
    """Return what `work` makes of a file, or of what mends it; whatever goes wrong becomes an `ImageError`.

    Args:
        path: The file.
        work: Takes the file and `notes`.
        notes: Gets what there is to tell of the file.
        most: Bytes of the file.
    """
    try:
        if not isinstance(path, io.BytesIO) and (not os.path.isfile(path) or os.path.getsize(path) > most):
            path = read_file(path, most)  # of pipes and devices, or refused
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, of metadata and large pictures, name no file
            try:
                result = work(path, notes)
            except ImageError:
                raise
            except Exception:
                for note, data in mended(path):
                    notes[:] = [note]
                    try:
                        result = work(io.BytesIO(data), notes)
                        break
                    except Exception:  # the first error tells more
                        continue
                else:
                    raise
    except ImageError:
        raise
    except FileError as error:
        raise ImageError(str(error)) from error
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"Expected a picture (got {path}: {reason})") from error
    return result


def _opened(source: Source) -> ImageFile.ImageFile:
    """Open a picture, JPEG XL by its plugin, which is imported only if it is needed."""
    try:
        return Image.open(source)
    except UnidentifiedImageError:
        if not _head(source).startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
            raise
        if not has_jpegxl():
            raise ValueError("JPEG XL needs package pillow_jxl: pip install 'glic_pyg[jpegxl]'") from None
        import pillow_jxl  # noqa: F401 - it registers itself with Pillow

        return Image.open(source)


def _head(source: Source) -> bytes:
    if isinstance(source, io.BytesIO):
        return source.getvalue()[:12]
    with open(source, "rb") as file:
        return file.read(12)


def has_jpegxl() -> bool:
    return importlib.util.find_spec("pillow_jxl") is not None


def _note_more_pictures(image: Image.Image, notes: list[str]) -> None:
    try:
        is_animated = getattr(image, "is_animated", False)
    except Exception:  # of a second picture that is broken
        is_animated = True
    if is_animated:
        notes.append("has more than one picture: the first is taken")


def _may_lack_rows(image: Image.Image) -> bool:
    """Return whether a picture's end is as Pillow leaves what it did not find: zeros, or a block of grey."""
    width, height = image.size
    if image.format == "PNG":
        return "interlace" in image.info or not np.asarray(image.crop((0, height - 1, width, height))).any()
    if image.format in ("JPEG", "MPO"):
        block = image.crop(((width - 1) // BLOCK * BLOCK, (height - 1) // BLOCK * BLOCK, width, height))
        luma = block.getchannel("K") if block.mode == "CMYK" else block.convert("L")
        return all(abs(value - GREY) <= ROUNDING for value in ImageStat.Stat(luma).extrema[0])
    return False


def _set_transparent_color(image: ImageFile.ImageFile, source: Source) -> Image.Image | None:
    """Set a PNG's transparent colour, told in the file's bits, to what it is in those that Pillow reads.

    Args:
        image: Not yet loaded.
        source: Its file.

    Returns:
        For 16-bit colours, of which Pillow reads the upper bits, alpha in place of a transparent colour.
    """
    color = image.info.get("transparency")
    if image.format != "PNG" or color is None:
        return None
    layout = image.tile[0][3]
    if layout in ("L;2", "L;4"):
        bits = int(layout[2:])
        image.info["transparency"] = (color & (1 << bits) - 1) * 255 // ((1 << bits) - 1)
    elif layout == "L":
        image.info["transparency"] = color & 255
    elif layout == "RGB":
        image.info["transparency"] = tuple(value & 255 for value in color)
    elif layout == "RGB;16B":
        del image.info["transparency"]
        is_color = np.bool_(True)
        # Read as if its bytes were in the other order, a picture has its lower bits.
        for part, expected in (
            ("RGB;16B", [value >> 8 for value in color]),
            ("RGB;16L", [v & 255 for v in color]),
        ):
            with _opened(source) as copy:
                copy.tile = [copy.tile[0]._replace(args=part)]
                del copy.info["transparency"]
                is_color = is_color & (np.array(copy) == expected).all(-1)
        return Image.fromarray(np.where(is_color, 0, 255).astype(np.uint8))
    return None


def _has_deep_colors(image: ImageFile.ImageFile) -> bool:
    """Return whether Pillow reads but the upper bits of a file's colours; of a picture not yet loaded."""
    for tile in image.tile:
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(arg, str) and ";16" in arg for arg in args) and image.mode[0] != "I":
            return True
        if tile[0] in ("ppm", "ppm_plain") and isinstance(args[-1], int) and args[-1] > 255:
            return image.mode[0] != "I"
    return False


def _is_grey_with_deep_alpha(image: ImageFile.ImageFile) -> bool:
    """Return whether a PNG file is of a grey that Pillow reads as colours; not yet loaded."""
    return image.format == "PNG" and image.tile[0][3] == "LA;16B"


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Turn a picture as its EXIF orientation says."""
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return image  # its decoder has turned it: EXIF does not count in JPEG XL
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # whatever Pillow meets in broken EXIF data
        if BROKEN_EXIF not in notes:
            notes.append(BROKEN_EXIF)
        return image
    return image if turn is None else image.transpose(turn)


def _exif(image: Image.Image, notes: list[str]) -> bytes:
    """Return a picture's EXIF data without an orientation; as it is in the file, unless that has one."""
    try:
        found = image.getexif()
        data = image.info.get("exif") or (found.tobytes() if len(found) else b"")
        if hasattr(image, "tag_v2"):
            kept = Image.Exif()
            kept.update({tag: found[tag] for tag in TIFF_EXIF if tag in found})
            for place in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                kept.get_ifd(place).update(found.get_ifd(place))
            data = kept.tobytes() if any((kept, *map(kept.get_ifd, kept._ifds))) else b""
        while data.startswith(EXIF_START):
            data = data[len(EXIF_START) :]
        read = Image.Exif()
        read.load(data)
        turned = read.pop(ORIENTATION, 1) != 1
        if not len(read):
            return b""
        if turned:
            data = read.tobytes().removeprefix(EXIF_START)
        if not data.startswith(TIFF_STARTS):
            raise ValueError("it is no TIFF")
    except Exception:  # whatever Pillow meets in broken EXIF data
        notes.append(BROKEN_EXIF)
        return b""
    return data


def _xmp(image: Image.Image) -> bytes:
    """Return a picture's XMP data without an orientation."""
    data = image.info.get("xmp", b"")
    data = data.encode() if isinstance(data, str) else bytes(data)
    return XMP_ORIENTATION.sub(b"", data)


def _rgb(
    image: Image.Image, convert: ImageCms.ImageCmsTransform | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a picture of 8 bits as `H x W x 3`, and its alpha, band by band: conversions copy."""
    width, height = image.size
    pixels, alpha = np.empty((height, width, 3), np.uint8), None
    rows = max(1, PIXELS_AT_ONCE // width)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        if band.has_transparency_data:
            band = band.convert("LA") if band.mode == "La" else band  # Pillow goes by this step only
            band = band.convert("RGBA")
            of_band = band.getchannel("A")
            if of_band.getextrema() != (255, 255):
                alpha = np.full((height, width), 255, np.uint8) if alpha is None else alpha
                alpha[top : top + rows] = of_band
        if convert is not None:
            band = converted(band.convert(convert.input_mode), convert)
        pixels[top : top + rows] = band if band.mode == "RGB" else band.convert("RGB")  # which would copy
    return pixels, alpha


def _range_of_grey(image: Image.Image) -> tuple[int, int]:
    """Return the values of black and white of a grey picture of more than 8 bits."""
    white, tags = 1 if image.mode == "F" else 65535, getattr(image, "tag_v2", {})
    if image.mode != "F" and tags and tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0] == 1:
        white = (1 << tags[TiffImagePlugin.BITSPERSAMPLE][0]) - 1
    return (white, 0) if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 else (0, white)


def _deep_grey(
    image: Image.Image, black: int, white: int, convert: ImageCms.ImageCmsTransform | None, name: object
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return grey of more than 8 bits as `H x W` in [0, 1], or of 8 bits converted as `H x W x 3`; alpha."""
    stored, highest = np.array(image), max(black, white)
    if highest > 65535:
        stored = stored.view(np.uint32)  # Pillow takes them for signed
    lowest, most = stored.min(), stored.max()
    if not (lowest >= 0 and most <= highest):
        raise ImageError(f"Expected grey values in 0..{highest} (got {name}: {lowest}..{most})")
    values = stored.astype(np.float32)
    values -= np.float32(black)
    values /= np.float32(white - black)
    clear = stored == image.info["transparency"] if "transparency" in image.info else None
    alpha = np.where(clear, 0, 255).astype(np.uint8) if clear is not None and clear.any() else None
    if convert is not None:
        grey = Image.fromarray(np.rint(values * 255).astype(np.uint8)).convert(convert.input_mode)
        values = np.array(converted(grey, convert))
    return values, alpha


def most_bytes(max_pixels: int = MAX_PIXELS) -> int:
    """Return the most bytes of a picture's file: many for one that is not compressed, and for metadata."""
    return BYTES_PER_PIXEL * max_pixels + HEAD_BYTES


def picture_suffixes() -> set[str]:
    """Return the lower-case file name suffixes of all formats that Pillow reads, JPEG XL by its plugin.

    Not that of .glic files, which Pillow reads by `glic_pyg.pillow`.
    """
    suffixes = Image.registered_extensions()
    others = {".jxl"} if has_jpegxl() else set()
    # MPO files are JPEG files with more behind, and read by that plugin.
    found = {suffix for suffix, name in suffixes.items() if name in Image.OPEN or name == "MPO"}
    return (others | found) - {".glic"}

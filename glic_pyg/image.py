"""Files to tensors and back: any picture Pillow reads -> RGB, padding, cropping, 8-bit PNG."""

from __future__ import annotations

import base64
import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from glic_pyg.errors import FileError, UserError
from glic_pyg.files import read_file, write_file
from glic_pyg.limits import MAX_PIXELS, MAX_SIDE
from glic_pyg.mending import lacks_rows, mended
from glic_pyg.srgb import converted, to_srgb

T = TypeVar("T")
Source = str | Path | io.BytesIO


class ImageError(UserError, ValueError):
    """A picture that cannot be read or coded; the message is one line for the user."""


PIXELS_AT_ONCE = 1 << 22
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BYTES_PER_PIXEL = 8
HEAD_BYTES = 1 << 24
"""What else may be in a file than its pixels."""

TRANSPARENT = "has transparent parts: composited over white"
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

# What Pillow logs of damaged files is in the errors it raises.
logging.getLogger("PIL").addHandler(logging.NullHandler())

# Pillow knows 16-bit grey with white as 0 in one byte order only.
TiffImagePlugin.OPEN_INFO.setdefault((b"MM", 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))


def read_image(path: Source, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a picture as an RGB tensor `1 x 3 x H x W` in [0, 1]; see `read_pixels`."""
    return to_float(read_pixels(path, max_pixels=max_pixels))


def read_pixels(path: Source, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a picture as an RGB tensor `1 x 3 x H x W`, of 8 bits (uint8) or, if the file has more, in [0, 1].

    Whatever else than plain reading it takes is told by a warning with the file's name.

    - Colours: 1-bit, grey, palette, YCbCr, CMYK and LAB pictures become RGB. A colour profile is converted
      to sRGB, unless its colours are sRGB's already, to 1 of 255. One that is broken, or of other channels
      than the picture's, is left out. PNG's gAMA, cHRM and cICP are not applied.
    - Transparency is composited over white.
    - Orientation: EXIF's, or else XMP's, is applied.
    - Depth: grey of more than 8 bits keeps its precision, unless a profile is converted. Whole numbers have
      the range of the file's bits, or 0..65535 where they are signed; fractions must lie in [0, 1]. Of
      16-bit colours the upper 8 bits are read.
    - Of an animation, or of several pages, the first picture is taken.
    - Metadata that cannot be read is left out. A JPEG that lacks only its end marker is read.

    Args:
        path: The file, which may be a pipe; its bytes may be in memory.
        max_pixels: A larger picture is refused before it is decoded, and so is a file of more bytes than
            `most_bytes`; Pillow's own limit, about 2 ** 27.4, holds as well.

    Raises:
        ImageError: no such file, no picture, damaged, or too large.
    """

    def check_size(image: Image.Image) -> None:
        size = f"{image.width} x {image.height}"
        if image.width * image.height > max_pixels:
            raise ImageError(f"Expected at most {max_pixels} pixels (got {path}: {size})")
        if max(image.size) > MAX_SIDE:
            raise ImageError(f"Expected sides of at most {MAX_SIDE} pixels (got {path}: {size})")

    def read(source: Source, notes: list[str]) -> np.ndarray:
        with _opened(source) as image:
            check_size(image)
            _note_more_pictures(image, notes)
            alpha = _set_transparent_color(image, source)
            image.load()
            check_size(image)  # some formats tell the true size only now
            if image.format == "PNG" and _may_lack_rows(image) and lacks_rows(source):
                raise ValueError("rows are missing")
            if alpha is not None:
                image.putalpha(alpha)
            if image.mode == "F" or image.mode.startswith("I"):
                black, white = _range_of_grey(image)
                return _deep_grey(_upright(image, notes), black, white, path, notes)
            return _rgb(_upright(image, notes), notes)

    notes: list[str] = []
    pixels = torch.from_numpy(_with_file(path, read, notes, most_bytes(max_pixels)))
    for note in notes:
        warnings.warn(f"{path} {note}", stacklevel=2)
    return pixels.expand(1, 3, -1, -1) if pixels.ndim == 2 else pixels.permute(2, 0, 1)[None]


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
        if not _has_jpegxl():
            raise ValueError("JPEG XL needs package pillow_jxl: pip install 'glic_pyg[jpegxl]'") from None
        import pillow_jxl  # noqa: F401 - it registers itself with Pillow

        return Image.open(source)


def _head(source: Source) -> bytes:
    if isinstance(source, io.BytesIO):
        return source.getvalue()[:12]
    with open(source, "rb") as file:
        return file.read(12)


def _has_jpegxl() -> bool:
    return importlib.util.find_spec("pillow_jxl") is not None


def _note_more_pictures(image: Image.Image, notes: list[str]) -> None:
    try:
        is_animated = getattr(image, "is_animated", False)
    except Exception:  # of a second picture that is broken
        is_animated = True
    if is_animated:
        notes.append("has more than one picture: the first is taken")


def _may_lack_rows(image: Image.Image) -> bool:
    """Return whether a picture's last row is as Pillow leaves one that it did not find."""
    last = image.crop((0, image.height - 1, image.width, image.height))
    return "interlace" in image.info or not np.asarray(last).any()


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
        is_color = True
        # Read as if its bytes were in the other order, a picture has its lower bits.
        for part, halves in (
            ("RGB;16B", [value >> 8 for value in color]),
            ("RGB;16L", [v & 255 for v in color]),
        ):
            with _opened(source) as copy:
                copy.tile = [copy.tile[0]._replace(args=part)]
                del copy.info["transparency"]
                is_color = is_color & (np.array(copy) == halves).all(-1)
        return Image.fromarray(np.where(is_color, 0, 255).astype(np.uint8))
    return None


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Turn a picture as its EXIF orientation says."""
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return image  # its decoder has turned it: EXIF does not count in JPEG XL
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # whatever Pillow meets in broken EXIF data
        notes.append("has broken EXIF data: left out")
        return image
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image, notes: list[str]) -> np.ndarray:
    """Return a picture of 8 bits as `H x W x 3`, band by band: conversions copy what they convert."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows, transparent = max(1, PIXELS_AT_ONCE // width), False
    convert = to_srgb(image, notes)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        alpha = None
        if band.has_transparency_data:
            band = band.convert("LA") if band.mode == "La" else band  # Pillow goes by this step only
            band = band.convert("RGBA")
            alpha = band.getchannel("A")
            transparent |= alpha.getextrema() != (255, 255)
        if convert is not None:
            band = converted(band.convert(convert.input_mode), convert)
        if alpha is not None:
            band.putalpha(alpha)
            band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band)
        pixels[top : top + rows] = band if band.mode == "RGB" else band.convert("RGB")  # which would copy
    if transparent:
        notes.append(TRANSPARENT)
    return pixels


def _range_of_grey(image: Image.Image) -> tuple[int, int]:
    """Return the values of black and white of a grey picture of more than 8 bits."""
    white, tags = 1 if image.mode == "F" else 65535, getattr(image, "tag_v2", {})
    if image.mode != "F" and tags and tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0] == 1:
        white = (1 << tags[TiffImagePlugin.BITSPERSAMPLE][0]) - 1
    return (white, 0) if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 else (0, white)


def _deep_grey(image: Image.Image, black: int, white: int, path: Source, notes: list[str]) -> np.ndarray:
    """Return grey of more than 8 bits as `H x W` in [0, 1], or of 8 bits converted as `H x W x 3`."""
    stored, highest = np.array(image), max(black, white)
    if highest > 65535:
        stored = stored.view(np.uint32)  # Pillow takes them for signed
    lowest, most = stored.min(), stored.max()
    if not (lowest >= 0 and most <= highest):
        raise ImageError(f"Expected grey values in 0..{highest} (got {path}: {lowest}..{most})")
    values = stored.astype(np.float32)
    values -= np.float32(black)
    values /= np.float32(white - black)
    clear = stored == image.info["transparency"] if "transparency" in image.info else None
    if (convert := to_srgb(image, notes)) is not None:
        grey = Image.fromarray(to_8bit(torch.from_numpy(values)).numpy()).convert(convert.input_mode)
        values = np.array(converted(grey, convert))
    if clear is not None and clear.any():
        values[clear] = 255 if values.dtype == np.uint8 else 1
        notes.append(TRANSPARENT)
    return values


def check_size(height: int, width: int, *, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse a picture that is too large, or has no pixels.

    Raises:
        ImageError: says what was expected.
    """
    if not 1 <= height * width <= max_pixels:
        raise ImageError(f"Expected a picture of 1 to {max_pixels} pixels (got {width} x {height})")
    if max(height, width) > MAX_SIDE:
        raise ImageError(f"Expected sides of at most {MAX_SIDE} pixels (got {width} x {height})")


def check_picture(x: Tensor) -> None:
    """Refuse a tensor that is not one RGB picture, of 8 bits (uint8) or of floats in [0, 1].

    Not a hair beyond [0, 1] is taken: whoever computes a picture clamps it.

    Raises:
        ImageError: says what was expected.
    """
    if not isinstance(x, Tensor):
        raise ImageError(f"Expected a picture as a tensor (got {type(x).__name__})")
    if x.layout != torch.strided or x.is_meta:
        raise ImageError(f"Expected a picture that is dense and has values (got {x.layout} on {x.device})")
    if x.ndim != 4 or x.shape[:2] != (1, 3) or 0 in x.shape:
        raise ImageError(f"Expected a picture of shape 1 x 3 x H x W (got {tuple(x.shape)})")
    if x.dtype == torch.uint8:
        return
    if x.dtype not in FLOATS:
        raise ImageError(f"Expected a picture of uint8, or of floats in [0, 1] (got {x.dtype})")
    low, high = (value.item() for value in x.detach().aminmax())
    if not 0 <= low <= high <= 1:  # no number is neither
        raise ImageError(f"Expected a picture of floats in [0, 1] (got {low}..{high})")


def most_bytes(max_pixels: int = MAX_PIXELS) -> int:
    """Return the most bytes of a picture's file: many for one that is not compressed, and for metadata."""
    return BYTES_PER_PIXEL * max_pixels + HEAD_BYTES


def picture_suffixes() -> set[str]:
    """Return the lower-case file name suffixes of all formats that Pillow reads, JPEG XL by its plugin."""
    suffixes = Image.registered_extensions()
    plugin = {".jxl"} if _has_jpegxl() else set()
    return plugin | {suffix for suffix, name in suffixes.items() if name in Image.OPEN}


def to_float(x: Tensor) -> Tensor:
    """Return a picture in [0, 1] as float32; one of 8 bits (uint8) is divided by 255."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x.float()


def to_8bit(x: Tensor) -> Tensor:
    """Round a picture in [0, 1] to 8 bits per channel, out-of-range values clamped; one of 8 bits stays."""
    if x.dtype == torch.uint8:
        return x
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def to_pil(x: Tensor) -> Image.Image:
    """Return `1 x 3 x H x W` in [0, 1] as Pillow's picture of 8 bits."""
    return Image.fromarray(to_8bit(x)[0].permute(1, 2, 0).cpu().numpy())


def png_bytes(x: Tensor) -> bytes:
    """Return `1 x 3 x H x W` in [0, 1] as the bytes of an 8-bit PNG file.

    Raises:
        ValueError: `x` is not one RGB picture.
    """
    if x.ndim != 4 or x.shape[:2] != (1, 3):
        raise ValueError(f"Expected a picture of shape 1 x 3 x H x W (got {tuple(x.shape)})")
    file = io.BytesIO()
    to_pil(x).save(file, format="PNG")
    return file.getvalue()


def data_uri(x: Tensor, *, format: str, **settings: Any) -> str:
    """Return `1 x 3 x H x W` in [0, 1] as an address that holds the picture itself, for pages of HTML.

    Args:
        x: The picture.
        format: As Pillow names it.
        settings: As Pillow's `save` takes them.
    """
    file = io.BytesIO()
    to_pil(x).save(file, format=format, **settings)
    return f"data:{Image.MIME[format]};base64,{base64.b64encode(file.getvalue()).decode()}"


def write_png(x: Tensor, path: str | Path) -> None:
    """Write `1 x 3 x H x W` as an 8-bit PNG file, whatever the name's suffix; see `png_bytes`."""
    write_file(path, png_bytes(x))


def pad(x: Tensor, multiple: int) -> Tensor:
    """Pad right and bottom by replication to the next multiples of `multiple`."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """Cut the upper left `height x width`, undoing `pad`."""
    return x[..., :height, :width]

"""Files to tensors and back: any picture Pillow reads -> RGB, padding, cropping, 8-bit PNG."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor


class ImageError(ValueError):
    """A picture that cannot be read; the message is one line for the user."""


MAX_PIXELS = 2**27
"""Of pictures that are read or restored unless somebody asks for more: a larger one is damage or malice."""
MAX_SIDE = 2**16 - 1
"""Of a picture: a longer one, padded to the codec's multiples, would have many times its pixels."""

PIXELS_AT_ONCE = 1 << 22


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a picture as an RGB tensor `1 x 3 x H x W` in [0, 1]; see `read_pixels`."""
    return to_float(read_pixels(path, max_pixels=max_pixels))


def read_pixels(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a picture as an RGB tensor `1 x 3 x H x W`, of 8 bits (uint8) or, if the file has more, in [0, 1].

    Grey and palette pictures become RGB, 16-bit grey keeps its precision, CMYK is converted, the
    EXIF orientation is applied, and alpha is composited over white (with a warning where it is not
    opaque). Of an animation the first frame is taken.

    Args:
        path: The file.
        max_pixels: A larger picture is refused before it is decoded; Pillow's own limit, about 2 ** 27.4,
            holds as well.

    Raises:
        ImageError: no such file, no picture, damaged, or too large.
    """
    with _opened(path) as image:
        size = f"{image.width} x {image.height}"
        if image.width * image.height > max_pixels:
            raise ImageError(f"Expected at most {max_pixels} pixels (got {path}: {size})")
        if max(image.size) > MAX_SIDE:
            raise ImageError(f"Expected sides of at most {MAX_SIDE} pixels (got {path}: {size})")
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F" or image.mode.startswith("I"):
        grey = torch.from_numpy(_deep_grey(image, path))
        return grey.expand(1, 3, -1, -1)
    return torch.from_numpy(_rgb(image, path)).permute(2, 0, 1)[None]


def picture_size(path: str | Path) -> tuple[int, int]:
    """Return height and width of a picture, as its file's head tells them.

    Raises:
        ImageError: no such file, or no picture.
    """
    with _opened(path) as image:
        return image.height, image.width


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open a picture; whatever goes wrong meanwhile becomes an `ImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                yield image
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"Expected a picture (got {path}: {reason})") from error


def _rgb(image: Image.Image, path: str | Path) -> np.ndarray:
    """Return a picture of 8 bits as `H x W x 3`, band by band: conversions copy what they convert."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows, transparent = max(1, PIXELS_AT_ONCE // width), False
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        if band.has_transparency_data:
            band = band.convert("RGBA")
            transparent |= band.getchannel("A").getextrema() != (255, 255)
            band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band)
        pixels[top : top + rows] = band.convert("RGB")
    if transparent:
        warnings.warn(f"{path} has transparent parts: composited over white", stacklevel=3)
    return pixels


def _deep_grey(image: Image.Image, path: str | Path) -> np.ndarray:
    """Return a grey picture of more than 8 bits, 16-bit integers or floats in [0, 1], as the latter."""
    values = np.array(image).astype(np.float32)
    highest = 1 if image.mode == "F" else 65535
    if not (values.min() >= 0 and values.max() <= highest):
        raise ImageError(f"Expected grey values in 0..{highest} (got {path}: {values.min()}..{values.max()})")
    values /= highest
    return values


def picture_suffixes() -> set[str]:
    """Return the lower-case file name suffixes of all formats that Pillow reads."""
    suffixes = Image.registered_extensions()
    return {suffix for suffix, name in suffixes.items() if name in Image.OPEN}


def to_float(x: Tensor) -> Tensor:
    """Return a picture in [0, 1]; one of 8 bits (uint8) is divided by 255."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x


def to_8bit(x: Tensor) -> Tensor:
    """Round a picture in [0, 1] to 8 bits per channel, out-of-range values clamped; one of 8 bits stays."""
    if x.dtype == torch.uint8:
        return x
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def to_pil(x: Tensor) -> Image.Image:
    """Return `1 x 3 x H x W` in [0, 1] as Pillow's picture of 8 bits."""
    return Image.fromarray(to_8bit(x)[0].permute(1, 2, 0).cpu().numpy())


def write_png(x: Tensor, path: str | Path) -> None:
    """Write `1 x 3 x H x W` as an 8-bit PNG file, whatever the name's suffix.

    Raises:
        ValueError: `x` is not one RGB picture.
    """
    if x.ndim != 4 or x.shape[:2] != (1, 3):
        raise ValueError(f"Expected a picture of shape 1 x 3 x H x W (got {tuple(x.shape)})")
    to_pil(x).save(path, format="PNG")


def pad(x: Tensor, multiple: int) -> Tensor:
    """Pad right and bottom by replication to the next multiples of `multiple`."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """Cut the upper left `height x width`, undoing `pad`."""
    return x[..., :height, :width]

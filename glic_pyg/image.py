"""Files to tensors and back: any picture Pillow reads -> RGB, padding, cropping, 8-bit PNG."""

from __future__ import annotations

import warnings
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


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a picture as an RGB tensor `1 x 3 x H x W` in [0, 1].

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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > max_pixels:
                    size = f"{image.width} x {image.height}"
                    raise ImageError(f"Expected at most {max_pixels} pixels (got {path}: {size})")
                image.load()
                image = ImageOps.exif_transpose(image)
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"Expected a picture (got {path}: {reason})") from error
    if image.mode == "F" or image.mode.startswith("I"):
        grey = torch.from_numpy(_deep_grey(image, path))
        return grey.expand(1, 3, -1, -1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            warnings.warn(f"{path} has transparent parts: composited over white", stacklevel=2)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1)[None].float() / 255


def _deep_grey(image: Image.Image, path: str | Path) -> np.ndarray:
    """Return a grey picture of more than 8 bits, 16-bit integers or floats in [0, 1], as the latter."""
    values = np.array(image).astype(np.float32)
    highest = 1 if image.mode == "F" else 65535
    if not (values.min() >= 0 and values.max() <= highest):
        raise ImageError(f"Expected grey values in 0..{highest} (got {path}: {values.min()}..{values.max()})")
    return values / highest


def picture_suffixes() -> set[str]:
    """Return the lower-case file name suffixes of all formats that Pillow reads."""
    suffixes = Image.registered_extensions()
    return {suffix for suffix, name in suffixes.items() if name in Image.OPEN}


def to_float(x: Tensor) -> Tensor:
    """Return a picture in [0, 1]; one of 8 bits (uint8) is divided by 255."""
    return x.float() / 255 if x.dtype == torch.uint8 else x


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

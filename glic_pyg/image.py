"""Files to tensors and back: any picture Pillow reads -> RGB, padding, cropping, 8-bit PNG."""

from __future__ import annotations

import base64
import io
import warnings
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from glic_pyg.files import write_file
from glic_pyg.limits import MAX_PIXELS, MAX_SIDE
from glic_pyg.picture import ImageError, Source, read_picture
from glic_pyg.transparency import over_white

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TRANSPARENT = "has transparent parts: composited over white"


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

    picture = read_picture(path, max_pixels=max_pixels, metadata=False)
    notes = [*picture.notes, *([TRANSPARENT] if picture.alpha is not None else [])]
    for note in notes:
        warnings.warn(f"{path} {note}", stacklevel=2)
    return to_tensor(over_white(picture))


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Return pixels as `1 x 3 x H x W`, without a copy; see `Picture`."""
    x = torch.from_numpy(pixels)
    return x.expand(1, 3, -1, -1) if x.ndim == 2 else x.permute(2, 0, 1)[None]


def check_size(height: int, width: int, *, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse a picture that is too large, or has no pixels.

    Raises:
        ImageError: says what was expected.
    """
    if not isinstance(max_pixels, Real):
        raise ImageError(f"Expected max_pixels to be a number (got {max_pixels!r})")
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

"""What of a picture travels beside its coded strings: grey, alpha, metadata; see `docs/format.md`."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace

from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from glic_pyg.container import (
    ALPHA,
    EXIF,
    GREY,
    ICC,
    RGB,
    VERSION,
    WITH_ALPHA,
    XMP,
    Bitstream,
    BitstreamError,
    pack,
    unpack,
)
from glic_pyg.image import to_pil
from glic_pyg.mending import lacks_rows
from glic_pyg.picture import EXIF_START, Picture


def chunks_of(picture: Picture) -> dict[str, bytes]:
    """Return the chunks of a picture by name; alpha as a PNG file."""
    chunks = {ICC: picture.icc, EXIF: picture.exif, XMP: picture.xmp}
    if picture.alpha is not None:
        file = io.BytesIO()
        Image.fromarray(picture.alpha).save(file, "PNG", optimize=True)
        chunks[ALPHA] = file.getvalue()
    return {name: content for name, content in chunks.items() if content}


def add_chunks(data: bytes, channels: int, chunks: Mapping[str, bytes]) -> bytes:
    """Return a .glic file with channels and chunks; if there is nothing to tell, as it is.

    Args:
        data: The bytes of a file without them.
        channels: See `container.Head`.
        chunks: See `chunks_of`.
    """
    if channels == RGB and not chunks:
        return data
    return pack(replace(unpack(data), version=VERSION, channels=channels, chunks=chunks))


def with_chunks(x_hat: Tensor, stream: Bitstream) -> Image.Image:
    """Return a picture as its file has it: grey or RGB, with alpha, with its metadata in `info`.

    Args:
        x_hat: The decoded picture, `1 x 3 x H x W`, in [0, 1] or of 8 bits.
        stream: Its file.

    Raises:
        BitstreamError: alpha is not the PNG file that it should be.
    """
    image = to_pil(x_hat)
    if stream.channels in (GREY, GREY + 1):
        image = image.convert("L")
    if stream.channels in WITH_ALPHA:
        image.putalpha(_alpha(stream.chunks[ALPHA], image.size))
    for name, key, start in ((ICC, "icc_profile", b""), (EXIF, "exif", EXIF_START), (XMP, "xmp", b"")):
        if name in stream.chunks:
            image.info[key] = start + stream.chunks[name]
    return image


def _alpha(data: bytes, size: tuple[int, int]) -> Image.Image:
    file = io.BytesIO(data)
    expected = f"Expected alpha as a PNG file of {size[0]} x {size[1]} grey pixels"
    try:
        alpha = PngImageFile(file)
        if (alpha.size, alpha.mode) != (size, "L"):
            raise ValueError(f"{alpha.width} x {alpha.height} of mode {alpha.mode}")
        alpha.load()
        if lacks_rows(file):
            raise ValueError("rows are missing")
    except Exception as error:  # Pillow raises nearly anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BitstreamError(f"{expected} (got {reason})") from error
    return alpha

"""The .glic file: a picture's coded strings in a container that notices damage.

.. code-block:: none

    magic     4 bytes   "GLIC"
    version   1 byte    3
    identity  8 bytes   of the model, see `checkpoint.model_identity`
    quality   varint    in 256ths; 0 for a model of one quality; not in version 1, which is of such models
    height    varint    of the picture in pixels
    width     varint
    latents   4 bytes   CRC-32 of the encoder's y_hat, float32, little-endian
    strings   each a varint, its length in bytes, and the bytes
    checksum  4 bytes   CRC-32 of all before, little-endian

Varints have 7 bits per byte, low bits first, the high bit set on all but the last byte. The decoder's y_hat
must have the checksum of the encoder's: of versions 1 and 2, whose probabilities were computed in floating
point, another machine's decoder may have others, and must not show a garbled picture without a word.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from torch import Tensor

from glic_pyg.checkpoint import model_identity
from glic_pyg.codec import GLIC, QualityError, check_quality, latent_checksum
from glic_pyg.config import MAX_GROUPS
from glic_pyg.entropy import LatentError
from glic_pyg.errors import UserError
from glic_pyg.image import MAX_PIXELS, ImageError, check_picture, check_size

MAGIC = b"GLIC"
VERSION = 3
EXACT_SINCE = 3
"""The first version whose probabilities have the same bits everywhere."""
QUALITY_STEPS = 256
"""Qualities told apart between two whole ones."""
MAX_STRINGS = 2 * MAX_GROUPS + 1
"""Of any model."""
BYTES_PER_PIXEL = 16
"""More than in any file: one of `glic.yaml` whose symbols are all escaped, at their longest, has 10."""
PADDING = 64


class BitstreamError(UserError, ValueError):
    """A .glic file that cannot be decoded; the message is one line for the user."""


@dataclass(frozen=True)
class Bitstream:
    """What a .glic file says.

    Args:
        identity: Of the model, 8 bytes.
        quality: In 256ths; 0 for a model of one quality.
        height: Of the picture in pixels.
        width: Of the picture in pixels.
        latent_checksum: CRC-32 of y_hat.
        strings: Coded bytes, in coding order.
        version: Of the format. Since version 3, probabilities are computed exactly.
    """

    identity: bytes
    quality: int
    height: int
    width: int
    latent_checksum: int
    strings: tuple[bytes, ...]
    version: int = VERSION


def encode(
    model: GLIC,
    x: Tensor,
    quality: float | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    max_memory: int | None = None,
) -> bytes:
    """Compress a picture into the bytes of a .glic file, which `decode` reads.

    Args:
        model: The model.
        x: A picture in [0, 1], or of 8 bits (uint8), `1 x 3 x H x W`.
        quality: Only for a model of several qualities, by default the middle one; rounded to 256ths.
        max_pixels: A larger picture is refused, as `decode` would with the same number.
        max_memory: Bytes that the process may hold, see `GLIC.compress`.

    Raises:
        ImageError: `x` is not one RGB picture in [0, 1], or is too large.
        QualityError: the model has no such quality.
        MemoryBoundError: the picture cannot be coded within `max_memory`.
        ModelError, TableError, LatentError: the model cannot code it, see `GLIC.compress`.
    """
    check_picture(x)
    steps = quality_steps(model, quality)
    height, width = x.shape[-2:]
    _check_header(model, height, width, steps, max_pixels)
    out = model.compress(x, _quality(model, steps), max_memory=max_memory)
    strings = tuple(string for (string,) in out["strings"])
    checksum = latent_checksum(out["y_hat"])
    return pack(Bitstream(model_identity(model), steps, height, width, checksum, strings))


def quality_steps(model: GLIC, quality: float | None) -> int:
    """Return a quality as files say it, in 256ths: for None the middle one, 0 of a model of one quality.

    Raises:
        QualityError: the model has no such quality.
    """
    check_quality(model.config.qualities, quality)
    quality = model.config.default_quality if quality is None else quality
    return 0 if quality is None else round(quality * QUALITY_STEPS)


def decode(
    model: GLIC, data: bytes, *, max_pixels: int = MAX_PIXELS, max_memory: int | None = None
) -> Tensor:
    """Restore the picture of a .glic file, `1 x 3 x H x W` in [0, 1].

    Args:
        model: The model that the file was made with.
        data: The file's bytes.
        max_pixels: A larger picture is refused before anything is decoded.
        max_memory: Bytes that the process may hold, see `GLIC.decompress`; the picture is then one of
            8 bits (uint8).

    Raises:
        BitstreamError: not a .glic file, damaged, too large, of another version or another model, or this
            machine does not compute the latents that the encoder had.
        MemoryBoundError: the picture cannot be restored within `max_memory`.
        ModelError, TableError: the model cannot decode, see `GLIC.decompress`.
    """
    stream = unpack(data)
    identity = model_identity(model)
    if stream.identity != identity:
        raise BitstreamError(
            f"Expected a file of this model, {identity.hex()} (got one of model {stream.identity.hex()})"
        )
    try:
        _check_header(model, stream.height, stream.width, stream.quality, max_pixels)
        out = model.decompress(
            [[string] for string in stream.strings],
            (stream.height, stream.width),
            _quality(model, stream.quality),
            max_memory=max_memory,
            exact=stream.version >= EXACT_SINCE,
            checksum=stream.latent_checksum,
        )
    except (ImageError, QualityError, LatentError) as error:
        raise BitstreamError(str(error)) from error
    return out["x_hat"]


def _check_header(model: GLIC, height: int, width: int, steps: int, max_pixels: int) -> None:
    """Refuse what a file's head may not say: to write it, and to go on once it is read."""
    check_size(height, width, max_pixels=max_pixels)
    check_quality(model.config.qualities, _quality(model, steps))


def _quality(model: GLIC, steps: int) -> float | None:
    """Return the quality that a file's 256ths mean, None of a model of one."""
    return None if steps == 0 and model.config.qualities == 1 else steps / QUALITY_STEPS


def pack(stream: Bitstream) -> bytes:
    """Return the bytes of a .glic file.

    Raises:
        ValueError: a stream of an older version; those are only read.
    """
    if stream.version != VERSION:
        raise ValueError(f"Expected a stream of version {VERSION} to write (got {stream.version})")
    data = bytearray(MAGIC)
    data.append(VERSION)
    data += stream.identity
    data += _varint(stream.quality)
    data += _varint(stream.height) + _varint(stream.width)
    data += stream.latent_checksum.to_bytes(4, "little")
    for string in stream.strings:
        data += _varint(len(string)) + string
    return bytes(data) + zlib.crc32(data).to_bytes(4, "little")


def unpack(data: bytes) -> Bitstream:
    """Read the bytes of a .glic file.

    Raises:
        BitstreamError: not a .glic file, damaged, of another version, or with more strings than any model's.
    """
    reader, version = _begin(data, memoryview(data)[:-4])
    checksum, computed = int.from_bytes(data[-4:], "little"), zlib.crc32(memoryview(data)[:-4])
    if checksum != computed:
        raise BitstreamError(f"Expected checksum {computed:08x} (got {checksum:08x}): damaged or cut short")
    identity = reader.take(8)
    quality = reader.number() if version > 1 else 0
    height, width = reader.number(), reader.number()
    latent_checksum = int.from_bytes(reader.take(4), "little")
    strings: list[bytes] = []
    while not reader.at_end():
        if len(strings) == MAX_STRINGS:
            raise BitstreamError(f"Expected at most {MAX_STRINGS} strings (got more): damaged")
        strings.append(reader.take(reader.number()))
    return Bitstream(identity, quality, height, width, latent_checksum, tuple(strings), version)


def most_bytes(head: bytes, max_pixels: int = MAX_PIXELS) -> int:
    """Return the most bytes of a file that begins so: many for the size of its picture.

    Args:
        head: The file's first bytes.
        max_pixels: A larger picture is refused.

    Raises:
        BitstreamError: not a .glic file, of another version, or too large a picture.
    """
    reader, version = _begin(head, memoryview(head))
    try:
        reader.take(8)
        if version > 1:
            reader.number()
        height, width = reader.number(), reader.number()
    except BitstreamError:  # `unpack` tells more of what is so short
        return len(head)
    try:
        check_size(height, width, max_pixels=max_pixels)
    except ImageError as error:
        raise BitstreamError(str(error)) from error
    return BYTES_PER_PIXEL * (height + PADDING) * (width + PADDING)


def _begin(data: bytes, content: memoryview) -> tuple[_Reader, int]:
    """Return a reader of what follows a file's version, and the version."""
    if data[: len(MAGIC)] != MAGIC:
        raise BitstreamError(f"Expected a .glic file (got one that starts with {data[: len(MAGIC)]!r})")
    reader = _Reader(content[len(MAGIC) :])
    version = reader.take(1)[0]
    if not 1 <= version <= VERSION:
        newer = ": a newer glic_pyg made it" if version > VERSION else ""
        raise BitstreamError(f"Expected format version 1..{VERSION} (got {version}{newer})")
    return reader, version


class _Reader:
    """Takes values off the front of some bytes."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0

    def at_end(self) -> bool:
        return self.position == len(self.data)

    def take(self, count: int) -> bytes:
        start, self.position = self.position, self.position + count
        if self.position > len(self.data):
            raise BitstreamError(
                f"Expected {self.position} bytes and a checksum (got {len(self.data)}): cut short"
            )
        return bytes(self.data[start : self.position])

    def number(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise BitstreamError("Expected a number of at most 5 bytes (got more): damaged")


def _varint(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)

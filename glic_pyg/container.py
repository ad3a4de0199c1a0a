"""The .glic file: a picture's coded strings in a container that notices damage.

    magic     4 bytes   "GLIC"
    version   1 byte    3
    identity  8 bytes   of the model, see `glic_pyg.identity`
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

from glic_pyg.config import HYPER_STRIDE, MAX_GROUPS
from glic_pyg.errors import UserError

MAGIC = b"GLIC"
VERSION = 3
QUALITY_STEPS = 256
"""Qualities told apart between two whole ones."""
MAX_STRINGS = 2 * MAX_GROUPS + 1
"""Of any model."""
BYTES_PER_PIXEL = 16
"""More than in any file: one of `glic.yaml` whose symbols are all escaped, at their longest, has 10."""


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


def unpack_size(head: bytes) -> tuple[int, int] | None:
    """Return (H, W) of the picture of a file that begins so; None of too short a beginning.

    Raises:
        BitstreamError: not a .glic file, or of another version.
    """
    reader, version = _begin(head, memoryview(head))
    try:
        reader.take(8)
        if version > 1:
            reader.number()
        return reader.number(), reader.number()
    except BitstreamError:  # `unpack` tells more of what is so short
        return None


def most_bytes(head: bytes) -> int:
    """Return the most bytes of a file that begins so: many for the size of its picture.

    Raises:
        BitstreamError: not a .glic file, or of another version.
    """
    size = unpack_size(head)
    if size is None:
        return len(head)
    height, width = size
    return BYTES_PER_PIXEL * (height + HYPER_STRIDE) * (width + HYPER_STRIDE)


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
